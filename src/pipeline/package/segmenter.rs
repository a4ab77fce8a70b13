//! Access units on consecutive ticks -> parts and segments on the recording's grid.
//!
//! Pure: it counts ticks and gives out bytes. Files, journals and playlists are the caller's, and so is what an access
//! unit shows; see [`UnitKind`].
//!
//! A cell of the grid is one segment file, named by the cell's number. A file that begins or ends inside its cell is
//! shorter; the rest of the cell may lie in another epoch's folder, under the same name.

use serde::{Deserialize, Serialize};

use super::boxes;
use crate::media::{AccessUnit, Grid, Tick};

/// What a tick of the output shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// A capture's picture.
    Picture,
    /// The picture before it again.
    Held,
    /// The prepared fill picture.
    Filled,
}

/// A CMAF chunk, the smallest thing that is written and played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The number of its cell, which names its file.
    pub segment: i64,
    /// It is the first part of its segment file: a new file begins.
    pub opens: bool,
    /// The tick of its first access unit.
    pub first_tick: Tick,
    /// Its access units, one a tick.
    pub ticks: u32,
    /// What is appended to the segment file: `moof` and `mdat`, with `styp` in front of the first part.
    pub bytes: Vec<u8>,
    /// Nothing more comes for this file.
    pub closes: bool,
    /// It begins with an IDR, so playing can begin with it.
    pub independent: bool,
}

/// A bug of the caller: what it pushed does not lie on the grid as it must. The segmenter is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Ticks of an epoch are consecutive.
    #[error("an access unit for tick {got} where {expected} is next")]
    NotConsecutive {
        /// The next tick.
        expected: Tick,
        /// The tick pushed.
        got: Tick,
    },
    /// A recording starts at tick 0.
    #[error("an access unit for tick {0}, before the recording's start")]
    BeforeStart(Tick),
    /// The first access unit of an epoch and of each cell must be an IDR.
    #[error("the access unit for tick {0} begins a segment and is no IDR")]
    NotIdr(Tick),
}

/// Cuts one epoch of a track.
#[derive(Debug)]
pub struct Segmenter {
    grid: Grid,
    /// The tick that is next; `None` before the first one.
    next: Option<Tick>,
    /// The open part: its access units up to `next`.
    units: Vec<AccessUnit>,
    /// A part of the cell that holds the last tick was given out, and its file is open.
    segment_open: bool,
}

impl Segmenter {
    /// Begins an epoch on `grid`, whose cells hold whole parts.
    pub fn new(grid: Grid) -> Segmenter {
        Segmenter { grid, next: None, units: Vec::new(), segment_open: false }
    }

    /// Whether the access unit for `tick` must be an IDR: the first of the epoch, or the first of its cell.
    pub fn needs_idr(&self, tick: Tick) -> bool {
        self.next.is_none() || tick.rem_euclid(i64::from(self.grid.segment_ticks)) == 0
    }

    /// The tick that [`Segmenter::push`] takes next; `None` when any will do.
    pub fn next_tick(&self) -> Option<Tick> {
        self.next
    }

    /// Takes the access unit for `tick`. Gives the part that it completes, if it does.
    pub fn push(&mut self, tick: Tick, unit: AccessUnit) -> Result<Option<Part>, SegmentError> {
        match self.next {
            Some(expected) if tick != expected => return Err(SegmentError::NotConsecutive { expected, got: tick }),
            None if tick < 0 => return Err(SegmentError::BeforeStart(tick)),
            _ if !unit.idr && self.needs_idr(tick) => return Err(SegmentError::NotIdr(tick)),
            _ => {}
        }
        self.units.push(unit);
        self.next = Some(tick + 1);
        let segment_end = self.grid.segment_end(tick);
        let part_end = self.grid.part_end(tick).min(segment_end);
        Ok((tick + 1 == part_end).then(|| self.take_part(tick + 1, tick + 1 == segment_end)))
    }

    /// Ends the open part and segment early: an epoch's end, or the process is to be suspended.
    ///
    /// `None` when no access unit waits. The segment file that is open then, if one is, is complete as it stands.
    /// What is pushed next begins a new epoch, whose files lie elsewhere.
    pub fn flush(&mut self) -> Option<Part> {
        let end = self.next.take()?;
        let part = (!self.units.is_empty()).then(|| self.take_part(end, true));
        self.segment_open = false;
        part
    }

