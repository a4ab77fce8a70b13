//! The plan of a run: which faults come when, from a seed alone. Carrying them out is the conductor's and the bots'.

use std::ops::Range;
use std::time::Duration;

/// SplitMix64: the same numbers for a seed on every machine, for ever.
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed, apart for each stream.
    pub fn new(seed: u64, stream: u64) -> Dice {
        Dice(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One of `range`.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A time between these, in whole milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// kill -9, and a start.
    Kill,
    /// The same while half a message has been sent.
    KillHalfMessage,
    /// kill -9, and again so long after the next start began.
    KillTwice(Duration),
    /// SIGTERM, and kill -9 so long after it: whoever stops a container does that.
    KillStopping(Duration),
    /// SIGTERM, the end awaited, and a start.
    Terminate,
    /// A bot's socket is reset.
    Reset,
    /// A bot's socket ends with a FIN, without a close.
    Fin,
    /// A bot sends nothing for so long, then all that it would have sent.
    Stall(Duration),
    /// A bot leaves its socket as it is, half a message in it, and goes on with another; the old one is dropped after
    /// so long.
    HalfOpen(Duration),
    /// A bot sends so many seconds' worth of pictures ahead, as fast as they are taken.
    Burst(u32),
    /// The screens that a bot sends change their size.
    Flip,
}

impl Fault {
    /// For the report.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9",
            Fault::KillHalfMessage => "kill -9 within a message",
            Fault::KillTwice(_) => "kill -9, and while starting",
            Fault::KillStopping(_) => "kill -9 after SIGTERM",
            Fault::Terminate => "SIGTERM",
            Fault::Reset => "reset",
            Fault::Fin => "FIN",
            Fault::Stall(_) => "stall",
            Fault::HalfOpen(_) => "half-open socket",
            Fault::Burst(_) => "burst",
            Fault::Flip => "size flip",
        }
    }

    /// How often it kills with SIGKILL.
    pub fn kills(self) -> u32 {
        match self {
            Fault::Kill | Fault::KillHalfMessage | Fault::KillStopping(_) => 1,
            Fault::KillTwice(_) => 2,
            _ => 0,
        }
    }
}

/// A fault, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How long after the one before.
    pub after: Duration,
    /// The bot that does it, where it is one of a bot.
    pub bot: usize,
    /// What goes wrong.
    pub fault: Fault,
}

/// So many kills at least: one at once, when little is written yet, then two other faults before each; all sorts come
/// before any comes again. `pause`: milliseconds from one to the next.
pub fn plan(seed: u64, kills: u32, bots: usize, pause: Range<u64>) -> Vec<Step> {
    let mut dice = Dice::new(seed, 0xfa17);
    let mut steps = vec![Step { after: dice.millis(0..pause.end / 2), bot: 0, fault: Fault::Kill }];
    let (mut deaths, mut others) = (Vec::new(), Vec::new());
    let mut killed = 1;
    while killed < kills {
        for death in [false, false, true] {
            let bag = if death { &mut deaths } else { &mut others };
            if bag.is_empty() {
                bag.extend(if death { all_deaths(&mut dice) } else { all_others(&mut dice, pause.end) });
            }
            let fault = bag.swap_remove(dice.within(0..bag.len() as u64) as usize);
            let bot = dice.within(0..bots as u64) as usize;
            // Every second stall comes to its end before anything else happens.
            let stalled = match steps.last() {
                Some(Step { fault: Fault::Stall(time), .. }) if dice.within(0..2) == 0 => *time,
                _ => Duration::ZERO,
            };
            steps.push(Step { after: stalled + dice.millis(pause.clone()), bot, fault });
            killed += fault.kills();
        }
    }
    steps
}

fn all_deaths(dice: &mut Dice) -> Vec<Fault> {
    // A start takes 100 ms, a stop less.
    let (again, stopping) = (dice.millis(0..120), dice.millis(0..60));
    vec![Fault::Kill, Fault::KillHalfMessage, Fault::KillTwice(again), Fault::KillStopping(stopping)]
}

fn all_others(dice: &mut Dice, pause: u64) -> Vec<Fault> {
    vec![
        Fault::Terminate,
        Fault::Reset,
        Fault::Fin,
        // Longer than a tick waits for its picture, at times.
        Fault::Stall(dice.millis(300..2 * pause)),
        Fault::HalfOpen(dice.millis(100..pause)),
        // More than a lane's queues hold, at times.
        Fault::Burst(dice.within(1..12) as u32),
        Fault::Flip,
    ]
}

#[test]
fn a_plan_is_its_seeds_and_has_every_fault() {
    let steps = plan(1, 8, 2, 100..600);
    assert_eq!(steps, plan(1, 8, 2, 100..600));
    assert_ne!(steps, plan(2, 8, 2, 100..600));
    let names: std::collections::BTreeSet<_> = steps.iter().map(|step| step.fault.name()).collect();
    assert_eq!(names.len(), 11, "{names:?}");
    assert!(steps.iter().map(|step| step.fault.kills()).sum::<u32>() >= 8);
}
