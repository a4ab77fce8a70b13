//! Overload: how much of the machine live meetings need, and what follows from it, in this order: cheaper encoder
//! options, then new bots are refused. Shedding, the last step, is [`super::shed`]'s. Pure: time is an argument.
//!
//! A sender that runs ahead of the clock (a burst, a replay, a test) takes what is free and waits for the rest; its work
//! counts as if it came at real-time pace, so that it looks like no overload.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use crate::media::Micros;

/// A sender whose time goes on as fast as ours, in thousandths.
pub const REAL_TIME: u64 = 1000;
/// As many microseconds a picture waits for its turn only where there is too much to do, whoever may have the cores.
const OLD: f64 = 2e6;
/// So much load, of that at which bots are refused, the oldest picture says at the most.
const OLD_MAX: f64 = 1.2;
/// The most that the workers' own CPU is multiplied by for what the process does around them.
const AROUND_MAX: f64 = 1.5;
/// The load is looked at over about this long.
const SMOOTH: Micros = Micros(4_000_000);
/// Of the load at which bots are refused: where cheaper options come.
const CHEAPER: f64 = 0.9;
/// Of the same: below it new bots are taken again.
const RELIEF: f64 = 0.8;
/// Of the same: below it options are dear again. They cost a quarter more, so it must be well below.
const CHEAPER_RELIEF: f64 = 0.5;
/// A bot gives up after 90 s; one that was refused for so long is let in.
const REFUSED_LONG: Micros = Micros(45_000_000);
/// A key that was not heard of for so long begins anew.
const KEY_FORGOTTEN: Micros = Micros(120_000_000);
/// Keys that are remembered; when full, the one refused longest ago without a word since goes.
const KEYS_MAX: usize = 10_000;

/// What overload has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    Normal,
    /// Segments are begun with cheaper encoder options.
    Cheaper,
    /// And new bots are refused.
    Refusing,
}

impl Level {
    const ALL: [Level; 3] = [Level::Normal, Level::Cheaper, Level::Refusing];

    /// The name in metrics and events.
    pub fn name(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Cheaper => "cheaper",
            Level::Refusing => "refusing",
        }
    }
}

/// Work done by the workers, added up by themselves, and the level that follows; read by lanes and sockets.
#[derive(Debug, Default)]
pub struct Load {
    /// Microseconds of CPU that workers had, at real-time pace.
    worked: AtomicU64,
    /// The same as it was.
    raw: AtomicU64,
    /// The longest that a picture of a meeting waited since the last look.
    oldest: AtomicU64,
    /// A socket at real-time pace ran out of patience.
    late: AtomicU64,
    level: AtomicU8,
}

impl Load {
    /// Work of `time` for a lane whose sender goes on at `pace` ([`REAL_TIME`]).
    pub fn worked(&self, time: Micros, pace: u64) {
        let micros = time.0.max(0) as u64;
        self.raw.fetch_add(micros, SeqCst);
        self.worked.fetch_add(micros * REAL_TIME / pace.max(REAL_TIME), SeqCst);
    }

    /// A picture came to an encoder `age` after it was read, of a sender that goes on at `pace`: ahead of the clock it waits
    /// for what others leave.
    pub fn aged(&self, age: Micros, pace: u64) {
        if pace * 2 <= REAL_TIME * 3 {
            self.oldest.fetch_max(age.0.max(0) as u64, SeqCst);
        }
    }

    /// A capture was shed, for want of time.
    pub fn shed(&self) {
        self.late.fetch_add(1, SeqCst);
    }

    /// What overload has led to.
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(SeqCst)).min(2)]
    }
}

/// Why a bot is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The workers have as much to do as they can.
    Load,
    /// No lane more fits into memory.
    Memory,
    /// The spool is full.
    Spool,
}

impl Full {
    /// The name in metrics, and in the body of a refusal.
    pub fn name(self) -> &'static str {
        match self {
            Full::Load => "overloaded",
            Full::Memory => "memory",
            Full::Spool => "spool_full",
        }
    }
}

/// What becomes of a bot that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let in.
    Admit,
    /// Let in, and judged by its first message: a recording that is here goes on, a new one is refused.
    Judge(Full),
    /// Not let in.
    Refuse(Full),
}

/// Decides by the load of the last seconds.
#[derive(Debug)]
pub struct Admission {
    /// At this load bots are refused: 1 is all that the workers can do.
    refuse_at: f64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seen_at: Option<Micros>,
    worked: u64,
    raw: u64,
    process: Micros,
    late: u64,
    load: f64,
    keys: HashMap<String, Refused>,
}

#[derive(Clone, Copy, Debug)]
struct Refused {
    since: Micros,
    last: Micros,
}

impl Admission {
    /// Bots are refused from the load `refuse_at` on.
    pub fn new(refuse_at: f64) -> Admission {
        Admission { refuse_at, inner: Mutex::default() }
    }

