//! Objects of the store over HTTP: ranges, validators, types and caching (RFC 9110, RFC 9111).
//!
//! Who may read what is decided before this is called.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, try_unfold};
use object_store::path::{Path, PathPart};
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, ObjectStore, ObjectStoreExt};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use time::macros::format_description;

use super::error::ApiError;
use crate::pipeline::store::objects::headers::{caching, media_type};

/// Bytes of one read of a local file: few enough to cost little memory per download, enough to cost few thread hops.
const READ_BYTES: u64 = 128 * 1024;

/// The key of an object below `root` (the store's prefix or tenant), from the decoded tail of a URL: `{recording}/{track}/...`.
///
/// `None` for whatever cannot be the name of an object that is served: empty, relative, hidden or escaped components,
/// the writers' own `_live`, and extensions without a media type (parts that still grow have one of those).
pub fn key(root: &Path, tail: &str) -> Option<Path> {
    media_type(tail)?;
    let mut path = root.clone();
    for (depth, component) in tail.split('/').enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~');
        if component.is_empty() || component.starts_with('.') || !component.bytes().all(plain) {
            return None;
        }
        if depth == 0 && component == "_live" {
            return None;
        }
        // `From<&str>` would escape the `~` of a continued recording; what passed above needs no escape.
        path = path.join(PathPart::parse(component).ok()?);
    }
    Some(path)
}

/// Answers GET or HEAD for the object `key`: 200, 206, 304, 404, 416, or 502 when the store fails.
///
/// The body is streamed; several ranges in one request are answered with the whole object, as RFC 9110 section 14.2 allows.
pub async fn object(store: &dyn ObjectStore, key: &Path, headers: &HeaderMap, method: &Method) -> Response<Body> {
    match answer(store, key, headers, method).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn answer(
    store: &dyn ObjectStore,
    key: &Path,
    headers: &HeaderMap,
    method: &Method,
) -> Result<Response<Body>, ApiError> {
    let head = method == Method::HEAD;
    let mut options = GetOptions::default();
    // One round trip for a plain GET; a question about the object first where the answer depends on it.
    if head || CONDITIONS.iter().any(|name| headers.contains_key(name)) {
        let meta = store.head(key).await.map_err(store_error)?;
        match plan(&meta, headers) {
            Plan::NotModified => return Ok(respond(StatusCode::NOT_MODIFIED, &meta, None, Body::empty())),
            Plan::Unsatisfiable => return Ok(unsatisfiable(&meta)),
            Plan::Whole if head => return Ok(respond(StatusCode::OK, &meta, Some(0..meta.size), Body::empty())),
            Plan::Part(range) if head => {
                return Ok(respond(StatusCode::PARTIAL_CONTENT, &meta, Some(range), Body::empty()));
            }
            Plan::Whole => {}
            Plan::Part(range) => {
                options.range = Some(GetRange::Bounded(range));
                options.if_match = meta.e_tag.clone();
            }
        }
    }
    let partial = options.range.is_some();
    let (result, status) = match store.get_opts(key, options).await {
        Ok(result) => (result, if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK }),
        // Replaced since the question: its whole new content is right for every client.
        Err(object_store::Error::Precondition { .. }) => {
            (store.get_opts(key, GetOptions::default()).await.map_err(store_error)?, StatusCode::OK)
        }
        Err(error) => return Err(store_error(error)),
    };
    let (meta, range) = (result.meta.clone(), result.range.clone());
    Ok(respond(status, &meta, Some(range), Body::from_stream(stream(result))))
}

/// Answers with a playlist that is newer than the one in the store.
pub fn playlist(text: &str, method: &Method) -> Response<Body> {
    let body = if method == Method::HEAD { Body::empty() } else { Body::from(text.to_owned()) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching(".m3u8")));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(".m3u8").unwrap_or_default()));
    response
}

/// Answers that an object is fetched from the store itself. The address is a secret for a while, and soon worth nothing:
/// nobody keeps it.
pub fn elsewhere(address: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(address) else { return ApiError::not_found("object").into_response() };
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Answers that a playlist is not to be had for the moment, and will be.
pub fn soon() -> Response<Body> {
    let error =
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the playlist is being put together; ask again in a second");
    let mut response = error.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Request headers that make an answer depend on the object's size or version.
const CONDITIONS: [header::HeaderName; 4] =
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE, header::IF_RANGE];

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Whole,
    Part(Range<u64>),
    NotModified,
    Unsatisfiable,
}

