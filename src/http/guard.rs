//! What stands before the API and the media: tokens, and what other sites' pages may fetch.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use super::App;
use super::auth::{ApiRefusal, access};
use super::error::ApiError;

/// Lets a request through, or says why not: 401 without a token that is known, 403 with one that may not do this, and 403
/// where there are no tokens and the server is not this machine's own.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let needed = access::needed(request.method(), request.uri().path());
    match app.doors.api(request.headers(), needed) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            app.pipeline.metrics.request_refused(refusal.name());
            refused(refusal)
        }
    }
}

fn refused(refusal: ApiRefusal) -> Response {
    match refusal {
        ApiRefusal::Closed => ApiError::new(
            StatusCode::FORBIDDEN,
            "the API and the media are closed: without TILECAST_API_TOKEN they answer requests of this machine itself only",
        )
        .into_response(),
        ApiRefusal::Unauthorized => {
            let mut response =
                ApiError::new(StatusCode::UNAUTHORIZED, "give Authorization: Bearer with a valid token").into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
        ApiRefusal::Forbidden => ApiError::new(StatusCode::FORBIDDEN, "this token may only read").into_response(),
    }
}

/// What pages of these origins may fetch: media with a token of their own.
pub fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let any = origins.iter().any(|origin| origin == "*");
    let origins = if any { AllowOrigin::any() } else { AllowOrigin::list(origins.to_vec()) };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::AUTHORIZATION, header::RANGE])
        .expose_headers(exposed())
}

/// What any page may fetch: its address is its permission.
pub fn cors_for_all() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::RANGE])
        .expose_headers(exposed())
}

fn exposed() -> [HeaderName; 4] {
    [header::ACCEPT_RANGES, header::CONTENT_LENGTH, header::CONTENT_RANGE, header::ETAG]
}
