//! The real program as a child process, spoken to as an operator would: its options, its log, its HTTP, its signals,
//! and the folders it writes. Bots are in [`crate::bot`], reading media back is in [`crate::playback`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tilecast::pipeline::store::keys;
use tilecast::pipeline::store::manifest::{Manifest, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Far above what anything here takes on a loaded machine; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks `look` until it gives something; panics with `what` after [`PATIENCE`].
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The folders of a server. They outlive it where a test keeps a clone, and are removed with the last one.
#[derive(Clone)]
pub struct Folders(Arc<tempfile::TempDir>);

impl Folders {
    /// Empty ones.
    pub fn new() -> Folders {
        Folders(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// What `--store` names.
    pub fn store(&self) -> PathBuf {
        self.0.path().join("store")
    }

    /// What `--spool` names.
    pub fn spool(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    /// The folder of a recording in the store.
    pub fn recording(&self, id: &str) -> PathBuf {
        self.store().join(keys::recording(id))
    }

    /// `recording.json` as it lies in the store; `None` before it was written.
    pub fn manifest(&self, id: &str) -> Option<Manifest> {
        let text = std::fs::read(self.recording(id).join("recording.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }
}

/// A running `tilecast serve`; killed on drop.
pub struct Server {
    child: Child,
    /// Bots, API, media, page.
    pub public: SocketAddr,
    /// Metrics.
    pub internal: SocketAddr,
    /// Where it writes.
    pub folders: Folders,
    log: Log,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The first JSON line for which `is` holds.
    fn find(&self, is: impl Fn(&Value) -> bool) -> Option<Value> {
        self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).find(is)
    }
}

/// The program with folders of its own, on free ports, its variables cleared of the tester's own.
pub fn command(folders: &Folders, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilecast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TILECAST_")) {
        command.env_remove(name);
    }
    command.arg("serve");
    let (store, spool) = (folders.store(), folders.spool());
    let ours: [(&str, &std::ffi::OsStr); 5] = [
        ("--store", store.as_ref()),
        ("--spool", spool.as_ref()),
        ("--listen", "127.0.0.1:0".as_ref()),
        ("--internal-listen", "127.0.0.1:0".as_ref()),
        ("--log", "json".as_ref()),
    ];
    for (option, value) in ours {
        if !args.iter().any(|arg| arg.split('=').next() == Some(option)) {
            command.arg(option).arg(value);
        }
    }
    command.args(args).envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    command
}

/// Runs `tilecast serve` with options that it must refuse; gives its exit code and what it said.
pub fn refused(args: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut child = command(&Folders::new(), args, variables).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("still running with {args:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Server {
    /// Starts the program with these options and waits until it is ready.
    pub async fn start(args: &[&str]) -> Server {
        Server::start_in(&Folders::new(), args, &[]).await
    }

    /// Starts it on these folders, with environment variables.
    pub async fn start_in(folders: &Folders, args: &[&str], variables: &[(&str, &str)]) -> Server {
        let mut child = command(folders, args, variables).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let log = Log::default();
        let lines = log.clone();
        // Reads to the end, so that the program never waits for a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.0.lock().unwrap().push(line);
            }
        });
        let none: SocketAddr = ([127, 0, 0, 1], 0).into();
        // From here on dropped, and so killed, on every path.
        let mut server = Server { child, public: none, internal: none, folders: folders.clone(), log };
        let start = Instant::now();
        let ready = loop {
            if let Some(ready) = server.log_line("ready") {
                break ready;
            }
            assert!(server.child.try_wait().unwrap().is_none() && start.elapsed() < PATIENCE, "it does not get ready");
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let address = |name: &str| ready[name].as_str().expect("ready names its addresses").parse().unwrap();
        (server.public, server.internal) = (address("listen"), address("internal"));
        server
    }

    /// What was logged so far, line by line.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// The first log line whose message starts with this.
    pub fn log_line(&self, message: &str) -> Option<Value> {
        self.log.find(|line| line["message"].as_str().is_some_and(|text| text.starts_with(message)))
    }

    /// The address for bots.
    pub fn ws(&self) -> String {
        format!("ws://{}/ws/recall/", self.public)
    }

    /// The address for the bot that its caller names `key`.
    pub fn ws_of(&self, key: &str) -> String {
        format!("ws://{}/ws/recall/{key}/", self.public)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it ever had, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells VmHWM");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Asks with GET.
    pub async fn get(&self, path: &str) -> Answer {
        request(self.public, "GET", path, &[]).await
    }

    /// Asks with GET and headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.public, "GET", path, headers).await
    }

    /// Asks with POST, without a body.
    pub async fn post(&self, path: &str) -> Answer {
        request(self.public, "POST", path, &[]).await
    }

    /// Asks with DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        request(self.public, "DELETE", path, &[]).await
    }

    /// Reads `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        let answer = request(self.internal, "GET", "/metrics", &[]).await;
        assert_eq!(answer.status, 200);
        let samples = answer.text().lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample is a name and a value");
            (name.to_owned(), value.parse().unwrap())
        });
        Metrics(samples.collect())
    }

    /// A recording as the API tells it, with `now` beside it; panics where there is none.
    pub async fn recording(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/v1/recordings/{}", escape(id))).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        answer.json()
    }

    /// The manifest of a recording as the API tells it.
    pub async fn manifest(&self, id: &str) -> Manifest {
        serde_json::from_value(self.recording(id).await).unwrap()
    }

    /// Finishes a recording and waits until it is finished.
    pub async fn finish(&self, id: &str) -> Manifest {
        let answer = self.post(&format!("/api/v1/recordings/{}/finish", escape(id))).await;
        assert!(matches!(answer.status, 200 | 202), "{id}: {} {}", answer.status, answer.text());
        until(&format!("{id} is finished"), || async {
            Some(self.manifest(id).await).filter(|manifest| manifest.state == State::Finished)
        })
        .await
    }

    /// Waits until no capture of the recording is on its way.
    pub async fn drained(&self, id: &str) {
        until(&format!("{id} is drained"), || async {
            (self.recording(id).await["now"]["captures_waiting"] == 0).then_some(())
        })
        .await;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// SIGTERM, and waits for its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// SIGKILL, and waits for its end.
    pub async fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.ended().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.log();
            eprintln!("the server's log:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// The samples of `/metrics`, by name with labels.
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// A sample; 0 where there is none, for counters with labels begin to exist with their first count.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// The samples of one name: labels and value, those that are 0 left out.
    pub fn labelled(&self, name: &str) -> BTreeMap<String, f64> {
        let samples = self.0.iter().filter(|(_, value)| **value != 0.0);
        let of_name = samples.filter_map(|(sample, value)| {
            let labels = sample.strip_prefix(name)?.strip_prefix('{')?.strip_suffix('}')?;
            Some((labels.to_owned(), *value))
        });
        of_name.collect()
    }

    /// The sum over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        self.labelled(name).values().sum()
    }
}

/// What HTTP answered.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, complete.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One request on a connection of its own (RFC 9112), without a body.
pub async fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    parse(&answer)
}

/// Reads an answer that came up to the end of its connection.
pub fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the headers");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line").parse().unwrap();
    let split = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(split).collect();
    let mut body = answer[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunk(&body);
    } else if let Some(length) = headers.get("content-length").filter(|_| !body.is_empty()) {
        assert_eq!(body.len(), length.parse::<usize>().unwrap(), "the length that the answer names");
    }
    Answer { status, headers, body }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk's size line");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}

/// An id as a component of an address (RFC 3986, 2.1).
pub fn escape(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// What a spool holds of recordings: all but the server's own files.
pub fn spooled(folders: &Folders) -> Vec<String> {
    files(&folders.spool())
        .into_keys()
        .filter(|name| ![".lock", ".grant-key", ".spent-ids"].contains(&&**name))
        .collect()
}

/// Every file below a folder, by its path in it.
pub fn files(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, path);
                }
            }
        }
    }
    found
}
