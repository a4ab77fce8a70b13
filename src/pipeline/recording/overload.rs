//! When a recording was touched by overload: told as events, and kept for the manifest.
//!
//! Not here: what the levels are and what follows from them ([`crate::pipeline::admission`]).

use crate::media::Tick;
use crate::pipeline::admission::Level;
use crate::pipeline::store::manifest::Overload;

use super::Recording;

/// Ranges that are told apart; later ones are one with the last.
const RANGES_MAX: usize = 100;

impl Recording {
    /// The process went over to another level of overload.
    pub fn overloaded(&self, level: Level, load_percent: f64) {
        let mut inner = self.lock();
        let at = inner.clock.newest();
        note(&mut inner.overload, self.grid.tick_at(at), level);
        let detail = serde_json::json!({ "level": level.name(), "load_percent": load_percent });
        self.note(&mut inner, at, "overload", None, detail);
        self.changed.notify_one();
    }
}

/// Notes that from `tick` on the level is this one.
fn note(ranges: &mut Vec<Overload>, tick: Tick, level: Level) {
    let is_full = ranges.len() >= RANGES_MAX;
    match ranges.last_mut() {
        Some(last) if last.to_tick.is_none() => match level {
            Level::Normal => last.to_tick = Some(tick),
            Level::Cheaper => {}
            Level::Refusing => last.level = level.name().to_owned(),
        },
        // The recording began in normal times.
        _ if level == Level::Normal => {}
        Some(last) if is_full => last.to_tick = None,
        _ => ranges.push(Overload { from_tick: tick, to_tick: None, level: level.name().to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lasts_until_all_is_normal_and_has_the_worst_of_its_levels() {
        use Level::{Cheaper, Normal, Refusing};
        let mut ranges = Vec::new();
        for (tick, level) in [(0, Normal), (10, Cheaper), (20, Refusing), (30, Cheaper), (40, Normal), (50, Cheaper)] {
            note(&mut ranges, tick, level);
        }
        let range = |from_tick, to_tick, level: Level| Overload { from_tick, to_tick, level: level.name().to_owned() };
        assert_eq!(ranges, [range(10, Some(40), Refusing), range(50, None, Cheaper)]);
        note(&mut ranges, 60, Normal);
        for n in 0..2 * RANGES_MAX as Tick {
            note(&mut ranges, 70 + 2 * n, Cheaper);
            note(&mut ranges, 71 + 2 * n, Normal);
        }
        assert_eq!(ranges.len(), RANGES_MAX);
        assert_eq!(ranges.last().unwrap().to_tick, Some(71 + 2 * (2 * RANGES_MAX as Tick - 1)), "none is left out");
    }
}
