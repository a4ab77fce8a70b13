#!/bin/sh
# The main job, seen working: a server on a local folder, a simulated meeting of 4 participants for 40 s at real time
# (one joins late, one also shares a screen, one turns the camera off and on), every file decoded and checked.
set -eu
cd "$(dirname "$0")/.."

bin=target/release/tilecast
dir=${DEMO_DIR:-demo}
port=${DEMO_PORT:-8080}
metrics_port=${DEMO_METRICS_PORT:-9090}
id="demo-$(date +%Y%m%d-%H%M%S)"

mkdir -p "$dir"
: >"$dir/serve.log"
"$bin" serve --listen "127.0.0.1:$port" --internal-listen "127.0.0.1:$metrics_port" \
    --store "$dir/media" --spool "$dir/spool" 2>"$dir/serve.log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM

tries=0
until grep -q ' ready: ' "$dir/serve.log"; do
    tries=$((tries + 1))
    if ! kill -0 "$server" 2>/dev/null || [ "$tries" -gt 100 ]; then
        echo "demo: the server did not start:" >&2
        cat "$dir/serve.log" >&2
        echo "demo: another port may help: DEMO_PORT=8090 DEMO_METRICS_PORT=9091 make demo" >&2
        exit 1
    fi
    sleep 0.1
done

echo
echo "  Watch it while it runs:  http://127.0.0.1:$port/?recording=$id-0"
echo

status=0
"$bin" simulate --url "ws://127.0.0.1:$port/ws/recall/" --recording-id "$id" --participants 4 --screenshares 1 \
    --join 3:8 --camera-off 2:15-27 --duration "${DEMO_DURATION:-40s}" --read-back "$dir/media" || status=$?

echo
if [ "$status" -eq 0 ]; then
    echo "  The files stay in $dir/media/$id-0. Play one:  ffplay $dir/media/$id-0/*/video.mp4"
    echo "  To watch again:  $bin serve --listen 127.0.0.1:$port --internal-listen 127.0.0.1:$metrics_port --store $dir/media --spool $dir/spool"
    echo "  and open http://127.0.0.1:$port/?recording=$id-0"
else
    echo "demo: FAILED; the server's log is $dir/serve.log" >&2
fi
exit "$status"
