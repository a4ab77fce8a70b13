//! What the ticks without a picture show: the last picture again, or a gap with its reason.
//!
//! Keeps what the source did (marks) for as long as it matters. Which ticks have no picture is decided in `place`.

use super::{Mark, Rules, Step, TICK};
use crate::media::{GapReason, Grid, Micros, Tick};

/// Marks of one sort that are kept. When full the oldest goes: a source that flaps this often within what a lane may
/// lag behind loses some of its reasons, nothing else.
const MARKS_MAX: usize = 32;

/// Lost captures closer than this many ticks are one run; what lies between them was most likely lost alike.
const RUN_TICKS: i64 = 3;

/// What a tick without a picture shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    Held(Option<GapReason>),
    Gap { reason: GapReason, live: bool },
}

/// Captures that came and cannot be shown, from the first one's time to the last one's.
#[derive(Debug)]
struct Losses {
    from: Micros,
    to: Micros,
    reason: GapReason,
}

/// The source of a lane as its marks tell it, and the hole that is being written.
#[derive(Debug)]
pub(super) struct Holes {
    grid: Grid,
    hold: Tick,
    hold_after_loss: Micros,
    live_fill: Tick,
    /// Off (with its reason) or on, by time.
    switches: Vec<(Micros, Option<GapReason>)>,
    /// Socket lost (`true`) or back, by time.
    links: Vec<(Micros, bool)>,
    /// By start.
    losses: Vec<Losses>,
    /// The newest picture: its tick, when this process has it to show again, and its time.
    shown: Option<Tick>,
    picture_at: Option<Micros>,
    /// The first tick of the gap that is being written: it stays one until a picture comes.
    gap: Option<Tick>,
    /// Why the source was off before the process was restarted, if it was.
    before_restart: Option<GapReason>,
}

impl Holes {
    pub(super) fn new(rules: &Rules) -> Holes {
        Holes {
            grid: rules.grid,
            hold: rules.grid.ticks_in(rules.hold),
            hold_after_loss: rules.hold_after_loss,
            live_fill: rules.grid.ticks_in(rules.live_fill),
            switches: Vec::new(),
            links: Vec::new(),
            losses: Vec::new(),
            shown: None,
            picture_at: None,
            gap: None,
            before_restart: None,
        }
    }

    /// After a restart of the process: the picture of `last_at` is not here to be shown again.
    pub(super) fn resume(rules: &Rules, last_at: Micros, off: Option<GapReason>) -> Holes {
        let switches = vec![(last_at, Some(GapReason::ServerDown))];
        Holes { switches, picture_at: Some(last_at), before_restart: off, ..Holes::new(rules) }
    }

    /// Notes what the source did at `at`. A mark that a newer picture has answered is dropped; one for ticks that are
    /// written already counts from the next one on.
    pub(super) fn mark(&mut self, at: Micros, mark: Mark) {
        match mark {
            Mark::On => self.switch(at, None),
            Mark::Off(reason) => self.switch(at, Some(reason)),
            Mark::SocketLost if self.answered(at + self.hold_after_loss + Micros(1)) => {}
            Mark::SocketLost => insert(&mut self.links, (at, true)),
            Mark::SocketBack => {
                insert(&mut self.links, (at, false));
                if matches!(self.switches.last(), Some((_, Some(GapReason::ServerDown)))) {
                    self.switch(at, self.before_restart);
                }
            }
            Mark::Shed => self.lose(at, GapReason::Overloaded),
            Mark::Undecodable => self.lose(at, GapReason::Undecodable),
            Mark::Placeholder if self.off_at(at) => {}
            Mark::Placeholder => self.switch(at, Some(GapReason::CameraOff)),
        }
    }

    /// A picture taken at `at` was placed: the hole before it is closed, and the source is on.
    pub(super) fn picture(&mut self, tick: Tick, at: Micros) {
        self.shown = Some(tick);
        self.picture_at = Some(at);
        self.gap = None;
        self.switches.retain(|&(since, _)| since > at);
        let loss = self.hold_after_loss;
        self.links.retain(|&(since, _)| since + loss >= at);
    }

    /// Writes the ticks `from..to`, none of which has a picture. `phase`: how far the lane's pictures lie from their
    /// ticks, to find the ticks of the captures that were lost.
    pub(super) fn write<P>(&mut self, from: Tick, to: Tick, phase: i64, out: &mut Vec<Step<P>>) {
        let mut first = from;
        while first < to {
            let (show, end) = self.run(first, to, phase);
            push_run(out, show, first, end - first);
            first = end;
        }
        self.forget(to, phase);
    }

