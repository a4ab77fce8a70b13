# For the other scripts here: a server of the release build on a folder of its own, and its figures from outside.
# Sourced; sets $bin, $dir (removed at the end) and $port.
# shellcheck shell=sh disable=SC2034 # the caller uses them

bin=${TILECAST_BIN:-target/release/tilecast}
[ -x "$bin" ] || { echo "$bin is missing: make build" >&2; exit 1; }
# On the disk that is built on: /tmp may be one where a file is dear to make, or memory.
mkdir -p target
dir=$(mktemp -d "${BENCH_DIR:-$PWD/target}/bench-XXXXXX")
port=${BENCH_PORT:-18480}
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

start() { # options of serve
    : >"$dir/log"
    begin=$(date +%s%N)
    ${ON_SERVER:-} "$bin" serve --listen "127.0.0.1:$port" --internal-listen "127.0.0.1:$((port + 1))" \
        --store "$dir/media" --spool "$dir/spool" "$@" 2>"$dir/log" &
    server=$!
    until grep -q ' ready: ' "$dir/log"; do
        kill -0 "$server" 2>/dev/null || { cat "$dir/log" >&2; exit 1; }
        sleep 0.005
    done
    ready_ms=$((($(date +%s%N) - begin) / 1000000))
}
stop() {
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
    rm -rf "$dir/media" "$dir/spool"
}
bots() { # options of simulate; its report goes to $dir/sent. They dial $via where that is set
    ${ON_SENDER:-} "$bin" simulate --url "ws://127.0.0.1:${via:-$port}/ws/recall/" "$@" >"$dir/sent" 2>/dev/null
}
cpu_ms() { awk -v hz="$(getconf CLK_TCK)" '{print int(($14 + $15) * 1000 / hz)}' "/proc/$server/stat"; }
rss_kb() { awk '/^VmRSS/ {print $2}' "/proc/$server/status"; }
metric() { # the sum over a metric's labels
    python3 -c 'import sys, urllib.request
text = urllib.request.urlopen(sys.argv[1]).read().decode()
print(int(sum(float(l.split()[-1]) for l in text.splitlines() if l.startswith(sys.argv[2]))))' \
        "http://127.0.0.1:$((port + 1))/metrics" "$1"
}
discards() { # by reason, those that are not 0
    python3 -c 'import re, sys, urllib.request
text = urllib.request.urlopen(sys.argv[1]).read().decode()
by = {}
for line in text.splitlines():
    if line.startswith("tilecast_captures_discarded_total") and not line.endswith(" 0"):
        reason = re.search("reason=.([a-z_]+)", line)[1]
        by[reason] = by.get(reason, 0) + int(float(line.split()[-1]))
print(", ".join(f"{n} {reason}" for reason, n in by.items()) or "none")' "http://127.0.0.1:$((port + 1))/metrics"
}
snapshot() { # what `delay` counts from
    python3 -c 'import sys, urllib.request
open(sys.argv[2], "wb").write(urllib.request.urlopen(sys.argv[1]).read())' \
        "http://127.0.0.1:$((port + 1))/metrics" "$dir/snapshot"
}
delay() { # the bucket, in ms, below which this share of parts was in the spool after their newest picture was read
    python3 -c 'import re, sys, urllib.request
def buckets(text):
    found = re.findall(r"tilecast_part_delay_seconds_bucket\{le=.([^}]+).\} (\d+)", text)
    return [(le, int(n)) for le, n in found]
now = buckets(urllib.request.urlopen(sys.argv[1]).read().decode())
since = [(le, n - before) for (le, n), (_, before) in zip(now, buckets(open(sys.argv[2]).read()))]
total = since[-1][1] if since else 0
le = next((le for le, n in since if total and n >= float(sys.argv[3]) * total), "none")
print("over 4000" if le == "+Inf" else le if le == "none" else f"{float(le) * 1000:.0f}")' \
        "http://127.0.0.1:$((port + 1))/metrics" "$dir/snapshot" "$1"
}
drained() { until [ "$(metric tilecast_queue_depth)" = 0 ]; do sleep 0.2; done; }
machine() { echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1); $(date +%F); $("$bin" --version)"; }
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
