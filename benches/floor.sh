#!/bin/sh
# What the server costs over the bare library calls: CPU per picture of the whole process, network to disk, all threads,
# over that of one thread that only parses, decodes and encodes, on the same pictures, with as many encoders. Both by
# turns, so that a noisy machine hits both. Prints a Markdown table with the median of the ratios.
#
#   benches/floor.sh [ROUNDS] [SOURCE ...]     5 rounds, synthetic pictures
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh
rounds=${1:-5}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- synthetic
lanes=50

cargo bench --locked --quiet --bench floor --no-run 2>/dev/null
machine
echo
echo "| source | bare calls, ms | server, ms | ratio | median ratio |"
echo "|---|---|---|---|---|"
for source in "$@"; do
    : >"$dir/ratios"
    for round in $(seq "$rounds"); do
        bare=$(cargo bench --locked --quiet --bench floor -- "$source" "$lanes" 24 2>/dev/null | awk '/ms of CPU/ {print $1}')
        start
        bots --bots 5 --participants 10 --duration 12s --speed 0 --source "$source" --recording-id floor
        drained
        whole=$(awk -v ms="$(cpu_ms)" -v n="$(metric tilecast_pictures_encoded_total)" 'BEGIN {printf "%.3f", ms / n}')
        stop
        ratio=$(awk -v a="$whole" -v b="$bare" 'BEGIN {printf "%.3f", a / b}')
        echo "$ratio" >>"$dir/ratios"
        middle=
        [ "$round" != "$rounds" ] || middle=$(median <"$dir/ratios")
        echo "| $(basename "$source") | $bare | $whole | $ratio | $middle |"
    done
done
