//! When a socket stops waiting, and which captures are dropped then. Pure: time is an argument.

use std::collections::VecDeque;

use crate::media::{Kind, Micros};

use super::admission::REAL_TIME;

/// How far back a socket's pace and waiting are looked at.
const WINDOW: Micros = Micros(10_000_000);

/// Drops captures of a lane evenly, so that holes stay short: every second one, then two of three.
#[derive(Debug, Default)]
pub struct Shedder {
    level: u8,
    count: u8,
}

impl Shedder {
    /// The socket ran out of patience: one level up.
    pub fn more(&mut self) {
        self.level = (self.level + 1).min(2);
        self.count = 0;
    }

    /// Whether the next capture is dropped. `drained` says that the lane's queue is empty, or that its sender waits for it as
    /// long as it takes: then nothing is, from now on.
    pub fn drops_next(&mut self, drained: bool) -> bool {
        if drained {
            *self = Shedder::default();
        }
        if self.level == 0 {
            return false;
        }
        let period = self.level + 1;
        self.count = (self.count + 1) % period;
        self.count != 0
    }
}

/// How long a socket may be held by full lanes. It belongs to the socket, not to each of its lanes.
#[derive(Debug)]
pub struct Patience {
    limit: Micros,
    waits: VecDeque<(Micros, Micros)>,
    pace: VecDeque<(Micros, Micros)>,
}

impl Patience {
    /// A patience of `limit`.
    pub fn new(limit: Micros) -> Patience {
        Patience { limit, waits: VecDeque::new(), pace: VecDeque::new() }
    }

    /// Notes that at `now` the newest `relative` read is this.
    pub fn read(&mut self, now: Micros, relative: Micros) {
        // One sample in 500 ms is enough for a window of 10 s, and bounds the list.
        if self.pace.back().is_none_or(|(at, _)| now - *at >= Micros(500_000)) {
            self.pace.push_back((now, relative));
        }
        while self.pace.get(1).is_some_and(|(at, _)| *at + WINDOW <= now) {
            self.pace.pop_front();
        }
    }

    /// Notes that the socket was held from `from` to `to`.
    pub fn held(&mut self, from: Micros, to: Micros) {
        if to > from {
            self.waits.push_back((from, to));
        }
        while self.waits.front().is_some_and(|(_, end)| *end + WINDOW <= to) {
            self.waits.pop_front();
        }
    }

    /// Until when a socket that waits since `since` for a lane of that kind, which last freed a slot at `freed`, may go on
    /// waiting. For webcams it has half as much patience as for screenshares: with those shedding early, the workers come
    /// to the screenshares' captures before the rest of the patience is over.
    pub fn until(&self, kind: Kind, since: Micros, freed: Micros, now: Micros) -> Micros {
        let lane = since.max(freed) + self.limit;
        if !self.at_real_time_pace(now) {
            return lane;
        }
        let from = now - WINDOW;
        let earlier: i64 =
            self.waits.iter().filter(|(_, end)| *end > from).map(|(start, end)| end.0 - start.max(&from).0).sum();
        let all = if kind == Kind::Screenshare { self.limit.0 } else { self.limit.0 / 2 };
        lane.min(since + Micros((all - earlier).max(0)))
    }

    /// How fast the sender's time goes on, in thousandths of ours, over the window; [`REAL_TIME`] where that is not known
    /// yet, and at least.
    pub fn pace(&self, now: Micros) -> u64 {
        let (Some((first_at, first)), Some((_, last))) = (self.pace.front(), self.pace.back()) else {
            return REAL_TIME;
        };
        let wall = (now - *first_at).0.max(1);
        ((last.0 - first.0).max(0) as u64).saturating_mul(REAL_TIME).div_euclid(wall as u64).max(REAL_TIME)
    }

    /// Whether a sender may wait at `now` for as long as it takes: it runs ahead of the clock, and the lane, which last freed
    /// a slot at `freed`, does not stand still.
    pub fn lasts_for_ever(&self, now: Micros, freed: Micros) -> bool {
        self.pace(now) * 2 > REAL_TIME * 3 && now - freed < self.limit
    }

    /// Whether the sender's time went on at most one and a half times as fast as ours: then waiting only makes it late.
    fn at_real_time_pace(&self, now: Micros) -> bool {
        let (Some((first_at, first)), Some((_, last))) = (self.pace.front(), self.pace.back()) else { return false };
        let wall = now - *first_at;
        wall >= WINDOW && (last.0 - first.0) * 2 <= wall.0 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: i64) -> Micros {
        Micros(ms * 1000)
    }

