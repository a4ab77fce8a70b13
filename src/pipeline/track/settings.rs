//! What is fixed for a track before its first picture.

use std::io;
use std::sync::Arc;

use crate::pipeline::admission::Load;
use crate::pipeline::encode::EncoderSettings;
use crate::pipeline::state::{Kept, RecordingSettings};
use crate::pipeline::store::spool::TrackSpool;
use crate::pipeline::timeline::Rules;

/// What is fixed for a track.
#[derive(Clone, Debug)]
pub struct TrackSettings {
    /// What the recording's first writer fixed.
    pub recording: RecordingSettings,
    /// What its encoders are opened with, as that says for its kind.
    pub encoder: EncoderSettings,
    /// The timeline's rules, which follow from that.
    pub rules: Rules,
    /// Where the track is written.
    pub spool: TrackSpool,
    /// Whether the recording's state is in the spool.
    pub kept: Arc<Kept>,
    /// What overload asks of its encoder.
    pub load: Arc<Load>,
}

impl TrackSettings {
    /// Whether the recording's state is in the spool, without which no start takes up what is written here.
    ///
    /// # Errors
    /// Where the disk did not take it, as of a full disk: what is not written is booked so.
    pub(super) fn needs_state(&self) -> io::Result<()> {
        match self.kept.is_written() {
            true => Ok(()),
            false => Err(io::Error::new(io::ErrorKind::StorageFull, "the recording's state is not in the spool")),
        }
    }
}
