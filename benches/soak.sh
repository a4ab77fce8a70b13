#!/bin/sh
# Whether anything grows: meetings come and go on one server for a while, at a steady load. Participants join late and
# switch cameras off, bots die in the midst of it and dial again, recordings end and new ones begin. Prints a Markdown table
# of memory, file handles and threads, and a verdict: after a warming up of ten minutes (a third, where it is shorter) nothing
# may grow by more than 2 %. Exit code 1 where something does.
#
#   benches/soak.sh [MINUTES] [PARTICIPANTS] [SOURCE]     60 minutes, 40 participants, synthetic pictures
set -eu
cd "$(dirname "$0")/.."
. benches/server.sh
minutes=${1:-60} participants=${2:-40} source=${3:-synthetic}

machine
echo
# A bot that does not come back is given up soon, so that recordings end as fast as they begin.
start --reconnect-grace 15s
python3 - "$bin" "$port" "$server" "$minutes" "$participants" "$source" "$dir" <<'PY'
import os, random, shutil, statistics, subprocess, sys, time, urllib.request

program, port, pid, minutes, participants, source, folder = sys.argv[1:]
port, minutes, participants = int(port), float(minutes), int(participants)
choose = random.Random(1)
EACH = 4  # participants of a meeting
MEETINGS = max(1, participants // EACH)
WARM = min(600, minutes * 60 / 3)
WINDOW = (minutes * 60 - WARM) / 3


def bot(recording, seconds, late):
    join = ["--join", f"{EACH - 1}:{seconds / 4:.1f}"] if late else []
    off = ["--camera-off", f"0:{seconds / 3:.1f}-{seconds / 2:.1f}"] if late else []
    command = [program, "simulate", "--url", f"ws://127.0.0.1:{port}/ws/recall/", "--participants", str(EACH),
               "--screenshares", "1", "--duration", f"{seconds}s", "--source", source, "--recording-id", recording,
               "--seed", str(choose.randrange(1000)), *join, *off]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Meeting:
    count = 0

    def __init__(self):
        Meeting.count += 1
        self.recording = f"soak-{Meeting.count}"
        self.lives = choose.choice([1, 1, 2, 3])
        self.dial()

    def dial(self):
        seconds = choose.randrange(40, 90)
        # A life that is not the last one ends in the midst of it.
        self.dies = None if self.lives == 1 else time.time() + seconds * choose.uniform(0.3, 0.8)
        self.process = bot(self.recording, seconds, choose.random() < 0.5)

    def goes_on(self):
        if self.dies and time.time() > self.dies:
            self.process.kill()
        if self.process.poll() is None:
            return True
        self.lives -= 1
        if self.lives > 0:
            self.dial()
        return self.lives > 0


def metrics():
    text = urllib.request.urlopen(f"http://127.0.0.1:{port + 1}/metrics").read().decode()
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name.split("{")[0]] = found.get(name.split("{")[0], 0) + float(value)
    return found


def sample():
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status") if ":" in line)
    seen = metrics()
    return {
        "at": time.time() - begin,
        "kb": int(status["VmRSS"].split()[0]),
        "handles": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "lanes": seen["tilecast_lanes"],
        "pictures": seen.get("tilecast_pictures_encoded_total", 0),
        "discarded": seen["tilecast_captures_discarded_total"],
    }


print("| minute | resident, MB | file handles | threads | lanes | meetings so far | pictures | discarded |")
print("|---|---|---|---|---|---|---|---|", flush=True)
begin = time.time()
meetings, samples, told = [], [], 0
try:
    while time.time() - begin < minutes * 60:
        meetings = [meeting for meeting in meetings if meeting.goes_on()]
        while len(meetings) < MEETINGS and (len(meetings) == 0 or choose.random() < 0.3):
            meetings.append(Meeting())
        if not samples or time.time() - begin - samples[-1]["at"] >= 5:
            samples.append(sample())
            # Disks are small; what is in the store is of no use here.
            for name in os.listdir(f"{folder}/media") if os.path.isdir(f"{folder}/media") else []:
                number = int(name.split("-")[1].split("~")[0]) if name.startswith("soak-") else Meeting.count
                if number < Meeting.count - 4 * MEETINGS:
                    shutil.rmtree(f"{folder}/media/{name}", ignore_errors=True)
        if (time.time() - begin) / 60 >= told:
            last = samples[-1]
            print(f"| {told} | {last['kb'] / 1000:.1f} | {last['handles']} | {last['threads']} | {last['lanes']:.0f} "
                  f"| {Meeting.count} | {last['pictures']:.0f} | {last['discarded']:.0f} |", flush=True)
            told += max(1, round(minutes / 20))
        time.sleep(1)
finally:
    for meeting in meetings:
        meeting.process.kill()
        meeting.process.wait()

# The load swings with the meetings, and what follows it does not grow by that: so medians of a third of the time after the
# warming up and of the last third, and the most there was in them beside it, with that of the load. Threads stay: the most.
early = [one for one in samples if WARM <= one["at"] < WARM + WINDOW]
late = [one for one in samples if one["at"] >= minutes * 60 - WINDOW]
grown = False
print("\n| | first third after the warming up | last third | growth |\n|---|---|---|---|")
for name, what, of, counts in [
    ("kb", "resident, kB, median", statistics.median, True),
    ("handles", "file handles, median", statistics.median, True),
    ("threads", "threads, most", max, True),
    ("lanes", "lanes (the load), median", statistics.median, False),
    ("kb", "resident, kB, most", max, False),
    ("handles", "file handles, most", max, False),
    ("lanes", "lanes (the load), most", max, False),
]:
    a, b = (of(one[name] for one in half) for half in (early, late))
    share = (b - a) / a * 100 if a else 0
    grown |= counts and share > 2
    print(f"| {what} | {a:.0f} | {b:.0f} | {share:+.1f} % |")
print("\nverdict:", "something grows" if grown else "nothing grows by more than 2 %")
sys.exit(1 if grown else 0)
PY
