//! What is fixed for a recording by its first writer, and what a later process must know to go on with it:
//! `state.json` in the recording's folder of the spool.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde::{Deserialize, Serialize};

use crate::config::{Config, Fill};
use crate::ledger::Ledger;
use crate::media::{Canvas, Grid, Kind, Micros};

use super::encode::EncoderSettings;
use super::ingest::protocol::Participant;
use super::store::journal::SPOOL_VERSION;
use super::store::manifest::{Overload, State};
use super::timeline::Rules;
use super::timeline::clock::Origin;

/// The file's name.
pub const STATE: &str = "state.json";

/// Fixed by the first writer and read back by later ones, whatever their options say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingSettings {
    /// Ticks, parts, segments.
    pub grid: Grid,
    /// What encoders are opened with, those of screenshares apart.
    pub encoder: EncoderSettings,
    /// What those of screenshares are opened with; recordings of earlier versions have none of their own.
    #[serde(default)]
    pub screen: Option<EncoderSettings>,
    /// Larger pictures are scaled down to this.
    pub canvas_max: Canvas,
    /// What a gap shows.
    pub fill: Fill,
    /// How much of a gap is filled live.
    pub live_fill: Micros,
    /// How long a tick waits for its picture.
    pub settle: Micros,
    /// How long a webcam is held.
    pub hold_webcam: Micros,
    /// How long a screenshare is held.
    pub hold_screenshare: Micros,
}

impl RecordingSettings {
    /// What the options say.
    pub fn new(config: &Config, grid: Grid) -> RecordingSettings {
        let [encoder, screen] = EncoderSettings::of(config);
        RecordingSettings {
            grid,
            encoder,
            screen: Some(screen),
            canvas_max: config.canvas_max,
            fill: config.fill,
            live_fill: config.live_fill.into(),
            settle: config.settle.into(),
            hold_webcam: config.hold_webcam.into(),
            hold_screenshare: config.hold_screenshare.into(),
        }
    }

    /// What a track's encoders are opened with.
    pub fn encoder(&self, kind: Kind) -> &EncoderSettings {
        match kind {
            Kind::Screenshare => self.screen.as_ref().unwrap_or(&self.encoder),
            Kind::Webcam => &self.encoder,
        }
    }

    /// The rules of a track's timeline.
    pub fn rules(&self, kind: Kind) -> Rules {
        Rules {
            grid: self.grid,
            settle: self.settle,
            hold: if kind == Kind::Webcam { self.hold_webcam } else { self.hold_screenshare },
            hold_after_loss: Micros::from_secs(2),
            live_fill: self.live_fill,
        }
    }
}

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingState {
    /// The version of the spool's form.
    pub spool: u32,
    /// Recall's id, with `~2` and up.
    pub recording_id: String,
    /// The tenant whose token the bot came with.
    pub tenant: Option<String>,
    /// The finished recording that this one goes on from.
    pub continues: Option<String>,
    /// Made for this spool's part of it: who finds another one in the store is not its writer any more.
    #[serde(default)]
    pub mark: String,
    /// The store has not said whether the id is free.
    #[serde(default)]
    pub unsure: bool,
    /// Its folder in the store, once that is resolved.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Live, suspended or finishing.
    pub state: State,
    /// What is fixed.
    pub settings: RecordingSettings,
    /// Absolute time of tick 0.
    pub origin: Option<Origin>,
    /// Recall's `bot.id`.
    pub bot_id: Option<String>,
    /// Metadata as the bot sent it.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// What is known of each participant.
    pub participants: Vec<Participant>,
    /// When a process first took the recording up with no socket since (unix): the grace of a crash loop ends all the same.
    pub alone_since: Option<Micros>,
    /// The books of each track as of the last word of a process that stopped: its journals say nothing of what was discarded
    /// after a track's last part.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub books: BTreeMap<String, Ledger>,
    /// Tracks that were deleted, with their books.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deleted: BTreeMap<String, Ledger>,
    /// When it was touched by overload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overload: Vec<Overload>,
}

