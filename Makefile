# What people run: `make demo` and `make test`. Both install what is missing and say so.
# How long `make chaos` is, and which plan it follows.
KILLS ?= 200
SEED ?= 1
# How long `make overload` keeps the machine too slow.
SECONDS ?= 300
# How long each of the two outages of `make outage` is, in seconds.
OUTAGE ?= 600
# Which servers `make stores` runs; each outage takes 20 seconds there, unless $OUTAGE says otherwise.
STORES ?= garage azure
# How long the meeting of `make price` is, in minutes; it takes a thirtieth of that.
MINUTES ?= 60

.PHONY: help deps demo test overload chaos outage stores price web build bench figures openapi python audit clean

help: ## show this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

deps: ## install the system packages that are missing
	@docker/install-deps.sh build test

web: src/http/web/vendor/hls.min.js ## fetch hls.js, which is embedded into the program

src/http/web/vendor/hls.min.js: src/http/web/package-lock.json
	cd src/http/web && npm ci --ignore-scripts --no-audit --no-fund --silent
	mkdir -p $(@D) && cp src/http/web/node_modules/hls.js/dist/hls.min.js $@
	@# The embedding macro does not see a file that is new.
	touch src/http/web.rs

build: deps web ## build the program: target/release/tilecast
	cargo build --release --locked

demo: build ## a simulated meeting of 4 participants, 40 s, watched and checked
	@tests/demo.sh

# What tests use of PyPI, in a folder of its own: the property tester of the API, and what reads and renders YAML.
python: target/python/installed

target/python/installed: tests/requirements.txt
	python3 -m venv target/python
	target/python/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

test: deps web python ## format, lints, documentation, every test
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet
	cargo test --locked

DENY ?= target/deny/bin/cargo-deny

target/deny/bin/cargo-deny:
	cargo install cargo-deny --locked --version 0.20.2 --root target/deny

audit: $(DENY) ## licences, bans and sources of the dependencies; advisories where their database can be fetched
	$(DENY) --locked --all-features check --hide-inclusion-graph licenses bans sources
	@if $(DENY) --log-level off --locked fetch db; then $(DENY) --locked --all-features check advisories; \
	  else echo "audit: the database of advisories cannot be fetched from here: they were not checked" >&2; fi

chaos: deps web ## the long form of the chaos test: KILLS=200 SEED=1, about 5 s a kill
	TILECAST_CHAOS_KILLS=$(KILLS) TILECAST_CHAOS_SEED=$(SEED) \
	  cargo test --locked --test integration -- chaos::whatever --nocapture

outage: deps web ## two outages of the store in the middle of four meetings, with kills: OUTAGE=600 seconds each
	TILECAST_OUTAGE_SECONDS=$(OUTAGE) cargo test --locked --test integration -- outage::four --nocapture

stores: build ## meetings and outages on other people's store servers, Garage and Azurite: STORES="garage azure"
	python3 tests/stores.py $(STORES)

price: deps web ## requests and price of a participant-hour, counted at an S3 server: MINUTES=60
	TILECAST_PRICE_MINUTES=$(MINUTES) cargo test --locked --test integration -- store_price:: --nocapture

overload: deps web ## the long form of the overload test: SECONDS=300
	TILECAST_OVERLOAD_SECONDS=$(SECONDS) \
	  cargo test --locked --test integration -- slow_machine::three_times --nocapture

openapi: web ## write docker/openapi.json, the API's description, as the code says it
	TILECAST_WRITE_OPENAPI=1 cargo test --locked --test tidy -- description_of_the_api

bench: deps ## criterion benchmarks of the stages
	cargo bench --locked

figures: build ## CPU per picture and memory per lane of the whole server, and the start with a full spool
	benches/figures.sh
	benches/recovery.sh

clean: ## remove what was built
	cargo clean
	rm -rf src/http/web/vendor src/http/web/node_modules
