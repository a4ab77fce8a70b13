#!/bin/sh
# The server beside one process per participant, fed the same PNGs by a pipe, by turns: CPU per picture and memory per
# participant. ffmpeg writes live HLS of fragmented MP4 as we do, once with our preset and rate control, once with its
# defaults, which is what most people run. A GStreamer pipeline with our preset and rate control writes HLS of MPEG-TS:
# Debian's GStreamer has no HLS sink for fragmented MP4. Prints a Markdown table with the medians of the rounds.
#
#   benches/peers.sh [ROUNDS] [SOURCE ...]     3 rounds, synthetic pictures; installs the peers where they are missing
set -eu
cd "$(dirname "$0")/.."
docker/install-deps.sh bench
. benches/server.sh
rounds=${1:-3}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- synthetic
participants=10 seconds=12
pictures=$((participants * seconds * 2))

pngs() { # source: what the bots send, one stream of PNGs a participant
    rm -rf "$dir/pngs"
    cargo bench --locked --quiet --bench floor -- "$1" "$participants" $((seconds * 2)) "$dir/pngs" 2>/dev/null
}
peer() { # the command, {} being its folder for output; sets $peer_ms and $peer_kb
    rm -rf "$dir/hls"
    mkdir "$dir/hls"
    times=$(python3 - "$dir" "$@" <<'PY'
import os, resource, subprocess, sys
folder, command = sys.argv[1], sys.argv[2:]
processes = []
for name in sorted(os.listdir(f"{folder}/pngs")):
    out = f"{folder}/hls/{name}"
    os.mkdir(out)
    with open(f"{folder}/pngs/{name}", "rb") as pngs:
        processes.append(subprocess.Popen([word.replace("{}", out) for word in command], stdin=pngs))
ok = all([process.wait() == 0 for process in processes])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(int((used.ru_utime + used.ru_stime) * 1000), used.ru_maxrss if ok else "failed")
PY
)
    peer_ms=${times% *} peer_kb=${times#* }
    # A peer that left pictures out would be cheap.
    one=$(find "$dir/hls" -name index.m3u8 | head -1)
    came=$(ffprobe -v error -count_packets -select_streams v -show_entries stream=nb_read_packets -of csv=p=0 "$one" | head -1)
    [ "${came%,}" = $((seconds * 2)) ] || { echo "$1: $came pictures of $((seconds * 2)) came out" >&2; exit 1; }
}
per_picture() { awk -v ms="$1" -v n="$pictures" 'BEGIN {printf "%.2f", ms / n}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }

machine
ffmpeg -version | head -1
gst-launch-1.0 --version | head -1
echo
echo "| source | tilecast, ms | ffmpeg, our settings, ms | tilecast over it | ffmpeg, its defaults, ms | tilecast over it | GStreamer, our settings, ms | tilecast over it | memory of a peer, MB |"
echo "|---|---|---|---|---|---|---|---|---|"
row() { # the name of the line, then ours, same, plain, gst
    echo "| $1 | $(per_picture "$2") | $(per_picture "$3") | $(ratio "$2" "$3") | $(per_picture "$4") | $(ratio "$2" "$4") |" \
        "$(per_picture "$5") | $(ratio "$2" "$5") | $memory |"
}
for source in "$@"; do
    pngs "$source"
    : >"$dir/rounds"
    for _ in $(seq "$rounds"); do
        start
        bots --participants "$participants" --duration "${seconds}s" --speed 0 --source "$source" --recording-id peers
        drained
        ours=$(cpu_ms)
        stop
        # As few threads and as little delay as we have: the cheapest way to run so many.
        hls="-f hls -hls_time 6 -hls_list_size 0 -hls_segment_type fmp4 {}/index.m3u8"
        ffmpeg="ffmpeg -nostdin -v error -f image2pipe -framerate 2 -c:v png -i - -pix_fmt yuv420p -c:v libx264"
        # shellcheck disable=SC2086 # words
        peer $ffmpeg -preset superfast -tune zerolatency -crf 23 -x264-params partitions=i8x8:qpmin=20:keyint=12:scenecut=0 -threads 1 $hls
        same=$peer_ms same_kb=$peer_kb
        # shellcheck disable=SC2086
        peer $ffmpeg -g 12 $hls
        plain=$peer_ms plain_kb=$peer_kb
        # shellcheck disable=SC2086
        peer gst-launch-1.0 -q fdsrc fd=0 ! image/png,framerate=2/1 ! pngparse ! pngdec ! videoconvert ! video/x-raw,format=I420 ! \
            x264enc speed-preset=superfast tune=zerolatency pass=qual quantizer=23 qp-min=20 key-int-max=12 \
            threads=1 option-string=scenecut=0:partitions=i8x8 ! h264parse ! hlssink2 target-duration=6 max-files=0 playlist-length=0 \
            "location={}/%05d.ts" "playlist-location={}/index.m3u8"
        gst=$peer_ms
        memory="$((same_kb / 1000)), $((plain_kb / 1000)), $((peer_kb / 1000))"
        row "$(basename "$source")" "$ours" "$same" "$plain" "$gst"
        echo "$ours $same $plain $gst" >>"$dir/rounds"
    done
    column() { cut -d' ' -f"$1" "$dir/rounds" | median; }
    row "$(basename "$source"), medians" "$(column 1)" "$(column 2)" "$(column 3)" "$(column 4)"
done
