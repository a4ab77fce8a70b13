//! Why a tick could not be written, and what its pictures and its ticks are booked as then.

use crate::media::{DiscardReason, GapReason};
use crate::pipeline::encode::EncodeError;

/// Why a tick could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("spool: {0}")]
    Spool(#[from] std::io::Error),
    #[error("packaging: {0}")]
    Package(#[from] crate::pipeline::package::segmenter::SegmentError),
}

impl WriteError {
    /// What its pictures are discarded as, and what the ticks without them are.
    pub(super) fn booked_as(&self) -> (DiscardReason, GapReason) {
        match self {
            WriteError::Spool(_) => (DiscardReason::SpoolFull, GapReason::SpoolFull),
            WriteError::Encode(_) | WriteError::Package(_) => (DiscardReason::EncoderFailed, GapReason::Unknown),
        }
    }
}
