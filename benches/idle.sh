#!/bin/sh
# What silent lanes cost: 500 lanes whose cameras are off, CPU of the whole server over 30 s, as a share of one core: while
# their gaps are filled live, when they are longer than that (--live-fill, one minute here), and with their bots gone. Prints a
# Markdown table.
#
#   benches/idle.sh [LANES]     a multiple of 10
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh
lanes=${1:-500}

machine
echo
start --reconnect-grace 10m --load-max 100% --live-fill 1m
off=""
for n in $(seq 0 9); do off="$off --camera-off $n:4-3600"; done
# shellcheck disable=SC2086 # words
"$bin" simulate --url "ws://127.0.0.1:$port/ws/recall/" --bots $((lanes / 10)) --participants 10 --duration 10m --size 160x90 \
    --recording-id idle $off >"$dir/sent" 2>/dev/null &
sender=$!
until [ "$(metric tilecast_lanes)" = "$lanes" ]; do sleep 0.5; done
measure() { # what
    before=$(cpu_ms) from=$(date +%s%N)
    sleep 30
    awk -v what="$1" -v cpu="$(($(cpu_ms) - before))" -v wall="$((($(date +%s%N) - from) / 1000000))" -v lanes="$(metric tilecast_lanes)" \
        -v filled="$(metric tilecast_ticks_filled_total)" 'BEGIN {printf "| %s | %d | %.2f %% | %d |\n", what, lanes, cpu * 100 / wall, filled}'
}
echo "| | lanes | CPU of one core | ticks filled so far |"
echo "|---|---|---|---|"
# Encoders are opened, the last pictures are written.
sleep 12
measure "cameras off, gaps filled live"
sleep 60
measure "cameras off for longer"
kill "$sender" 2>/dev/null || true
wait "$sender" 2>/dev/null || true
sleep 5
measure "sockets closed"
