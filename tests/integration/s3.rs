//! An S3 server on a real socket, in this process, that can be told to misbehave: what other people's stores do on bad days.
//! It checks signatures and checksums, and keeps its objects as files, so that a test reads what is really there.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::pending;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

const BUCKET: &str = "media";
/// Requests that are kept to be looked at.
const SEEN_MAX: usize = 2000;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status, with this code of S3's in the body.
    Status(u16, &'static str),
    /// The connection breaks in the middle of the body.
    Reset,
    /// No answer, ever.
    Hang,
    /// The answer comes so much later.
    Late(Duration),
    /// It is done, and the answer to it is lost.
    LoseAnswer,
    /// All is well, and half of the object is gone.
    Truncate,
    /// It is stored with a wrong byte, and its tag says so.
    Damage,
}

/// A fault, for requests of a method and a part of the path, so many times.
struct Rule {
    method: &'static str,
    path: String,
    fault: Fault,
    left: usize,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// GET, PUT, ...
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

#[derive(Default)]
struct Shared {
    /// The first requests; no test looks at more.
    seen: Mutex<Vec<Seen>>,
    rules: Mutex<Vec<Rule>>,
    /// Requests by method.
    counts: Mutex<BTreeMap<String, usize>>,
}

impl Shared {
    fn see(&self, request: &Request<Incoming>, path: &str) {
        let mut seen = self.seen.lock().unwrap();
        if seen.len() < SEEN_MAX {
            let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
            seen.push(Seen { method: request.method().to_string(), path: path.to_owned(), headers });
        }
    }

    fn fault(&self, method: &Method, path: &str) -> Option<Fault> {
        *self.counts.lock().unwrap().entry(method.to_string()).or_default() += 1;
        let mut rules = self.rules.lock().unwrap();
        let fits = |rule: &&mut Rule| rule.left > 0 && rule.method == method.as_str() && path.contains(&rule.path);
        let rule = rules.iter_mut().find(fits)?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

/// The server, with one bucket.
pub struct S3 {
    /// Where it listens, also while it is away.
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
    service: S3Service,
    listening: Option<JoinHandle<()>>,
}

impl S3 {
    /// Starts it, with an empty bucket.
    pub async fn start() -> S3 {
        S3::start_with(true).await
    }

    /// Starts it such that it asks for no signature.
    pub async fn start_open() -> S3 {
        S3::start_with(false).await
    }

    async fn start_with(auth: bool) -> S3 {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        if auth {
            service.set_auth(SimpleAuth::from_single("key", "secret"));
        }
        let address = ([127, 0, 0, 1], 0).into();
        let (service, shared) = (service.build(), Arc::default());
        let mut s3 = S3 { address, folder, shared, service, listening: None };
        s3.come_back().await;
        s3
    }

    /// Listens, again on the same port.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (service, shared, bucket) = (self.service.clone(), Arc::clone(&self.shared), self.bucket());
        self.listening = Some(tokio::spawn(async move {
            // Dropped with this task: a server that goes away takes its connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (service, shared, bucket) = (service.clone(), Arc::clone(&shared), bucket.clone());
                let answer = hyper::service::service_fn(move |request| {
                    answer(service.clone(), Arc::clone(&shared), bucket.clone(), request)
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connections.spawn(async move {
                    let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        }));
    }

    /// Goes away: who dials is refused.
    pub async fn go_away(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
    }

    /// Has something go wrong with the next `times` requests of a method whose path holds `path`.
    pub fn fault(&self, method: &'static str, path: &str, fault: Fault, times: usize) {
        self.shared.rules.lock().unwrap().push(Rule { method, path: path.to_owned(), fault, left: times });
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.shared.rules.lock().unwrap().clear();
    }

    /// Faults that did not happen yet.
    pub fn faults_left(&self) -> usize {
        self.shared.rules.lock().unwrap().iter().map(|rule| rule.left).sum()
    }

    /// The first requests.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Requests so far, by method.
    pub fn requests(&self) -> BTreeMap<String, usize> {
        self.shared.counts.lock().unwrap().clone()
    }

    /// The server's own folder, with all that it keeps.
    pub fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The folder with the bucket's objects, by their keys.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }

    /// Uploads in parts that were begun, and neither completed nor aborted.
    pub fn open_uploads(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with(".upload-")).collect()
    }

    /// What `--store` names.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/recordings")
    }

    /// The environment of a server that uses it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ]
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

async fn answer(
    service: S3Service,
    shared: Arc<Shared>,
    bucket: PathBuf,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    shared.see(&request, &path);
    let mut request = request;
    if request.headers().get("authorization").is_some_and(|value| value.as_bytes().starts_with(b"Bearer")) {
        // Google's; nobody looks at it here.
        request.headers_mut().remove("authorization");
    }
    let fault = shared.fault(request.method(), &path);
    let file = bucket.join(request.uri().path().trim_start_matches(&format!("/{BUCKET}/")));
    let broken = || io::Error::from(io::ErrorKind::ConnectionReset);
    match fault {
        Some(Fault::Status(status, code)) => {
            // The whole body is read first, as a proxy in front of a store would.
            let _ = request.into_body().collect().await;
            let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a test</Message></Error>");
            return Ok(Response::builder().status(status).body(Body::from(text)).unwrap());
        }
        Some(Fault::Reset) => {
            let _ = request.into_body().frame().await;
            return Err(broken());
        }
        Some(Fault::Hang) => return pending().await,
        _ => {}
    }
    let answered = service.call(request.map(Body::from)).await;
    let mut answered = answered.unwrap_or_else(|error| panic!("the server of the test failed: {error:?}"));
    match fault {
        Some(Fault::LoseAnswer) => return Err(broken()),
        Some(Fault::Late(late)) => tokio::time::sleep(late).await,
        Some(Fault::Truncate) => {
            let bytes = std::fs::read(&file).unwrap();
            std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        }
        Some(Fault::Damage) => {
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[0] ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            let tag = format!("\"{}\"", "0".repeat(32)).parse().unwrap();
            answered.headers_mut().insert("etag", tag);
        }
        _ => {}
    }
    Ok(answered)
}
