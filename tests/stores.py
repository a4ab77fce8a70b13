#!/usr/bin/env python3
"""Meetings that land in other people's store servers, on a real disk and a real socket: Garage (S3) and Azurite
(Azure's own emulator). Each is killed in the middle of a meeting and comes back, is silent for a while and goes on,
and tilecast is killed in the middle of the first outage; then everything has to be there and well, in the store alone.

    tests/stores.py [garage] [azure]      both; `make stores` builds tilecast before

Installs the servers under target/stores at the first run: Garage from crates.io (10 minutes; AGPL, it is run and never linked),
Azurite from npm. For Google's store there is no server with its XML interface on crates.io, npm or PyPI. OUTAGE (20) seconds is
how long each outage lasts.
"""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "target/stores"
TILECAST = os.environ.get("TILECAST_BIN", str(ROOT / "target/release/tilecast"))
OUTAGE = float(os.environ.get("OUTAGE", "20"))
PORT = int(os.environ.get("STORES_PORT", "19500"))
API = f"http://127.0.0.1:{PORT}"
# Of nobody: they open what runs here for a minute.
AZURITE = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
GARAGE_KEY, GARAGE_SECRET = "GK" + "31" * 12, "5e" * 32


def say(*words):
    print("stores:", *words, flush=True)


def fail(why):
    raise SystemExit(f"stores: FAILED: {why}")


def run(*command, **more):
    return subprocess.run([str(word) for word in command], check=True, **more)


class Store:
    """A store server: how it is had, started, and spoken to."""

    name = url = ""
    variables = {}

    def install(self):
        """Gets it, where it is not there yet."""

    def command(self, folder):
        """What starts it on a folder."""
        raise NotImplementedError

    def prepare(self):
        """Makes the bucket, once it listens."""

    def start(self, folder):
        command, environment = self.command(folder)
        log = open(folder / "store.log", "ab")
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log, cwd=folder)

    def ready(self):
        for _ in range(300):
            if self.process.poll() is not None:
                fail(f"{self.name} ended: {self.process.returncode}")
            try:
                self.prepare()
                return
            except (OSError, subprocess.CalledProcessError):
                time.sleep(0.2)
        fail(f"{self.name} does not start")

    def end(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()


def ask(url, method="GET", headers=None, body=None):
    request = urllib.request.Request(url, method=method, headers=headers or {}, data=body)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Garage(Store):
    name, url = "garage", "s3://media/meetings"
    variables = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{PORT + 10}", "AWS_REGION": "garage",
                 "AWS_ACCESS_KEY_ID": GARAGE_KEY, "AWS_SECRET_ACCESS_KEY": GARAGE_SECRET}
    program = TOOLS / "garage/bin/garage"

    def install(self):
        if not self.program.exists():
            say("building Garage, once: some 10 minutes")
            # Of its features only what a single node needs; unoptimised enough to be built soon.
            quick = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
                     "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16", "CARGO_PROFILE_RELEASE_DEBUG": "0"}
            run("cargo", "install", "garage", "--locked", "--quiet", "--version", "2.5.0", "--no-default-features",
                "--features", "bundled-libs,sqlite", "--root", TOOLS / "garage",
                env={**os.environ, **quick})

    def command(self, folder):
        (folder / "garage.toml").write_text(f"""
metadata_dir = "{folder}/meta"
data_dir = "{folder}/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{PORT + 11}"
rpc_secret = "{'0f' * 32}"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{PORT + 10}"
""")
        return [self.program, "-c", folder / "garage.toml", "server", "--single-node", "--default-bucket"], {
            "GARAGE_DEFAULT_BUCKET": "media", "GARAGE_DEFAULT_ACCESS_KEY": GARAGE_KEY,
            "GARAGE_DEFAULT_SECRET_KEY": GARAGE_SECRET, "RUST_LOG": "warn"}

    def prepare(self):
        ask(f"http://127.0.0.1:{PORT + 10}/")


class Azure(Store):
    name, url = "azure", "az://media/meetings"
    variables = {"AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1", "AZURE_STORAGE_ACCOUNT_KEY": AZURITE,
                 "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{PORT + 20}/devstoreaccount1"}
    program = TOOLS / "azurite/node_modules/.bin/azurite-blob"

    def install(self):
        if not self.program.exists():
            (TOOLS / "azurite").mkdir(parents=True, exist_ok=True)
            run("npm", "install", "--no-audit", "--no-fund", "--silent", "azurite@3", cwd=TOOLS / "azurite")

    def command(self, folder):
        return [self.program, "--silent", "--skipApiVersionCheck", "--blobPort", str(PORT + 20), "-l", folder / "data"], {}

    def prepare(self):
        # Signed as their documentation says: a line for each of eleven headers, of which there is none; then what follows.
        date, version = formatdate(usegmt=True), "2021-08-06"
        text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n" \
            "/devstoreaccount1/devstoreaccount1/media\nrestype:container"
        key = base64.b64encode(hmac.new(base64.b64decode(AZURITE), text.encode(), hashlib.sha256).digest()).decode()
        status, said = ask(f"{self.variables['AZURE_STORAGE_ENDPOINT']}/media?restype=container", "PUT", {
            "x-ms-date": date, "x-ms-version": version, "Content-Length": "0",
            "Authorization": f"SharedKey devstoreaccount1:{key}"})
        if status not in (201, 409):
            fail(f"azure: no container: {status} {said[:300]}")


