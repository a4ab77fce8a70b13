//! What is told of a recording: its manifest, and what the API adds to that.

use serde::Serialize;

use crate::clock::rfc3339;
use crate::pipeline::lane::Lane;
use crate::pipeline::store::manifest::{Manifest, ParticipantManifest, SCHEMA, TrackManifest};

use super::people::manifest_of;
use super::{Inner, Recording};

/// What `GET /api/v1/recordings/{id}` adds to the manifest.
#[derive(Clone, Debug, Default, Serialize, utoipa::ToSchema)]
pub struct Now {
    /// Open sockets.
    pub sockets: usize,
    /// Captures that are on their way, whose outcome is not known.
    pub captures_waiting: u64,
    /// Whether captures are shed for want of room in the spool.
    pub spool_full: bool,
    /// Lanes (participant and kind) that were not opened at some time, for want of memory or over the limit: 1024 at most
    /// are told apart.
    pub lanes_refused: usize,
    /// Captures that were not taken for that.
    pub captures_refused: u64,
    /// Objects that the store has not confirmed.
    pub uploads_pending: usize,
    /// The store's last error.
    pub last_error: Option<String>,
}

impl Recording {
    /// What happens right now; whether the spool is full is the process's to say.
    pub fn now(&self, spool_full: bool) -> Now {
        let inner = self.lock();
        Now {
            sockets: inner.sockets.len(),
            spool_full,
            captures_waiting: inner.lanes.values().map(|lane| u64::from(lane.pending())).sum(),
            lanes_refused: inner.refused.len(),
            captures_refused: inner.captures_refused,
            uploads_pending: inner.uploads_pending,
            last_error: inner.last_error.clone(),
        }
    }

    /// `recording.json` as of now.
    pub fn manifest(&self) -> Manifest {
        let place = self.place();
        let inner = self.lock();
        let origin = inner.clock.origin();
        Manifest {
            schema: SCHEMA,
            recording_id: place.name.id,
            tenant: place.name.tenant,
            bot_id: inner.bot_id.clone(),
            metadata: inner.metadata.clone(),
            state: inner.state,
            continues: place.continues,
            prefix: place.prefix,
            origin: origin.as_ref().map(|origin| rfc3339(origin.unix)),
            origin_from_server: origin.is_some_and(|origin| origin.from_server),
            fps: self.grid.fps,
            segment_ticks: self.grid.segment_ticks,
            fill: self.settings.fill,
            overload: inner.overload.clone(),
            tracks: inner.lanes.values().map(|lane| track_manifest(&inner, lane)).collect(),
            deleted: inner.deleted_tracks(),
        }
    }
}

fn track_manifest(inner: &Inner, lane: &Lane) -> TrackManifest {
    let participant = inner.people.get(&lane.participant_id).map(manifest_of).unwrap_or_default();
    lane.view(|view| TrackManifest {
        track: lane.track.clone(),
        participant: ParticipantManifest { id: lane.participant_id.clone(), ..participant },
        kind: lane.kind,
        width: view.canvas.map(|canvas| canvas.width),
        height: view.canvas.map(|canvas| canvas.height),
        codecs: view.codecs.clone(),
        first_tick: view.first_tick,
        end_tick: view.end_tick,
        epochs: view.epochs.clone(),
        gaps: view.gaps.clone(),
        ledger: view.ledger.clone(),
        mp4: inner.mp4.get(&lane.track).cloned().into_iter().collect(),
    })
}
