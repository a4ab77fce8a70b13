#!/bin/sh
# How many participants one core carries at 2 pictures a second without a loss, sender on the other core, with the usual
# encoders and with those of overload: more and more of them, the bots' phases spread, until something is lost, held up or
# refused; then as many as load the core to seven tenths, with the phases spread, and with everybody sending at the same
# instants. Prints a Markdown table and the number of participants. About 35 s a line.
#
#   benches/capacity.sh [FROM] [STEP] [SOURCE]     60 participants, 10 more each time, synthetic pictures
set -eu
cd "$(dirname "$0")/.."
ON_SERVER="taskset -c 0" ON_SENDER="taskset -c 1"
. benches/server.sh
participants=${1:-60} step=${2:-10} source=${3:-synthetic}
seconds=30

try() { # participants, phases, options of simulate; a line of the table; sets $lost, $pictures and $busy (percent)
    count=$1 phases=$2
    shift 2
    # No refusal: it is to be seen what happens. Encoders become cheaper all the same, from nine tenths on.
    start --load-max 100%
    # Bots of at most ten participants each.
    bots --bots $(((count + 9) / 10)) --participants $((count / ((count + 9) / 10))) --duration "${seconds}s" --source "$source" \
        --recording-id cap "$@" &
    sender=$!
    count=$((count / ((count + 9) / 10) * ((count + 9) / 10)))
    # Drawing pictures comes first.
    until [ "$(metric tilecast_lanes)" = "$count" ]; do
        kill -0 "$sender" 2>/dev/null || { echo "the sender ended: $(cat "$dir/sent")" >&2; exit 1; }
        sleep 0.2
    done
    # In the first seconds all encoders are opened at once, and what waited for that is made up for.
    sleep 12
    snapshot
    before=$(cpu_ms) from=$(date +%s%N)
    sleep 12
    after=$(cpu_ms) wall=$((($(date +%s%N) - from) / 1000000))
    busy=$(((after - before) * 100 / wall))
    rss=$(rss_kb) p50=$(delay 0.5) p95=$(delay 0.95) p99=$(delay 0.99)
    wait "$sender"
    drained
    pictures=$(metric tilecast_pictures_encoded_total)
    lost=$(discards)
    encoders=usual
    [ "$(metric tilecast_overload_steps_total)" = 0 ] || encoders=cheaper
    awk -v p="$count" -v phases="$phases" -v n="$pictures" -v lost="$lost" -v cpu="$((after - before))" -v wall="$wall" -v rss="$rss" \
        -v held="$(metric tilecast_socket_waited_seconds_total)" -v encoders="$encoders" -v delays="$p50, $p95, $p99" 'BEGIN {
        printf "| %d | %s | %d | %s | %s | %.0f %% | %.2f | %d | %.1f | %d | %s |\n", p, phases, n, lost, encoders, cpu * 100 / wall,
            cpu / (p * 2 * wall / 1000), rss / 1000, rss / p / 1000, held, delays }'
    stop
    [ "$pictures" -ge $((count * seconds * 2)) ] || lost="$lost, not all came"
}

machine
echo "source: $(basename "$source")"
echo
echo "| participants | phases | pictures | lost | encoders | CPU of the core | ms a picture | resident, MB | a lane, MB | sockets held, s | part delay p50, p95, p99: below ms |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
most=0 usual=0 at_70=0
while :; do
    try "$participants" spread
    # The first line tells best: a core that is full to the brim gets cheaper per picture.
    [ "$at_70" -gt 0 ] || at_70=$((count * 70 / busy))
    [ "$lost" = none ] || break
    most=$count
    [ "$encoders" != usual ] || usual=$count
    participants=$((participants + step))
done
if [ "$most" -gt 0 ]; then
    try "$at_70" spread
    try "$at_70" "the same" --in-phase
fi
echo
echo "participants per core without a loss: $most; with the usual encoders all the time: $usual"
