//! The books of a track: what was received, and what became of every capture and every tick.
//!
//! Plain counters. A capture enters when its outcome is known; what waits in queues is a gauge elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::media::DiscardReason;

/// The counters of one track. `received == encoded + sum(discarded)` holds after every call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ledger {
    /// Captures whose outcome is known.
    pub received: u64,
    /// Captures that are pictures of the output: their part is appended.
    pub encoded: u64,
    /// Ticks that show the picture before them again.
    pub held: u64,
    /// Ticks of the MP4 that show the fill picture.
    pub filled: u64,
    /// Captures that are not in the output, by reason.
    #[serde(default)]
    pub discarded: BTreeMap<String, u64>,
}

impl Ledger {
    /// Counts `n` captures whose part was appended.
    pub fn encode(&mut self, n: u64) {
        self.received += n;
        self.encoded += n;
    }

    /// Counts `n` captures that are not in the output.
    pub fn discard(&mut self, reason: DiscardReason, n: u64) {
        if n > 0 {
            self.received += n;
            *self.discarded.entry(reason.name().to_owned()).or_default() += n;
        }
    }

    /// Takes back what was counted of a segment that is in no output: its pictures are discarded after all, its ticks
    /// show the fill picture.
    pub fn lose(&mut self, reason: DiscardReason, encoded: u64, held: u64) {
        self.encoded -= encoded;
        self.received -= encoded;
        self.discard(reason, encoded);
        self.held -= held;
        self.filled += encoded + held;
    }

    /// Puts the books right by what the segments hold: captures beyond that are in no output, for this reason, and
    /// those that came back are no longer booked under it. The ticks in all stay.
    pub fn settle(&mut self, reason: DiscardReason, encoded: u64, held: u64) {
        let ticks = self.ticks();
        let known = self.discarded.get(reason.name()).copied().unwrap_or(0);
        let discarded = (known + self.encoded).saturating_sub(encoded);
        if discarded != known {
            self.discarded.insert(reason.name().to_owned(), discarded);
        }
        (self.encoded, self.held) = (encoded, held);
        self.filled = ticks.saturating_sub(encoded + held);
        self.received = encoded + self.discarded_total();
    }

    /// Goes on from what the books of the same track said later, after its last part: their captures, while the ticks and
    /// the pictures stay those that are here. What says less than this is not later.
    pub fn go_on_from(&mut self, mut later: Ledger, reason: DiscardReason) {
        if later.received >= self.received {
            later.settle(reason, self.encoded, self.held);
            *self = Ledger { filled: self.filled, ..later };
        }
    }

    /// The books of a track that is deleted: what was in its output is in none any more.
    #[must_use]
    pub fn deleted(mut self) -> Ledger {
        let encoded = std::mem::take(&mut self.encoded);
        self.received -= encoded;
        self.discard(DiscardReason::Deleted, encoded);
        Ledger { held: 0, filled: 0, ..self }
    }

    /// With the captures of other books of the same track.
    pub fn join(&mut self, other: Ledger) {
        self.received += other.received;
        self.encoded += other.encoded;
        self.held += other.held;
        self.filled += other.filled;
        for (reason, n) in other.discarded {
            *self.discarded.entry(reason).or_default() += n;
        }
    }

    /// The captures discarded for any reason.
    pub fn discarded_total(&self) -> u64 {
        self.discarded.values().sum()
    }

    /// Whether every capture has exactly one outcome.
    pub fn captures_balance(&self) -> bool {
        self.received == self.encoded + self.discarded_total()
    }

    /// Ticks that an MP4 of this track has.
    pub fn ticks(&self) -> u64 {
        self.encoded + self.held + self.filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_balance_after_every_call() {
        let mut ledger = Ledger::default();
        ledger.encode(3);
        ledger.discard(DiscardReason::Late, 2);
        ledger.discard(DiscardReason::Late, 0);
        assert_eq!((ledger.received, ledger.encoded, ledger.discarded["late"]), (5, 3, 2));
        assert!(ledger.captures_balance());
        let ticks = ledger.ticks();
        ledger.lose(DiscardReason::SpoolFull, 2, 0);
        assert_eq!((ledger.received, ledger.encoded, ledger.filled, ledger.ticks()), (5, 1, 2, ticks));
        assert!(ledger.captures_balance());
        ledger.settle(DiscardReason::SpoolFull, 0, 0);
        assert_eq!((ledger.received, ledger.discarded["spool_full"], ledger.ticks()), (5, 3, ticks));
        ledger.settle(DiscardReason::SpoolFull, 1, 0);
        assert_eq!((ledger.received, ledger.discarded["spool_full"], ledger.ticks()), (5, 2, ticks));
        assert!(ledger.captures_balance());
        ledger.received += 1;
        assert!(!ledger.captures_balance());
    }

    #[test]
    fn of_a_deleted_track_nothing_is_in_any_output() {
        let mut ledger = Ledger { held: 2, filled: 7, ..Ledger::default() };
        ledger.encode(5);
        ledger.discard(DiscardReason::Late, 1);
        let mut deleted = ledger.deleted();
        assert_eq!((deleted.received, deleted.encoded, deleted.ticks(), deleted.discarded["deleted"]), (6, 0, 0, 5));
        let mut more = Ledger::default();
        more.discard(DiscardReason::Deleted, 3);
        deleted.join(more);
        assert_eq!((deleted.received, deleted.discarded["deleted"], deleted.discarded["late"]), (9, 8, 1));
        assert!(deleted.captures_balance());
    }

    #[test]
    fn what_was_discarded_after_the_last_part_is_taken_over() {
        let books = |encoded, late| {
            let mut ledger = Ledger { held: 1, filled: 5, ..Ledger::default() };
            ledger.encode(encoded);
            ledger.discard(DiscardReason::Late, late);
            ledger
        };
        let mut ledger = books(10, 2);
        // Later two more were late, a gap was booked that nothing of is written, and two pictures are in no segment.
        ledger.go_on_from(Ledger { filled: 9, ..books(12, 4) }, DiscardReason::SpoolFull);
        assert_eq!((ledger.received, ledger.encoded, ledger.filled), (16, 10, 5));
        assert_eq!((ledger.discarded["late"], ledger.discarded["spool_full"]), (4, 2));
        assert!(ledger.captures_balance());
        let before = ledger.clone();
        ledger.go_on_from(books(10, 3), DiscardReason::SpoolFull);
        assert_eq!(ledger, before, "older books say nothing new");
    }
}