/// Whether a recording's state, with the time of tick 0 in it, is in the spool: without it no start takes up what a lane
/// writes.
#[derive(Debug, Default)]
pub struct Kept {
    tried: AtomicBool,
    written: AtomicBool,
}

impl Kept {
    /// The sync thread tried; once written it stays, for a newer one takes its place whole.
    pub fn tried(&self, written: bool) {
        self.written.fetch_or(written, SeqCst);
        self.tried.store(true, SeqCst);
    }

    /// Whether the sync thread has tried at all: what has to wait for it waits no longer.
    pub fn is_tried(&self) -> bool {
        self.tried.load(SeqCst)
    }

    /// Whether it is there.
    pub fn is_written(&self) -> bool {
        self.written.load(SeqCst)
    }
}

/// Why a folder of the spool was left alone.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not there, or not readable.
    #[error("{STATE}: {0}")]
    Read(#[from] std::io::Error),
    /// Of another shape.
    #[error("{STATE}: {0}")]
    Json(#[from] serde_json::Error),
    /// Written by another version of the program.
    #[error("spool version {0}; this program reads {SPOOL_VERSION}")]
    Version(u64),
}

/// Reads a recording's state.
///
/// # Errors
/// When it is not there or not of this version.
pub fn read(dir: &Path) -> Result<RecordingState, StateError> {
    let value: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join(STATE))?)?;
    match value["spool"].as_u64() {
        Some(version) if version == u64::from(SPOOL_VERSION) => Ok(serde_json::from_value(value)?),
        version => Err(StateError::Version(version.unwrap_or(0))),
    }
}

#[cfg(test)]
impl RecordingSettings {
    /// Those of a usual recording.
    pub fn usual() -> RecordingSettings {
        RecordingSettings {
            grid: Grid { fps: 2, part_ticks: 2, segment_ticks: 12 },
            encoder: EncoderSettings::default(),
            screen: None,
            canvas_max: Canvas { width: 1920, height: 1080 },
            fill: Fill::Black,
            live_fill: Micros::from_secs(600),
            settle: Micros::SECOND,
            hold_webcam: Micros::from_secs(10),
            hold_screenshare: Micros::from_secs(600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first version wrote it.
    const FIRST: &str = r#"{
        "spool": 1, "recording_id": "old", "tenant": null, "continues": null, "state": "suspended",
        "settings": {
            "grid": {"fps": 2, "part_ticks": 2, "segment_ticks": 12},
            "encoder": {"preset": "superfast", "crf": 23, "qpmin": 20, "fps": 2},
            "canvas_max": {"width": 1920, "height": 1080}, "fill": "black", "live_fill": 600000000,
            "settle": 1000000, "hold_webcam": 10000000, "hold_screenshare": 600000000
        },
        "origin": {"unix": 1767261600000000, "from_server": false},
        "bot_id": "bot", "metadata": {}, "participants": [], "alone_since": null, "later": "a key of a later version"
    }"#;

    #[test]
    fn a_state_of_an_earlier_version_is_read_and_goes_on_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(STATE), FIRST).unwrap();
        let state = read(dir.path()).unwrap();
        assert_eq!((&*state.recording_id, state.state, state.prefix), ("old", State::Suspended, None));
        let settings = state.settings;
        let of = |kind| settings.encoder(kind).clone();
        assert_eq!(of(Kind::Screenshare), of(Kind::Webcam), "it had none of their own for screens");
        assert!(!of(Kind::Webcam).cabac, "its segments have CAVLC");
        assert!(!of(Kind::Webcam).screen && state.books.is_empty() && state.overload.is_empty());
        std::fs::write(dir.path().join(STATE), FIRST.replace("\"spool\": 1", "\"spool\": 2")).unwrap();
        assert!(matches!(read(dir.path()), Err(StateError::Version(2))));
    }
}
