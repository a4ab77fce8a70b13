//! The options of `serve`: each is a flag, an environment variable and a key of the TOML file.
//! A flag wins over the environment, the environment over the file; an unknown key is an error that names it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Command, ValueEnum};

use crate::media::Canvas;

mod doors;
mod privacy;
mod store;

pub use doors::{Doors, Secrets, entries};
pub use privacy::{ParticipantField, PrivacyOptions};
pub use store::StoreOptions;

/// What is made of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Live HLS.
    Hls,
    /// One MP4 when the recording is finished.
    Mp4,
}

/// What a gap shows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Fill {
    /// Black.
    #[default]
    Black,
    /// The last picture before the gap.
    Hold,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// For eyes.
    Text,
    /// One JSON object a line.
    Json,
}

/// Every option of `serve`.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// TOML file with any of these options as keys (`reconnect-grace = "180s"`)
    #[arg(long, env = "TILECAST_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address for bots, the API, media and the page
    #[arg(long, env = "TILECAST_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Address for /metrics
    #[arg(long, env = "TILECAST_INTERNAL_LISTEN", default_value = "127.0.0.1:9090", value_name = "ADDR")]
    pub internal_listen: SocketAddr,

    /// Where recordings land: a folder, file:///..., s3://bucket/prefix, gs://... or az://...
    #[arg(long, env = "TILECAST_STORE", default_value = "./media", value_name = "PATH")]
    pub store: String,

    /// How the store is used.
    #[command(flatten)]
    pub store_options: StoreOptions,

    /// Folder of a recording in the store; {recording_id} comes last where it is not named. There are {tenant}, {recording_id}, {bot_id}, {date} (UTC) and {metadata.KEY}, one in a folder
    #[arg(long, env = "TILECAST_STORE_PREFIX", default_value = "{recording_id}", value_name = "FOLDERS")]
    pub store_prefix: String,

    /// Folder for what is being written
    #[arg(long, env = "TILECAST_SPOOL", default_value = "./spool", value_name = "DIR")]
    pub spool: PathBuf,

    /// Bytes that the spool may take; an eighth of it, at most 64 MiB, is kept for journals and playlists [default: what its file system has]
    #[arg(long, env = "TILECAST_SPOOL_QUOTA", value_parser = parse_bytes, value_name = "SIZE")]
    pub spool_quota: Option<u64>,

    /// How long finished recordings stay in the spool as local copies, in .kept; less where there is little room [default: not at all]
    #[arg(long, env = "TILECAST_SPOOL_KEEP", value_parser = parse_duration, value_name = "TIME")]
    pub spool_keep: Option<Duration>,

    /// What is made of each track
    #[arg(long, env = "TILECAST_OUTPUTS", value_enum, default_value = "hls,mp4", value_delimiter = ',')]
    pub outputs: Vec<Output>,

    /// How long a recording waits for a bot that lost its socket
    #[arg(long, env = "TILECAST_RECONNECT_GRACE", default_value = "180s", value_parser = parse_duration, value_name = "TIME")]
    pub reconnect_grace: Duration,

    /// Length of a segment: whole parts
    #[arg(long, env = "TILECAST_SEGMENT", default_value = "6s", value_parser = parse_duration, value_name = "TIME")]
    pub segment: Duration,

    /// Length of a part: whole ticks
    #[arg(long, env = "TILECAST_PART", default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    pub part: Duration,

    /// Pictures a second
    #[arg(long, env = "TILECAST_FPS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=30), value_name = "N")]
    pub fps: u32,

    /// What a gap shows
    #[arg(long, env = "TILECAST_FILL", value_enum, default_value = "black")]
    pub fill: Fill,

    /// A gap longer than this is no longer filled live
    #[arg(long, env = "TILECAST_LIVE_FILL", default_value = "10m", value_parser = parse_duration, value_name = "TIME")]
    pub live_fill: Duration,

    /// How long a webcam's last picture is held while its source is on
    #[arg(long, env = "TILECAST_HOLD_WEBCAM", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub hold_webcam: Duration,

    /// How long a screenshare's last picture is held while its source is on
    #[arg(long, env = "TILECAST_HOLD_SCREENSHARE", default_value = "10m", value_parser = parse_duration, value_name = "TIME")]
    pub hold_screenshare: Duration,

    /// How long a tick waits for its picture
    #[arg(long, env = "TILECAST_SETTLE", default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    pub settle: Duration,

    /// Largest picture size of a track; larger ones are scaled down
    #[arg(long, env = "TILECAST_CANVAS_MAX", default_value = "1920x1080", value_parser = parse_size, value_name = "WxH")]
    pub canvas_max: Canvas,

    /// H.264 quality of webcams: constant rate factor, lower is better
    #[arg(long, env = "TILECAST_QUALITY", default_value_t = 23, value_parser = clap::value_parser!(u8).range(10..=40), value_name = "CRF")]
    pub quality: u8,

    /// The quantiser of webcams never falls below this
    #[arg(long, env = "TILECAST_QPMIN", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=40), value_name = "QP")]
    pub qpmin: u8,

    /// x264 preset, ultrafast to medium
    #[arg(long, env = "TILECAST_PRESET", default_value = "superfast", value_name = "NAME")]
    pub preset: String,

    /// Code new recordings by CAVLC instead of CABAC: a tenth less CPU, an eighth more bytes
    #[arg(long, env = "TILECAST_CAVLC", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub cavlc: bool,

    /// H.264 quality of screenshares
    #[arg(long, env = "TILECAST_SCREEN_QUALITY", default_value_t = 23, value_parser = clap::value_parser!(u8).range(10..=40), value_name = "CRF")]
    pub screen_quality: u8,

    /// The quantiser of screenshares never falls below this
    #[arg(long, env = "TILECAST_SCREEN_QPMIN", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=40), value_name = "QP")]
    pub screen_qpmin: u8,

    /// Largest message of a bot
    #[arg(long, env = "TILECAST_MESSAGE_MAX", default_value = "16MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub message_max: u64,

    /// How often a bot is pinged
    #[arg(long, env = "TILECAST_PING_EVERY", default_value = "20s", value_parser = parse_duration, value_name = "TIME")]
    pub ping_every: Duration,

    /// A bot that acknowledges nothing for this long is gone (TCP_USER_TIMEOUT)
    #[arg(long, env = "TILECAST_PEER_TIMEOUT", default_value = "60s", value_parser = parse_duration, value_name = "TIME")]
    pub peer_timeout: Duration,

    /// A request's headers must be complete within this time
    #[arg(long, env = "TILECAST_HEADER_TIMEOUT", default_value = "10s", value_parser = parse_duration, value_name = "TIME")]
    pub header_timeout: Duration,

    /// A message must be complete within this time
    #[arg(long, env = "TILECAST_MESSAGE_TIMEOUT", default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub message_timeout: Duration,

    /// Connections that are open at a time; further ones get 503 [default: half of the open files that the process may have]
    #[arg(long, env = "TILECAST_CONNECTIONS_MAX", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub connections_max: Option<u32>,

    /// New bots are refused from this share of what the workers can do on; ten percent below it encoders become cheaper
    #[arg(long, env = "TILECAST_LOAD_MAX", default_value = "90%", value_parser = parse_percent, value_name = "SHARE")]
    pub load_max: f64,

    /// Captures that wait in a lane
    #[arg(long, env = "TILECAST_LANE_CAPTURES", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub lane_captures: u16,

    /// Decoded pictures that wait in a lane
    #[arg(long, env = "TILECAST_LANE_PICTURES", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub lane_pictures: u16,

    /// How long a socket waits for a full lane before captures are shed
    #[arg(long, env = "TILECAST_PATIENCE", default_value = "2s", value_parser = parse_duration, value_name = "TIME")]
    pub patience: Duration,

    /// Bytes of messages and pictures in flight [default: a quarter of the memory limit]
    #[arg(long, env = "TILECAST_IN_FLIGHT", value_parser = parse_bytes, value_name = "SIZE")]
    pub in_flight: Option<u64>,

    /// Memory of all open lanes together [default: half of the memory limit]
    #[arg(long, env = "TILECAST_LANE_MEMORY", value_parser = parse_bytes, value_name = "SIZE")]
    pub lane_memory: Option<u64>,

    /// Open lanes [default: what --lane-memory carries]
    #[arg(long, env = "TILECAST_LANES_MAX", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub lanes_max: Option<u32>,

    /// Open lanes of one recording
    #[arg(long, env = "TILECAST_RECORDING_LANES_MAX", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub recording_lanes_max: u32,

    /// Recordings of one socket
    #[arg(long, env = "TILECAST_SOCKET_RECORDINGS_MAX", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub socket_recordings_max: u32,

    /// Open lanes of one socket, all its recordings together
    #[arg(long, env = "TILECAST_SOCKET_LANES_MAX", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub socket_lanes_max: u32,

    /// Threads that decode [default: one per core]
    #[arg(long, env = "TILECAST_INGEST_WORKERS", value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub ingest_workers: Option<u16>,

    /// Threads that encode [default: one per core]
    #[arg(long, env = "TILECAST_ENCODER_WORKERS", value_parser = clap::value_parser!(u16).range(1..), value_name = "N")]
    pub encoder_workers: Option<u16>,

    /// What is kept of whom, and for how long.
    #[command(flatten)]
    pub privacy: PrivacyOptions,

    /// Form of log lines
    #[arg(long, env = "TILECAST_LOG", value_enum, default_value = "text")]
    pub log: LogForm,

    /// What is logged: error, warn, info, debug, or a filter such as tilecast=debug
    #[arg(long, env = "TILECAST_LOG_LEVEL", default_value = "info", value_name = "FILTER")]
    pub log_level: String,

    /// Who gets in.
    #[command(flatten)]
    pub doors: Doors,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds nothing where a token is needed.
    #[error("{0} holds no token; write one a line, or leave the option out")]
    NoSecret(PathBuf),
    /// The file is no TOML.
    #[error("{path} is not TOML: {why}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the line.
        why: String,
    },
    /// A key that is no option.
    #[error("{path}: unknown key `{key}`; `tilecast serve --help` lists the options")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value that no option can have.
    #[error("{path}: `{key}` must be text, a number, true or false, or a list of these")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Conflict(String),
}

