//! What is known of a track that an earlier process left.

use crate::ledger::Ledger;
use crate::media::{Canvas, DiscardReason, GapReason, Kind, Micros, Tick};
use crate::pipeline::store::manifest::{EpochManifest, Gap};
use crate::pipeline::store::spool::Closed;

/// Where a track stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenUp {
    /// Recall's participant id.
    pub participant_id: String,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// The size of its pictures.
    pub canvas: Canvas,
    /// RFC 6381.
    pub codecs: String,
    /// Runs of segments.
    pub epochs: Vec<EpochManifest>,
    /// Durable segments, in order.
    pub closed: Vec<Closed>,
    /// The books at the last complete part.
    pub ledger: Ledger,
    /// The first tick with a picture.
    pub first_tick: Tick,
    /// The tick after the last complete part.
    pub next_tick: Tick,
    /// The newest time placed.
    pub last_at: Micros,
    /// The number for the next capture.
    pub next_capture: u64,
    /// Ranges without pictures.
    pub gaps: Vec<Gap>,
    /// Why the source was off when the process died, if it was.
    pub off: Option<GapReason>,
    /// Bytes of unfinished parts that were cut off.
    pub bytes_cut: u64,
}

impl TakenUp {
    /// Takes over the books that the process left when it stopped.
    pub fn go_on_from(&mut self, books: Ledger) {
        self.ledger.go_on_from(books, DiscardReason::SpoolFull);
        self.next_capture = self.next_capture.max(self.ledger.received);
    }
}