/// RFC 9110 section 13.2.2, for the conditions that matter to reading.
fn plan(meta: &ObjectMeta, headers: &HeaderMap) -> Plan {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let modified = meta.last_modified.timestamp();
    let unchanged = match text(header::IF_NONE_MATCH) {
        Some(list) => tag_listed(list, meta.e_tag.as_deref()),
        None => text(header::IF_MODIFIED_SINCE).and_then(parse_date).is_some_and(|since| modified <= since),
    };
    if unchanged {
        return Plan::NotModified;
    }
    let fresh = match text(header::IF_RANGE) {
        // Only a strong tag may join two parts of a body.
        Some(tag) if tag.starts_with('"') => meta.e_tag.as_deref() == Some(tag),
        Some(date) => parse_date(date) == Some(modified),
        None => true,
    };
    match text(header::RANGE).filter(|_| fresh).and_then(|range| parse_range(range, meta.size)) {
        None => Plan::Whole,
        Some(range) if range.is_empty() => Plan::Unsatisfiable,
        Some(range) => Plan::Part(range),
    }
}

/// Whether an If-None-Match list names the tag, by weak comparison.
fn tag_listed(list: &str, tag: Option<&str>) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    list.trim() == "*" || tag.is_some_and(|tag| list.split(',').any(|one| opaque(one) == opaque(tag)))
}

/// One `bytes=` range cut to the object's size; empty when it cannot be satisfied, `None` when it is to be ignored.
fn parse_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    // `u64::from_str` takes a plus sign, HTTP does not; a list of ranges fails here as well.
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?;
    match (first.trim(), last.trim()) {
        ("", last) => Some(size.saturating_sub(number(last)?)..size),
        (first, "") => Some(number(first)?.min(size)..size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(size)..last.saturating_add(1).min(size))
        }
    }
}

fn parse_date(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

fn format_date(seconds: i64) -> Option<HeaderValue> {
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let text = OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(format).ok()?;
    HeaderValue::from_str(&text).ok()
}

/// The answer's headers; `range` is absent where there is no body and no length to state (304).
fn respond(status: StatusCode, meta: &ObjectMeta, range: Option<Range<u64>>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let name = meta.location.as_ref();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching(name)));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(tag) = meta.e_tag.as_deref().and_then(|tag| HeaderValue::from_str(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(date) = format_date(meta.last_modified.timestamp()) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    let Some(range) = range else { return response };
    headers
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(name).unwrap_or("application/octet-stream")));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", range.start, range.end - 1, meta.size);
        headers.insert(header::CONTENT_RANGE, HeaderValue::from_str(&text).expect("digits are a header value"));
    }
    response
}

fn unsatisfiable(meta: &ObjectMeta) -> Response<Body> {
    let text = format!("the range lies outside the object's {} bytes", meta.size);
    let mut response = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, text).into_response();
    let range = HeaderValue::from_str(&format!("bytes */{}", meta.size)).expect("digits are a header value");
    response.headers_mut().insert(header::CONTENT_RANGE, range);
    response
}

fn store_error(error: object_store::Error) -> ApiError {
    match error {
        object_store::Error::NotFound { .. } | object_store::Error::InvalidPath { .. } => ApiError::not_found("object"),
        error => {
            // Its text may name buckets and paths: for the log, not for the answer.
            tracing::warn!(%error, "the media store failed a read");
            ApiError::new(StatusCode::BAD_GATEWAY, "the media store cannot be read at the moment")
        }
    }
}

/// The bytes of a result. Local files are read in larger pieces than the 8 KiB of `GetResult::into_stream`.
fn stream(result: GetResult) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
    match result.payload {
        GetResultPayload::File(file, _) => try_unfold((file, result.range), read_piece).boxed(),
        GetResultPayload::Stream(stream) => stream.map(|piece| piece.map_err(std::io::Error::other)).boxed(),
    }
}

