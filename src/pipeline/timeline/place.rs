//! Which tick a capture takes: order, waiting for missing ones, merging, moving with a drifting source.
//!
//! What the ticks in between show is decided in `holes`. Times are exact: `Micros * fps` is a time in micro-ticks.

use std::collections::VecDeque;

use super::drift::{Drift, Move};
use super::holes::Holes;
use super::{Mark, Rules, Stamp, Step, TICK};
use crate::media::{DiscardReason, GapReason, Micros, Tick};

/// Pictures that wait for a missing one: decoded pictures are large. When there are more, the hole before the oldest
/// counts as settled.
const PARKED_MAX: usize = 8;

/// Times of captures placed or merged that are remembered, to tell a duplicate from a late one.
const RECENT_MAX: usize = 64;

/// Two captures this far apart have a hole between them even when the next tick would do for the second: jitter of
/// +-0.4 tick reaches 1.8.
const LEAP: i64 = TICK * 18 / 10;

/// Two captures this close are two of one moment, even when the next tick would do for the second: jitter of +-0.4
/// tick leaves 0.2.
const SQUEEZE: i64 = TICK * 2 / 10;

/// No time is farther from zero than this (about 120 years), so that products with `fps` stay in range.
const TIME_MAX: i64 = 1 << 52;

/// A decoded capture that waits for its turn.
#[derive(Debug)]
struct Parked<P> {
    stamp: Stamp,
    /// `stamp.at` in micro-ticks.
    target: i64,
    payload: P,
}

/// What the last written tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Picture,
    /// A picture, and the capture after it was merged.
    Merged,
    /// Held or a gap.
    Hole,
}

/// What is to be done with the oldest parked capture.
enum Place {
    /// It takes the next tick.
    Next,
    /// It takes this tick, the next one or a later one, once all ticks before `settled` are settled.
    Await { tick: Tick, settled: Tick },
    /// The lane moves a tick up: one held, then this one.
    MoveUp,
    /// The lane moves a tick down: this one is merged.
    MoveDown,
    /// It is not in the output.
    Discard(DiscardReason),
}

/// The timeline of one lane: captures with their payloads in, [`Step`]s in tick order out.
///
/// The steps depend on the captures, their order and the marks; on the clock only where ticks are given up.
#[derive(Debug)]
pub struct Timeline<P> {
    rules: Rules,
    /// How far the recording has come, as far as this lane may know.
    clock: Micros,
    /// The newest time of a capture of this lane.
    newest: Micros,
    first: Option<Tick>,
    /// The tick after the last written one. Without meaning before the first picture.
    next: Tick,
    tail: Tail,
    /// Time of the newest picture placed: nothing older is placed after it.
    last_at: Micros,
    /// Time of the newest capture placed or merged, in micro-ticks.
    last_target: i64,
    /// Where the lane's pictures lay when its last one was placed.
    phase: i64,
    drift: Drift,
    recent: VecDeque<Micros>,
    /// By time.
    parked: Vec<Parked<P>>,
    holes: Holes,
}

impl<P> Timeline<P> {
    /// The timeline of a lane that has written nothing.
    pub fn new(rules: Rules) -> Timeline<P> {
        Timeline {
            rules,
            clock: Micros(-TIME_MAX),
            newest: Micros(-TIME_MAX),
            first: None,
            next: 0,
            tail: Tail::Hole,
            last_at: Micros(-TIME_MAX),
            last_target: -TIME_MAX,
            phase: 0,
            drift: Drift::default(),
            recent: VecDeque::new(),
            parked: Vec::new(),
            holes: Holes::new(&rules),
        }
    }

