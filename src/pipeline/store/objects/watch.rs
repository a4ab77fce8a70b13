//! Every HTTP request to a store, seen where it is sent: counted by what it does, for that is what a cloud charges, and
//! looked at for "slow down".

use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{Method, StatusCode};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::clock::Clock;
use crate::metrics::Metrics;

use super::gate::Gate;
use super::turns::Turns;

/// Who is told of requests.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) turns: Arc<Turns>,
    pub(super) gate: Arc<Gate>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl HttpConnector for Watch {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, watch: self.clone() }))
    }
}

/// A client whose requests are seen.
#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    watch: Watch,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Watch { metrics, clock, turns, gate } = &self.watch;
        metrics.store.request(operation(request.method(), request.uri().query().unwrap_or_default()));
        let answer = self.inner.execute(request).await;
        let is_answer = |status: StatusCode| !status.is_server_error() || status == StatusCode::SERVICE_UNAVAILABLE;
        if answer.as_ref().is_ok_and(|answer| is_answer(answer.status())) {
            gate.answered();
        }
        match answer.as_ref().map(|answer| answer.status()) {
            Ok(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                metrics.store.throttled.inc();
                turns.slow_down(clock.mono());
            }
            Ok(status) if status.is_success() => turns.went_well(),
            _ => {}
        }
        answer
    }
}

/// What a request does, by its method and query: the words of S3, Google and Azure.
fn operation(method: &Method, query: &str) -> &'static str {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let says = |pair: &str| query.split('&').any(|other| other == pair);
    match *method {
        Method::GET if has("list-type") || says("comp=list") => "list",
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT if has("partNumber") || says("comp=block") => "put_part",
        Method::PUT if says("comp=blocklist") => "complete_multipart",
        Method::PUT => "put",
        Method::POST if has("uploads") => "create_multipart",
        Method::POST if has("uploadId") => "complete_multipart",
        Method::POST if has("delete") => "delete",
        Method::DELETE if has("uploadId") => "abort_multipart",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        for (method, query, wanted) in [
            (Method::PUT, "", "put"),
            (Method::PUT, "partNumber=1&uploadId=x", "put_part"),
            (Method::PUT, "comp=blocklist", "complete_multipart"),
            (Method::POST, "uploads", "create_multipart"),
            (Method::POST, "uploadId=x", "complete_multipart"),
            (Method::POST, "delete", "delete"),
            (Method::DELETE, "uploadId=x", "abort_multipart"),
            (Method::GET, "list-type=2&prefix=a", "list"),
            (Method::GET, "", "get"),
            (Method::HEAD, "", "head"),
        ] {
            assert_eq!(operation(&method, query), wanted, "{method} {query}");
        }
    }
}
