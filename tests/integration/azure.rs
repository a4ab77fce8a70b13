//! A stand-in for Azure Blob Storage on a real socket, in this process: one container, kept in memory. It knows the calls
//! that a media store is asked for, by their documented forms, and checks no signatures.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const ACCOUNT: &str = "account";
const CONTAINER: &str = "media";
const DATE: &str = "Thu, 01 Jan 2026 10:00:00 GMT";

/// A blob, with what was said of it.
#[derive(Clone, Debug, Default)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub content_type: String,
    pub cache_control: String,
}

#[derive(Default)]
struct Inner {
    blobs: BTreeMap<String, Blob>,
    /// Blocks that are in no blob yet, by blob and id.
    blocks: HashMap<(String, String), Bytes>,
    version: u64,
}

type Shared = Arc<Mutex<Inner>>;

/// The running stand-in; it ends with the runtime of its test.
pub struct Azure {
    address: SocketAddr,
    inner: Shared,
}

impl Azure {
    /// Starts it, with an empty container.
    pub async fn start() -> Azure {
        let inner = Shared::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Azure { address, inner }
    }

    /// What `--store` names.
    pub fn url(&self) -> String {
        format!("az://{CONTAINER}/recordings")
    }

    /// The environment of a server that uses it.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", STANDARD.encode("secret")),
            ("AZURE_STORAGE_ENDPOINT", format!("http://{}", self.address)),
        ]
    }

    /// What it has, by name.
    pub fn blobs(&self) -> BTreeMap<String, Blob> {
        lock(&self.inner).blobs.clone()
    }

    /// Blocks of uploads that were not completed.
    pub fn open_blocks(&self) -> usize {
        lock(&self.inner).blocks.len()
    }
}

fn lock(inner: &Shared) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap()
}

/// The name of a blob by a path that begins with the container, be it with the account in front or not.
fn name_of(path: &str) -> String {
    let path = path.trim_start_matches('/');
    let path = path.strip_prefix(&format!("{ACCOUNT}/")).unwrap_or(path);
    let name = path.strip_prefix(CONTAINER).unwrap_or(path).trim_start_matches('/');
    // Of what keys are made of, `~` alone may come escaped.
    name.replace("%7E", "~").replace("%7e", "~")
}

fn empty(status: StatusCode) -> Response<Body> {
    let answer = Response::builder().status(status).header("x-ms-version", "2025-01-05");
    answer.header("last-modified", DATE).body(Body::empty()).unwrap()
}

async fn answer(
    State(inner): State<Shared>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut inner = lock(&inner);
    let (name, comp) = (name_of(uri.path()), query.get("comp").map_or("", String::as_str));
    match (method.as_str(), comp) {
        ("GET", "list") => list(&inner, &query),
        ("POST", "batch") => batch(&mut inner, &body),
        ("PUT", "block") => {
            inner.blocks.insert((name, query["blockid"].clone()), body);
            empty(StatusCode::CREATED)
        }
        ("PUT", "blocklist") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let ids = text.split("<Uncommitted>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned());
            let mut bytes = Vec::new();
            for id in ids {
                let Some(block) = inner.blocks.remove(&(name.clone(), id)) else {
                    return empty(StatusCode::BAD_REQUEST);
                };
                bytes.extend_from_slice(&block);
            }
            put(&mut inner, name, bytes, &headers)
        }
        ("PUT", _) => put(&mut inner, name, body.to_vec(), &headers),
        ("GET" | "HEAD", _) => match inner.blobs.get(&name) {
            Some(blob) => get(blob, &headers),
            None => empty(StatusCode::NOT_FOUND),
        },
        ("DELETE", _) => match inner.blobs.remove(&name) {
            Some(_) => empty(StatusCode::ACCEPTED),
            None => empty(StatusCode::NOT_FOUND),
        },
        _ => empty(StatusCode::BAD_REQUEST),
    }
}

fn put(inner: &mut Inner, name: String, bytes: Vec<u8>, headers: &HeaderMap) -> Response<Body> {
    let said = |name: &str| headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
    let (content_type, cache_control) = (said("x-ms-blob-content-type"), said("x-ms-blob-cache-control"));
    inner.blobs.insert(name, Blob { bytes, content_type, cache_control });
    inner.version += 1;
    let mut answer = empty(StatusCode::CREATED);
    answer.headers_mut().insert("etag", format!("\"0x{:X}\"", inner.version).parse().unwrap());
    answer
}

fn get(blob: &Blob, headers: &HeaderMap) -> Response<Body> {
    let range = headers.get("x-ms-range").or_else(|| headers.get("range")).and_then(|value| value.to_str().ok());
    let asked = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let size = blob.bytes.len();
    let range = asked.map(|(from, to)| match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) => from..(to + 1).min(size),
        (Ok(from), Err(_)) => from..size,
        _ => 0..size,
    });
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut answer = Response::builder().status(status).header("etag", "\"0x1\"").header("last-modified", DATE);
    if let Some(range) = &range {
        answer = answer.header("content-range", format!("bytes {}-{}/{size}", range.start, range.end - 1));
    }
    answer.body(Body::from(blob.bytes[range.unwrap_or(0..size)].to_vec())).unwrap()
}

fn list(inner: &Inner, query: &HashMap<String, String>) -> Response<Body> {
    let prefix = query.get("prefix").map_or("", String::as_str);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>");
    let mut folders = BTreeSet::new();
    for (name, blob) in inner.blobs.iter().filter(|(name, _)| name.starts_with(prefix)) {
        // With a delimiter what lies deeper is one entry, its folder.
        let below = query.get("delimiter").and_then(|delimiter| name[prefix.len()..].split_once(delimiter.as_str()));
        if let Some((folder, _)) = below {
            if folders.insert(folder) {
                text += &format!("<BlobPrefix><Name>{prefix}{folder}/</Name></BlobPrefix>");
            }
            continue;
        }
        let size = blob.bytes.len();
        text += &format!(
            "<Blob><Name>{name}</Name><Properties><Last-Modified>{DATE}</Last-Modified><Etag>0x1</Etag>\
             <Content-Length>{size}</Content-Length><Content-Type>video/mp4</Content-Type></Properties></Blob>"
        );
    }
    text += "</Blobs><NextMarker/></EnumerationResults>";
    Response::builder().header("content-type", "application/xml").body(Body::from(text)).unwrap()
}

/// Several deletions in one request.
fn batch(inner: &mut Inner, body: &[u8]) -> Response<Body> {
    let text = String::from_utf8_lossy(body);
    let mut answer = String::new();
    let paths = text.lines().filter_map(|line| line.strip_prefix("DELETE ")?.split(' ').next());
    for (id, path) in paths.enumerate() {
        let path = path.split('?').next().unwrap();
        let status = if inner.blobs.remove(&name_of(path)).is_some() { "202 Accepted" } else { "404 Not Found" };
        answer += &format!(
            "--answer\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status}\r\n\
             x-ms-version: 2025-01-05\r\n\r\n"
        );
    }
    answer += "--answer--\r\n";
    let head = Response::builder().status(StatusCode::ACCEPTED);
    head.header("content-type", "multipart/mixed; boundary=answer").body(Body::from(answer)).unwrap()
}
