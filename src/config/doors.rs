//! Options of the doors: who gets in where, and the files that secrets are read from.
//!
//! Secrets themselves are no options: an environment variable or a file, never an argument.

use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use clap::Args;

use super::ConfigError;

/// Who gets in.
#[derive(Args, Clone, Debug, Default)]
pub struct Doors {
    /// File with the ingest tokens, instead of the variable TILECAST_INGEST_TOKEN
    #[arg(long, env = "TILECAST_INGEST_TOKEN_FILE", value_name = "FILE")]
    pub ingest_token_file: Option<PathBuf>,

    /// File with the keys of derived ingest tokens, instead of the variable TILECAST_INGEST_KEY
    #[arg(long, env = "TILECAST_INGEST_KEY_FILE", value_name = "FILE")]
    pub ingest_key_file: Option<PathBuf>,

    /// File with Recall's secrets (whsec_...), instead of the variable TILECAST_RECALL_SECRET
    #[arg(long, env = "TILECAST_RECALL_SECRET_FILE", value_name = "FILE")]
    pub recall_secret_file: Option<PathBuf>,

    /// File with the tokens of API and media, instead of the variable TILECAST_API_TOKEN
    #[arg(long, env = "TILECAST_API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,

    /// File with the keys that sign playback grants, instead of the variable TILECAST_GRANT_KEY [default: a key in the spool]
    #[arg(long, env = "TILECAST_GRANT_KEY_FILE", value_name = "FILE")]
    pub grant_key_file: Option<PathBuf>,

    // The address may be a secret of the receiver's: the help does not print it.
    /// Where events are sent, signed: `https://...`
    #[arg(long, env = "TILECAST_WEBHOOK_URL", hide_env_values = true, hide_default_value = true, value_name = "URL")]
    pub webhook_url: Option<String>,

    /// File with the secrets (whsec_...) that sign events, instead of the variable TILECAST_WEBHOOK_SECRET
    #[arg(long, env = "TILECAST_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub webhook_secret_file: Option<PathBuf>,

    /// Origins whose pages may fetch media with a token: `https://example.com`, or `*`
    #[arg(long, env = "TILECAST_CORS", value_delimiter = ',', value_parser = parse_origin, value_name = "ORIGINS")]
    pub cors: Vec<HeaderValue>,

    /// Certificates of the public listener, in PEM: it speaks TLS then. Read again when the file changes
    #[arg(long, env = "TILECAST_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of the first of them, in PEM
    #[arg(long, env = "TILECAST_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// Connections of one address (IPv6: of one /64); behind a proxy all have the proxy's
    #[arg(long, env = "TILECAST_ADDRESS_CONNECTIONS_MAX", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub address_connections_max: u32,

    /// Refuse signed upgrades that come again or outside the tolerance of 300 s, also for recordings that are here
    #[arg(long, env = "TILECAST_REFUSE_REPLAY", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub refuse_replay: bool,

    /// Let everybody in where no credentials are set: bots, and who asks the API, on other than loopback addresses
    #[arg(long, env = "TILECAST_INSECURE", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub insecure: bool,
}

/// What the secrets are right now, entry by entry. Not `Debug`: nothing prints them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// `token` or `tenant:token`.
    pub ingest_tokens: Vec<String>,
    /// Keys of derived tokens.
    pub ingest_keys: Vec<String>,
    /// `whsec_...` or `tenant:whsec_...`.
    pub recall: Vec<String>,
    /// `token` or `read:token`.
    pub api_tokens: Vec<String>,
    /// Keys of playback grants.
    pub grant_keys: Vec<String>,
    /// `whsec_...`, to sign events with.
    pub webhook: Vec<String>,
}

impl Secrets {
    /// Reads every variable and file.
    ///
    /// # Errors
    /// When a file cannot be read, or holds nothing.
    pub fn read(doors: &Doors) -> Result<Secrets, ConfigError> {
        Ok(Secrets {
            ingest_tokens: entries("TILECAST_INGEST_TOKEN", doors.ingest_token_file.as_deref())?,
            ingest_keys: entries("TILECAST_INGEST_KEY", doors.ingest_key_file.as_deref())?,
            recall: entries("TILECAST_RECALL_SECRET", doors.recall_secret_file.as_deref())?,
            api_tokens: entries("TILECAST_API_TOKEN", doors.api_token_file.as_deref())?,
            webhook: entries("TILECAST_WEBHOOK_SECRET", doors.webhook_secret_file.as_deref())?,
            grant_keys: entries("TILECAST_GRANT_KEY", doors.grant_key_file.as_deref())?,
        })
    }
}

impl Doors {
    /// Whether any secret comes from a file, and so may change while the process runs.
    pub fn has_files(&self) -> bool {
        let files = [
            &self.ingest_token_file,
            &self.ingest_key_file,
            &self.recall_secret_file,
            &self.api_token_file,
            &self.grant_key_file,
            &self.webhook_secret_file,
        ];
        files.iter().any(|file| file.is_some())
    }
}

/// Reads an origin, as browsers send it.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, rest)| {
        ["http", "https"].contains(&scheme) && !rest.is_empty() && !rest.contains(['/', ' ', '*'])
    });
    let value = HeaderValue::from_str(text).ok().filter(|_| text == "*" || is_origin);
    value.ok_or_else(|| format!("`{text}` is no origin; write https://example.com without a path, or *"))
}

/// Reads the entries of `NAME`, or of the file that `path` names. They have a comma or a line end between them.
///
/// # Errors
/// When the file cannot be read, or holds nothing.
pub fn entries(name: &str, path: Option<&Path>) -> Result<Vec<String>, ConfigError> {
    let text = match path {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?
        }
        None => std::env::var(name).unwrap_or_default(),
    };
    let entries = text.split([',', '\n', '\r']).map(str::trim).filter(|entry| !entry.is_empty());
    let entries: Vec<String> = entries.map(str::to_owned).collect();
    match path {
        // Who names a file wants a lock on the door.
        Some(path) if entries.is_empty() => Err(ConfigError::NoSecret(path.to_owned())),
        _ => Ok(entries),
    }
}
