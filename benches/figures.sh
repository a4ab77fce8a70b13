#!/bin/sh
# The whole server's figures on this machine, release build: start to ready, CPU per picture over all threads from
# network to disk, resident memory per live lane. Prints them; judges nothing.
#
#   benches/figures.sh [VIDEO ...]     natural pictures from these files; synthetic ones without
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh

measure() { # source
    start
    echo "source $1"
    echo "  start to ready        $ready_ms ms"
    before=$(cpu_ms)
    bots --bots 5 --participants 10 --duration 20s --source "$1" --recording-id cpu &
    sender=$!
    # All lanes are open after a second; the figure is taken in the middle of the meeting.
    sleep 15
    lanes=$(metric tilecast_lanes)
    echo "  resident per lane     $(($(rss_kb) / lanes)) kB at $lanes live lanes"
    wait "$sender"
    drained
    pictures=$(metric tilecast_pictures_encoded_total)
    after=$(cpu_ms)
    awk -v ms="$((after - before))" -v n="$pictures" 'BEGIN {printf "  CPU per picture       %.2f ms (%d pictures, real time)\n", ms / n, n}'
    echo "  discarded             $(discards)"
    sed -n 's/^behind/  sender behind        /p' "$dir/sent"
    stop
    start
    bots --bots 5 --participants 10 --duration 20s --speed 0 --source "$1" --recording-id fast
    drained
    pictures=$(metric tilecast_pictures_encoded_total)
    awk -v ms="$(cpu_ms)" -v n="$pictures" 'BEGIN {printf "  CPU per picture       %.2f ms (%d pictures, as fast as taken)\n", ms / n, n}'
    echo "  discarded             $(discards)"
    sed -n 's/^pictures/  pictures             /p' "$dir/sent"
    stop
}

machine
if [ $# -eq 0 ]; then measure synthetic; fi
for video in "$@"; do measure "$video"; done
