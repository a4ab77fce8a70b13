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

/// Bytes of messages whose captures a recording holds in doubt: each keeps its message, however little of it is the picture.
/// Beyond them the doubt is over, as it is by time.
const LIMBO_BYTES_MAX: u64 = 16 << 20;

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
                        let bytes: u64 = inner.limbo.iter().map(|offer| offer.message_bytes).sum();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::RecordingParts;
    use super::*;
    use crate::pipeline::ingest::Capture;
    use crate::pipeline::lane::Expected;
    use crate::pipeline::state::RecordingSettings;

    fn recording() -> Recording {
        Recording::new(RecordingParts {
            name: "r".into(),
            unsure: false,
            continues: None,
            prefix: None,
            mark: String::new(),
            spool: "r".into(),
            settings: RecordingSettings::usual(),
            alone_since: Micros(0),
        })
    }

    /// A tiny picture in a message of so many bytes. Gives how many are placed by now.
    fn read(recording: &Recording, relative: Micros, message_bytes: u64) -> usize {
        let capture = Capture {
            number: 0,
            at: Micros(0),
            relative,
            absolute: None,
            clock: Micros(0),
            read_at: Micros(0),
            base64: Bytes::from_static(b"AAAA"),
        };
        let offer = Offer { lane: Expected::nowhere(), capture, message_bytes, picture_bytes: 0 };
        let time = Timestamp { relative: Some(relative), absolute: None };
        recording.read(offer, &Participant::default(), time, Micros(0), Micros(0)).len()
    }

    #[test]
    fn what_is_in_doubt_is_bounded_by_the_messages_that_it_keeps() {
        for (message_bytes, placed) in [(LIMBO_BYTES_MAX / 2, 0), (LIMBO_BYTES_MAX / 2 + 1, 2)] {
            let recording = recording();
            // Far ahead of a recording that has not begun, and of each other.
            assert_eq!(read(&recording, Micros::from_secs(10), message_bytes), 0);
            assert_eq!(read(&recording, Micros::from_secs(20), message_bytes), placed, "{message_bytes} bytes each");
        }
    }
}
