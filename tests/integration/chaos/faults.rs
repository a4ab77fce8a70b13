//! The plan of a run: which faults come when, from a seed alone. Carrying them out is the conductor's and the bots'.

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
    pub fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A time between these, in whole milliseconds.
    pub fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
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
            Fault::Kill | Fault::KillHalfMessage => 1,
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

/// So many kills at least, two other faults before each; all sorts come before any comes again.
pub fn plan(seed: u64, kills: u32, bots: usize, pause: std::ops::Range<u64>) -> Vec<Step> {
    let mut dice = Dice::new(seed, 0xfa17);
    let (mut deaths, mut others) = (Vec::new(), Vec::new());
    let mut steps = Vec::new();
    let mut killed = 0;
    while killed < kills {
        for death in [false, false, true] {
            let bag = if death { &mut deaths } else { &mut others };
            if bag.is_empty() {
                bag.extend(all(death, &mut dice));
            }
            let fault = bag.swap_remove(dice.within(0..bag.len() as u64) as usize);
            let bot = dice.within(0..bots as u64) as usize;
            steps.push(Step { after: dice.millis(pause.clone()), bot, fault });
            killed += fault.kills();
        }
    }
    steps
}

fn all(deaths: bool, dice: &mut Dice) -> Vec<Fault> {
    if deaths {
        return vec![Fault::Kill, Fault::KillHalfMessage, Fault::KillTwice(dice.millis(0..120))];
    }
    vec![
        Fault::Terminate,
        Fault::Reset,
        Fault::Fin,
        Fault::Stall(dice.millis(300..2500)),
        Fault::HalfOpen(dice.millis(100..3000)),
        Fault::Burst(dice.within(1..4) as u32),
        Fault::Flip,
    ]
}

#[test]
fn a_plan_is_its_seeds_and_has_every_fault() {
    let steps = plan(1, 5, 2, 100..200);
    assert_eq!(steps, plan(1, 5, 2, 100..200));
    assert_ne!(steps, plan(2, 5, 2, 100..200));
    let names: std::collections::BTreeSet<_> = steps.iter().map(|step| step.fault.name()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert!(steps.iter().map(|step| step.fault.kills()).sum::<u32>() >= 5);
}
