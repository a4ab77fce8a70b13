//! Which lanes a recording opens, and which it refuses.

use std::sync::Arc;

use crate::media::Kind;
use crate::pipeline::ingest::protocol::Participant;
use crate::pipeline::lane::Lane;
use crate::pipeline::store::manifest::State;

use super::{Inner, Recording};

/// Refused lanes that are told apart.
const REFUSED_MAX: usize = 1024;

/// Why a lane was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The recording has as many as it may have.
    Recording,
    /// Its socket serves as many as one may.
    Socket,
    /// The process has as many as its memory carries.
    Memory,
    /// The recording takes no more media.
    Finished,
    /// Its track was deleted, and the capture is counted there.
    Deleted,
}

impl Refused {
    /// The name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Recording => "recording_lanes",
            Refused::Socket => "socket_lanes",
            Refused::Memory => "memory",
            Refused::Finished => "finished",
            Refused::Deleted => "deleted",
        }
    }
}

impl Recording {
    /// The lane of a participant and kind, opened by `open` where there is none.
    pub fn lane(
        &self,
        participant: &Participant,
        kind: Kind,
        lanes_max: usize,
        open: impl FnOnce(&Recording) -> Option<Arc<Lane>>,
    ) -> Result<Arc<Lane>, Refused> {
        let mut inner = self.lock();
        let key = (participant.id.clone(), kind);
        if let Some(lane) = inner.lanes.get(&key) {
            return Ok(Arc::clone(lane));
        }
        if inner.state == State::Live && inner.counts_as_deleted(&participant.id, kind) {
            return Err(Refused::Deleted);
        }
        let refused = if inner.state != State::Live {
            Refused::Finished
        } else if inner.lanes.len() >= lanes_max {
            Refused::Recording
        } else if let Some(lane) = open(self) {
            inner.lanes.insert(key, Arc::clone(&lane));
            self.changed.notify_one();
            return Ok(lane);
        } else {
            Refused::Memory
        };
        self.note_refused(&mut inner, participant, kind, refused);
        Err(refused)
    }

    /// A lane was refused by somebody else.
    pub fn refuse(&self, participant: &Participant, kind: Kind, refused: Refused) {
        self.note_refused(&mut self.lock(), participant, kind, refused);
    }

    fn note_refused(&self, inner: &mut Inner, participant: &Participant, kind: Kind, refused: Refused) {
        inner.captures_refused += 1;
        if inner.refused.len() < REFUSED_MAX && inner.refused.insert((participant.id.clone(), kind)) {
            let (reason, kind_name) = (refused.name(), kind.name());
            tracing::warn!(
                recording = self.id(),
                kind = kind_name,
                reason,
                "a participant's lane was refused: no pictures of it"
            );
            let at = inner.clock.newest();
            let detail = serde_json::json!({ "reason": refused.name(), "kind": kind, "so_far": inner.refused.len() });
            self.note(inner, at, "lane_refused", Some(participant), detail);
        }
    }
}
