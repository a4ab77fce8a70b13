//! Captures on the recording's time line: placed as they are read, or once their time is no longer in doubt.
//!
//! Not here: what is believed ([`crate::pipeline::timeline::clock`]).

use crate::clock::rfc3339;
use crate::media::{DiscardReason, Micros};
use crate::pipeline::delivery::Offer;
use crate::pipeline::ingest::protocol::{Participant, Timestamp};
use crate::pipeline::timeline::Mark;
use crate::pipeline::timeline::clock::Verdict;

use super::people::NO_TIME;
use super::{Inner, Recording};

/// Bytes of captures that a recording holds in doubt; beyond them the doubt is over, as it is by time.
const LIMBO_BYTES_MAX: usize = 16 << 20;

impl Inner {
    fn leave_limbo(&mut self, wall: Micros) -> Vec<Offer> {
        let mut placed = Vec::new();
        for mut offer in std::mem::take(&mut self.limbo) {
            match self.clock.recheck(offer.capture.relative, offer.capture.absolute, wall) {
                Verdict::At(at) => {
                    (offer.capture.at, offer.capture.clock) = (at, self.clock.newest());
                    placed.push(offer);
                }
                Verdict::BadTimestamp => offer.lane.discard(DiscardReason::BadTimestamp, 1),
                Verdict::Limbo => self.limbo.push_back(offer),
            }
        }
        placed
    }

    /// The first captures of a socket that is back say since when it is, though not before it was lost: it may send
    /// again what it sent before.
    fn mark_back(&mut self, placed: &[Offer]) {
        let Some(at) = placed.iter().map(|offer| offer.capture.at).min() else { return };
        if let Some(lost) = self.back_since.take() {
            self.lanes.values().for_each(|lane| lane.mark(at.max(lost), Mark::SocketBack));
        }
    }
}

impl Recording {
    /// Reads the clocks of a capture of `who` that was just taken from a socket. Returns the captures that are placed by now, in
    /// the order in which they were read: usually this one alone; none while its time is in doubt; earlier ones in front
    /// of it when it settled theirs.
    pub fn read(&self, mut offer: Offer, who: &Participant, time: Timestamp, wall: Micros, unix: Micros) -> Vec<Offer> {
        let mut inner = self.lock();
        let verdict = inner.clock.read(time.relative, time.absolute, wall, unix);
        if let Some(event) = inner.clock.take_rebased() {
            let detail = serde_json::json!({ "zero_before": rfc3339(event.from), "zero_after": rfc3339(event.to) });
            self.note(&mut inner, event.at, "clock_rebased", None, detail);
        }
        let mut placed = inner.leave_limbo(wall);
        offer.capture.clock = inner.clock.newest();
        match verdict {
            Verdict::At(at) => {
                offer.capture.at = at;
                placed.push(offer);
                self.note_seen(&mut inner, who, at);
            }
            doubtful => {
                // Better than no name at all, though as of no time.
                self.note_seen(&mut inner, who, NO_TIME);
                match doubtful {
                    Verdict::Limbo => {
                        inner.limbo.push_back(offer);
                        // What is in doubt is in no budget yet.
                        let bytes: usize = inner.limbo.iter().map(|offer| offer.capture.base64.len()).sum();
                        if bytes > LIMBO_BYTES_MAX {
                            inner.clock.end_limbo();
                            placed.extend(inner.leave_limbo(wall));
                        }
                    }
                    _ => offer.lane.discard(DiscardReason::BadTimestamp, 1),
                }
            }
        }
        inner.mark_back(&placed);
        placed
    }

    /// Captures whose doubt is over by time alone; asked once a second.
    pub fn leave_limbo(&self, wall: Micros) -> Vec<Offer> {
        let mut inner = self.lock();
        let placed = inner.leave_limbo(wall);
        inner.mark_back(&placed);
        placed
    }

    /// No more captures come that could settle those in doubt: gives those that are believed all the same.
    pub fn end_limbo(&self, wall: Micros) -> Vec<Offer> {
        self.lock().clock.end_limbo();
        self.leave_limbo(wall)
    }
}
