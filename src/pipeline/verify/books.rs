//! `ticks.jsonl` against segments, gaps, ledger and time.

use crate::media::Tick;
use crate::pipeline::assembly::TICKS;
use crate::pipeline::store::journal::{Run, RunKind};

use super::lines::each_line;
use super::segments::{Segment, TICKS_MAX};
use super::track::{TrackCheck, undeclared};

/// Ticks that a picture may lie off its time on average: beyond it a lane moves by one (the timeline's rule).
const MEAN_OFF_MAX: f64 = 0.75;
/// Times are written in decimals.
const ROUNDING: f64 = 1e-4;

/// Ticks of one kind that follow each other: first tick, count, kind.
pub(super) type Stretch = (Tick, Tick, RunKind);

/// Adds a stretch to those before it.
pub(super) fn push_stretch(stretches: &mut Vec<Stretch>, (first, n, kind): Stretch) {
    match stretches.last_mut() {
        Some((begin, so_far, same)) if *same == kind && *begin + *so_far == first => *so_far += n,
        _ if n > 0 => stretches.push((first, n, kind)),
        _ => {}
    }
}

/// What the lists of segments say of the ticks up to `end`: what is in none of them is filled.
pub(super) fn stretches_of<'a>(segments: impl IntoIterator<Item = &'a Segment>, end: Tick) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut next = 0;
    for segment in segments {
        let mut tick = segment.line.first_tick;
        push_stretch(&mut stretches, (next, tick - next, RunKind::Filled));
        for run in &segment.line.runs {
            push_stretch(&mut stretches, (tick, run.n, run.kind));
            tick += run.n;
        }
        next = tick;
    }
    push_stretch(&mut stretches, (next, end - next, RunKind::Filled));
    stretches
}

/// The kinds that `runs` say for the ticks `from..to`; a picture where they say nothing.
pub(super) fn kinds_of(runs: &[Run], from: Tick, to: Tick) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    let mut next = from;
    for run in touching(runs, from, to) {
        let (begin, end) = (run.tick.max(from), (run.tick + run.n).min(to));
        push_stretch(&mut stretches, (next, begin - next, RunKind::Picture));
        push_stretch(&mut stretches, (begin, end - begin, run.kind));
        next = end;
    }
    push_stretch(&mut stretches, (next, to - next, RunKind::Picture));
    stretches
}

/// The runs of the ticks `from..to`, all of one kind: as `runs` have them where they say that kind, else bare.
pub(super) fn clip(runs: &[Run], from: Tick, to: Tick, kind: RunKind) -> Vec<Run> {
    let mut clipped = Vec::new();
    let mut next = from;
    let bare = |clipped: &mut Vec<Run>, from: Tick, to: Tick| {
        let step = if kind == RunKind::Picture { 1 } else { (to - from).max(1) };
        let mut tick = from;
        while tick < to {
            clipped.push(Run::without_picture(tick, step, kind, None));
            tick += step;
        }
    };
    for run in touching(runs, from, to).iter().filter(|run| run.kind == kind) {
        let (begin, end) = (run.tick.max(from), (run.tick + run.n).min(to));
        bare(&mut clipped, next, begin);
        clipped.push(Run { tick: begin, n: end - begin, ..run.clone() });
        next = end;
    }
    bare(&mut clipped, next, to);
    clipped
}

/// The runs, which are in order, that have ticks in `from..to`.
fn touching(runs: &[Run], from: Tick, to: Tick) -> &[Run] {
    let first = runs.partition_point(|run| run.tick + run.n <= from);
    let last = runs.partition_point(|run| run.tick < to);
    runs.get(first..last).unwrap_or_default()
}

/// What was gathered of `ticks.jsonl`.
#[derive(Default)]
struct Gathered {
    stretches: Vec<Stretch>,
    next: Tick,
    /// Pictures with a time, and how many ticks they lie off it, together.
    timed: u64,
    off: f64,
}

