//! The options of how the store is used. Where it is says `--store`; keys, region and endpoint come by the variables of the
//! cloud's own tools.

use std::time::Duration;

use clap::Args;

use super::{parse_bytes, parse_duration};

/// How the store is used.
#[derive(Args, Clone, Debug)]
pub struct StoreOptions {
    /// A request to the store that takes longer has failed, and is tried again
    #[arg(long, env = "TILECAST_STORE_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub store_timeout: Duration,

    /// Requests that put something into the store at once; fewer while a store says "slow down"
    #[arg(long, env = "TILECAST_UPLOADS", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    pub uploads: u16,

    /// Files larger than this are put in parts of this size, three at a time; S3 takes no smaller one than 5 MiB
    #[arg(long, env = "TILECAST_STORE_PART", default_value = "8MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub store_part: u64,

    /// How often playlists, and manifests' counters, are brought up to date in the store; playlists under /media always are [default: 30s; playlists in a folder at once]
    #[arg(long, env = "TILECAST_STORE_PLAYLIST_EVERY", value_parser = parse_duration, value_name = "TIME")]
    pub store_playlist_every: Option<Duration>,

    /// Segments and MP4s of recordings that are ended are fetched from the store itself, by addresses that it signs for so long [default: never: they are passed on]
    #[arg(long, env = "TILECAST_STORE_REDIRECT", value_parser = parse_signed_for, value_name = "TIME")]
    pub store_redirect: Option<Duration>,

    /// Storage class of segments and MP4s in a cloud's store [default: the bucket's]
    #[arg(long, env = "TILECAST_STORE_CLASS", value_name = "NAME")]
    pub store_class: Option<String>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            store_timeout: Duration::from_secs(30),
            uploads: 32,
            store_part: 8 << 20,
            store_playlist_every: None,
            store_redirect: None,
            store_class: None,
        }
    }
}

/// Reads for how long an address is signed: stores sign for seven days at most.
fn parse_signed_for(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    match (Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)).contains(&time) {
        true => Ok(time),
        false => Err(format!("`{text}`: stores sign addresses for 1s to 7d")),
    }
}
