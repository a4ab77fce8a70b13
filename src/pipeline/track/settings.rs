//! What is fixed for a track before its first picture.

use std::sync::Arc;

use crate::pipeline::admission::Load;
use crate::pipeline::state::{RecordingSettings, STATE};
use crate::pipeline::store::spool::TrackSpool;
use crate::pipeline::store::sync::SyncJob;
use crate::pipeline::timeline::Rules;

/// What is fixed for a track.
#[derive(Clone, Debug)]
pub struct TrackSettings {
    /// What the recording's first writer fixed.
    pub recording: RecordingSettings,
    /// The timeline's rules, which follow from that.
    pub rules: Rules,
    /// Where the track is written.
    pub spool: TrackSpool,
    /// What overload asks of its encoder.
    pub load: Arc<Load>,
}

impl TrackSettings {
    /// Returns when the recording's state is in the spool, without which no start takes up what is written here. The
    /// sync thread got it before any lane got a capture.
    pub(super) fn await_state(&self) {
        if self.spool.dir.parent().is_none_or(|recording| recording.join(STATE).exists()) {
            return;
        }
        let (done, hears) = tokio::sync::oneshot::channel();
        // Without an answer the thread has ended, and nothing is written any more.
        let _ = self.spool.sync.send(SyncJob::Barrier(done)).map(|()| hears.blocking_recv());
    }
}