impl Config {
    /// Checks what no single option can: that parts are whole ticks and segments whole parts.
    pub fn grid(&self) -> Result<crate::media::Grid, ConfigError> {
        let ticks = |what: &str, length: Duration| {
            let micro_ticks = length.as_micros() * u128::from(self.fps);
            match u32::try_from(micro_ticks / 1_000_000) {
                Ok(ticks) if ticks > 0 && micro_ticks.is_multiple_of(1_000_000) && ticks <= 3600 * 30 => Ok(ticks),
                _ => Err(ConfigError::Conflict(format!("--{what} must be whole ticks of 1/{} s", self.fps))),
            }
        };
        let (part_ticks, segment_ticks) = (ticks("part", self.part)?, ticks("segment", self.segment)?);
        if !segment_ticks.is_multiple_of(part_ticks) {
            return Err(ConfigError::Conflict("--segment must be a whole number of --part".to_owned()));
        }
        Ok(crate::media::Grid { fps: self.fps, part_ticks, segment_ticks })
    }
}

/// Puts the keys of a TOML file under the flags and variables of `command`, as its defaults.
pub fn with_file(mut command: Command, path: &Path) -> Result<Command, ConfigError> {
    let owned = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: owned(), source })?;
    let table: toml::Table =
        text.parse().map_err(|error| ConfigError::Toml { path: owned(), why: format!("{error}") })?;
    for (key, value) in table {
        let id = key.replace('-', "_");
        let known = command.get_arguments().any(|arg| arg.get_id() == id.as_str() && id != "config");
        if !known || key.contains('_') {
            return Err(ConfigError::UnknownKey { path: owned(), key });
        }
        let Some(text) = scalar(&value) else { return Err(ConfigError::Value { path: owned(), key }) };
        command = command.mut_arg(&id, |arg| arg.default_value(text));
    }
    Ok(command)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|all| all.join(",")),
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// Reads `90s`, `500ms`, `10m`, `1h`, `30d`; a bare `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let wrong = || format!("`{text}` is no duration; write 90s, 500ms, 10m, 1h or 30d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    // A hundred years: more is a typing error, and sums of such times must not overflow.
    millis.filter(|millis| *millis <= 3_153_600_000_000).map(Duration::from_millis).ok_or_else(wrong)
}

