#!/bin/sh
# Fuzzes with a stable compiler: the flags that cargo-fuzz would give, which rustc takes from nightlies only unless told.
#
#   run.sh                      every target for 120 seconds
#   run.sh TARGET [SECONDS]     one target; SECONDS 0 goes on until something is found
#   run.sh TARGET FILE          one input again
set -eu
cd "$(dirname "$0")"

# Without ASan: SANITIZER= run.sh ...
sanitizer=${SANITIZER-address}
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-trace-compares"
flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
flags="$flags -Ccodegen-units=1"
[ -z "$sanitizer" ] || flags="$flags -Zsanitizer=$sanitizer"

# The versions that the program is built with.
cp ../../Cargo.lock Cargo.lock
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" cargo build --quiet --release --target "$host" --bins
built=target/$host/release
"$built/seeds" seeds

run() {
    mkdir -p "corpus/$1" found
    echo "== $1"
    # A leak or a large allocation is a finding as well: a hostile message must not cost memory.
    "$built/$1" -max_total_time="$2" -malloc_limit_mb=64 -rss_limit_mb=1024 -timeout=5 -max_len=4096 \
        -print_final_stats=1 -verbosity=0 -artifact_prefix="found/$1-" "corpus/$1" "seeds/$1"
}

if [ $# -eq 0 ]; then
    for target in message png lines segment manifest playlist; do run "$target" 120; done
elif [ -f "${2:-}" ]; then
    "$built/$1" "$2"
else
    run "$1" "${2:-120}"
fi
