//! `tilecast bot token`: an ingest token that says itself whose it is, and until when it opens new recordings.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::clock::Clock;
use crate::config::{entries, parse_duration};
use crate::http::auth::tokens::{DerivingKey, is_tenant};
use crate::media::Micros;

/// Options of `bot token`.
#[derive(Clone, Debug, clap::Args)]
pub struct TokenArgs {
    /// The tenant that the bot's recordings belong to
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,

    /// How long the token opens new recordings; bots of those that are open get back in afterwards as well
    #[arg(long, default_value = "24h", value_parser = parse_duration, value_name = "TIME")]
    pub ttl: Duration,

    /// File with the key, instead of the variable TILECAST_INGEST_KEY; of several the first is used
    #[arg(long, env = "TILECAST_INGEST_KEY_FILE", value_name = "FILE")]
    pub ingest_key_file: Option<PathBuf>,
}

/// What is missing where there is no key.
pub const NO_KEY: &str = "set TILECAST_INGEST_KEY, or give --ingest-key-file: the server's own key";

impl TokenArgs {
    /// A token that is derived from the key; `None` where no key is given.
    ///
    /// # Errors
    /// When the key cannot be read or be one, or no such tenant can be.
    pub fn derived(&self, now: Micros) -> Result<Option<String>, String> {
        let keys =
            entries("TILECAST_INGEST_KEY", self.ingest_key_file.as_deref()).map_err(|error| error.to_string())?;
        if self.tenant.as_deref().is_some_and(|tenant| !is_tenant(tenant)) {
            return Err("--tenant: a tenant is 1 to 64 of A-Z a-z 0-9 _ -".to_owned());
        }
        let Some(key) = keys.first() else { return Ok(None) };
        let expires = (now + Micros::from(self.ttl)).0.div_euclid(1_000_000);
        Ok(Some(DerivingKey::new(key)?.derive(self.tenant.as_deref(), expires)))
    }
}

/// Prints a token.
///
/// # Errors
/// When none can be made, or standard output is gone.
pub fn run(args: &TokenArgs, clock: &dyn Clock) -> Result<ExitCode, String> {
    let token = args.derived(clock.unix())?.ok_or(NO_KEY)?;
    writeln!(std::io::stdout(), "{token}").map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}
