#!/bin/sh
# What many lanes cost beside few: CPU per picture at 400 lanes over that at 10, by turns, at the same 200 pictures a
# second (time goes at a quarter for the 400 and ten times as fast for the 10); and resident memory per lane at 200 lanes,
# everything counted. Prints a Markdown table with the medians.
#
#   benches/lanes.sh [ROUNDS] [SOURCE]     9 rounds, synthetic pictures; half a minute each
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh
rounds=${1:-9} source=${2:-synthetic}
encoded() { metric 'tilecast_stage_duration_seconds_count{stage="encode"}'; }

play() { # bots of 10 participants, speed: sets $ms per picture and $kb per lane
    lanes=$(($1 * 10))
    # With time that goes slower than the clock nothing is to be settled by the clock.
    start --load-max 100% --settle 10m
    # Not by `bots`, so that it can be ended.
    "$bin" simulate --url "ws://127.0.0.1:$port/ws/recall/" --bots "$1" --participants 10 --source "$source" \
        --duration "$(awk -v speed="$2" 'BEGIN {print int(60 * speed)}')s" --speed "$2" >/dev/null 2>&1 &
    sender=$!
    until [ "$(metric tilecast_lanes)" = "$lanes" ]; do sleep 0.1; done
    # The first pictures open encoders.
    until [ "$(encoded)" -ge $((lanes * 2)) ]; do sleep 0.1; done
    before=$(cpu_ms) first=$(encoded)
    sleep 8
    after=$(cpu_ms) last=$(encoded)
    ms=$(awk -v ms="$((after - before))" -v n="$((last - first))" 'BEGIN {printf "%.3f", ms / n}')
    kb=$(($(rss_kb) / lanes))
    kill "$sender" 2>/dev/null || true
    wait "$sender" 2>/dev/null || true
    stop
}

machine
echo
echo "| round | 10 lanes, ms | 400 lanes, ms | ratio |"
echo "|---|---|---|---|"
: >"$dir/ratios"
for round in $(seq "$rounds"); do
    play 1 10
    few=$ms
    play 40 0.25
    ratio=$(awk -v many="$ms" -v few="$few" 'BEGIN {printf "%.3f", many / few}')
    echo "$ratio" >>"$dir/ratios"
    echo "| $round | $few | $ms | $ratio |"
done
play 20 0.5
echo
echo "median ratio $(median <"$dir/ratios"); resident at 200 lanes $kb kB a lane"
