#!/bin/sh
# The whole server's figures on this machine, release build: start to ready, CPU per picture over all threads from
# network to disk, resident memory per live lane. Prints them; judges nothing.
#
#   benches/figures.sh [VIDEO ...]     natural pictures from these files; synthetic ones without
set -eu
cd "$(dirname "$0")/.."
bin=${TILECAST_BIN:-target/release/tilecast}
dir=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
port=18480

start() {
    "$bin" serve --listen "127.0.0.1:$port" --internal-listen "127.0.0.1:$((port + 1))" \
        --store "$dir/media" --spool "$dir/spool" 2>"$dir/log" &
    server=$!
    begin=$(date +%s%N)
    until grep -q ' ready: ' "$dir/log"; do sleep 0.005; done
    ready_ms=$((($(date +%s%N) - begin) / 1000000))
}
stop() { kill "$server"; wait "$server" 2>/dev/null || true; rm -rf "$dir/media" "$dir/spool"; }
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
print("  discarded             " + (", ".join(f"{n} {reason}" for reason, n in by.items()) or "none"))' \
        "http://127.0.0.1:$((port + 1))/metrics"
}

measure() { # source
    start
    echo "source $1"
    echo "  start to ready        $ready_ms ms"
    before=$(cpu_ms)
    "$bin" simulate --url "ws://127.0.0.1:$port/ws/recall/" --bots 5 --participants 10 --duration 20s \
        --source "$1" --recording-id cpu >"$dir/sent" 2>/dev/null &
    sender=$!
    # All lanes are open after a second; the figure is taken in the middle of the meeting.
    sleep 15
    lanes=$(metric tilecast_lanes)
    echo "  resident per lane     $(($(rss_kb) / lanes)) kB at $lanes live lanes"
    wait "$sender"
    until [ "$(metric tilecast_queue_depth)" = 0 ]; do sleep 0.2; done
    pictures=$(metric tilecast_pictures_encoded_total)
    after=$(cpu_ms)
    awk -v ms="$((after - before))" -v n="$pictures" 'BEGIN {printf "  CPU per picture       %.2f ms (%d pictures, real time)\n", ms / n, n}'
    discards
    sed -n 's/^behind/  sender behind        /p' "$dir/sent"
    stop
    start
    "$bin" simulate --url "ws://127.0.0.1:$port/ws/recall/" --bots 5 --participants 10 --duration 20s --speed 0 \
        --source "$1" --recording-id fast >"$dir/sent" 2>/dev/null
    until [ "$(metric tilecast_queue_depth)" = 0 ]; do sleep 0.2; done
    pictures=$(metric tilecast_pictures_encoded_total)
    awk -v ms="$(cpu_ms)" -v n="$pictures" 'BEGIN {printf "  CPU per picture       %.2f ms (%d pictures, as fast as taken)\n", ms / n, n}'
    discards
    sed -n 's/^pictures/  pictures             /p' "$dir/sent"
    stop
}

echo "machine: $(nproc) cores, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)"
if [ $# -eq 0 ]; then measure synthetic; fi
for video in "$@"; do measure "$video"; done
