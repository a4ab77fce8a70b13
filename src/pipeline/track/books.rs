//! The books of what is being written: what the open segment holds, and putting that right when it is lost.

use std::sync::Arc;

use crate::media::{DiscardReason, GapReason, Tick};
use crate::pipeline::lane::{Lane, Lost};
use crate::pipeline::package::segmenter::Part;
use crate::pipeline::store::gaps;
use crate::pipeline::store::spool::WhenClosed;

use super::TrackWriter;

/// What the books hold of the segment that is being written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SegmentBooks {
    first: Tick,
    ticks: Tick,
    encoded: u64,
    held: u64,
}

impl SegmentBooks {
    /// With one part more.
    pub(super) fn and(self, part: &Part, encoded: u64, held: u64) -> SegmentBooks {
        let first = if self.ticks == 0 { part.first_tick } else { self.first };
        let ticks = self.ticks + Tick::from(part.ticks);
        SegmentBooks { first, ticks, encoded: self.encoded + encoded, held: self.held + held }
    }

    /// The segment is in no output: its pictures are booked as discarded, its ticks as filled.
    pub(super) fn lose(self, lane: &Lane) {
        lane.view(|view| {
            view.ledger.lose(DiscardReason::SpoolFull, self.encoded, self.held);
            gaps::note_gap(&mut view.gaps, self.first, self.first + self.ticks, GapReason::SpoolFull);
        });
    }
}

/// What is told when a segment is durable: it joins the list that the keeper publishes. When it is not, its books are
/// put right.
pub(super) fn when_closed(lane: &Arc<Lane>, segment: SegmentBooks) -> WhenClosed {
    lane.view(|view| view.syncing += 1);
    let lane = Arc::clone(lane);
    Box::new(move |closed| {
        if let Err(error) = &closed {
            lane.note_spool_error(error, "a segment was not made durable");
            segment.lose(&lane);
            let (from_tick, to_tick) = (segment.first, segment.first + segment.ticks);
            let lost = Lost { from_tick, to_tick, error: error.to_string() };
            lane.view(|view| view.lost.push(lost));
        }
        lane.view(|view| {
            view.syncing -= 1;
            view.closed.extend(closed);
        });
        lane.changed.notify_one();
    })
}

impl TrackWriter {
    /// Books ticks that are in no segment; the MP4 fills them.
    pub(super) fn book_unwritten(&mut self, lane: &Arc<Lane>, first: Tick, ticks: Tick, reason: GapReason) {
        lane.view(|view| {
            view.ledger.filled += ticks as u64;
            gaps::note_gap(&mut view.gaps, first, first + ticks, reason);
        });
        gaps::note_gap(&mut self.holes, first, first + ticks, reason);
        self.metrics.filled(lane.kind, ticks as u64);
    }
}
