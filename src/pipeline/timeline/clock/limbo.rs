//! Captures whose time is in doubt: who speaks for them, and what becomes of them when nobody does.
//!
//! What the doubt is about is the clock's to say ([`super`]).

use crate::media::Micros;

use super::{
    ClockRebased, Era, FAR_TOGETHER, LIMBO_MAX, LIMBO_TIME, NEVER, OFFSET_SPAN, OFFSET_TOGETHER, RecordingClock, SLACK,
    WITNESSES, near,
};

/// Without a valid `absolute`, a `relative` under this tells of a new start when it is also [`RESTART_BACK`] behind.
const RESTART_ZERO: Micros = Micros::from_secs(2);

/// A replay after a blip, or a lane that lags, goes back less than this or does not begin near zero.
const RESTART_BACK: Micros = Micros::from_secs(5);

/// How far past the clock a source goes on that says nothing usable about how long it paused: bots send twice a second.
const RESTART_STEP: Micros = Micros(500_000);

/// Captures of a source that started anew, or that are far ahead with nobody to contradict them, belong together when they
/// lie this close: static slides come minutes apart, and at once where they are sent again.
const RUN_MAX: Micros = Micros::from_secs(600);

/// Why a capture is undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Its time is far past the clock.
    Far,
    /// `relative` went back and the offset moved.
    Rebased { offset: Micros },
    /// `relative` began anew near zero, and there is no offset to compare.
    Restarted,
}

/// An undecided capture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    pub(super) relative: Micros,
    pub(super) offset: Option<Micros>,
    pub(super) doubt: Doubt,
    pub(super) since: Micros,
    /// The server's clock when it was read: should it be the first to be believed, the origin may come from it.
    pub(super) unix: Micros,
    /// Captures that had been accepted by then.
    pub(super) accepted: u64,
}

impl RecordingClock {
    /// Whether a `relative` without offset seems to tell of a new start, by itself or with those that are undecided for it.
    pub(super) fn restarted(&self, relative: Micros, newest: Micros) -> bool {
        let company = || self.limbo.iter().any(|witness| witness.doubt == Doubt::Restarted);
        newest - relative > RESTART_BACK && relative >= Micros(0) && (relative < RESTART_ZERO || company())
    }

    /// Whether the undecided captures, this newest one among them, are enough to believe it. If so, takes them out
    /// of limbo, and begins a new era when they tell of one.
    pub(super) fn convinced(&mut self, relative: Micros, doubt: Doubt) -> bool {
        let agrees = |witness: &Witness| match (witness.doubt, doubt) {
            (Doubt::Far, Doubt::Far) => near(witness.relative, relative, FAR_TOGETHER),
            (_, Doubt::Rebased { offset }) => witness.agrees_on(offset),
            (Doubt::Restarted, Doubt::Restarted) => true,
            _ => false,
        };
        let those = || self.limbo.iter().filter(|witness| agrees(witness));
        let times = || those().map(|witness| witness.relative);
        let (Some(from), Some(to)) = (times().min(), times().max()) else { return false };
        if times().count() < WITNESSES {
            return false;
        }
        let full = self.limbo.len() >= LIMBO_MAX;
        let rebased = match doubt {
            Doubt::Far => true,
            Doubt::Rebased { offset } => (to - from >= OFFSET_SPAN || full) && self.rebase(from, to, Some(offset)),
            Doubt::Restarted => {
                let read = || those().map(|witness| witness.since);
                let took = read().max().unwrap_or_default() - read().min().unwrap_or_default();
                let span = if full { Micros(OFFSET_SPAN.0 / 2) } else { OFFSET_SPAN };
                // What is sent again comes faster than it was made.
                to - from >= span && took.0 * 2 >= (to - from).0 && self.rebase(from, to, None)
            }
        };
        if rebased {
            let (believed, kept) = std::mem::take(&mut self.limbo).into_iter().partition(agrees);
            self.limbo = kept;
            let believed: Vec<Witness> = believed;
            believed.iter().for_each(|witness| self.come_to(self.line(witness.relative, witness.offset)));
        }
        rebased
    }

    /// Begins the era of `offset`, whose undecided captures lie from `oldest` to `newest`. By the offset, unless that would
    /// put them over what is written, or a day ahead: then they go on at the clock. Not when their own times are too far apart for that.
    fn rebase(&mut self, oldest: Micros, newest: Micros, offset: Option<Micros>) -> bool {
        let (Some(clock), Some(&before)) = (self.clock, self.eras.back()) else { return false };
        let by_offset = offset.zip(before.offset).map(|(to, from)| before.shift + to - from);
        // The idle clock may be ahead of the source by what a message takes; a little behind the last one is reordering.
        let written = (clock - SLACK).max(self.last.unwrap_or(clock) - OFFSET_TOGETHER);
        // After a restart of the server, what is behind is sent again from before: an era that is not known here.
        let resumed = self.accepted == 0;
        let fits = |shift: &Micros| newest + *shift <= clock + NEVER && (resumed || oldest + *shift >= written);
        let shift = by_offset.filter(fits).unwrap_or(clock + RESTART_STEP - oldest);
        if by_offset != Some(shift) && newest - oldest > RUN_MAX {
            return false;
        }
        let zero = |shift: Micros| self.origin.map_or(Micros(0), |origin| origin.unix) + shift;
        let (from, to) = (before.offset.unwrap_or(zero(before.shift)), offset.unwrap_or(zero(shift)));
        self.begin(Era { offset, shift });
        self.newest = Some(newest);
        self.rebased = Some(ClockRebased { from, to, at: newest + shift });
        true
    }

    pub(super) fn expire(&mut self, wall: Micros) {
        self.give_up(|witness| wall - witness.since >= LIMBO_TIME);
    }

    /// Takes these out of limbo: from here on their `relative` counts as it is, a far one only when nothing speaks against
    /// it.
    pub(super) fn give_up(&mut self, which: impl Fn(&Witness) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.limbo).into_iter().partition(which);
        self.limbo = kept;
        let gone: Vec<Witness> = gone;
        let before = self.accepted;
        for Witness { relative, offset, doubt, unix, accepted, .. } in gone {
            match doubt {
                Doubt::Rebased { .. } => self.newest = Some(relative),
                // Alone since: a slide, a bot that is back and sends one picture. Its two clocks must agree with what was.
                Doubt::Far if accepted == before && offset.is_none_or(|offset| self.knows(offset)) => {
                    let goes_on = match self.doubt(relative, offset) {
                        Err(()) => false,
                        Ok(Some(Doubt::Far)) => self.line(relative, offset) - self.newest() <= RUN_MAX,
                        Ok(_) => true,
                    };
                    if self.accepted == before || goes_on {
                        self.fix_origin(relative, offset, unix);
                        self.accept(relative, offset);
                    }
                }
                Doubt::Far | Doubt::Restarted => {}
            }
        }
    }
}

impl Witness {
    pub(super) fn agrees_on(&self, offset: Micros) -> bool {
        matches!(self.doubt, Doubt::Rebased { offset: own } if near(own, offset, OFFSET_TOGETHER))
    }

    pub(super) fn tells_of(&self, offset: Option<Micros>) -> bool {
        self.offset == offset
    }
}
