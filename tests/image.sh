#!/bin/bash
# The container image as it will run, without an engine: its root file system read-only, its own user, nothing of this machine
# but the network and /data. A meeting is sent with a derived token, the events are received and their signatures checked,
# the recording is verified from the outside, and the server is stopped as an engine stops it.
#
#   tests/image.sh ROOT DATA      as root; ROOT is the unpacked image, DATA an empty folder for /data; docker/image.sh --try
#
# Everything that is run of tilecast is run out of the image. Needs python3, curl, unshare.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$(realpath "$1") data=$(realpath "$2")
port=${IMAGE_PORT:-18080} internal_port=${IMAGE_INTERNAL_PORT:-18082} events_port=${IMAGE_EVENTS_PORT:-18081}
user=10001
base="http://127.0.0.1:$port"
fail() { echo "image: FAILED: $*" >&2; exit 1; }
say() { echo "image: $*"; }

size=$(du -sb --apparent-size "$root" | cut -f1)
say "$((size / 1000000)) MB"
[ "$size" -lt 200000000 ] || fail "more than 200 MB"
[ ! -e "$root/bin/sh" ] || fail "there is a shell"

# What engines put there. ROOT is a copy.
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/data"
mkdir -p "$data/media" "$data/spool"
chown -R "$user:$user" "$data"

key=$(head -c 24 /dev/urandom | base64) api=$(head -c 12 /dev/urandom | base64 | tr '/+' 'ab')
webhook="whsec_$(head -c 24 /dev/urandom | base64)"

# Becomes a program of the image, in it.
inside() {
    exec unshare --mount sh -eu -c '
        root=$1 data=$2 user=$3; shift 3
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$data" "$root/data"
        mount -o remount,bind,ro "$root"
        ! touch "$root/file" 2>/dev/null || { echo "the root can be written" >&2; exit 99; }
        exec chroot --userspec="$user:$user" "$root" "$@"
    ' inside "$root" "$data" "$user" "$@"
}

# The image's own environment, with secrets and addresses; nothing of the caller's.
tilecast() {
    local command=$1
    shift
    export TILECAST_STORE=/data/media TILECAST_SPOOL=/data/spool TILECAST_LISTEN="127.0.0.1:$port" \
        TILECAST_INTERNAL_LISTEN="127.0.0.1:$internal_port" TILECAST_INGEST_KEY="$key" TILECAST_API_TOKEN="$api" \
        TILECAST_WEBHOOK_SECRET="$webhook" TILECAST_WEBHOOK_URL="http://127.0.0.1:$events_port/"
    inside /usr/local/bin/tilecast "$command" "$@"
}

python3 tests/webhooks.py "$events_port" "$webhook" >"$data/events.log" &
receiver=$!
(tilecast serve) 2>"$data/serve.log" &
server=$!
trap 'kill "$server" "$receiver" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    grep -q ' ready: ' "$data/serve.log" && break
    kill -0 "$server" 2>/dev/null || { cat "$data/serve.log" >&2; fail "it does not start"; }
    sleep 0.1
done
grep -q ' ready: ' "$data/serve.log" || fail "it is not ready after 10 s"
[ "$(awk '/^Uid:/ {print $2}' "/proc/$server/status")" = "$user" ] || fail "it does not run as $user"
(tilecast health) || fail "the health check fails"
say "ready, read-only, as user $user"

token=$( (tilecast bot token --ttl 1h) )
upgrade=(-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGlsZWNhc3QtaW1hZ2UtMQ==')
status=$(curl -s -o "$data/answer" -w '%{http_code}' "${upgrade[@]}" "$base/ws/recall/?token=wrong")
[ "$status" = 401 ] || fail "a wrong token gets $status"
(tilecast simulate --url "ws://127.0.0.1:$port/ws/recall/?token=$token" --recording-id image --participants 3 \
    --screenshares 1 --duration 20s --speed 0) >"$data/sent.log" 2>&1 \
    || { cat "$data/sent.log" >&2; fail "the meeting was not taken"; }
[ "$(curl -s -o "$data/answer" -w '%{http_code}' "$base/api/v1/recordings")" = 401 ] || fail "the API is open"
api() { curl -sf -H "Authorization: Bearer $api" "$@"; }
recording=$(api "$base/api/v1/recordings" | python3 -c 'import json, sys; print(json.load(sys.stdin)["recordings"][0]["recording_id"])')
api -X POST "$base/api/v1/recordings/$recording/finish" >"$data/answer"
for _ in $(seq 300); do
    api "$base/api/v1/recordings/$recording" | grep -q '"state":"finished"' && break
    sleep 0.1
done
(tilecast verify /data/media) || fail "verify finds something"

for _ in $(seq 100); do
    grep -q 'recording.finished' "$data/events.log" && break
    sleep 0.1
done
for event in recording.started track.started track.finished recording.finished; do
    grep -q "^good $event " "$data/events.log" || { cat "$data/events.log" >&2; fail "no event $event with a good signature"; }
done
! grep -q '^bad' "$data/events.log" || fail "an event with a bad signature"
say "$(grep -c '^good' "$data/events.log") events, all signatures good"

kill -TERM "$server"
wait "$server" || fail "SIGTERM ended it with $?"
say "taken, finished, verified, stopped: $(find "$data/media" -name video.mp4 | wc -l) MP4s in $data/media"
