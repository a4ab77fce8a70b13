//! The options of how the store is used. Where it is says `--store`; keys, region and endpoint come by the variables of the
//! cloud's own tools.

use std::time::Duration;

use clap::Args;

use super::parse_duration;

/// How the store is used.
#[derive(Args, Clone, Debug)]
pub struct StoreOptions {
    /// A request to the store that takes longer has failed, and is tried again
    #[arg(long, env = "TILECAST_STORE_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub store_timeout: Duration,

    /// Storage class of segments and MP4s in a cloud's store [default: the bucket's]
    #[arg(long, env = "TILECAST_STORE_CLASS", value_name = "NAME")]
    pub store_class: Option<String>,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions { store_timeout: Duration::from_secs(30), store_class: None }
    }
}
