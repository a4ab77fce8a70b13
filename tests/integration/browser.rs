//! A Chromium for tests, driven over the Chrome DevTools Protocol.
//!
//! One command is under way at a time; waiting is done inside the page, so nothing here sleeps. What the page complains
//! about (exceptions, errors on the console, refused loads) is kept for the test to look at.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Far above what a start or a command takes on a loaded machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Chromium with a profile of its own; killed with all its processes on drop.
pub struct Browser {
    child: Child,
    endpoint: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts `$CHROMIUM`, or `chromium` on the PATH, without a window.
    pub async fn start() -> Browser {
        let program = std::env::var("CHROMIUM").unwrap_or_else(|_| "chromium".to_owned());
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(&program);
        command
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars"])
            .args(["--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} (set CHROMIUM to its path): {error}"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (found, endpoint) = tokio::sync::oneshot::channel();
        let mut found = Some(found);
        // Reads to the end, so that the browser never waits for a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("DevTools listening on ") {
                    found.take().map(|found| found.send(address.to_owned()));
                }
            }
        });
        let mut browser = Browser { child, endpoint: String::new(), _profile: profile };
        let endpoint = tokio::time::timeout(PATIENCE, endpoint).await.expect("the browser starts in time");
        browser.endpoint = endpoint.expect("the browser names its DevTools address before it ends");
        browser
    }

    /// Opens an empty page of 1280x800.
    pub async fn page(&self) -> Page {
        let (socket, _) = connect_async(&self.endpoint).await.unwrap();
        let mut page = Page { socket, session: None, commands: 0, complaints: Vec::new() };
        let target = page.command("Target.createTarget", json!({ "url": "about:blank" })).await;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.command("Target.attachToTarget", attach).await;
        page.session = Some(attached["sessionId"].as_str().expect("a session id").to_owned());
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            page.command(domain, json!({})).await;
        }
        page.resize(1280, 800).await;
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// One tab.
pub struct Page {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Option<String>,
    commands: u64,
    /// Exceptions, console errors and failed loads so far.
    pub complaints: Vec<String>,
}

impl Page {
    /// Sends one command and returns its result; an error of the protocol is a panic.
    pub async fn command(&mut self, method: &str, params: Value) -> Value {
        self.commands += 1;
        let id = self.commands;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let answer = tokio::time::timeout(PATIENCE * 2, self.socket.next()).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer to {method}"));
            let Message::Text(text) = answer.expect("the browser is up").unwrap() else { continue };
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(params["exceptionDetails"].to_string()),
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                self.complaints.push(params["args"].to_string());
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(format!("{} {}", params["entry"]["text"], params["entry"]["url"]));
            }
            _ => {}
        }
    }

    /// Loads an address and waits until the document is there.
    pub async fn goto(&mut self, url: &str) {
        let result = self.command("Page.navigate", json!({ "url": url })).await;
        assert!(result["errorText"].is_null(), "{url}: {}", result["errorText"]);
        self.wait_for("document.readyState === 'complete'", PATIENCE).await;
    }

    /// Sets the size of the page in CSS pixels, which are the pixels of a screenshot.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Sets `prefers-color-scheme`.
    pub async fn colour_scheme(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", features).await;
    }

    /// The value of an expression; a promise is awaited, an exception is a panic.
    pub async fn eval(&mut self, js: &str) -> Value {
        let params = json!({ "expression": js, "awaitPromise": true, "returnByValue": true });
        let mut result = self.command("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{js}\n{}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    /// Waits until an expression is true in JavaScript's sense, and returns its value; panics after `timeout`.
    pub async fn wait_for(&mut self, js: &str, timeout: Duration) -> Value {
        let limit = timeout.as_millis();
        let waiting = format!(
            "new Promise((done) => {{
               const end = performance.now() + {limit};
               const look = () => {{
                 let value;
                 try {{ value = ({js}); }} catch (error) {{ value = null; }}
                 if (value || performance.now() > end) done({{ value: value ?? null, met: Boolean(value) }});
                 else setTimeout(look, 20);
               }};
               look();
             }})"
        );
        let mut outcome = self.eval(&waiting).await;
        if outcome["met"] != true {
            let page = self.eval("document.body?.innerText").await;
            panic!("not met in {timeout:?}: {js}\ncomplaints: {:#?}\npage: {page}", self.complaints);
        }
        outcome["value"].take()
    }

    /// What the page looks like now.
    pub async fn screenshot(&mut self) -> image::RgbaImage {
        let shot = self.command("Page.captureScreenshot", json!({ "format": "png" })).await;
        let png = base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap()).unwrap();
        image::load_from_memory_with_format(&png, image::ImageFormat::Png).unwrap().into_rgba8()
    }
}
