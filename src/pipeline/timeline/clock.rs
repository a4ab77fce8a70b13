//! A recording's clock: how far the recording has come, which timestamps to believe, and where its time zero lies.
//!
//! Pure: wall times are arguments. It does not know lanes, ticks or sockets; it sees the timestamps of all captures of
//! a recording in the order in which they are read.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::media::Micros;

mod limbo;

use limbo::{Doubt, Witness};

/// A time this far past the clock is believed only with company: one wrong capture would make all that comes within so
/// much time late. The clock runs on while nothing comes, so what is right is far only after an outage, a restart or in a
/// replay, and has company within 2 s.
const FAR: Micros = Micros::from_secs(5);

/// A time this far past the clock is never believed.
const NEVER: Micros = Micros::from_secs(24 * 3600);

/// Far times agree when they lie this close to each other.
const FAR_TOGETHER: Micros = Micros::from_secs(5);

/// `absolute - relative` may move this much, and `relative` go back this much, without being suspicious.
const SLACK: Micros = Micros::from_secs(2);

/// Offsets of a source whose clock was re-based agree within this.
const OFFSET_TOGETHER: Micros = Micros(500_000);

/// Captures that must agree, on a far time or on a new offset.
const WITNESSES: usize = 3;

/// Witnesses of a new offset must span this much time.
const OFFSET_SPAN: Micros = Micros::SECOND;

/// How long a capture stays undecided.
const LIMBO_TIME: Micros = Micros::from_secs(5);

/// Undecided captures. When there are more they are decided with what is known, agreement without its time span
/// included: with many participants this many come within a second.
const LIMBO_MAX: usize = 64;

/// Earlier offsets that are remembered, for captures that come late from before a change. The oldest goes.
const ERAS_MAX: usize = 8;

/// Wall time added at most between two looks at the clock: who looks less often was not watching.
const IDLE_STEP_MAX: Micros = Micros::from_secs(5);

/// What to make of a capture's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its time on the recording's time line; negative before the recording's start.
    At(Micros),
    /// Not believable.
    BadTimestamp,
    /// Undecided: keep the capture and [`RecordingClock::recheck`] it after later reads, and once a second.
    Limbo,
}

/// The absolute time of a recording's time zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub unix: Micros,
    /// No valid `absolute` came with the first capture: it is this server's clock.
    pub from_server: bool,
}

/// The source started its `relative` anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRebased {
    /// The absolute time of `relative == 0` before, since 1970.
    pub from: Micros,
    /// The absolute time of `relative == 0` from here on.
    pub to: Micros,
    /// Where on the recording's time line the change was noticed.
    pub at: Micros,
}

/// A stretch of the recording over which `absolute - relative` stays the same.
#[derive(Clone, Copy, Debug)]
struct Era {
    /// `absolute - relative`; `None` while no valid `absolute` has come.
    offset: Option<Micros>,
    /// Time line - relative.
    shift: Micros,
}

/// Captures whose offset is new though their `relative` goes on.
#[derive(Clone, Copy, Debug)]
struct Jumped {
    offset: Micros,
    from: Micros,
    captures: usize,
}

/// The clock of one recording. All `wall` arguments are one monotonic clock.
#[derive(Debug, Default)]
pub struct RecordingClock {
    /// The newest time on the line; `None` before the first capture.
    clock: Option<Micros>,
    /// The newest time on the line that a capture was given: the clock without the idle time.
    last: Option<Micros>,
    /// When the recording was last seen idle, unless something was read since.
    idle_since: Option<Micros>,
    origin: Option<Origin>,
    /// The present era last.
    eras: VecDeque<Era>,
    /// The newest `relative` of the present era.
    newest: Option<Micros>,
    limbo: Vec<Witness>,
    /// Captures accepted.
    accepted: u64,
    /// `absolute` jumped while `relative` went on.
    jumped: Option<Jumped>,
    rebased: Option<ClockRebased>,
}

impl RecordingClock {
    /// The clock of a recording without captures.
    pub fn new() -> RecordingClock {
        RecordingClock::default()
    }

    /// Goes on after an earlier process that fixed `origin` and wrote up to `last` on the time line.
    pub fn resume(origin: Origin, last: Micros) -> RecordingClock {
        let offset = (!origin.from_server).then_some(origin.unix);
        RecordingClock {
            clock: Some(last),
            last: Some(last),
            origin: Some(origin),
            eras: VecDeque::from([Era { offset, shift: Micros(0) }]),
            newest: Some(last),
            ..RecordingClock::default()
        }
    }

