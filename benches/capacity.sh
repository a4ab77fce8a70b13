#!/bin/sh
# How many participants one core carries at 2 pictures a second without a loss, sender on the other core: more and more
# of them until something is lost, held up or refused. Prints a Markdown table.
#
#   benches/capacity.sh [FROM] [STEP] [SOURCE]     60 participants, 10 more each time, synthetic pictures
set -eu
cd "$(dirname "$0")/.."
ON_SERVER="taskset -c 0" ON_SENDER="taskset -c 1"
. benches/server.sh
participants=${1:-60} step=${2:-10} source=${3:-synthetic}
seconds=22

machine
echo
echo "| participants | pictures | lost | CPU of the core | ms a picture | resident per lane, kB | sockets held, s | part delay p50, p99: below ms |"
echo "|---|---|---|---|---|---|---|---|"
while :; do
    # No refusal: it is to be seen what happens.
    start --load-max 100%
    bots --bots $((participants / 10)) --participants 10 --duration "${seconds}s" --source "$source" --recording-id cap &
    sender=$!
    # Drawing pictures comes first.
    until [ "$(metric tilecast_lanes)" = "$participants" ]; do sleep 0.2; done
    # Encoders are opened in the first seconds.
    sleep 6
    snapshot
    before=$(cpu_ms) from=$(date +%s%N)
    sleep 10
    after=$(cpu_ms) wall=$((($(date +%s%N) - from) / 1000000))
    rss=$(rss_kb) p50=$(delay 0.5) p99=$(delay 0.99)
    wait "$sender"
    drained
    pictures=$(metric tilecast_pictures_encoded_total)
    lost=$(discards)
    awk -v p="$participants" -v n="$pictures" -v lost="$lost" -v cpu="$((after - before))" -v wall="$wall" -v rss="$rss" \
        -v held="$(metric tilecast_socket_waited_seconds_total)" -v p50="$p50" -v p99="$p99" 'BEGIN {
        printf "| %d | %d | %s | %.0f %% | %.2f | %d | %d | %s, %s |\n", p, n, lost, cpu * 100 / wall,
            cpu / (p * 2 * wall / 1000), rss / p, held, p50, p99 }'
    stop
    [ "$lost" = none ] && [ "$pictures" -ge $((participants * seconds * 2)) ] || break
    participants=$((participants + step))
done