    /// What `tick` shows, and the tick up to which that stays so (`to` at most).
    fn run(&mut self, tick: Tick, to: Tick, phase: i64) -> (Show, Tick) {
        let mut end = to;
        let mut change = |at: Tick| {
            if at > tick {
                end = end.min(at);
            }
        };
        let off = self.off(tick, &mut change);
        let lost = self.lost(tick, &mut change);
        let loss = self.loss(tick, phase, &mut change);
        let held_to = self.shown.map_or(tick, |shown| shown + 1 + self.hold);
        if self.gap.is_none() && off.is_none() && !lost && tick < held_to {
            change(held_to);
            return (Show::Held(loss), end);
        }
        let live_to = *self.gap.get_or_insert(tick) + self.live_fill;
        change(live_to);
        let reason = off.or(lost.then_some(GapReason::Disconnected)).or(loss).unwrap_or(GapReason::Unknown);
        (Show::Gap { reason, live: tick < live_to }, end)
    }

    fn off(&self, tick: Tick, change: &mut impl FnMut(Tick)) -> Option<GapReason> {
        let mut off = None;
        for &(at, switch) in &self.switches {
            match self.grid.tick_from(at) {
                from if from <= tick => off = switch,
                from => change(from),
            }
        }
        off
    }

    fn lost(&self, tick: Tick, change: &mut impl FnMut(Tick)) -> bool {
        let mut since = None;
        for &(at, lost) in &self.links {
            let effect = if lost { at + self.hold_after_loss } else { at };
            change(self.grid.tick_from(effect));
            match (self.grid.tick_from(at) <= tick, lost) {
                (false, _) => {}
                (true, true) => since = since.or(Some(self.grid.tick_from(effect))),
                (true, false) => since = None,
            }
        }
        since.is_some_and(|from| from <= tick)
    }

    fn loss(&self, tick: Tick, phase: i64, change: &mut impl FnMut(Tick)) -> Option<GapReason> {
        let mut found = None;
        for run in &self.losses {
            let (from, to) = (self.tick_of_loss(run.from, phase), self.tick_of_loss(run.to, phase));
            change(from);
            change(to + 1);
            if found.is_none() && (from..=to).contains(&tick) {
                found = Some(run.reason);
            }
        }
        found
    }

    /// The tick that a lost capture would have taken.
    fn tick_of_loss(&self, at: Micros, phase: i64) -> Tick {
        (at.0 * i64::from(self.grid.fps) - phase + TICK / 2).div_euclid(TICK)
    }

    /// Whether the source is known to be off at that time.
    fn off_at(&self, at: Micros) -> bool {
        self.switches.iter().rev().find(|(since, _)| *since <= at).is_some_and(|(_, off)| off.is_some())
    }

    /// Whether a picture of that time or a newer one was placed.
    fn answered(&self, at: Micros) -> bool {
        self.picture_at.is_some_and(|picture| picture >= at)
    }

    fn switch(&mut self, at: Micros, off: Option<GapReason>) {
        if !self.answered(at) {
            insert(&mut self.switches, (at, off));
        }
    }

    fn lose(&mut self, at: Micros, reason: GapReason) {
        let near = Micros(RUN_TICKS * TICK / i64::from(self.grid.fps));
        let run =
            self.losses.iter_mut().find(|run| run.reason == reason && run.from - near <= at && at <= run.to + near);
        if let Some(run) = run {
            run.from = run.from.min(at);
            run.to = run.to.max(at);
            return;
        }
        if self.losses.len() == MARKS_MAX {
            self.losses.remove(0);
        }
        let place = self.losses.partition_point(|run| run.from <= at);
        self.losses.insert(place, Losses { from: at, to: at, reason });
    }

    /// Drops the marks that can say nothing about `next` and later ticks: all that newer ones have replaced.
    fn forget(&mut self, next: Tick, phase: i64) {
        let grid = self.grid;
        let past = self.switches.iter().take_while(|(at, _)| grid.tick_from(*at) <= next).count();
        self.switches.drain(..past.saturating_sub(1));
        let back = self.links.iter().rposition(|&(at, lost)| !lost && grid.tick_from(at) <= next);
        self.links.drain(..back.map_or(0, |back| back + 1));
        let mut losses = std::mem::take(&mut self.losses);
        losses.retain(|run| self.tick_of_loss(run.to, phase) >= next);
        self.losses = losses;
    }
}

/// Inserts by time, behind those of the same time.
fn insert<T>(marks: &mut Vec<(Micros, T)>, mark: (Micros, T)) {
    if marks.len() == MARKS_MAX {
        marks.remove(0);
    }
    let place = marks.partition_point(|(at, _)| *at <= mark.0);
    marks.insert(place, mark);
}

/// Adds a run, to the last one when it goes on in the same way.
fn push_run<P>(out: &mut Vec<Step<P>>, show: Show, first: Tick, ticks: Tick) {
    match (out.last_mut(), show) {
        (Some(Step::Held { first: f, ticks: t, reason }), Show::Held(r)) if *f + *t == first && *reason == r => {
            *t += ticks
        }
        (Some(Step::Gap { first: f, ticks: t, reason, live }), Show::Gap { reason: r, live: l })
            if *f + *t == first && *reason == r && *live == l =>
        {
            *t += ticks;
        }
        (_, Show::Held(reason)) => out.push(Step::Held { first, ticks, reason }),
        (_, Show::Gap { reason, live }) => out.push(Step::Gap { first, ticks, reason, live }),
    }
}
