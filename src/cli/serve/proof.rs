//! What of a configuration can be proved before anything runs, the same for `serve` and `check`: the doors with their secrets,
//! the certificate, the receiver of events, the log.
//!
//! Not here: spool, encoder and store, which the pipeline opens.

use reqwest::Url;

use crate::config::Config;
use crate::http::auth::Doors;
use crate::http::tls::Certificate;
use crate::media::Micros;

/// Each part, or why `serve` does not start with it: text that names the option and the way out, never a secret.
pub struct Proof {
    /// Who gets in.
    pub doors: Result<Doors, String>,
    /// What the public listener speaks TLS with, where it does.
    pub tls: Result<Option<Certificate>, String>,
    /// Where events are sent, where they are.
    pub receiver: Result<Option<Url>, String>,
}

/// Proves what it can. `grant_key` signs grants where no key is given; `unix` is now.
pub fn prove(config: &Config, grant_key: Vec<u8>, unix: Micros) -> Proof {
    let doors = Doors::new(config, grant_key, unix);
    let receiver = receiver(config.doors.webhook_url.as_deref(), doors.as_ref().ok());
    Proof { tls: Certificate::open(&config.doors), receiver, doors }
}

/// The address that events are sent to. What signs them is not asked for where the doors have their own trouble.
fn receiver(url: Option<&str>, doors: Option<&Doors>) -> Result<Option<Url>, String> {
    let Some(url) = url else { return Ok(None) };
    // The address may hold a secret of the receiver's: it is not said.
    let parsed = Url::parse(url).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
    let url = parsed.ok_or("--webhook-url: write https://...")?;
    if doors.is_some_and(|doors| doors.sign_event("", "", b"").is_none()) {
        return Err(
            "--webhook-url: set TILECAST_WEBHOOK_SECRET (whsec_ and base64), which signs what is sent".to_owned()
        );
    }
    Ok(Some(url))
}

/// Which lines of the log are written.
///
/// # Errors
/// Text that names the option.
pub fn log_filter(level: &str) -> Result<tracing_subscriber::EnvFilter, String> {
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    if !level.split(',').all(|part| part.contains('=') || is_level(part.trim())) {
        return Err(format!(
            "--log-level {level:?}: write off, error, warn, info, debug or trace, or target=level with commas between"
        ));
    }
    tracing_subscriber::EnvFilter::try_new(level).map_err(|error| format!("--log-level {level}: {error}"))
}