    /// Gives out the open part, which ends before tick `end`.
    fn take_part(&mut self, end: Tick, closes: bool) -> Part {
        let units = std::mem::take(&mut self.units);
        let first_tick = end - units.len() as Tick;
        let opens = !std::mem::replace(&mut self.segment_open, !closes);
        let mut bytes = if opens { boxes::segment_type() } else { Vec::new() };
        // Numbered by the tick, parts stay in sequence across segments, epochs and processes.
        bytes.extend(boxes::part((first_tick as u32).wrapping_add(1), first_tick, &units));
        Part {
            segment: self.grid.segment_of(first_tick),
            opens,
            first_tick,
            ticks: units.len() as u32,
            bytes,
            closes,
            independent: units[0].idr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 6 };

    fn unit(idr: bool) -> AccessUnit {
        AccessUnit { data: vec![0, 0, 0, 1, 0x65], idr }
    }

    /// Pushes ticks `from..to` with IDRs where they are needed; (segment, opens, first_tick, ticks, closes, independent).
    fn run(segmenter: &mut Segmenter, from: Tick, to: Tick) -> Vec<(i64, bool, Tick, u32, bool, bool)> {
        let mut parts = Vec::new();
        for tick in from..to {
            let idr = segmenter.needs_idr(tick);
            parts.extend(segmenter.push(tick, unit(idr)).unwrap());
        }
        parts.iter().map(row).collect()
    }

    fn row(part: &Part) -> (i64, bool, Tick, u32, bool, bool) {
        (part.segment, part.opens, part.first_tick, part.ticks, part.closes, part.independent)
    }

    #[test]
    fn parts_lie_on_the_grid() {
        let mut segmenter = Segmenter::new(GRID);
        let expected = [
            (0, true, 3, 1, false, true),
            (0, false, 4, 2, true, false),
            (1, true, 6, 2, false, true),
            (1, false, 8, 2, false, false),
            (1, false, 10, 2, true, false),
            (2, true, 12, 2, false, true),
        ];
        assert_eq!(run(&mut segmenter, 3, 15), expected);
        assert_eq!(row(&segmenter.flush().unwrap()), (2, false, 14, 1, true, false));
        assert_eq!(segmenter.flush(), None);
    }

    #[test]
    fn an_epoch_of_one_tick_is_a_segment() {
        let mut segmenter = Segmenter::new(GRID);
        assert_eq!(run(&mut segmenter, 5, 6), [(0, true, 5, 1, true, true)]);
        assert_eq!(segmenter.flush(), None);
        assert!(segmenter.needs_idr(6) && segmenter.needs_idr(7), "a flush begins anew");
        assert_eq!(run(&mut segmenter, 7, 9), [(1, true, 7, 1, false, true)]);
        assert_eq!(row(&segmenter.flush().unwrap()), (1, false, 8, 1, true, false));
    }

    #[test]
    fn a_flush_between_parts_gives_none_and_begins_anew() {
        let mut segmenter = Segmenter::new(GRID);
        assert_eq!(run(&mut segmenter, 0, 2).len(), 1);
        assert_eq!(segmenter.flush(), None);
        assert_eq!(run(&mut segmenter, 2, 4), [(0, true, 2, 2, false, true)]);
    }

    #[test]
    fn only_the_first_part_of_a_file_has_a_type() {
        let mut segmenter = Segmenter::new(GRID);
        for tick in 0..18 {
            let idr = segmenter.needs_idr(tick);
            if let Some(part) = segmenter.push(tick, unit(idr)).unwrap() {
                assert_eq!(&part.bytes[4..8] == b"styp", part.opens, "tick {tick}");
            }
        }
    }

    #[test]
    fn what_is_off_the_grid_is_refused_and_changes_nothing() {
        let mut segmenter = Segmenter::new(GRID);
        assert_eq!(segmenter.push(4, unit(false)), Err(SegmentError::NotIdr(4)));
        assert_eq!(segmenter.push(-1, unit(true)), Err(SegmentError::BeforeStart(-1)));
        segmenter.push(4, unit(true)).unwrap();
        assert_eq!(segmenter.push(4, unit(true)), Err(SegmentError::NotConsecutive { expected: 5, got: 4 }));
        assert_eq!(segmenter.push(6, unit(true)), Err(SegmentError::NotConsecutive { expected: 5, got: 6 }));
        let part = segmenter.push(5, unit(true)).unwrap().expect("an IDR is welcome anywhere");
        assert_eq!(row(&part), (0, true, 4, 2, true, true));
        assert_eq!(segmenter.push(6, unit(false)), Err(SegmentError::NotIdr(6)));
    }
}