class Server:
    """tilecast on a store."""

    def __init__(self, store, folder):
        self.store, self.folder = store, folder
        self.start()

    def start(self):
        log = open(self.folder / "tilecast.log", "ab")
        self.process = subprocess.Popen(
            [TILECAST, "serve", "--store", self.store.url, "--spool", self.folder / "spool", "--listen", f"127.0.0.1:{PORT}",
             "--internal-listen", f"127.0.0.1:{PORT + 1}", "--store-part", "5MiB", "--store-playlist-every", "2s",
             "--store-timeout", "5s"], env={**os.environ, **self.store.variables}, stdout=log, stderr=log)
        for _ in range(200):
            try:
                if ask(f"http://127.0.0.1:{PORT + 1}/healthz")[0] == 200:
                    return
            except OSError:
                pass
            if self.process.poll() is not None:
                fail(f"tilecast ended: {(self.folder / 'tilecast.log').read_text()[-2000:]}")
            time.sleep(0.1)
        fail("tilecast does not start")

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait()


def tilecast(store, *args):
    return subprocess.run([TILECAST, *map(str, args)], env={**os.environ, **store.variables}, capture_output=True, text=True)


def until(what, seconds, look):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    fail(f"waited {seconds} s for {what}")


def meets(store, folder):
    store.install()
    store.start(folder)
    try:
        store.ready()
        check = tilecast(store, "check", "--store", store.url, "--spool", folder / "probe")
        if check.returncode != 0:
            fail(f"check: {check.stdout}{check.stderr}")
        say(f"{store.name}: check passes")
        server = Server(store, folder)
        try:
            meeting(store, folder, server)
        finally:
            server.end(signal.SIGTERM)
    finally:
        if store.process.poll() is None:
            store.process.send_signal(signal.SIGCONT)
            store.end()


def meeting(store, folder, server):
    seconds = 4 * OUTAGE + 10
    bots = subprocess.Popen(
        [TILECAST, "simulate", "--url", f"ws://127.0.0.1:{PORT}/ws/recall/", "--bots", "2", "--participants", "2",
         "--screenshares", "1", "--duration", f"{seconds:.0f}s", "--recording-id", "meeting"], stdout=open(folder / "bots.log", "w"),
        stderr=subprocess.STDOUT)
    time.sleep(OUTAGE)
    store.end()
    time.sleep(OUTAGE / 2)
    server.end(signal.SIGKILL)
    server.start()
    time.sleep(OUTAGE / 2)
    store.start(folder)
    store.ready()
    say(f"{store.name}: {OUTAGE:.0f} s without a store, and a death of the server in the middle, are over")
    time.sleep(OUTAGE / 2)
    store.process.send_signal(signal.SIGSTOP)
    time.sleep(OUTAGE)
    store.process.send_signal(signal.SIGCONT)
    say(f"{store.name}: {OUTAGE:.0f} s of a silent store are over")
    if bots.wait() != 0:
        fail(f"the bots were not heard to their end: {(folder / 'bots.log').read_text()}")

    names = ["meeting-0", "meeting-1"]
    for name in names:
        ask(f"{API}/api/v1/recordings/{name}/finish", "POST")
    state = lambda name: json.loads(ask(f"{API}/api/v1/recordings/{name}")[1])
    ended = lambda: all(state(name)["state"] == "finished" for name in names)
    until("the recordings to be finished", 120, ended)
    for name in names:
        tracks = state(name)["tracks"]
        ledgers = [track["ledger"] for track in tracks]
        # A bot dials again after 3 s.
        if len(tracks) != 3 or any(ledger["received"] < 2 * seconds - 16 for ledger in ledgers):
            fail(f"{name}: {ledgers}")
        if any(ledger["received"] != ledger["encoded"] + sum(ledger["discarded"].values()) for ledger in ledgers):
            fail(f"{name}: books that do not close: {ledgers}")
    verify = tilecast(store, "verify", store.url)
    if verify.returncode != 0 or verify.stdout.count("all is well") != len(names):
        fail(f"verify: {verify.stdout}{verify.stderr}")
    say(f"{store.name}: verify finds all well in the store: {len(names)} recordings of 3 tracks, {seconds:.0f} s")

    # A process that has the store alone.
    server.end(signal.SIGTERM)
    shutil.rmtree(folder / "spool")
    server.start()
    track = until("the list", 60, lambda: json.loads(ask(f"{API}/api/v1/recordings/meeting-0")[1]).get("tracks"))[0]
    mp4 = f"{API}/media/meeting-0/{track['track']}/{track['mp4'][0]['path']}"
    if ask(mp4, headers={"Range": "bytes=4-7"}) != (206, b"ftyp"):
        fail("the MP4 is not served from the store")
    if ask(f"{API}/api/v1/recordings/meeting-0/tracks/{track['track']}", "DELETE")[0] != 202:
        fail("the track is not deleted")
    until("the track to be gone", 60, lambda: ask(mp4)[0] == 404)
    until("the manifest to say so", 60, lambda: len(state("meeting-0")["tracks"]) == 2)
    if ask(f"{API}/api/v1/recordings/meeting-1", "DELETE")[0] != 202:
        fail("the recording is not deleted")
    until("the recording to be gone", 60, lambda: ask(f"{API}/media/meeting-1/recording.json")[0] in (404, 410))
    until("one recording to be left, and well", 60, lambda: (
        lambda said: said.returncode == 0 and said.stdout.count("all is well") == 1)(tilecast(store, "verify", store.url)))
    say(f"{store.name}: served from the store alone; a track and a recording are deleted, the rest is well")


def main():
    known = {store.name: store for store in (Garage(), Azure())}
    asked = sys.argv[1:] or list(known)
    if any(name not in known for name in asked):
        raise SystemExit(f"stores: give some of {', '.join(known)}")
    for name in asked:
        folder = Path(tempfile.mkdtemp(prefix="stores-", dir=ROOT / "target"))
        try:
            meets(known[name], folder)
        except SystemExit:
            say(f"{name}: its folder stays: {folder}")
            raise
        shutil.rmtree(folder)


main()
