#!/bin/sh
# What the server costs over the bare library calls: CPU per picture of the whole process, network to disk, all threads,
# over that of one thread that only parses, decodes and encodes, on the same pictures, with as many encoders. Both by
# turns, so that a noisy machine hits both. Then the server once more, its messages arriving in pieces of 16 kB. A minute of
# meeting each, so that what is opened once is a small part of it, as in a meeting. Prints a Markdown table with the medians of
# the ratios.
#
#   benches/floor.sh [ROUNDS] [SOURCE ...]     5 rounds, synthetic pictures; a minute each
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh
rounds=${1:-5}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- synthetic
lanes=50
for source in "$@"; do
    [ "$source" = synthetic ] || [ -r "$source" ] || { echo "floor: cannot read $source" >&2; exit 1; }
done

cargo bench --locked --quiet --bench floor --no-run 2>/dev/null
machine
whole() { # where bots dial: sets $server_ms
    start
    via=$1 bots --bots 5 --participants 10 --duration 60s --speed 0 --source "$source" --recording-id floor
    # All of it, whoever measures; and should something be lost, what came of the rest.
    until [ $(($(metric tilecast_pictures_encoded_total) + $(metric tilecast_captures_discarded_total))) -ge $((lanes * 120)) ]; do
        sleep 0.1
    done
    server_ms=$(awk -v ms="$(cpu_ms)" -v n="$(metric tilecast_pictures_encoded_total)" 'BEGIN {printf "%.3f", ms / n}')
    stop
}
over() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.3f", a / b}'; }
python3 benches/pieces.py $((port + 2)) "$port" &
relay=$!
trap 'kill "$relay" 2>/dev/null || true; [ -z "$server" ] || kill "$server" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT

echo
echo "| source | bare calls, ms | server, ms | ratio | in 16 kB pieces, ms | ratio |"
echo "|---|---|---|---|---|---|"
for source in "$@"; do
    : >"$dir/whole"
    : >"$dir/pieces"
    for _ in $(seq "$rounds"); do
        bare=$(cargo bench --locked --quiet --bench floor -- "$source" "$lanes" 120 2>/dev/null | awk '/ms of CPU/ {print $1}')
        whole "$port"
        ratio=$(over "$server_ms" "$bare")
        echo "$ratio" >>"$dir/whole"
        row="| $(basename "$source") | $bare | $server_ms | $ratio |"
        whole $((port + 2))
        ratio=$(over "$server_ms" "$bare")
        echo "$ratio" >>"$dir/pieces"
        echo "$row $server_ms | $ratio |"
    done
    echo "| $(basename "$source"), median | | | $(median <"$dir/whole") | | $(median <"$dir/pieces") |"
done