    /// Judges the timestamps of a capture that was just read, and moves the clock by them.
    ///
    /// `absolute` is in microseconds since 1970, as is `wall_unix`, the server's clock. A first capture, of the recording
    /// as of a socket, is judged like any other: believed at once when its time is wrong it would make all that is right late.
    /// One that is far ahead for a good reason, an outage or a server that came late, has company within a second, and
    /// where it has none nothing contradicts it either.
    pub fn read(
        &mut self,
        relative: Option<Micros>,
        absolute: Option<Micros>,
        wall: Micros,
        wall_unix: Micros,
    ) -> Verdict {
        self.idle_since = None;
        self.expire(wall);
        let Some(relative) = relative else { return Verdict::BadTimestamp };
        let offset = absolute.map(|absolute| absolute - relative);
        match self.doubt(relative, offset) {
            Err(()) => return Verdict::BadTimestamp,
            Ok(Some(doubt)) => {
                let accepted = self.accepted;
                self.limbo.push(Witness { relative, offset, doubt, since: wall, unix: wall_unix, accepted });
                if !self.convinced(relative, doubt) {
                    return self.limbo_or_full(relative, offset);
                }
            }
            Ok(None) => {}
        }
        self.fix_origin(relative, offset, wall_unix);
        self.accept(relative, offset)
    }

    /// No more captures come that could settle those in doubt: they are decided with what is known.
    pub fn end_limbo(&mut self) {
        self.give_up(|_| true);
    }

    /// Sets the origin by the first capture that is believed; `unix` is the server's clock when it was read.
    fn fix_origin(&mut self, relative: Micros, offset: Option<Micros>, unix: Micros) {
        // To a whole millisecond, as manifest and playlists write it: who reads it there goes on with the same one.
        let unix = Micros((offset.unwrap_or(unix - relative).0 + 500).div_euclid(1000) * 1000);
        self.origin.get_or_insert(Origin { unix, from_server: offset.is_none() });
    }

    /// Judges an undecided capture again. Never [`Verdict::Limbo`] for longer than 5 s after it was read.
    pub fn recheck(&mut self, relative: Micros, absolute: Option<Micros>, wall: Micros) -> Verdict {
        self.expire(wall);
        let offset = absolute.map(|absolute| absolute - relative);
        self.judge_again(relative, offset)
    }

    /// The recording's time, 0 or more. `idle`: at this moment every socket of the recording is drained and all its lanes are
    /// empty; wall time is added from one such moment to the next, when nothing was read between.
    pub fn now(&mut self, wall: Micros, idle: bool) -> Micros {
        let Some(clock) = &mut self.clock else { return Micros(0) };
        if let Some(since) = self.idle_since
            && idle
        {
            *clock = *clock + (wall - since).clamp(Micros(0), IDLE_STEP_MAX);
        }
        self.idle_since = idle.then_some(wall);
        (*clock).max(Micros(0))
    }

    /// The recording's time as it stands, 0 or more.
    pub fn newest(&self) -> Micros {
        self.clock.unwrap_or_default().max(Micros(0))
    }

    /// The absolute time of the recording's time zero, fixed by the first capture that is believed.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// The source's clock was re-based since this was last asked.
    pub fn take_rebased(&mut self) -> Option<ClockRebased> {
        self.rebased.take()
    }

    /// Where a message that is no capture lies on the line, as far as is known now.
    pub fn line_of(&self, relative: Micros, absolute: Option<Micros>) -> Micros {
        self.line(relative, absolute.map(|absolute| absolute - relative))
    }

    /// The time on the line: by the era with the capture's offset, or the present one.
    fn line(&self, relative: Micros, offset: Option<Micros>) -> Micros {
        let same = |era: &&Era| matches!((era.offset, offset), (Some(a), Some(b)) if near(a, b, SLACK));
        let era = self.eras.iter().rev().find(same).or(self.eras.back());
        relative + era.map_or(Micros(0), |era| era.shift)
    }

    /// What speaks against believing these times; `Err` when nothing could speak for them.
    fn doubt(&self, relative: Micros, offset: Option<Micros>) -> Result<Option<Doubt>, ()> {
        let line = self.line(relative, offset);
        // Time before the recording's start does not hold the clock back: what comes at its start is not far.
        let ahead = line - self.newest();
        if ahead > NEVER || line < Micros(-NEVER.0) {
            return Err(());
        }
        if ahead > FAR {
            return Ok(Some(Doubt::Far));
        }
        let Some(newest) = self.newest else { return Ok(None) };
        let comparable = self.eras.back().is_some_and(|era| era.offset.is_some());
        let Some(offset) = offset.filter(|_| comparable) else {
            return Ok(self.restarted(relative, newest).then_some(Doubt::Restarted));
        };
        // Once one went back, the others with its offset need not have gone as far.
        let company = self.limbo.iter().any(|witness| witness.agrees_on(offset));
        let back = relative < newest - SLACK || company && relative < newest;
        Ok((back && !self.knows(offset) && !self.absolute_jumped(offset)).then_some(Doubt::Rebased { offset }))
    }

