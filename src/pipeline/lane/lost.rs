//! What the spool's errors cost a lane, and how often that is logged.

use std::sync::atomic::Ordering::SeqCst;

use crate::media::Tick;
use crate::pipeline::store::space::is_full_error;

use super::Lane;

/// A segment that was abandoned: its ticks are booked as `spool_full`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its first tick.
    pub from_tick: Tick,
    /// The tick after its last one.
    pub to_tick: Tick,
    /// What the file system said.
    pub error: String,
}

impl Lane {
    /// An error of the spool that cost this lane something. That there is no room is told for the whole process, once.
    pub(in crate::pipeline) fn note_spool_error(&self, error: &std::io::Error, what: &str) {
        self.metrics.spool_failed.inc();
        if is_full_error(error) {
            return;
        }
        let nth = self.spool_errors.fetch_add(1, SeqCst) + 1;
        // A disk that is broken says so at every tick.
        if nth.is_power_of_two() {
            tracing::error!(recording = self.recording_id, track = self.track, so_far = nth, %error, "{what}");
        }
    }
}
