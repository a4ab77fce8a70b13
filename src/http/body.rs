//! Bodies of requests: small, and complete in time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::{BodyExt, Limited};

use super::error::ApiError;

/// A body must be complete within this time.
const COMPLETE_WITHIN: Duration = Duration::from_secs(10);

/// The whole body.
///
/// # Errors
/// 413 beyond `bytes_max`, 408 when it does not come, 400 when it breaks off.
pub async fn read(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    read_within(body, bytes_max, COMPLETE_WITHIN).await
}

async fn read_within(body: Body, bytes_max: usize, limit: Duration) -> Result<Bytes, ApiError> {
    let whole = tokio::time::timeout(limit, Limited::new(body, bytes_max).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has {bytes_max} bytes at most")))
        }
        Ok(Err(_)) => Err(ApiError::bad_request("the body broke off")),
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_small_and_comes_in_time() {
        assert_eq!(read(Body::from("four"), 4).await.unwrap(), "four");
        assert_eq!(read(Body::from("five!"), 4).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read_within(never, 4, Duration::ZERO).await.unwrap_err().status, StatusCode::REQUEST_TIMEOUT);
        let broken = Body::from_stream(futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]));
        assert_eq!(read(broken, 4).await.unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