    /// Whether captures with that new offset go on in `relative` as before.
    fn absolute_jumped(&self, offset: Micros) -> bool {
        let jumped = |jumped: Jumped| jumped.captures >= WITNESSES && near(jumped.offset, offset, OFFSET_TOGETHER);
        self.jumped.is_some_and(jumped)
    }

    /// Whether the offset is that of an era, or the first one that comes.
    fn knows(&self, offset: Micros) -> bool {
        let present_is_open = self.eras.back().is_none_or(|era| era.offset.is_none());
        present_is_open || self.eras.iter().any(|era| era.offset.is_some_and(|known| near(known, offset, SLACK)))
    }

    fn begin(&mut self, era: Era) {
        if self.eras.len() == ERAS_MAX {
            self.eras.pop_front();
        }
        self.eras.push_back(era);
    }

    /// Believes these times: moves the clock.
    fn accept(&mut self, relative: Micros, offset: Option<Micros>) -> Verdict {
        let line = self.line(relative, offset);
        self.accepted += 1;
        self.come_to(line);
        if self.eras.is_empty() {
            self.begin(Era { offset: None, shift: Micros(0) });
        }
        let present = self.eras.back_mut().expect("an era was begun");
        match (offset, &mut present.offset) {
            (None, _) => {}
            (Some(offset), none @ None) => *none = Some(offset),
            // The two clocks of a source drift apart over hours.
            (Some(offset), Some(known)) if near(*known, offset, SLACK) => known.0 += (offset.0 - known.0) / 16,
            (Some(offset), _) => self.jump(relative, offset),
        }
        let present = self.eras.back().expect("an era was begun");
        if line == relative + present.shift {
            self.newest = self.newest.max(Some(relative));
        }
        Verdict::At(line)
    }

    fn come_to(&mut self, line: Micros) {
        self.clock = self.clock.max(Some(line));
        self.last = self.last.max(Some(line));
    }

    /// Counts a capture that is believed though its offset is not that of the present era. When they agree, it is the
    /// offset of a new era with the same line, so that what comes late with it is not taken for a re-based clock.
    fn jump(&mut self, relative: Micros, offset: Micros) {
        if self.knows(offset) {
            return;
        }
        let jumped = match &mut self.jumped {
            Some(jumped) if near(jumped.offset, offset, OFFSET_TOGETHER) => jumped,
            other => other.insert(Jumped { offset, from: relative, captures: 0 }),
        };
        jumped.captures += 1;
        if jumped.captures >= WITNESSES && relative - jumped.from >= OFFSET_SPAN {
            self.jumped = None;
            let shift = self.eras.back().map_or(Micros(0), |era| era.shift);
            self.begin(Era { offset: Some(offset), shift });
        }
    }

    /// A capture that stays undecided, unless limbo is full: then all in it are decided.
    fn limbo_or_full(&mut self, relative: Micros, offset: Option<Micros>) -> Verdict {
        if self.limbo.len() < LIMBO_MAX {
            return Verdict::Limbo;
        }
        self.give_up(|_| true);
        self.judge_again(relative, offset)
    }

    fn judge_again(&mut self, relative: Micros, offset: Option<Micros>) -> Verdict {
        if self.limbo.iter().any(|witness| witness.relative == relative && witness.tells_of(offset)) {
            return Verdict::Limbo;
        }
        // What was undecided never moves the clock ahead: if it was believed it has done so already. A wrong one would make
        // late what comes until then.
        if self.line(relative, offset) > self.newest() {
            return Verdict::BadTimestamp;
        }
        match self.doubt(relative, offset) {
            Err(()) | Ok(Some(Doubt::Far)) => Verdict::BadTimestamp,
            Ok(_) => self.accept(relative, offset),
        }
    }
}