    /// Looks at the work done since the last look, by workers that can do `cores` seconds of it in a second; what the whole
    /// process had of CPU so far says how much there is around it. A picture that grew old says that the cores are others'.
    /// Returns the new level when it changed.
    pub fn look(&self, load: &Load, now: Micros, process: Micros, cores: usize) -> Option<Level> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (worked, raw, late) = (load.worked.load(SeqCst), load.raw.load(SeqCst), load.late.load(SeqCst));
        let (work, is_late) = (worked - inner.worked, late > inner.late);
        let around = (process - inner.process).0 as f64 / (raw - inner.raw).max(1) as f64;
        (inner.worked, inner.raw, inner.process, inner.late) = (worked, raw, process, late);
        let oldest = load.oldest.swap(0, SeqCst) as f64;
        let wall = now.0 - inner.seen_at.replace(now)?.0;
        if wall <= 0 {
            return None;
        }
        let work = work as f64 * around.clamp(1.0, AROUND_MAX);
        let of_this_look = work / (wall as f64 * cores.max(1) as f64);
        let of_this_look = of_this_look.max(self.refuse_at * (oldest / OLD).min(OLD_MAX));
        let share = 1.0 - (-(wall as f64) / SMOOTH.0 as f64).exp();
        inner.load += (of_this_look - inner.load) * share;
        if is_late {
            // Whatever the clocks say: somebody came too late.
            inner.load = inner.load.max(self.refuse_at);
        }
        let before = load.level();
        let level = self.level(before, inner.load);
        load.level.store(level as u8, SeqCst);
        (level != before).then_some(level)
    }

    fn level(&self, before: Level, load: f64) -> Level {
        let over = |share: f64| load >= self.refuse_at * share;
        let refusing = over(1.0) || (before == Level::Refusing && over(RELIEF));
        let cheaper = over(CHEAPER) || (before != Level::Normal && over(CHEAPER_RELIEF));
        match (refusing, cheaper) {
            (true, _) => Level::Refusing,
            (false, true) => Level::Cheaper,
            (false, false) => Level::Normal,
        }
    }

    /// The load of the last seconds: 1 is all that the workers can do.
    pub fn load(&self) -> f64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).load
    }

    /// What becomes of a bot that dials under `key` while `full`. `grace`: a recording waits for its bot.
    pub fn ask(&self, key: Option<&str>, now: Micros, full: Option<Full>, grace: bool) -> Verdict {
        let Some(full) = full else { return Verdict::Admit };
        if full == Full::Load && key.is_some_and(|key| self.is_refused_long(key, now)) {
            return Verdict::Admit;
        }
        if grace {
            return Verdict::Judge(full);
        }
        self.refused(key, now);
        Verdict::Refuse(full)
    }

    fn is_refused_long(&self, key: &str, now: Micros) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner
            .keys
            .get(key)
            .is_some_and(|refused| now - refused.last < KEY_FORGOTTEN && now - refused.since >= REFUSED_LONG)
    }

    /// Notes that a bot was refused, at the upgrade or after its first message.
    pub fn refused(&self, key: Option<&str>, now: Micros) {
        let Some(key) = key else { return };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refused) = inner.keys.get_mut(key) {
            if now - refused.last >= KEY_FORGOTTEN {
                refused.since = now;
            }
            refused.last = now;
            return;
        }
        if inner.keys.len() >= KEYS_MAX {
            inner.keys.retain(|_, refused| now - refused.last < KEY_FORGOTTEN);
        }
        if inner.keys.len() >= KEYS_MAX {
            let oldest = inner.keys.iter().min_by_key(|(_, refused)| refused.last).map(|(key, _)| key.clone());
            oldest.map(|key| inner.keys.remove(&key));
        }
        inner.keys.insert(key.to_owned(), Refused { since: now, last: now });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: i64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    /// A machine of two cores, looked at once a second.
    struct Bench {
        admission: Admission,
        load: Load,
        now: i64,
        /// CPU of the process, and how much that is of its workers'.
        process: Micros,
        around: f64,
        levels: Vec<(i64, Level)>,
    }

    impl Bench {
        fn new() -> Bench {
            let (admission, load) = (Admission::new(0.9), Load::default());
            let bench = Bench { admission, load, now: 0, process: secs(0), around: 1.0, levels: Vec::new() };
            assert_eq!(bench.admission.look(&bench.load, secs(0), secs(0), 2), None);
            bench
        }

        /// For so long work of `share` of the machine, sent at `pace`.
        fn work(&mut self, seconds: i64, share: f64, pace: u64) {
            for _ in 0..seconds {
                self.now += 1;
                let work = Micros((share * 2e6) as i64);
                self.load.worked(work, pace);
                self.process = self.process + Micros((work.0 as f64 * self.around) as i64);
                let level = self.admission.look(&self.load, secs(self.now), self.process, 2);
                self.levels.extend(level.map(|level| (self.now, level)));
            }
        }
    }

    #[test]
    fn cheaper_comes_before_refusing_and_goes_after_it() {
        let mut bench = Bench::new();
        bench.work(30, 0.6, REAL_TIME);
        assert_eq!(bench.levels, []);
        bench.work(30, 0.97, REAL_TIME);
        // Back, but not far enough for new bots; then far enough for them; then for dear options.
        bench.work(30, 0.8, REAL_TIME);
        bench.work(30, 0.6, REAL_TIME);
        bench.work(30, 0.4, REAL_TIME);
        let levels: Vec<Level> = bench.levels.iter().map(|(_, level)| *level).collect();
        assert_eq!(levels, [Level::Cheaper, Level::Refusing, Level::Cheaper, Level::Normal]);
        let at: Vec<i64> = bench.levels.iter().map(|(at, _)| *at).collect();
        assert!((31..36).contains(&at[0]) && (36..46).contains(&at[1]), "{at:?}");
        assert!((91..96).contains(&at[2]) && (121..130).contains(&at[3]), "{at:?}");
    }

    #[test]
    fn what_the_process_does_around_its_workers_counts() {
        let mut bench = Bench { around: 1.2, ..Bench::new() };
        bench.work(60, 0.6, REAL_TIME);
        assert!((0.71..0.73).contains(&bench.admission.load()), "{}", bench.admission.load());
        // Where they have little to do it is something else that the process does.
        bench.around = 50.0;
        bench.work(60, 0.02, REAL_TIME);
        assert!((0.02..0.04).contains(&bench.admission.load()), "{}", bench.admission.load());
    }

    #[test]
    fn pictures_that_grow_old_are_overload_although_there_is_little_work() {
        let mut bench = Bench::new();
        for _ in 0..30 {
            bench.load.aged(secs(3), REAL_TIME);
            bench.work(1, 0.2, REAL_TIME);
        }
        let levels: Vec<Level> = bench.levels.iter().map(|(_, level)| *level).collect();
        assert_eq!(levels, [Level::Cheaper, Level::Refusing]);
        // A replay waits for what is left; and half a second is a burst of one bot.
        let mut bench = Bench::new();
        for _ in 0..30 {
            bench.load.aged(secs(3), 2 * REAL_TIME);
            bench.load.aged(Micros(500_000), REAL_TIME);
            bench.work(1, 0.2, REAL_TIME);
        }
        assert_eq!(bench.levels, []);
    }

    #[test]
    fn a_sender_ahead_of_the_clock_is_no_overload() {
        let mut bench = Bench::new();
        bench.work(60, 1.0, 8 * REAL_TIME);
        assert_eq!(bench.levels, []);
        assert!((0.12..0.13).contains(&bench.admission.load()), "{}", bench.admission.load());
    }

    #[test]
    fn what_is_shed_is_overload_whatever_the_clocks_say() {
        let mut bench = Bench::new();
        bench.load.shed();
        bench.work(1, 0.3, REAL_TIME);
        assert_eq!(bench.levels, [(1, Level::Refusing)]);
        bench.work(9, 0.3, REAL_TIME);
        assert_eq!(bench.load.level(), Level::Normal, "and over within ten seconds: {:?}", bench.levels);
    }

    #[test]
    fn a_bot_is_let_in_before_it_gives_up() {
        let admission = Admission::new(0.9);
        let ask = |key, at, full| admission.ask(key, secs(at), full, false);
        assert_eq!(ask(Some("a"), 0, None), Verdict::Admit);
        for at in (0..45).step_by(3) {
            assert_eq!(ask(Some("a"), at, Some(Full::Load)), Verdict::Refuse(Full::Load));
        }
        assert_eq!(ask(Some("a"), 45, Some(Full::Memory)), Verdict::Refuse(Full::Memory), "nothing is left to give");
        assert_eq!(ask(Some("a"), 45, Some(Full::Load)), Verdict::Admit);
        assert_eq!(ask(Some("b"), 45, Some(Full::Load)), Verdict::Refuse(Full::Load));
        assert_eq!(ask(None, 45, Some(Full::Load)), Verdict::Refuse(Full::Load));
        // A key that comes back hours later is another bot's.
        assert_eq!(ask(Some("b"), 4_000, Some(Full::Load)), Verdict::Refuse(Full::Load));
        assert_eq!(ask(Some("b"), 4_044, Some(Full::Load)), Verdict::Refuse(Full::Load));
        assert_eq!(ask(Some("b"), 4_045, Some(Full::Load)), Verdict::Admit);
    }

    #[test]
    fn who_may_be_on_the_way_back_is_judged_by_what_it_says() {
        let admission = Admission::new(0.9);
        assert_eq!(admission.ask(Some("a"), secs(0), Some(Full::Load), true), Verdict::Judge(Full::Load));
        assert_eq!(admission.ask(Some("a"), secs(0), None, true), Verdict::Admit);
        // A refusal by its first message counts as one at the door.
        admission.refused(Some("a"), secs(1));
        assert_eq!(admission.ask(Some("a"), secs(46), Some(Full::Load), false), Verdict::Admit);
    }

    #[test]
    fn keys_are_bounded() {
        let admission = Admission::new(0.9);
        for n in 0..KEYS_MAX as i64 + 5 {
            admission.refused(Some(&n.to_string()), Micros(n));
        }
        let inner = admission.inner.lock().unwrap();
        assert_eq!(inner.keys.len(), KEYS_MAX);
        assert!(!inner.keys.contains_key("4") && inner.keys.contains_key("5"));
    }
}
