#!/bin/sh
# The server beside one ffmpeg process per participant, fed the same PNGs by a pipe, by turns: CPU per picture and
# memory per participant. ffmpeg writes live HLS of fragmented MP4 as we do, once with our preset and rate control, once
# with its defaults, which is what most people run. Prints a Markdown table.
#
#   benches/peers.sh [ROUNDS] [SOURCE ...]     3 rounds, synthetic pictures; needs ffmpeg
set -eu
cd "$(dirname "$0")/.."
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
peer() { # options of the encoder; sets $peer_ms and $peer_kb
    rm -rf "$dir/hls"
    mkdir "$dir/hls"
    # shellcheck disable=SC2046 # one number each
    set -- "$@" -f hls -hls_time 6 -hls_list_size 0 -hls_segment_type fmp4
    times=$(python3 - "$dir" "$@" <<'PY'
import os, resource, subprocess, sys
folder, options = sys.argv[1], sys.argv[2:]
processes = []
for name in sorted(os.listdir(f"{folder}/pngs")):
    out = f"{folder}/hls/{name}"
    os.mkdir(out)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-f", "image2pipe", "-framerate", "2", "-c:v", "png", "-i", "-"]
    with open(f"{folder}/pngs/{name}", "rb") as pngs:
        processes.append(subprocess.Popen([*command, *options, f"{out}/index.m3u8"], stdin=pngs))
ok = all([process.wait() == 0 for process in processes])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(int((used.ru_utime + used.ru_stime) * 1000), used.ru_maxrss if ok else "failed")
PY
)
    peer_ms=${times% *} peer_kb=${times#* }
}
per_picture() { awk -v ms="$1" -v n="$pictures" 'BEGIN {printf "%.2f", ms / n}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }

machine
ffmpeg -version | head -1
echo
echo "| source | tilecast, ms | ffmpeg, our settings, ms | ratio | ffmpeg, its defaults, ms | ratio | largest ffmpeg, MB |"
echo "|---|---|---|---|---|---|---|"
for source in "$@"; do
    pngs "$source"
    for _ in $(seq "$rounds"); do
        start
        bots --participants "$participants" --duration "${seconds}s" --speed 0 --source "$source" --recording-id peers
        drained
        ours=$(cpu_ms)
        stop
        # As few threads and as little delay as we have: the cheapest way to run so many.
        peer -c:v libx264 -preset superfast -tune zerolatency -crf 23 -x264-params cabac=0:qpmin=20:keyint=12:scenecut=0 \
            -threads 1 -pix_fmt yuv420p
        same_ms=$peer_ms same_kb=$peer_kb
        peer -c:v libx264 -pix_fmt yuv420p -g 12
        echo "| $(basename "$source") | $(per_picture "$ours") | $(per_picture "$same_ms") | $(ratio "$ours" "$same_ms") |" \
            "$(per_picture "$peer_ms") | $(ratio "$ours" "$peer_ms") | $((same_kb / 1000)), $((peer_kb / 1000)) |"
    done
done