/// Reads `8MiB`, `512KiB`, `2GiB`, `1000`, also with decimal units (`8MB`).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; write 8MiB, 512KiB or 2GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// Reads `1%` or `0.5%` as a share of 1.
pub fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is no share such as 1% or 0.5%")),
    }
}

/// Reads `1920x1080`: even, 64 to 4096 on a side.
pub fn parse_size(text: &str) -> Result<Canvas, String> {
    let wrong = || format!("`{text}` is no size; write WIDTHxHEIGHT, both even, 64 to 4096");
    let (width, height) = text.split_once('x').ok_or_else(wrong)?;
    let side = |text: &str| {
        text.parse::<u32>().ok().filter(|side| (64..=4096).contains(side) && side % 2 == 0).ok_or_else(wrong)
    };
    Ok(Canvas { width: side(width)?, height: side(height)? })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn read(toml: &str, args: &[&str]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tilecast.toml");
        std::fs::write(&path, toml).unwrap();
        let command = with_file(Config::augment_args(Command::new("serve")), &path).map_err(|e| e.to_string())?;
        let matches = command.try_get_matches_from([&["serve"], args].concat()).map_err(|e| e.to_string())?;
        Config::from_arg_matches(&matches).map_err(|e| e.to_string())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let toml = "fps = 5\nsegment = \"4s\"\noutputs = [\"hls\"]\n";
        let config = read(toml, &["--segment", "8s"]).unwrap();
        assert_eq!((config.fps, config.segment, config.part), (5, Duration::from_secs(8), Duration::from_secs(1)));
        assert_eq!(config.outputs, [Output::Hls]);
        assert!(!config.privacy.store_chat && read("store-chat = true\n", &[]).unwrap().privacy.store_chat);
    }

    #[test]
    fn a_typing_error_in_the_file_is_an_error_that_names_the_key() {
        let error = read("segmnet = \"4s\"\n", &[]).unwrap_err();
        assert!(error.contains("unknown key `segmnet`"), "{error}");
        let error = read("fps = 99\n", &[]).unwrap_err();
        assert!(error.contains("99"), "{error}");
        let error = read("fps = \n", &[]).unwrap_err();
        assert!(error.contains("not TOML"), "{error}");
    }

    #[test]
    fn durations_and_sizes_are_strict() {
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10m"), Ok(Duration::from_secs(600)));
        for bad in ["", "90", "s", "-1s", "1.5s", "90 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_bytes("8MiB"), Ok(8 << 20));
        for bad in ["", "MiB", "0", "8 MiB", "99999999999999GiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_size("640x360"), Ok(Canvas { width: 640, height: 360 }));
        for bad in ["640", "641x360", "0x0", "9999x9999", "640x"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn segments_are_whole_parts_and_parts_whole_ticks() {
        let config = |args: &[&str]| read("", args).unwrap().grid();
        assert_eq!(config(&[]).unwrap().segment_ticks, 12);
        assert!(config(&["--part", "700ms"]).is_err());
        assert!(config(&["--part", "4s"]).is_err());
    }
}
