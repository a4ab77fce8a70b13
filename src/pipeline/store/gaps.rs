//! Lists of gaps: in order, without overlap.

use crate::media::{GapReason, Tick};

use super::manifest::Gap;

/// Adds a range, which takes the place of what the list says of its ticks; most often it goes on where the list ends.
pub fn note_gap(gaps: &mut Vec<Gap>, from_tick: Tick, to_tick: Tick, reason: GapReason) {
    if to_tick <= from_tick {
        return;
    }
    if gaps.last().is_some_and(|last| last.to_tick > from_tick) {
        let mut cut = Vec::with_capacity(gaps.len() + 2);
        for gap in gaps.drain(..) {
            cut.push(Gap { to_tick: gap.to_tick.min(from_tick), ..gap });
            cut.push(Gap { from_tick: gap.from_tick.max(to_tick), ..gap });
        }
        cut.push(Gap { from_tick, to_tick, reason });
        cut.retain(|gap| gap.from_tick < gap.to_tick);
        cut.sort_by_key(|gap| gap.from_tick);
        return cut.into_iter().for_each(|gap| note_gap(gaps, gap.from_tick, gap.to_tick, gap.reason));
    }
    match gaps.last_mut() {
        Some(last) if last.to_tick == from_tick && last.reason == reason => last.to_tick = to_tick,
        _ => gaps.push(Gap { from_tick, to_tick, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use GapReason::{CameraOff, Disconnected, SpoolFull};

    #[test]
    fn the_newest_word_on_a_tick_holds() {
        let mut gaps = Vec::new();
        for (from, to, reason) in [(0, 4, CameraOff), (4, 8, CameraOff), (10, 20, Disconnected), (20, 20, SpoolFull)] {
            note_gap(&mut gaps, from, to, reason);
        }
        let said = |gaps: &[Gap]| gaps.iter().map(|gap| (gap.from_tick, gap.to_tick, gap.reason)).collect::<Vec<_>>();
        assert_eq!(said(&gaps), [(0, 8, CameraOff), (10, 20, Disconnected)]);
        note_gap(&mut gaps, 6, 12, SpoolFull);
        assert_eq!(said(&gaps), [(0, 6, CameraOff), (6, 12, SpoolFull), (12, 20, Disconnected)]);
        note_gap(&mut gaps, 15, 16, SpoolFull);
        note_gap(&mut gaps, 12, 15, SpoolFull);
        assert_eq!(said(&gaps), [(0, 6, CameraOff), (6, 16, SpoolFull), (16, 20, Disconnected)]);
        note_gap(&mut gaps, 0, 30, CameraOff);
        assert_eq!(said(&gaps), [(0, 30, CameraOff)]);
    }
}