    /// Goes on after an earlier process that wrote all ticks before `next_tick`, its newest picture taken at
    /// `last_at`. Up to the first picture there is a gap: `server_down` until a socket is back, then what turned the
    /// source `off` before, if anything did, until a mark says otherwise.
    pub fn resume(rules: Rules, next_tick: Tick, last_at: Micros, off: Option<GapReason>) -> Timeline<P> {
        let last_at = clamp(last_at);
        let mut drift = Drift::default();
        drift.restart();
        Timeline {
            first: Some(next_tick),
            next: next_tick,
            last_at,
            last_target: last_at.0 * i64::from(rules.grid.fps),
            drift,
            recent: VecDeque::from([last_at]),
            holes: Holes::resume(&rules, last_at, off),
            ..Timeline::new(rules)
        }
    }

    /// Notes what the source did. Marks may come in any order; those for ticks already written count from the next
    /// tick on, or not at all when a newer picture has answered them.
    pub fn mark(&mut self, at: Micros, mark: Mark) {
        self.holes.mark(clamp(at), mark);
    }

    /// Takes a capture. `clock` is the recording's clock when it was read from its socket; a clock far ahead of this
    /// lane's own captures (it was read in a burst, other lanes first) gives up no tick that they may still take.
    pub fn take(&mut self, stamp: Stamp, payload: P, clock: Micros, out: &mut Vec<Step<P>>) {
        let at = stamp.at;
        if at.0 < 0 || at.0 > TIME_MAX {
            let reason = if at.0 < 0 { DiscardReason::BeforeStart } else { DiscardReason::BadTimestamp };
            return out.push(Step::Discard { stamp, reason, payload });
        }
        if self.recent.contains(&at) || self.parked.iter().any(|parked| parked.stamp.at == at) {
            return out.push(Step::Discard { stamp, reason: DiscardReason::Duplicate, payload });
        }
        if at < self.last_at {
            self.drift.disturb();
            return out.push(Step::Discard { stamp, reason: DiscardReason::Late, payload });
        }
        self.newest = self.newest.max(at);
        self.clock = self.clock.max(clock.min(self.newest));
        let target = at.0 * i64::from(self.rules.grid.fps);
        let place = self.parked.partition_point(|parked| parked.target < target);
        self.parked.insert(place, Parked { stamp, target, payload });
        self.place_ready(false, out);
    }

    /// The recording has come to `clock`, and nothing of this lane waits in a queue: gives up what is settled by
    /// then. A clock that goes back is ignored. However far it goes, the steps are few.
    pub fn advance(&mut self, clock: Micros, out: &mut Vec<Step<P>>) {
        self.clock = self.clock.max(clamp(clock));
        self.place_ready(false, out);
        if self.first.is_some() && self.parked.is_empty() {
            self.leave_open(self.settled(), out);
        }
    }

    /// Places all parked pictures now: nothing more is awaited.
    pub fn flush(&mut self, out: &mut Vec<Step<P>>) {
        self.place_ready(true, out);
    }

    /// Flushes, then writes holds and gaps up to `end` (exclusive).
    pub fn finish(&mut self, end: Tick, out: &mut Vec<Step<P>>) {
        self.flush(out);
        if self.first.is_some() {
            self.leave_open(end, out);
        }
    }

    /// The first tick written, or to be written after a restart; `None` before the first picture.
    pub fn first_tick(&self) -> Option<Tick> {
        self.first
    }

    /// The tick after the last one written; `None` before the first picture.
    pub fn next_tick(&self) -> Option<Tick> {
        self.first.map(|_| self.next)
    }

    /// Pictures that wait for a missing one: 8 at most.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Whether [`Timeline::advance`] can ever have something to do in the present state.
    pub fn wants_clock(&self) -> bool {
        self.first.is_some()
    }

    /// All ticks before this one are settled.
    fn settled(&self) -> Tick {
        self.rules.grid.tick_at(self.clock - self.rules.settle) + 1
    }

    /// Places the parked captures whose turn has come; with `all`, every one.
    fn place_ready(&mut self, all: bool, out: &mut Vec<Step<P>>) {
        while let Some(oldest) = self.parked.first() {
            let place = self.place_of(oldest.target);
            if let Place::Await { tick, settled } = place
                && settled > self.settled()
                && !all
                && self.parked.len() <= PARKED_MAX
            {
                return self.leave_open(self.settled().min(tick), out);
            }
            let oldest = self.parked.remove(0);
            self.settle_capture(place, oldest, out);
        }
    }

