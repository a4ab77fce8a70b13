//! `recording.json`: what a recording holds and what became of every capture. Small: no segment list.
//!
//! Readers ignore keys, kinds, reasons and states that they do not know. The published schema is
//! `tests/recording.schema.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::config::Fill;
use crate::ledger::Ledger;
use crate::media::{GapReason, Kind, Tick};

use super::keys::{self, Name};

/// The version of every JSON file in the store.
pub const SCHEMA: u32 = 1;

/// The life of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Sockets may come and go; media grows.
    Live,
    /// The process is gone; the next one goes on.
    Suspended,
    /// No more media; uploads are pending.
    Finishing,
    /// The store has confirmed every object named.
    Finished,
    /// Spool data was lost, or an operator gave it up.
    Failed,
    /// Removed.
    Deleted,
    /// A word of another version of the program: whoever wrote it, nothing is written to the recording here.
    #[serde(other)]
    Unknown,
}

impl State {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Suspended => "suspended",
            State::Finishing => "finishing",
            State::Finished => "finished",
            State::Failed => "failed",
            State::Deleted => "deleted",
            State::Unknown => "unknown",
        }
    }
}

/// `recording.json`, and the answer of `GET /api/v1/recordings/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Recall's `recording.id`, with `~2` and up where it goes on after it was finished.
    pub recording_id: String,
    /// The tenant whose token the bot came with.
    pub tenant: Option<String>,
    /// Recall's `bot.id`.
    pub bot_id: Option<String>,
    /// `bot`, `recording`, `realtime_endpoint`: metadata as the bot sent it.
    #[serde(default)]
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// The life of the recording.
    pub state: State,
    /// The finished recording that this one goes on from.
    pub continues: Option<String>,
    /// The recording's folder in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Absolute time of tick 0, RFC 3339; `null` before the first capture.
    pub origin: Option<String>,
    /// Whether `origin` comes from the server's clock, for want of a valid `absolute`.
    #[serde(default)]
    pub origin_from_server: bool,
    /// Pictures a second.
    pub fps: u32,
    /// Ticks of a segment cell.
    pub segment_ticks: u32,
    /// What gaps show.
    #[serde(default)]
    pub fill: Fill,
    /// When it was touched by overload, in order.
    #[serde(default)]
    pub overload: Vec<Overload>,
    /// One entry per participant and kind; those of kinds that this program does not know are left out.
    #[serde(deserialize_with = "of_known_kinds")]
    pub tracks: Vec<TrackManifest>,
    /// What is left of tracks that were deleted.
    #[serde(default)]
    pub deleted: Vec<DeletedTrack>,
}

/// A track that was deleted. It has no files, and names nobody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeletedTrack {
    /// What its folder was called.
    pub track: String,
    /// Its books: nothing of it is encoded, held or filled any more.
    pub ledger: Ledger,
}

impl Manifest {
    /// Whose it is.
    pub fn name(&self) -> Name {
        Name::new(self.tenant.as_deref(), &self.recording_id)
    }

    /// The books of the tracks that were deleted.
    pub fn deleted_books(&self) -> impl Iterator<Item = (String, Ledger)> {
        self.deleted.iter().map(|one| (one.track.clone(), one.ledger.clone()))
    }

    /// Leaves of a track that it was deleted.
    pub fn delete_track(&mut self, track: &str) {
        let Some(at) = self.tracks.iter().position(|one| one.track == track) else { return };
        let ledger = self.tracks.remove(at).ledger.deleted();
        self.deleted.push(DeletedTrack { track: track.to_owned(), ledger });
    }

    /// The recording's folder in the store: before there was a choice, its id.
    pub fn folder(&self) -> String {
        self.prefix.clone().unwrap_or_else(|| keys::recording(&self.recording_id))
    }
}

/// A tick range in which the server had too much to do. What it cost a track are the track's gaps for that reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Overload {
    /// Its first tick.
    #[schema(value_type = i64)]
    pub from_tick: Tick,
    /// The tick after its last one; `null` while it lasts.
    #[schema(value_type = Option<i64>)]
    pub to_tick: Option<Tick>,
    /// What it led to at most: `cheaper` encoder options, or new bots being `refusing`.
    pub level: String,
}

