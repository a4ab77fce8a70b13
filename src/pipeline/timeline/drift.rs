//! How far a lane's pictures lie from their ticks, and when the lane has to move by a tick.
//!
//! Only counts errors; who takes which tick is decided in `place`. Integers: micro-ticks, and squares in `i128`.

use std::collections::VecDeque;

use super::TICK;

/// Pictures over which the mean error is taken.
const WINDOW: usize = 32;

/// Pictures that say where the next one is expected: few, so that a steady drift is no surprise.
const RECENT: usize = 4;

/// A lane moves when its mean error passes this.
const MEAN_MAX: i64 = TICK * 3 / 4;

/// A picture this far past where the lane's pictures lately lie has probably overtaken another one. Jitter of
/// +-0.25 tick reaches 0.5 between two pictures.
const SURPRISE: i64 = TICK * 55 / 100;

/// Standard deviation from which on a lane that nothing has disturbed moves only when its mean passes [`MEAN_MAX`] by
/// [`STANDARD_ERRORS`]. Its first picture is rounded with its jitter, so with +-0.25 tick (0.144) it may well lie at
/// 0.75 for good, and 32 samples scatter around that. With +-0.12 (0.07) it never starts beyond 0.62.
const SCATTER: i64 = TICK * 7 / 100;
const STANDARD_ERRORS: i128 = 5;

/// Where a lane should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Pictures lie late on the line for their ticks: hold one.
    Up,
    /// They lie early: merge one.
    Down,
}

/// The errors (target - tick, in micro-ticks) of the pictures placed last.
#[derive(Debug, Default)]
pub(super) struct Drift {
    errors: VecDeque<i64>,
    disturbed: bool,
}

impl Drift {
    /// Counts a placed picture.
    pub(super) fn push(&mut self, error: i64) {
        if self.errors.len() == WINDOW {
            self.errors.pop_front();
        }
        self.disturbed |= self.phase().is_some_and(|phase| (error - phase).abs() > SURPRISE);
        self.errors.push_back(error);
    }

    /// Forgets what was, after a hole or a jump.
    pub(super) fn restart(&mut self) {
        self.errors.clear();
        self.disturb();
    }

    /// Something came that belongs to an earlier time: the mean alone decides from here on.
    pub(super) fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// The lane moved by a tick: sees its past as if it had always been there.
    pub(super) fn moved(&mut self, which: Move) {
        let by = match which {
            Move::Up => -TICK,
            Move::Down => TICK,
        };
        self.errors.iter_mut().for_each(|error| *error += by);
    }

    /// Where the latest pictures lie: the mean of a few errors. `None` after a restart.
    pub(super) fn phase(&self) -> Option<i64> {
        let n = self.errors.len().min(RECENT) as i64;
        (n > 0).then(|| self.errors.iter().rev().take(RECENT).sum::<i64>() / n)
    }

    /// Whether a picture with that error has probably overtaken another one.
    pub(super) fn surprised_by(&self, error: i64) -> bool {
        self.phase().is_some_and(|phase| error - phase > SURPRISE)
    }

    /// Whether the lane should move before a picture whose error would be `error`: never such that it ends up a tick off.
    pub(super) fn due(&self, error: i64) -> Option<Move> {
        if self.errors.len() < WINDOW {
            return None;
        }
        let n = WINDOW as i128;
        let sum: i128 = self.errors.iter().map(|&error| i128::from(error)).sum();
        if sum.abs() <= n * i128::from(MEAN_MAX) {
            return None;
        }
        if !self.disturbed {
            let squares: i128 = self.errors.iter().map(|&error| i128::from(error) * i128::from(error)).sum();
            let (scatter, excess) = (n * i128::from(SCATTER), sum.abs() - n * i128::from(MEAN_MAX));
            let variance = n * squares - sum * sum; // times n^2
            // excess / n > k * s / sqrt(n), squared.
            if variance >= scatter * scatter && n * excess * excess <= STANDARD_ERRORS * STANDARD_ERRORS * variance {
                return None;
            }
        }
        match sum > 0 {
            true => (error > 0).then_some(Move::Up),
            false => (error < 0).then_some(Move::Down),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full window around `mean` (in hundredths of a tick), `spread` to either side in turn.
    fn window(mean: i64, spread: i64) -> Drift {
        let mut drift = Drift::default();
        for n in 0..40 {
            drift.push((mean + if n % 2 == 0 { spread } else { -spread }) * TICK / 100);
        }
        drift
    }

    #[test]
    fn a_lane_moves_when_its_mean_passes_three_quarters() {
        // (mean, spread, disturbed, error of the next picture, move)
        let table = [
            (74, 0, false, 74, None),
            (76, 0, false, 76, Some(Move::Up)),
            (-76, 6, false, -70, Some(Move::Down)),
            // The picture at hand would end up a tick off, or worse than it is.
            (76, 0, false, 0, None),
            (-76, 0, false, 0, None),
            // Wide errors prove it only when something has disturbed the lane, or when they leave no doubt.
            (76, 14, false, 80, None),
            (76, 14, true, 80, Some(Move::Up)),
            (90, 14, false, 80, Some(Move::Up)),
        ];
        for (mean, spread, disturbed, error, expected) in table {
            let mut drift = window(mean, spread);
            if disturbed {
                drift.disturb();
            }
            assert_eq!(drift.due(error * TICK / 100), expected, "mean {mean} spread {spread} error {error}");
        }
    }

    #[test]
    fn it_moves_once() {
        for (mean, which) in [(80, Move::Up), (-80, Move::Down)] {
            let mut drift = window(mean, 0);
            assert_eq!(drift.due(mean * TICK / 100), Some(which));
            drift.moved(which);
            assert_eq!(drift.phase(), Some((mean - mean.signum() * 100) * TICK / 100));
            assert_eq!((drift.due(TICK / 2), drift.due(-TICK / 2)), (None, None));
        }
        let mut drift = window(80, 0);
        drift.restart();
        assert_eq!((drift.phase(), drift.due(TICK / 2)), (None, None));
    }

    #[test]
    fn a_surprise_is_measured_against_the_latest_pictures() {
        let mut drift = window(-40, 10);
        assert!(!drift.surprised_by(10 * TICK / 100));
        assert!(drift.surprised_by(20 * TICK / 100));
        (0..4).for_each(|_| drift.push(20 * TICK / 100));
        assert!(!drift.surprised_by(50 * TICK / 100));
    }
}