fn near(a: Micros, b: Micros, within: Micros) -> bool {
    a.0.abs_diff(b.0) <= within.0.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// 2026-01-01T10:00:00Z.
    const UNIX: i64 = 1_767_261_600_000;

    fn ms(at: i64) -> Micros {
        Micros(at * 1000)
    }

    /// A recording whose captures are read one after the other; times in milliseconds.
    struct Reader {
        clock: RecordingClock,
        wall: i64,
    }

    impl Reader {
        fn new() -> Reader {
            Reader { clock: RecordingClock::new(), wall: 0 }
        }

        /// A capture with that `relative`, and an `absolute` that has this offset to it.
        fn read(&mut self, relative: i64, offset: i64) -> Verdict {
            self.read_as(relative, Some(offset))
        }

        fn read_as(&mut self, relative: i64, offset: Option<i64>) -> Verdict {
            self.wall += 10;
            let absolute = offset.map(|offset| ms(relative + offset));
            self.clock.read(Some(ms(relative)), absolute, ms(self.wall), ms(UNIX + 7))
        }

        fn recheck(&mut self, relative: i64, offset: i64) -> Verdict {
            self.clock.recheck(ms(relative), Some(ms(relative + offset)), ms(self.wall))
        }

        /// Reads captures every half second from `from` to `to`, which are believed as they are.
        fn run(&mut self, from: i64, to: i64, offset: i64) {
            for relative in (from..=to).step_by(500) {
                assert_eq!(self.read(relative, offset), Verdict::At(ms(relative)));
            }
        }

        fn now(&mut self) -> Micros {
            self.clock.now(ms(self.wall), false)
        }
    }

    #[test]
    fn the_clock_is_the_newest_relative_and_idle_wall_time() {
        let mut reader = Reader::new();
        assert_eq!(reader.clock.now(ms(5000), true), ms(0));
        assert_eq!(reader.read(1500, UNIX), Verdict::At(ms(1500)));
        assert_eq!(reader.read(1000, UNIX), Verdict::At(ms(1000)));
        // (wall, idle, clock)
        let table = [
            (10_000, false, 1500),
            (11_000, false, 1500),
            (12_000, true, 1500),
            (13_000, true, 2500),
            (13_250, true, 2750),
            (14_000, false, 2750),
            (15_000, true, 2750),
            (14_000, true, 2750),
            // A process that slept did not watch.
            (90_000, true, 7750),
        ];
        for (wall, idle, expected) in table {
            assert_eq!(reader.clock.now(ms(wall), idle), ms(expected), "at {wall}");
        }
        // A read ends the idle time.
        reader.read(8000, UNIX);
        assert_eq!(reader.clock.now(ms(92_000), true), ms(8000));
    }

    #[test]
    fn a_first_capture_long_before_the_start_does_not_spoil_the_recording() {
        let mut reader = Reader::new();
        assert_eq!(reader.read(-3_000_000_000_000, UNIX), Verdict::BadTimestamp);
        assert_eq!(reader.clock.origin(), None);
        // Within a day it is before the start, and the start is not far from it.
        assert_eq!(reader.read(-80_000_000, UNIX), Verdict::At(ms(-80_000_000)));
        assert_eq!(reader.read(7_000_000, UNIX), Verdict::Limbo);
        for at in [0, 500, 1000] {
            assert_eq!(reader.read(at, UNIX), Verdict::At(ms(at)));
        }
    }

    #[test]
    fn the_origin_is_what_a_manifest_can_say() {
        let mut clock = RecordingClock::new();
        clock.read(Some(Micros(500_300)), Some(Micros(1_767_261_601_000_000)), Micros(0), Micros(0));
        assert_eq!(clock.origin().map(|origin| origin.unix), Some(Micros(1_767_261_600_500_000)));
    }

    #[test]
    fn the_first_believed_capture_fixes_the_origin() {
        let mut reader = Reader::new();
        assert_eq!(reader.clock.read(None, Some(ms(UNIX)), ms(0), ms(0)), Verdict::BadTimestamp);
        assert_eq!(reader.clock.origin(), None);
        reader.read(500, UNIX);
        reader.read(1000, UNIX + 900);
        assert_eq!(reader.clock.origin(), Some(Origin { unix: ms(UNIX), from_server: false }));

        let mut reader = Reader::new();
        reader.read_as(500, None);
        reader.read(1000, UNIX + 3_600_000);
        assert_eq!(reader.clock.origin(), Some(Origin { unix: ms(UNIX + 7 - 500), from_server: true }));
    }

    #[test]
    fn a_time_before_the_start_stays_negative() {
        assert_eq!(Reader::new().read(-40, UNIX), Verdict::At(ms(-40)));
    }

    #[test]
    fn a_far_time_needs_company() {
        let far = 900_000;
        let mut reader = Reader::new();
        reader.run(0, 5000, UNIX);
        assert_eq!(reader.read(far, UNIX), Verdict::Limbo);
        assert_eq!(reader.now(), ms(5000));
        assert_eq!(reader.read(far + 20_000, UNIX), Verdict::Limbo);
        reader.run(5500, 5500, UNIX);
        assert_eq!(reader.read(far + 500, UNIX), Verdict::Limbo);
        assert_eq!((reader.recheck(far, UNIX), reader.now()), (Verdict::Limbo, ms(5500)));
        assert_eq!(reader.read(far + 1000, UNIX), Verdict::At(ms(far + 1000)));
        assert_eq!(reader.recheck(far, UNIX), Verdict::At(ms(far)));
        assert_eq!(reader.recheck(far + 500, UNIX), Verdict::At(ms(far + 500)));
        assert_eq!(reader.now(), ms(far + 1000));

        // When others go on as before it is given up, and moves nothing.
        let mut reader = Reader::new();
        reader.run(0, 4500, UNIX);
        reader.read(far, UNIX);
        reader.run(5000, 5000, UNIX);
        reader.wall += 4980;
        assert_eq!(reader.recheck(far, UNIX), Verdict::Limbo);
        reader.wall += 100;
        assert_eq!(reader.recheck(far, UNIX), Verdict::BadTimestamp);
        assert_eq!(reader.now(), ms(5000));
    }

    /// `relative` in milliseconds, and the offset from [`UNIX`].
    type Read = (i64, Option<i64>);
    /// A name, captures before, what is read then, which of it is placed, the origin.
    type Case = (&'static str, i64, Vec<Read>, Vec<bool>, i64);

    fn far_cases() -> Vec<Case> {
        const HOUR: i64 = 3_600_000;
        let run = |from: i64, n: i64| (0..n).map(move |n| (from + n * 500, Some(0)));
        let without = |read: Read| (read.0, None);
        let one_wrong = |n: usize| [vec![false], vec![true; n]].concat();
        vec![
            ("the server came late", 0, run(3 * HOUR, 20).collect(), vec![true; 20], 0),
            ("and has no absolute", 0, run(3 * HOUR, 20).map(without).collect(), vec![true; 20], 7 - 3 * HOUR - 1000),
            ("came late to a single picture", 0, run(3 * HOUR, 1).collect(), vec![true], 0),
            (
                "came late to two slides",
                0,
                vec![(3 * HOUR, None), (3 * HOUR + 9000, None)],
                vec![true; 2],
                7 - 3 * HOUR,
            ),
            ("the first one wrong", 0, run(HOUR, 1).chain(run(0, 20)).collect(), one_wrong(20), 0),
            (
                "by its relative alone",
                0,
                [(HOUR, Some(-HOUR))].into_iter().chain(run(0, 20)).collect(),
                one_wrong(20),
                0,
            ),
            ("without absolute", 0, run(HOUR, 1).chain(run(0, 20)).map(without).collect(), one_wrong(20), 7),
            (
                "the first one wrong, come late",
                0,
                run(4 * HOUR, 1).chain(run(3 * HOUR, 20)).collect(),
                one_wrong(20),
                0,
            ),
            ("a minute ahead once", 10, run(65_000, 1).chain(run(5000, 20)).collect(), one_wrong(20), 0),
            ("eight seconds ahead once", 10, run(13_000, 1).chain(run(5000, 12)).collect(), one_wrong(12), 0),
            (
                "an outage, sent again backwards",
                10,
                (0..3).map(|n| (HOUR - n * 500, Some(0))).collect(),
                vec![true; 3],
                0,
            ),
            ("slides of two minutes sent again", 10, (1..9).map(|n| (n * 15_000, Some(0))).collect(), vec![true; 8], 0),
            ("after a redial", 10, run(HOUR, 1).chain(run(5000, 20)).collect(), one_wrong(20), 0),
            (
                "after a redial, without absolute",
                10,
                run(HOUR, 1).chain(run(5000, 20)).map(without).collect(),
                one_wrong(20),
                0,
            ),
            ("after a redial, relative alone", 10, vec![(HOUR, Some(-HOUR))], vec![false], 0),
            ("after an hour of outage", 10, run(HOUR, 14).collect(), vec![true; 14], 0),
            ("a lone slide an hour later", 10, run(HOUR, 1).collect(), vec![true], 0),
            ("two that are far, and from each other", 10, vec![(HOUR, None), (5 * HOUR, None)], vec![true, false], 0),
        ]
    }

    /// Reads, then ends limbo: what becomes of each, and of the origin.
    #[test]
    fn a_far_first_capture_is_placed_when_nothing_contradicts_it() {
        use Verdict::{At, BadTimestamp};
        for (name, before, reads, expected, origin) in far_cases() {
            let mut reader = Reader::new();
            (0..before).for_each(|n| assert_eq!(reader.read(n * 500, UNIX), At(ms(n * 500))));
            let verdicts: Vec<Verdict> =
                reads.iter().map(|read| reader.read_as(read.0, read.1.map(|off| UNIX + off))).collect();
            reader.wall += 5000;
            for ((relative, offset), (verdict, placed)) in reads.iter().zip(verdicts.into_iter().zip(expected)) {
                let absolute = offset.map(|offset| ms(relative + UNIX + offset));
                let verdict = match verdict {
                    Verdict::Limbo => reader.clock.recheck(ms(*relative), absolute, ms(reader.wall)),
                    decided => decided,
                };
                assert_eq!(verdict, if placed { At(ms(*relative)) } else { BadTimestamp }, "{name}: {relative}");
            }
            // The server's clock stands still here, so the origin by it is as far back as the picture that was believed.
            assert_eq!(reader.clock.origin().map(|origin| origin.unix), Some(ms(UNIX + origin)), "{name}");
        }
    }

    #[test]
    fn at_the_end_a_lone_far_capture_is_believed_at_once() {
        let mut reader = Reader::new();
        reader.run(0, 5000, UNIX);
        assert_eq!(reader.read(3_600_000, UNIX), Verdict::Limbo);
        reader.clock.end_limbo();
        assert_eq!(reader.recheck(3_600_000, UNIX), Verdict::At(ms(3_600_000)));
        assert_eq!(reader.now(), ms(3_600_000));
    }

    #[test]
    fn a_time_a_day_ahead_is_never_believed() {
        let day = 24 * 3_600_000;
        let mut reader = Reader::new();
        assert_eq!(reader.read(day + 1, UNIX), Verdict::BadTimestamp);
        reader.run(0, 5000, UNIX);
        for n in 0..5 {
            assert_eq!(reader.read_as(day + 5001 + n, Some(UNIX)), Verdict::BadTimestamp);
        }
        assert_eq!(reader.now(), ms(5000));
    }

    #[test]
    fn a_rebased_clock_goes_on_where_absolute_says() {
        // Paused for a minute at 100 s, and `relative` starts again.
        let (before, after) = (UNIX, UNIX + 160_000);
        let mut reader = Reader::new();
        reader.run(0, 100_000, before);
        assert_eq!(reader.read(0, after), Verdict::Limbo);
        assert_eq!(reader.read(500, after), Verdict::Limbo);
        assert_eq!(reader.recheck(0, after), Verdict::Limbo);
        assert_eq!(reader.clock.take_rebased(), None);
        assert_eq!(reader.read(1000, after), Verdict::At(ms(161_000)));
        let event = ClockRebased { from: ms(before), to: ms(after), at: ms(161_000) };
        assert_eq!(reader.clock.take_rebased(), Some(event));
        assert_eq!(reader.clock.take_rebased(), None);
        // Nothing is late: what was undecided follows, and so does what comes late from before.
        assert_eq!(reader.recheck(0, after), Verdict::At(ms(160_000)));
        assert_eq!(reader.recheck(500, after), Verdict::At(ms(160_500)));
        assert_eq!(reader.read(100_500, before), Verdict::At(ms(100_500)));
        assert_eq!(reader.read(1500, after), Verdict::At(ms(161_500)));
        assert_eq!(reader.read_as(2000, None), Verdict::At(ms(162_000)));
        assert_eq!(reader.clock.origin().map(|origin| origin.unix), Some(ms(before)));
        // And once more.
        assert_eq!(reader.read(2500, after), Verdict::At(ms(162_500)));
        let again = UNIX + 300_000;
        let verdicts = [0, 500, 1000].map(|relative| reader.read(relative, again));
        assert_eq!(verdicts, [Verdict::Limbo, Verdict::Limbo, Verdict::At(ms(301_000))]);
    }

    #[test]
    fn a_rebase_shortly_after_the_start_is_seen_as_soon_as_relative_went_back() {
        let mut reader = Reader::new();
        reader.run(0, 2500, UNIX);
        let verdicts = [0, 500, 1000, 1500].map(|relative| reader.read(relative, UNIX + 60_000));
        assert_eq!(verdicts, [Verdict::Limbo, Verdict::Limbo, Verdict::At(ms(61_000)), Verdict::At(ms(61_500))]);
    }

    #[test]
    fn many_lanes_fill_limbo_within_a_second_and_are_believed() {
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        for lane in 0..63 {
            assert_eq!(reader.read(lane, UNIX + 160_000), Verdict::Limbo);
        }
        assert_eq!(reader.read(500, UNIX + 160_000), Verdict::At(ms(160_500)));
        assert_eq!(reader.recheck(7, UNIX + 160_000), Verdict::At(ms(160_007)));
    }

    /// A source that paused at 100 s, and `relative` starts again. With its offset from before and after, the captures read from
    /// then on, the milliseconds between two reads, and where the first and last of them end.
    #[test]
    fn after_a_pause_nothing_is_put_over_what_is_written() {
        let anew = |n: i64| (0..n).map(|n| 130 + n * 500).collect::<Vec<i64>>();
        let hour = 3_600_000;
        type Case = (&'static str, [Option<i64>; 2], Vec<i64>, i64, bool);
        let table: [Case; 13] = [
            ("absolute runs on", [Some(0), Some(100_500)], anew(20), 500, true),
            ("an hour back", [Some(0), Some(100_500 - hour)], anew(20), 500, true),
            ("an hour back, in a burst", [Some(0), Some(100_500 - hour)], anew(20), 1, true),
            ("20 s back", [Some(0), Some(80_500)], anew(20), 500, true),
            ("years ahead", [Some(0), Some(100_000 * hour)], anew(20), 500, true),
            ("no absolute at all", [None, None], anew(20), 500, true),
            ("no absolute any more", [Some(0), None], anew(20), 500, true),
            ("an absolute only then", [None, Some(0)], anew(20), 500, true),
            ("by few pictures", [None, None], vec![900, 2900, 4900, 6900], 2000, true),
            ("all sent again", [None, None], anew(20), 5, false),
            ("the last minute sent again", [None, None], (0..20).map(|n| 40_000 + n * 500).collect(), 500, false),
            ("a lane behind", [None, None], (0..20).map(|n| 96_000 + n * 10).collect(), 500, false),
            ("zero for want of a time", [None, None], vec![0; 20], 500, false),
        ];
        for (name, [before, after], reads, pace, goes_on) in table {
            let mut reader = Reader::new();
            for n in 0..=200 {
                assert_eq!(reader.read_as(n * 500, before.map(|off| UNIX + off)), Verdict::At(ms(n * 500)), "{name}");
            }
            let offset = after.map(|off| UNIX + off);
            let verdicts: Vec<Verdict> = reads
                .iter()
                .map(|read| {
                    reader.wall += pace - 10;
                    reader.read_as(*read, offset)
                })
                .collect();
            reader.wall += 5000;
            let shift = if goes_on { 100_500 - if name == "absolute runs on" { 0 } else { reads[0] } } else { 0 };
            for (relative, verdict) in reads.iter().zip(verdicts) {
                let absolute = offset.map(|offset| ms(relative + offset));
                let verdict = match verdict {
                    Verdict::Limbo => reader.clock.recheck(ms(*relative), absolute, ms(reader.wall)),
                    decided => decided,
                };
                assert_eq!(verdict, Verdict::At(ms(relative + shift)), "{name}: {relative}");
            }
            assert_eq!(reader.clock.take_rebased().is_some(), goes_on, "{name}");
        }
    }

    #[test]
    fn without_agreement_relative_counts() {
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        assert_eq!(reader.read(50_000, UNIX + 9000), Verdict::Limbo);
        reader.wall += 5000;
        assert_eq!(reader.recheck(50_000, UNIX + 9000), Verdict::At(ms(50_000)));

        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        for n in 0..63 {
            assert_eq!(reader.read(n * 500, UNIX + (n + 1) * 10_000), Verdict::Limbo);
        }
        assert_eq!(reader.read(40_000, UNIX + 900_000), Verdict::At(ms(40_000)));
        assert_eq!(reader.recheck(0, UNIX + 10_000), Verdict::At(ms(0)));
        assert_eq!((reader.now(), reader.clock.take_rebased()), (ms(100_000), None));
    }

    #[test]
    fn when_only_absolute_jumps_relative_wins() {
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        reader.run(100_500, 110_000, UNIX + 3_600_000);
        // A lane that lags behind, with either offset, is no re-based clock.
        reader.run(90_000, 95_000, UNIX);
        reader.run(95_500, 99_000, UNIX + 3_600_000);
        assert_eq!(reader.clock.take_rebased(), None);
    }

    #[test]
    fn while_absolute_jumps_a_lane_behind_is_no_rebased_clock() {
        let after = UNIX + 3_600_000;
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        [100_010, 100_020, 100_030].into_iter().for_each(|at| reader.run(at, at, after));
        reader.run(90_000, 92_000, after);

        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        for at in [90_000, 90_500] {
            assert_eq!(reader.read(at, after), Verdict::Limbo);
        }
        reader.run(100_500, 101_500, after);
        reader.run(91_000, 91_500, after);
        reader.wall += 5000;
        assert_eq!(reader.recheck(90_500, after), Verdict::At(ms(90_500)));
        assert_eq!(reader.clock.take_rebased(), None);
    }

    #[test]
    fn relative_wins_after_a_rebase_too() {
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        for relative in [0, 500, 1000] {
            reader.read(relative, UNIX + 160_000);
        }
        assert!(reader.clock.take_rebased().is_some());
        // What comes late from before says nothing about where `relative` is now.
        reader.run(100_500, 100_500, UNIX);
        for relative in (1500..8000).step_by(500) {
            assert_eq!(reader.read(relative, UNIX + 9_000_000), Verdict::At(ms(160_000 + relative)));
        }
        assert_eq!(reader.clock.take_rebased(), None);
    }

    #[test]
    fn after_giving_up_relative_goes_on_from_there() {
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        assert_eq!(reader.read(50_000, UNIX + 9000), Verdict::Limbo);
        reader.wall += 5000;
        reader.run(50_500, 51_000, UNIX + 70_000);
    }

    #[test]
    fn a_first_absolute_is_no_change() {
        let mut reader = Reader::new();
        for relative in (0..10_000).step_by(500) {
            reader.read_as(relative, None);
        }
        reader.run(2000, 4000, UNIX);
        reader.run(10_000, 12_000, UNIX);
    }

    #[test]
    fn old_captures_sent_again_are_not_suspicious() {
        let mut reader = Reader::new();
        reader.run(0, 100_000, UNIX);
        reader.run(20_000, 60_000, UNIX);
        assert_eq!(reader.now(), ms(100_000));
    }

    #[test]
    fn the_clock_goes_on_after_a_restart() {
        let origin = Origin { unix: ms(UNIX), from_server: false };
        let mut reader = Reader { clock: RecordingClock::resume(origin, ms(700_000)), wall: 0 };
        assert_eq!(reader.now(), ms(700_000));
        assert_eq!(reader.read(1_500_000, UNIX), Verdict::Limbo);
        assert_eq!(reader.read(1_500_500, UNIX), Verdict::Limbo);
        assert_eq!(reader.read(1_501_000, UNIX), Verdict::At(ms(1_501_000)));
        // A source that was re-based before the restart.
        let mut reader = Reader { clock: RecordingClock::resume(origin, ms(700_000)), wall: 0 };
        let verdicts = [100_000, 100_500, 101_000].map(|relative| reader.read(relative, UNIX + 605_000));
        assert_eq!(verdicts, [Verdict::Limbo, Verdict::Limbo, Verdict::At(ms(706_000))]);
        assert_eq!(reader.clock.origin(), Some(origin));
    }

    #[test]
    fn clocks_that_drift_apart_for_hours_are_one_era() {
        let mut reader = Reader::new();
        // 200 ppm: 7 s in ten hours.
        for n in 0..72_000 {
            assert_eq!(reader.read(n * 500, UNIX + n / 10), Verdict::At(ms(n * 500)));
        }
        // A replay of the last seconds at the end of it.
        assert_eq!(reader.read(35_990_000, UNIX + 7198), Verdict::At(ms(35_990_000)));
        assert_eq!(reader.clock.eras.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default()
        })]

        /// Pauses at any time, any number of lanes with jitter: every capture ends where `absolute` says, in time.
        #[test]
        fn a_pause_puts_every_capture_where_absolute_says(
            lanes in 1..40i64,
            before in 4..200i64,
            pause in 3_000..7_200_000i64,
            jitter in prop::collection::vec(-120..120i64, 97),
        ) {
            let mut reader = Reader::new();
            let mut kept = Vec::new();
            let jitter = |n: i64| jitter[n as usize % jitter.len()];
            let restart = UNIX + before * 500 + pause;
            for n in 0..before * lanes {
                let relative = n / lanes * 500 + 200 + jitter(n);
                prop_assert_eq!(reader.read(relative, UNIX), Verdict::At(ms(relative)));
            }
            let back = before * 500 > 2000 + 700;
            for n in 0..20 * lanes {
                let relative = n / lanes * 500 + 200 + jitter(n * 3);
                let line = ms(restart - UNIX + relative);
                match reader.read(relative, restart) {
                    Verdict::At(at) if back => prop_assert_eq!(at, line),
                    Verdict::At(_) => {}
                    Verdict::Limbo => kept.push((relative, line)),
                    Verdict::BadTimestamp => prop_assert!(false, "bad timestamp"),
                }
            }
            prop_assert!(kept.len() < LIMBO_MAX);
            for (relative, line) in kept {
                prop_assert_eq!(reader.recheck(relative, restart), Verdict::At(line));
            }
        }

        /// Anything at all: no panic, the clock never goes back, limbo is bounded and left in time.
        #[test]
        fn whatever_comes_the_clock_never_goes_back(
            reads in prop::collection::vec(
                (
                    prop::option::of(prop_oneof![-10_000..1_000_000i64, 0..100_000_000i64, -1i64 << 51..1i64 << 51]),
                    prop::option::of(prop_oneof![Just(0i64), Just(60_000), -1i64 << 51..1i64 << 51]),
                    any::<bool>(),
                    0..2000i64,
                ),
                0..300
            ),
        ) {
            let mut reader = Reader::new();
            let mut newest = Micros(0);
            let mut undecided = Vec::new();
            for (relative, offset, first, pause) in reads {
                reader.wall += pause;
                let absolute = offset.zip(relative).map(|(offset, relative)| ms(offset + relative));
                let wall = ms(reader.wall);
                match reader.clock.read(relative.map(ms), absolute, wall, ms(UNIX)) {
                    Verdict::Limbo => undecided.push((ms(relative.unwrap()), absolute)),
                    Verdict::At(at) => prop_assert!(at <= reader.now() && at <= newest + NEVER || at.0 < 0),
                    Verdict::BadTimestamp => {}
                }
                let now = reader.clock.now(wall, first);
                prop_assert!(now >= newest);
                newest = now;
                prop_assert!(reader.clock.limbo.len() < LIMBO_MAX && reader.clock.eras.len() <= ERAS_MAX);
            }
            reader.wall += 5000;
            for (relative, absolute) in undecided {
                prop_assert_ne!(reader.clock.recheck(relative, absolute, ms(reader.wall)), Verdict::Limbo);
            }
        }
    }
}
