//! The page that lists recordings and plays their tracks: its files, built into the program.
//!
//! Only files. What the page shows comes from the API and from `/media`, as for any other client. The page plays with
//! hls.js where `make web` put it to `web/vendor` before the build, and with the browser's own HLS elsewhere.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

use super::error::ApiError;

#[derive(RustEmbed)]
#[folder = "src/http/web"]
#[include = "*.html"]
#[include = "*.js"]
#[include = "*.css"]
#[include = "*.svg"]
#[exclude = "node_modules/*"]
struct Files;

/// Scripts, styles and data from this server only; hls.js hands media and its worker over as `blob:` addresses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    media-src 'self' blob:; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /` and `GET /web/...`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { file("index.html", &headers) }))
        .route("/web/{*path}", get(|Path(path): Path<String>, headers: HeaderMap| async move { file(&path, &headers) }))
}

/// Whether hls.js was there when the program was built.
pub fn has_player() -> bool {
    Files::get("vendor/hls.min.js").is_some()
}

fn file(path: &str, headers: &HeaderMap) -> Response {
    let Some(EmbeddedFile { data, metadata }) = Files::get(path) else {
        return ApiError::not_found("file").into_response();
    };
    // The same name means other bytes after an upgrade, so browsers keep a copy, and ask whether it still holds.
    let tag = format!("\"{}\"", crate::pipeline::store::keys::hex(&metadata.sha256_hash()[..16]));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|tags| tags.as_bytes() == tag.as_bytes());
    let mut response =
        if known { StatusCode::NOT_MODIFIED.into_response() } else { axum::body::Body::from(data).into_response() };
    let tag = HeaderValue::from_str(&tag).expect("hex digits are a header value");
    let set: [(HeaderName, HeaderValue); 6] = [
        (header::ETAG, tag),
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type(path))),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    response.headers_mut().extend(set);
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(uri: &str, tag: Option<&HeaderValue>) -> Response {
        let mut request = Request::get(uri);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        router::<()>().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn the_page_names_only_files_that_exist_and_no_inline_code() {
        let page = Files::get("index.html").unwrap();
        let page = std::str::from_utf8(&page.data).unwrap();
        let mut named = 0;
        for attribute in ["src=\"", "href=\""] {
            for address in page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                if matches!(address, "./" | "#recording") {
                    continue;
                }
                let found = ask(&format!("/{address}"), None).await.status() == StatusCode::OK;
                assert!(found || address == "web/vendor/hls.min.js", "{address}");
                named += 1;
            }
        }
        assert!(named >= 4);
        assert!(!page.contains("<script>") && !page.contains("style=") && !page.contains("onclick"));
    }

    #[tokio::test]
    async fn files_carry_policy_type_and_tag() {
        for (uri, media_type) in
            [("/", "text/html"), ("/web/app.js", "text/javascript"), ("/web/style.css", "text/css")]
        {
            let response = ask(uri, None).await;
            let headers = response.headers();
            assert_eq!(response.status(), StatusCode::OK);
            assert!(headers[header::CONTENT_TYPE].to_str().unwrap().starts_with(media_type));
            assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
            let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
            let again = ask(uri, Some(&headers[header::ETAG])).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        }
    }

    #[tokio::test]
    async fn nothing_else_of_the_folder_is_served() {
        for uri in ["/web/package.json", "/web/../web.rs", "/web/none.js", "/web/%2e%2e/web.rs"] {
            assert_eq!(ask(uri, None).await.status(), StatusCode::NOT_FOUND, "{uri}");
        }
    }
}