impl TrackCheck<'_> {
    /// Every tick once, as the segments and the ledger have it, pictures where their times say.
    pub(super) fn ticks(&mut self, segments: Option<&[(Segment, bool)]>) {
        let path = self.folder.join(TICKS);
        let mut gathered = Gathered::default();
        let mut wrong = Vec::new();
        let fps = f64::from(self.against.grid.fps);
        let read = each_line::<Run>(&path, |number, line| {
            let taken = line.and_then(|run| gathered.take(&run, fps, self.against.rebased));
            let fatal = taken.is_err();
            wrong.extend(taken.err().map(|what| format!("line {number}: {what}")));
            !fatal
        });
        if let Err(error) = read {
            return self.found(TICKS, error);
        }
        if !wrong.is_empty() {
            return wrong.into_iter().for_each(|what| self.found(TICKS, what));
        }
        // A track without a picture has no ticks.
        let end = if self.track.first_tick.is_some() { self.end() } else { 0 };
        if gathered.next != end {
            return self.found(TICKS, format!("ends at tick {}, where recording.json says {end}", gathered.next));
        }
        if gathered.timed > 0 && (gathered.off / gathered.timed as f64).abs() > MEAN_OFF_MAX {
            self.found(TICKS, format!("pictures lie {:.2} ticks off on average", gathered.off / gathered.timed as f64));
        }
        self.counts(&gathered.stretches);
        self.kinds(&gathered.stretches, segments, end);
    }

    /// The ledger counts what is there.
    fn counts(&mut self, stretches: &[Stretch]) {
        let count = |kind| stretches.iter().filter(|one| one.2 == kind).map(|one| one.1 as u64).sum::<u64>();
        let ledger = &self.track.ledger;
        let wrong: Vec<String> = [
            ("encoded", ledger.encoded, count(RunKind::Picture)),
            ("held", ledger.held, count(RunKind::Held)),
            ("filled", ledger.filled, count(RunKind::Filled)),
        ]
        .into_iter()
        .filter(|(_, said, counted)| said != counted)
        .map(|(name, said, counted)| {
            format!("recording.json: the ledger's {name} is {said}, ticks.jsonl has {counted}")
        })
        .collect();
        wrong.into_iter().for_each(|what| self.found("", what));
    }

    /// Segments and gaps say the same.
    fn kinds(&mut self, stretches: &[Stretch], segments: Option<&[(Segment, bool)]>, end: Tick) {
        if let Some(segments) = segments {
            let listed = stretches_of(segments.iter().map(|(segment, _)| segment), end);
            // Where a segment is broken, the MP4 may be made without it.
            let sound = segments.iter().filter(|(_, sound)| *sound).map(|(segment, _)| segment);
            let made_without = stretches_of(sound, end) == stretches;
            let differs = listed.iter().zip(stretches).find(|(listed, here)| listed != here);
            if let Some((listed, here)) = differs.filter(|_| !made_without) {
                let text = format!(
                    "{} ticks from {} on are {:?}, by segments.jsonl {} from {} on are {:?}",
                    here.1, here.0, here.2, listed.1, listed.0, listed.2
                );
                self.found(TICKS, text.to_lowercase());
            }
        }
        for (first, n, _) in stretches.iter().filter(|stretch| stretch.2 == RunKind::Filled) {
            if let Some(tick) = undeclared(&self.track.gaps, *first, first + n) {
                return self.found(TICKS, format!("tick {tick} is filled, and recording.json declares no gap there"));
            }
        }
    }
}

impl Gathered {
    fn take(&mut self, run: &Run, fps: f64, rebased: bool) -> Result<(), String> {
        if run.tick != self.next {
            return Err(format!("goes on at tick {} where {} is next", run.tick, self.next));
        }
        let one = run.kind == RunKind::Picture;
        if !(1..=TICKS_MAX - run.tick).contains(&run.n) || (one && run.n != 1) {
            return Err(format!("{} ticks", run.n));
        }
        self.next += run.n;
        push_stretch(&mut self.stretches, (run.tick, run.n, run.kind));
        let Some(relative) = run.relative.filter(|_| one && !rebased) else { return Ok(()) };
        let off = relative * fps - run.tick as f64;
        if off.is_nan() || off.abs() >= 1.0 + ROUNDING {
            return Err(format!("a picture of {relative} s lies {off:.2} ticks off, at tick {}", run.tick));
        }
        self.timed += 1;
        self.off += off;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_bare() {
        use RunKind::{Held, Picture};
        let runs = [
            Run { capture: Some(7), ..Run::without_picture(2, 1, Picture, None) },
            Run::without_picture(4, 3, Held, None),
        ];
        assert_eq!(kinds_of(&runs, 0, 6), [(0, 4, Picture), (4, 2, Held)]);
        let pictures: Vec<_> =
            clip(&runs, 1, 4, Picture).into_iter().map(|run| (run.tick, run.n, run.capture)).collect();
        assert_eq!(pictures, [(1, 1, None), (2, 1, Some(7)), (3, 1, None)]);
        let held: Vec<_> = clip(&runs, 3, 9, Held).into_iter().map(|run| (run.tick, run.n)).collect();
        assert_eq!(held, [(3, 1), (4, 3), (7, 2)]);
    }

    #[test]
    fn every_tick_comes_once_and_at_its_time() {
        let picture =
            |tick, relative| Run { relative: Some(relative), ..Run::without_picture(tick, 1, RunKind::Picture, None) };
        let held = |tick, n| Run::without_picture(tick, n, RunKind::Held, None);
        let taken = |runs: &[Run], rebased| {
            let mut gathered = Gathered::default();
            runs.iter().try_for_each(|run| gathered.take(run, 2.0, rebased)).map(|()| gathered.stretches)
        };
        let good = [picture(0, 0.1), picture(1, 0.9), held(2, 3), held(5, 1), picture(6, 3.0)];
        let stretches = [(0, 2, RunKind::Picture), (2, 4, RunKind::Held), (6, 1, RunKind::Picture)];
        assert_eq!(taken(&good, false).unwrap(), stretches);
        for (bad, what) in [
            (picture(1, 0.5), "tick 1 where 0"),
            (picture(0, 0.6), "1.20 ticks off"),
            (picture(0, f64::NAN), "off"),
            (held(0, 0), "0 ticks"),
            (held(0, i64::MAX), "ticks"),
            (Run { n: 2, ..picture(0, 0.0) }, "2 ticks"),
        ] {
            let error = taken(&[bad], false).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        assert!(taken(&[picture(0, 77.0)], true).is_ok(), "times of a re-based clock say nothing");
    }
}
