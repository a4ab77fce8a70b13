//! What the path of a request names. Where it is not even text, that is told as every other error is.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The named pieces of a request's path, decoded.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Asked<T>, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(asked)) => Ok(Asked(asked)),
            Err(_) => Err(ApiError::bad_request("the address is not UTF-8")),
        }
    }
}
