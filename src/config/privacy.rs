//! The options of what is kept of whom, and for how long.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse_duration;

/// What of a participant may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ParticipantField {
    /// Its id, which is part of its tracks' names: stored in any case.
    Id,
    /// Display name.
    Name,
    /// E-mail address.
    Email,
    /// Whether a host.
    #[value(name = "is_host")]
    IsHost,
    /// `desktop`, ...
    Platform,
}

/// What is kept of whom, and for how long.
#[derive(Args, Clone, Debug)]
pub struct PrivacyOptions {
    /// What of a participant is stored, in manifests, events and the spool
    #[arg(
        long,
        env = "TILECAST_PARTICIPANT_FIELDS",
        value_enum,
        default_value = "id,name,is_host,platform",
        value_delimiter = ',',
        value_name = "FIELDS"
    )]
    pub participant_fields: Vec<ParticipantField>,

    /// Finished recordings are deleted after this time [default: never]
    #[arg(long, env = "TILECAST_RETENTION", value_parser = parse_duration, value_name = "TIME")]
    pub retention: Option<Duration>,

    /// Keep the text of chat messages in events.jsonl
    #[arg(long, env = "TILECAST_STORE_CHAT", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub store_chat: bool,
}