fn of_known_kinds<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<TrackManifest>, D::Error> {
    let mut tracks: Vec<serde_json::Value> = Vec::deserialize(from)?;
    tracks.retain(|track| track["kind"].as_str().is_none_or(|kind| Kind::ALL.iter().any(|known| known.name() == kind)));
    tracks.into_iter().map(|track| serde_json::from_value(track).map_err(serde::de::Error::custom)).collect()
}

/// One track.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrackManifest {
    /// The track's folder in the recording's folder.
    pub track: String,
    /// Whom it shows.
    pub participant: ParticipantManifest,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// Luma samples in a row; `null` before the first picture.
    pub width: Option<u32>,
    /// Luma rows.
    pub height: Option<u32>,
    /// RFC 6381, `avc1.640015`.
    pub codecs: Option<String>,
    /// The first tick with a picture.
    #[schema(value_type = Option<i64>)]
    pub first_tick: Option<Tick>,
    /// The tick after the last written one.
    #[schema(value_type = Option<i64>)]
    pub end_tick: Option<Tick>,
    /// Runs of segments written without a break.
    pub epochs: Vec<EpochManifest>,
    /// Tick ranges without pictures.
    pub gaps: Vec<Gap>,
    /// The books.
    pub ledger: Ledger,
    /// Finished files.
    pub mp4: Vec<Mp4Manifest>,
}

/// A participant as far as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantManifest {
    /// Recall's participant id as text.
    pub id: String,
    /// Display name.
    pub name: Option<String>,
    /// E-mail address, where it is stored.
    #[serde(default)]
    pub email: Option<String>,
    /// Whether a host.
    pub is_host: Option<bool>,
    /// `desktop`, ...
    pub platform: Option<String>,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EpochManifest {
    /// Its folder in the track's folder.
    pub epoch: String,
    /// Its first tick.
    #[schema(value_type = i64)]
    pub first_tick: Tick,
    /// The file name of its init segment.
    pub init: String,
    /// What the encoder was opened with.
    pub encoder_options: String,
}

/// A tick range without pictures: `from_tick <= tick < to_tick`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// First tick without a picture.
    #[schema(value_type = i64)]
    pub from_tick: Tick,
    /// The tick after the last one.
    #[schema(value_type = i64)]
    pub to_tick: Tick,
    /// Why.
    pub reason: GapReason,
}

/// One finished MP4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mp4Manifest {
    /// File name in the track's folder.
    pub path: String,
    /// The tick of its first picture: 0.
    #[schema(value_type = i64)]
    pub from_tick: Tick,
    /// Pictures in it.
    #[schema(value_type = i64)]
    pub ticks: Tick,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(kind: &str) -> serde_json::Value {
        serde_json::json!({
            "track": format!("1-{kind}"), "participant": { "id": "1" }, "kind": kind, "epochs": [], "mp4": [],
            "gaps": [{ "from_tick": 0, "to_tick": 2, "reason": "eclipse" }],
            "ledger": { "received": 0, "encoded": 0, "held": 0, "filled": 2, "discarded": {} },
        })
    }

    #[test]
    fn words_of_a_newer_version_are_read() {
        let mut manifest = serde_json::json!({
            "schema": 1, "recording_id": "r", "state": "archived", "fps": 2, "segment_ticks": 12,
            "tracks": [track("webcam"), track("hologram")], "colour": "blue",
        });
        let read: Manifest = serde_json::from_value(manifest.clone()).unwrap();
        assert_eq!((read.state, read.tracks.len()), (State::Unknown, 1));
        assert_eq!(read.tracks[0].gaps[0].reason, GapReason::Unknown);
        // What is no word at all is not one of a newer version.
        manifest["state"] = serde_json::json!(7);
        assert!(serde_json::from_value::<Manifest>(manifest.clone()).is_err());
        manifest["state"] = serde_json::json!("live");
        manifest["tracks"][1]["kind"] = serde_json::json!(7);
        assert!(serde_json::from_value::<Manifest>(manifest).is_err());
    }
}