    #[test]
    fn shedding_is_even_and_ends_when_the_lane_is_drained() {
        let mut shedder = Shedder::default();
        let next = |shedder: &mut Shedder| (0..6).map(|_| u8::from(shedder.drops_next(false))).collect::<Vec<_>>();
        assert_eq!(next(&mut shedder), [0, 0, 0, 0, 0, 0]);
        shedder.more();
        assert_eq!(next(&mut shedder), [1, 0, 1, 0, 1, 0]);
        shedder.more();
        shedder.more();
        assert_eq!(next(&mut shedder), [1, 1, 0, 1, 1, 0]);
        assert!(!shedder.drops_next(true));
        assert_eq!(next(&mut shedder), [0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_sender_ahead_of_the_clock_waits_as_long_as_its_lane_moves() {
        let mut patience = Patience::new(ms(2000));
        for step in 0..40 {
            // Three seconds of media a second.
            patience.read(ms(step * 500), ms(step * 1500));
        }
        patience.held(ms(11_000), ms(19_000));
        let now = ms(20_000);
        for kind in [Kind::Webcam, Kind::Screenshare] {
            assert_eq!(patience.until(kind, now, ms(19_900), now), ms(22_000));
            assert_eq!(patience.until(kind, ms(18_000), ms(17_000), now), ms(20_000));
        }
    }

    #[test]
    fn a_replay_that_met_a_stuck_lane_loses_nothing_more_once_it_moves() {
        let mut patience = Patience::new(ms(2000));
        let live = |patience: &mut Patience, pace: i64| {
            *patience = Patience::new(ms(2000));
            (0..40).for_each(|step| patience.read(ms(step * 500), ms(step * 500 * pace)));
        };
        live(&mut patience, 3);
        assert!(!patience.lasts_for_ever(ms(20_000), ms(18_000)), "it stands still");
        assert!(patience.lasts_for_ever(ms(20_000), ms(18_001)));
        live(&mut patience, 1);
        assert!(!patience.lasts_for_ever(ms(20_000), ms(19_999)), "in a meeting it is shed until the queue is empty");
    }

    #[test]
    fn a_pace_is_how_far_the_sender_runs_ahead() {
        let mut patience = Patience::new(ms(2000));
        assert_eq!(patience.pace(ms(0)), REAL_TIME);
        for step in 0..40 {
            patience.read(ms(step * 500), ms(step * 1500));
        }
        assert_eq!(patience.pace(ms(19_500)), 3 * REAL_TIME);
        // Half as fast as the clock is no reason to count twice.
        let mut slow = Patience::new(ms(2000));
        (0..40).for_each(|step| slow.read(ms(step * 500), ms(step * 250)));
        assert_eq!(slow.pace(ms(19_500)), REAL_TIME);
    }

    #[test]
    fn a_stuck_lane_costs_its_siblings_the_patience_in_any_ten_seconds() {
        for (kind, most) in [(Kind::Webcam, ms(1000)), (Kind::Screenshare, ms(2000))] {
            let mut patience = Patience::new(ms(2000));
            let (mut now, mut holds, mut shedder) = (ms(0), Vec::new(), Shedder::default());
            // A sender at real-time pace, with a capture of the lane that never frees a slot at each tick.
            for tick in 0..400 {
                now = now.max(ms(tick * 500));
                patience.read(now, ms(tick * 500));
                if shedder.drops_next(false) {
                    continue;
                }
                let end = patience.until(kind, now, ms(0), now).max(now);
                patience.held(now, end);
                holds.push((now, end));
                now = end;
                shedder.more();
            }
            // Its pace is known after ten seconds.
            for from in (20_000..180_000).step_by(100).map(ms) {
                let to = from + WINDOW;
                let held = holds.iter().map(|(start, end)| (end.min(&to).0 - start.max(&from).0).max(0)).sum();
                assert!(Micros(held) <= most, "{kind:?} from {from:?}: {held}");
            }
            let held: i64 = holds.iter().map(|(start, end)| end.0 - start.0).sum();
            assert!(held > most.0 * 10, "and that it has: {held}");
        }
    }

    #[test]
    fn at_real_time_pace_a_socket_is_held_for_its_patience_in_ten_seconds() {
        let mut patience = Patience::new(ms(2000));
        for step in 0..40 {
            patience.read(ms(step * 500), ms(step * 500));
        }
        patience.held(ms(5_000), ms(5_800));
        patience.held(ms(12_000), ms(12_700));
        let now = ms(20_000);
        assert_eq!(patience.until(Kind::Webcam, now, now, now), ms(20_300));
        patience.held(ms(18_000), ms(18_600));
        assert_eq!(patience.until(Kind::Webcam, now, now, now), now, "screenshares are shed last");
        assert_eq!(patience.until(Kind::Screenshare, now, now, now), ms(20_700));
        patience.held(ms(19_000), ms(19_700));
        assert_eq!(patience.until(Kind::Screenshare, now, now, now), now);
        // Ten seconds later the waits are forgotten.
        let now = ms(30_000);
        patience.read(now, now);
        assert_eq!(patience.until(Kind::Screenshare, now, now, now), ms(32_000));
    }
}
