//! Recall.ai's API, as far as `tilecast bot` needs it: three requests with a key in their header.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::config::entries;

/// Recall answers within seconds; a server that says nothing for so long does not.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Of an error's body, what fits on a screen.
const ERROR_CHARS_MAX: usize = 500;

/// Where Recall is, and who asks.
#[derive(Clone, Debug, clap::Args)]
pub struct RecallArgs {
    /// Region of the Recall account
    #[arg(long, env = "TILECAST_RECALL_REGION", default_value = "us-west-2", value_name = "REGION",
          value_parser = ["us-west-2", "us-east-1", "eu-central-1", "ap-northeast-1"])]
    pub region: String,

    /// Address of Recall's API, instead of the region's; for tests
    #[arg(long, env = "TILECAST_RECALL_URL", value_name = "URL")]
    pub recall_url: Option<String>,

    /// File with Recall's API key, instead of the variable TILECAST_RECALL_API_KEY
    #[arg(long, env = "TILECAST_RECALL_API_KEY_FILE", value_name = "FILE")]
    pub recall_api_key_file: Option<PathBuf>,
}

impl RecallArgs {
    /// Address of one of its routes: `bot/`.
    pub fn address(&self, route: &str) -> String {
        let base = match &self.recall_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{}.recall.ai", self.region),
        };
        format!("{base}/api/v1/{route}")
    }

    /// Sends one request, `body` with POST, and gives the answer's JSON; null where it is empty.
    ///
    /// # Errors
    /// A sentence that never has the key in it.
    pub fn ask(&self, method: reqwest::Method, route: &str, body: Option<&Value>) -> Result<Value, String> {
        let keys = entries("TILECAST_RECALL_API_KEY", self.recall_api_key_file.as_deref());
        let keys = keys.map_err(|error| error.to_string())?;
        let key = keys.first().ok_or("set TILECAST_RECALL_API_KEY, or give --recall-api-key-file")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start tokio: {error}"))?;
        runtime.block_on(self.send(key, method, route, body))
    }

    async fn send(
        &self,
        key: &str,
        method: reqwest::Method,
        route: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        // One for the whole process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = self.address(route);
        let failed = |error: &dyn std::fmt::Display| format!("{address}: {error}");
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().map_err(|error| failed(&error))?;
        let request = client
            .request(method, &address)
            .header("authorization", format!("Token {key}"))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(body.map(Value::to_string).unwrap_or_default());
        let answer = request.send().await.map_err(|error| failed(&error.without_url()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| failed(&error.without_url()))?;
        if !status.is_success() {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(ERROR_CHARS_MAX).collect();
            return Err(failed(&format!("answers {}: {shown}", status.as_u16())));
        }
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }
}