    /// The rules of placing, for the oldest capture that is not placed.
    fn place_of(&self, target: i64) -> Place {
        let nearest = (target + TICK / 2).div_euclid(TICK);
        if self.first.is_none() {
            return Place::Await { tick: nearest, settled: Tick::MIN };
        }
        let error = target - self.next * TICK;
        let after_picture = self.tail != Tail::Hole;
        if error <= -TICK {
            return Place::Discard(if after_picture { DiscardReason::Merged } else { DiscardReason::Late });
        }
        let spacing = target - self.last_target;
        // Where captures come faster than ticks, a tick goes to one that is nearest to it, not to the next best.
        if nearest < self.next && after_picture && (self.tail == Tail::Merged || spacing < SQUEEZE) {
            return Place::Discard(DiscardReason::Merged);
        }
        let leap = spacing > LEAP;
        let surprise = self.drift.surprised_by(error);
        let tick = if after_picture && error < TICK && !leap {
            if !surprise {
                return match self.drift.due(error) {
                    Some(Move::Up) => Place::MoveUp,
                    Some(Move::Down) => Place::MoveDown,
                    None => Place::Next,
                };
            }
            self.next
        } else {
            nearest.max(self.next)
        };
        // A capture past the start of its tick may have overtaken one that is to take this very tick.
        let settled = if target > tick * TICK { tick + 1 } else { tick };
        if settled <= self.next { Place::Next } else { Place::Await { tick, settled } }
    }

    fn settle_capture(&mut self, place: Place, capture: Parked<P>, out: &mut Vec<Step<P>>) {
        match place {
            Place::Next => self.put(self.next, capture, out),
            Place::Await { tick, .. } => {
                self.leave_open(tick, out);
                self.put(tick, capture, out);
            }
            Place::MoveUp => {
                self.holes.write(self.next, self.next + 1, self.phase, out);
                self.drift.moved(Move::Up);
                self.put(self.next + 1, capture, out);
            }
            Place::MoveDown => {
                self.drift.moved(Move::Down);
                self.discard(DiscardReason::Merged, capture, out);
            }
            Place::Discard(reason) => {
                if reason == DiscardReason::Merged {
                    self.drift.restart();
                }
                self.discard(reason, capture, out);
            }
        }
    }

    /// Writes the ticks from the next one to `to` (exclusive), if any, without pictures.
    fn leave_open(&mut self, to: Tick, out: &mut Vec<Step<P>>) {
        if self.first.is_some() && to > self.next {
            self.holes.write(self.next, to, self.phase, out);
            self.next = to;
            self.tail = Tail::Hole;
            self.drift.restart();
        }
    }

    fn put(&mut self, tick: Tick, capture: Parked<P>, out: &mut Vec<Step<P>>) {
        let Parked { stamp, target, payload } = capture;
        self.first.get_or_insert(tick);
        self.next = tick + 1;
        self.tail = Tail::Picture;
        self.last_at = stamp.at;
        self.drift.push(target - tick * TICK);
        self.phase = self.drift.phase().unwrap_or(0);
        self.holes.picture(tick, stamp.at);
        self.remember(stamp.at, target);
        out.push(Step::Picture { tick, stamp, payload });
    }

    fn discard(&mut self, reason: DiscardReason, capture: Parked<P>, out: &mut Vec<Step<P>>) {
        let Parked { stamp, target, payload } = capture;
        if reason == DiscardReason::Merged {
            self.tail = Tail::Merged;
            self.remember(stamp.at, target);
        }
        out.push(Step::Discard { stamp, reason, payload });
    }

    fn remember(&mut self, at: Micros, target: i64) {
        self.last_target = target;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(at);
    }
}

fn clamp(at: Micros) -> Micros {
    Micros(at.0.clamp(-TIME_MAX, TIME_MAX))
}