async fn read_piece((file, range): (File, Range<u64>)) -> std::io::Result<Option<(Bytes, (File, Range<u64>))>> {
    if range.is_empty() {
        return Ok(None);
    }
    tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; (range.end - range.start).min(READ_BYTES) as usize];
        file.read_exact_at(&mut piece, range.start)?;
        let next = range.start + piece.len() as u64..range.end;
        Ok(Some((Bytes::from(piece), (file, next))))
    })
    .await
    .map_err(std::io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::{Path as UrlPath, State};
    use axum::http::Request;
    use axum::routing::any;
    use object_store::local::LocalFileSystem;
    use tower::ServiceExt;

    use super::*;

    async fn serve(
        State(store): State<Arc<dyn ObjectStore>>,
        UrlPath(tail): UrlPath<String>,
        request: Request<Body>,
    ) -> Response<Body> {
        match key(&Path::default(), &tail) {
            Some(key) => object(&*store, &key, request.headers(), request.method()).await,
            None => ApiError::not_found("object").into_response(),
        }
    }

    struct Fixture {
        router: Router,
        _dir: tempfile::TempDir,
    }

    const VIDEO_BYTES: usize = 300_001;

    fn video() -> Vec<u8> {
        (0..VIDEO_BYTES).map(|n| (n % 251) as u8).collect()
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("rec~2/1-webcam/0000000-abcdef");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("000000.m4s"), "segment").unwrap();
        std::fs::write(folder.join("000001.part"), "growing").unwrap();
        let track = folder.parent().unwrap();
        std::fs::write(track.join("video.mp4"), video()).unwrap();
        std::fs::write(track.join("index.m3u8"), "#EXTM3U\n").unwrap();
        std::fs::write(track.join("init-01234567.mp4"), "init").unwrap();
        std::fs::write(track.join(".aside.mp4"), "being written").unwrap();
        std::fs::create_dir(dir.path().join("_live")).unwrap();
        std::fs::write(dir.path().join("_live/rec.json"), "{}").unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
        Fixture { router: Router::new().route("/media/{*tail}", any(serve)).with_state(store), _dir: dir }
    }

    impl Fixture {
        async fn ask(&self, method: &str, tail: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
            let mut request = Request::builder().method(method).uri(format!("/media/{tail}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let (parts, body) = response.into_parts();
            (parts.status, parts.headers, axum::body::to_bytes(body, usize::MAX).await.unwrap())
        }

        async fn get(&self, tail: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
            self.ask("GET", tail, headers).await
        }
    }

    const VIDEO: &str = "rec~2/1-webcam/video.mp4";

    #[tokio::test]
    async fn types_and_caching_follow_the_name() {
        let fixture = fixture();
        let immutable = "max-age=31536000, immutable";
        for (tail, media_type, caching) in [
            ("index.m3u8", "application/vnd.apple.mpegurl", "no-cache"),
            ("video.mp4", "video/mp4", "no-cache"),
            ("init-01234567.mp4", "video/mp4", immutable),
            ("0000000-abcdef/000000.m4s", "video/iso.segment", immutable),
        ] {
            let (status, headers, body) = fixture.get(&format!("rec~2/1-webcam/{tail}"), &[]).await;
            assert_eq!(status, StatusCode::OK, "{tail}");
            assert_eq!(headers[header::CONTENT_TYPE], media_type, "{tail}");
            assert_eq!(headers[header::CACHE_CONTROL], caching, "{tail}");
            assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
            assert_eq!(headers[header::CONTENT_LENGTH], body.len().to_string(), "{tail}");
        }
    }

    #[tokio::test]
    async fn a_whole_file_comes_in_several_pieces_and_unchanged() {
        let (status, _, body) = fixture().get(VIDEO, &[]).await;
        assert_eq!((status, body.len()), (StatusCode::OK, VIDEO_BYTES));
        assert!(body == video());
    }

    #[tokio::test]
    async fn one_range_is_cut_out_exactly() {
        let (fixture, video, last) = (fixture(), video(), VIDEO_BYTES - 1);
        for (range, expected) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=131000-263000", 131_000..263_001),
            ("bytes=300000-", last..VIDEO_BYTES),
            ("bytes=-5", VIDEO_BYTES - 5..VIDEO_BYTES),
            ("bytes=-999999999", 0..VIDEO_BYTES),
            ("bytes=7-99999999999999999", 7..VIDEO_BYTES),
        ] {
            let (status, headers, body) = fixture.get(VIDEO, &[("range", range)]).await;
            assert_eq!(status, StatusCode::PARTIAL_CONTENT, "{range}");
            let content_range = format!("bytes {}-{}/{VIDEO_BYTES}", expected.start, expected.end - 1);
            assert_eq!(headers[header::CONTENT_RANGE], content_range.as_str());
            assert_eq!(headers[header::CONTENT_LENGTH], expected.len().to_string());
            assert!(body == video[expected], "{range}");
        }
    }

    #[tokio::test]
    async fn ranges_that_cannot_be_met_are_refused_and_odd_ones_ignored() {
        let fixture = fixture();
        for range in ["bytes=300001-", "bytes=400000-500000", "bytes=-0"] {
            let (status, headers, body) = fixture.get(VIDEO, &[("range", range)]).await;
            assert_eq!(status, StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
            assert_eq!(headers[header::CONTENT_RANGE], format!("bytes */{VIDEO_BYTES}").as_str());
            assert!(body.starts_with(b"{\"error\":"));
        }
        for range in ["bytes=5-2", "bytes=0-1,5-6", "bytes=+1-2", "bytes=-", "chars=0-1", "bytes=1 000-", "bytes=x-"] {
            let (status, headers, body) = fixture.get(VIDEO, &[("range", range)]).await;
            assert_eq!((status, body.len()), (StatusCode::OK, VIDEO_BYTES), "{range}");
            assert!(!headers.contains_key(header::CONTENT_RANGE));
        }
    }

    #[tokio::test]
    async fn validators_save_the_body() {
        let fixture = fixture();
        let (_, headers, _) = fixture.get(VIDEO, &[]).await;
        let tag = headers[header::ETAG].to_str().unwrap().to_owned();
        let date = headers[header::LAST_MODIFIED].to_str().unwrap().to_owned();
        let listed = format!("\"other\", W/{tag}");
        let old = "Sun, 06 Nov 1994 08:49:37 GMT";
        let status = async |headers: &[(&str, &str)]| fixture.get(VIDEO, headers).await.0.as_u16();
        assert_eq!(status(&[("if-none-match", &tag)]).await, 304);
        assert_eq!(status(&[("if-none-match", &listed)]).await, 304);
        assert_eq!(status(&[("if-none-match", "*")]).await, 304);
        assert_eq!(status(&[("if-modified-since", &date)]).await, 304);
        assert_eq!(status(&[("if-modified-since", old)]).await, 200);
        assert_eq!(status(&[("if-none-match", "\"other\""), ("if-modified-since", &date)]).await, 200);
        let (status_code, headers, body) = fixture.get(VIDEO, &[("if-none-match", &tag)]).await;
        assert_eq!((status_code, body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(headers[header::ETAG], tag.as_str());

        let range = ("range", "bytes=0-1");
        assert_eq!(status(&[range, ("if-range", &tag)]).await, 206);
        assert_eq!(status(&[range, ("if-range", &date)]).await, 206);
        assert_eq!(status(&[range, ("if-range", "\"other\"")]).await, 200);
        assert_eq!(status(&[range, ("if-range", old)]).await, 200);
        assert_eq!(status(&[range, ("if-range", &format!("W/{tag}"))]).await, 200);
    }

    #[tokio::test]
    async fn head_answers_as_get_does_without_a_body() {
        let fixture = fixture();
        let (status, headers, body) = fixture.ask("HEAD", VIDEO, &[]).await;
        assert_eq!((status, body.len()), (StatusCode::OK, 0));
        assert_eq!(headers[header::CONTENT_LENGTH], VIDEO_BYTES.to_string());
        let (status, headers, _) = fixture.ask("HEAD", VIDEO, &[("range", "bytes=2-3")]).await;
        assert_eq!((status, &headers[header::CONTENT_LENGTH]), (StatusCode::PARTIAL_CONTENT, &HeaderValue::from(2)));
        assert_eq!(fixture.ask("HEAD", "rec~2/none.mp4", &[]).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn no_trick_in_a_path_leaves_the_media() {
        let fixture = fixture();
        for tail in [
            "rec~2/1-webcam/none.m4s",
            "rec~2/1-webcam/0000000-abcdef/000001.part",
            "rec~2/1-webcam/",
            "rec~2/1-webcam",
            "rec~2/1-webcam/.aside.mp4",
            "_live/rec.json",
            "rec~2/./1-webcam/video.mp4",
            "rec~2/../rec~2/1-webcam/video.mp4",
            "rec~2/%2e%2e/rec~2/1-webcam/video.mp4",
            "rec~2/%2E/1-webcam/video.mp4",
            "rec~2%2f1-webcam//video.mp4",
            "rec~2/%252e%252e/video.mp4",
            "rec%257E2/1-webcam/video.mp4",
            "rec~2//1-webcam/video.mp4",
            "rec~2/1-webcam/%00video.mp4",
            "rec~2\\1-webcam\\video.mp4",
            "%2fetc/video.mp4",
        ] {
            let (status, _, body) = fixture.get(tail, &[]).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{tail}");
            assert_eq!(body, r#"{"error":"no such object"}"#, "{tail}");
        }
    }
}
