#!/bin/sh
# How long a start takes that finds a full spool, and how much memory: 10 recordings of 50 tracks of an hour (7,200
# ticks, 600 segments, 3,600 parts each), as kill -9 left them. Prints figures; judges nothing.
#
#   benches/recovery.sh [RECORDINGS TRACKS SECONDS]
#
# One track is made by the server itself, from a meeting played as fast as it takes it; the others are copies of its
# folder under other ids. Journals, lists and the segment that grew are copied; closed segments, which no start reads,
# are links. The growing segment ends in half a part. The store has the playlists that were published.
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh
recordings=${1:-10} tracks=${2:-50} seconds=${3:-3600}
status_mb() { awk -v name="$1:" '$1 == name {print int($2 / 1000)}' "/proc/$server/status"; }

crash() {
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    server=
}

start --reconnect-grace 1h
bots --participants 1 --duration "${seconds}s" --size 160x90 --speed 0 --recording-id base
# The last playlist is in the store when nothing has moved for a second.
playlist() { find "$dir/media" -name index.m3u8; }
until [ -n "$(playlist)" ] && [ "$(($(date +%s) - $(stat -c %Y "$(playlist)")))" -ge 2 ]; do sleep 0.5; done
crash

python3 - "$dir" "$recordings" "$tracks" <<'PY'
import json, os, shutil, sys
dir, recordings, tracks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
spool, media = dir + "/spool", dir + "/media"
[track] = [name for name in os.listdir(spool + "/base-0") if name.endswith("-webcam")]
state = json.load(open(spool + "/base-0/state.json"))
person = state["participants"][0]
source = f"{spool}/base-0/{track}"
journal_bytes = segments = 0
for r in range(recordings):
    key = f"meeting-{r}"
    people = [dict(person, id=str(1000 + t)) for t in range(tracks)]
    for one in people:
        to = f"{spool}/{key}/{one['id']}-webcam"
        for folder, _, names in os.walk(source):
            at = to + folder[len(source):]
            os.makedirs(at)
            for name in names:
                old, new = f"{folder}/{name}", f"{at}/{name}"
                if name.endswith(".m4s"):
                    os.link(old, new)
                    segments += 1
                elif name == "journal.jsonl":
                    text = open(old, "rb").read()
                    mine = b'"participant_id":"%s"' % person["id"].encode()
                    assert mine in text.split(b"\n", 1)[0]
                    open(new, "wb").write(text.replace(mine, b'"participant_id":"%s"' % one["id"].encode(), 1))
                    journal_bytes += len(text)
                else:
                    shutil.copy(old, new)
                    if name.endswith(".open"):
                        open(new, "ab").write(os.urandom(700))
        os.makedirs(f"{media}/{key}/{one['id']}-webcam")
        shutil.copy(f"{media}/base-0/{track}/index.m3u8", f"{media}/{key}/{one['id']}-webcam/index.m3u8")
    json.dump(dict(state, recording_id=key, participants=people), open(f"{spool}/{key}/state.json", "w"))
shutil.rmtree(spool + "/base-0")
print(f"spool: {recordings} recordings, {recordings * tracks} tracks, {segments} closed segments, "
      f"{journal_bytes // 1000000} MB of journals")
PY

measure() { # cold: with nothing of the spool in the page cache
    sync
    if [ "$1" = cold ]; then
        find "$dir/spool" -type f ! -name '*.m4s' -exec sh -c 'for f; do dd if="$f" iflag=nocache count=0 2>/dev/null; done' _ {} +
    fi
    start --reconnect-grace 1h
    echo "$1 page cache"
    echo "  start to ready          $ready_ms ms, CPU $(cpu_ms) ms"
    sed -n 's/.*took up/  taken up               /p' "$dir/log"
    echo "  peak memory at ready    $(status_mb VmHWM) MB"
    last=-1
    until [ "$(cpu_ms)" -le "$((last + 20))" ]; do
        last=$(cpu_ms)
        sleep 1
    done
    echo "  keepers quiet after     $((($(date +%s%N) - begin) / 1000000 - 1000)) ms, CPU $last ms"
    echo "  peak memory             $(status_mb VmHWM) MB, resident $(status_mb VmRSS) MB"
    crash
}

machine
measure warm
measure cold
