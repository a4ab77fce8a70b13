//! What a bot will send and when: pure and seeded, so that a test can compute what must come out.

use crate::media::{Kind, Micros, Tick};

/// Between two captures of a track: 2 fps.
pub const SPACING: Micros = Micros(500_000);

/// How much later than its moment a late capture is sent.
pub const LATENESS: Micros = Micros(5_000_000);

/// What a meeting is like. All times are on the recording's time line.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Participants, each with a camera.
    pub participants: u32,
    /// How many of them share their screen as well, the first ones.
    pub screenshares: u32,
    /// How long the meeting is.
    pub duration: Micros,
    /// `relative` is off by up to this much either way.
    pub jitter: Micros,
    /// Share of the captures that are sent twice, 0 to 1.
    pub duplicates: f64,
    /// Share of the captures that change places with the next of their track, 0 to 1.
    pub reorder: f64,
    /// Captures that are sent [`LATENESS`] late.
    pub late: u32,
    /// When cameras are off.
    pub camera_off: Vec<CameraOff>,
    /// Who comes after the start.
    pub joins: Vec<Join>,
    /// Whether all tracks send at the same instants.
    pub in_phase: bool,
    /// Same seed, same plan.
    pub seed: u64,
}

impl Default for PlanOptions {
    /// One participant for 10 s and nothing out of order.
    fn default() -> PlanOptions {
        PlanOptions {
            participants: 1,
            screenshares: 0,
            duration: Micros::from_secs(10),
            jitter: Micros(0),
            duplicates: 0.0,
            reorder: 0.0,
            late: 0,
            camera_off: Vec::new(),
            joins: Vec::new(),
            in_phase: false,
            seed: 1,
        }
    }
}

/// A participant's camera is off in `from..to`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CameraOff {
    /// Index, from 0.
    pub participant: u32,
    /// First moment without a picture.
    pub from: Micros,
    /// First moment with a picture again.
    pub to: Micros,
}

/// A participant comes late.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Join {
    /// Index, from 0.
    pub participant: u32,
    /// When.
    pub at: Micros,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When to send it, after the recording's start.
    pub at_send: Micros,
    /// What `timestamp.relative` says.
    pub relative: Micros,
    /// Index of the participant, from 0.
    pub participant: u32,
    /// What the message is.
    pub what: What,
    /// Whether its sending was disturbed.
    pub turn: Turn,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A capture; `number` is the tick of a grid of 2 fps that it was taken for, and the number in its label.
    Picture {
        /// Webcam or screenshare.
        kind: Kind,
        /// Tick and label.
        number: u32,
    },
    /// `participant_events.{0}`.
    Event(&'static str),
}

/// How the sending of a capture differs from that of an ordinary one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It does not.
    InOrder,
    /// This is the second time that it is sent.
    Duplicate,
    /// Sent before its predecessor, or after its successor.
    Swapped,
    /// Sent [`LATENESS`] after its moment.
    Late,
}

/// All messages of the bot with this index, in the order of sending.
pub fn plan(options: &PlanOptions, bot: u32) -> Vec<Planned> {
    let mut dice = Dice::new(options.seed, u64::from(bot));
    let mut messages = Vec::new();
    for participant in 0..options.participants {
        events(options, participant, &mut messages);
        track(options, participant, Kind::Webcam, &mut dice, &mut messages);
        if participant < options.screenshares {
            track(options, participant, Kind::Screenshare, &mut dice, &mut messages);
        }
    }
    make_late(options.late, options.duration, &mut dice, &mut messages);
    // Stable: what is due at the same moment stays as it was put in, so an event comes before its first picture.
    messages.sort_by_key(|message| message.at_send);
    messages
}

/// The numbers of the captures of a track that are sent in time, each once: what an undisturbed server encodes.
pub fn numbers_in_time(messages: &[Planned], participant: u32, kind: Kind) -> Vec<u32> {
    let mut numbers: Vec<u32> = messages
        .iter()
        .filter(|message| message.participant == participant && !matches!(message.turn, Turn::Duplicate | Turn::Late))
        .filter_map(|message| match message.what {
            What::Picture { kind: of, number } if of == kind => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn joined_at(options: &PlanOptions, participant: u32) -> Micros {
    options.joins.iter().find(|join| join.participant == participant).map_or(Micros(0), |join| join.at)
}

/// Tracks take turns within a spacing, as encoders of a bot do.
fn delay(options: &PlanOptions, participant: u32, kind: Kind) -> Micros {
    if options.in_phase {
        return Micros(0);
    }
    let lane = if kind == Kind::Webcam { participant } else { options.participants + participant };
    Micros(SPACING.0 * i64::from(lane) / i64::from((options.participants + options.screenshares).max(1)))
}

fn events(options: &PlanOptions, participant: u32, messages: &mut Vec<Planned>) {
    let delay = delay(options, participant, Kind::Webcam);
    let mut say = |at: Micros, action| {
        let turn = Turn::InOrder;
        messages.push(Planned { at_send: at + delay, relative: at, participant, what: What::Event(action), turn });
    };
    let joined = joined_at(options, participant);
    if joined >= options.duration {
        return;
    }
    let shares = participant < options.screenshares;
    say(joined, "join");
    say(joined, "webcam_on");
    if shares {
        say(joined, "screenshare_on");
    }
    for off in options.camera_off.iter().filter(|off| off.participant == participant) {
        if off.from < options.duration && joined <= off.from {
            say(off.from, "webcam_off");
            if off.to < options.duration {
                say(off.to, "webcam_on");
            }
        }
    }
    if shares {
        say(options.duration, "screenshare_off");
    }
    say(options.duration, "leave");
}

fn track(options: &PlanOptions, participant: u32, kind: Kind, dice: &mut Dice, messages: &mut Vec<Planned>) {
    let delay = delay(options, participant, kind);
    let joined = joined_at(options, participant);
    let is_off = |at: Micros| {
        let mut offs = options.camera_off.iter().filter(|off| off.participant == participant);
        kind == Kind::Webcam && offs.any(|off| off.from <= at && at < off.to)
    };
    let ticks = 0..-(-options.duration.0).div_euclid(SPACING.0);
    let mut sent: Vec<Planned> = ticks
        .map(|tick: Tick| (tick, Micros(tick * SPACING.0)))
        .filter(|&(_, at)| at >= joined && !is_off(at))
        .map(|(tick, at)| {
            let jitter = dice.between(-options.jitter.0, options.jitter.0);
            let relative = Micros((at.0 + jitter).max(0));
            let what = What::Picture { kind, number: tick as u32 };
            Planned { at_send: relative + delay, relative, participant, what, turn: Turn::InOrder }
        })
        .collect();
    let mut first = 0;
    while first + 1 < sent.len() {
        if dice.happens(options.reorder) {
            let (earlier, later) = (sent[first].at_send, sent[first + 1].at_send);
            (sent[first].at_send, sent[first].turn) = (earlier.max(later), Turn::Swapped);
            (sent[first + 1].at_send, sent[first + 1].turn) = (earlier.min(later), Turn::Swapped);
            // The later one must come first even when jitter has put both at one moment.
            sent.swap(first, first + 1);
            first += 1;
        }
        first += 1;
    }
    for message in sent {
        messages.push(message);
        if dice.happens(options.duplicates) {
            messages.push(Planned {
                at_send: message.at_send + Micros(SPACING.0 / 5),
                turn: Turn::Duplicate,
                ..message
            });
        }
    }
}

/// Picks captures that nothing else was done to, where there is time left for the lateness.
fn make_late(count: u32, duration: Micros, dice: &mut Dice, messages: &mut [Planned]) {
    let mut candidates: Vec<usize> = (0..messages.len())
        .filter(|&i| matches!(messages[i].what, What::Picture { .. }) && messages[i].turn == Turn::InOrder)
        .filter(|&i| messages[i].at_send + LATENESS < duration)
        .filter(|&i| messages.get(i + 1).is_none_or(|next| next.turn != Turn::Duplicate))
        .collect();
    for _ in 0..count.min(candidates.len() as u32) {
        let pick = dice.between(0, candidates.len() as i64 - 1) as usize;
        let message = &mut messages[candidates.swap_remove(pick)];
        message.at_send = message.at_send + LATENESS;
        message.turn = Turn::Late;
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers in every version of every library.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    /// One sequence for each pair.
    pub(super) fn new(seed: u64, stream: u64) -> Dice {
        let mut dice = Dice(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        dice.next();
        dice
    }

    /// 64 bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `low..=high`.
    fn between(&mut self, low: i64, high: i64) -> i64 {
        let span = (high - low).max(0) as u64 + 1;
        low + (self.next() % span) as i64
    }

    /// True in this share of the calls.
    fn happens(&mut self, share: f64) -> bool {
        ((self.next() >> 11) as f64 / (1_u64 << 53) as f64) < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pictures(messages: &[Planned], participant: u32, kind: Kind) -> Vec<(u32, Planned)> {
        let of = messages.iter().filter(|message| message.participant == participant);
        of.filter_map(|message| match message.what {
            What::Picture { kind: k, number } if k == kind => Some((number, *message)),
            _ => None,
        })
        .collect()
    }

    fn actions(messages: &[Planned], participant: u32) -> Vec<(&'static str, f64)> {
        let of = messages.iter().filter(|message| message.participant == participant);
        of.filter_map(|message| match message.what {
            What::Event(action) => Some((action, message.relative.as_secs_f64())),
            What::Picture { .. } => None,
        })
        .collect()
    }

    #[test]
    fn an_undisturbed_plan_is_the_grid() {
        let options = PlanOptions { participants: 2, screenshares: 1, ..PlanOptions::default() };
        let messages = plan(&options, 0);
        assert!(messages.is_sorted_by_key(|message| message.at_send));
        for (participant, kind) in [(0, Kind::Webcam), (1, Kind::Webcam), (0, Kind::Screenshare)] {
            let track = pictures(&messages, participant, kind);
            assert_eq!(track.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
            for (number, message) in track {
                assert_eq!(message.relative, Micros(i64::from(number) * 500_000));
                assert!((0..500_000).contains(&(message.at_send - message.relative).0));
            }
            assert_eq!(numbers_in_time(&messages, participant, kind), (0..20).collect::<Vec<_>>());
        }
        assert!(pictures(&messages, 1, Kind::Screenshare).is_empty());
        assert_eq!(
            actions(&messages, 0),
            [("join", 0.0), ("webcam_on", 0.0), ("screenshare_on", 0.0), ("screenshare_off", 10.0), ("leave", 10.0)]
        );
        assert_eq!(actions(&messages, 1), [("join", 0.0), ("webcam_on", 0.0), ("leave", 10.0)]);
    }

    #[test]
    fn cameras_go_off_and_participants_come_late() {
        let options = PlanOptions {
            participants: 2,
            camera_off: vec![CameraOff { participant: 0, from: Micros::from_secs(3), to: Micros::from_secs(5) }],
            joins: vec![Join { participant: 1, at: Micros(2_200_000) }],
            ..PlanOptions::default()
        };
        let messages = plan(&options, 0);
        assert_eq!(numbers_in_time(&messages, 0, Kind::Webcam), (0..6).chain(10..20).collect::<Vec<_>>());
        assert_eq!(numbers_in_time(&messages, 1, Kind::Webcam), (5..20).collect::<Vec<_>>());
        assert_eq!(
            actions(&messages, 0),
            [("join", 0.0), ("webcam_on", 0.0), ("webcam_off", 3.0), ("webcam_on", 5.0), ("leave", 10.0)]
        );
        assert_eq!(actions(&messages, 1), [("join", 2.2), ("webcam_on", 2.2), ("leave", 10.0)]);
        let order: Vec<_> = messages.iter().filter(|message| message.participant == 0).collect();
        let on = order.iter().position(|m| m.what == What::Event("webcam_on") && m.relative.0 == 5_000_000).unwrap();
        assert_eq!(order[on + 1].what, What::Picture { kind: Kind::Webcam, number: 10 });
    }

    #[test]
    fn disturbances_come_in_their_share_and_from_the_seed() {
        let options = PlanOptions {
            participants: 3,
            screenshares: 1,
            duration: Micros::from_secs(600),
            jitter: Micros(50_000),
            duplicates: 0.02,
            reorder: 0.03,
            late: 7,
            ..PlanOptions::default()
        };
        let messages = plan(&options, 0);
        assert_eq!(plan(&options, 0), messages);
        assert_ne!(plan(&options, 1), messages);
        assert_ne!(plan(&PlanOptions { seed: 2, ..options.clone() }, 0), messages);
        let count = |turn| messages.iter().filter(|message| message.turn == turn).count();
        assert_eq!(count(Turn::Late), 7);
        assert!((60..140).contains(&count(Turn::Duplicate)), "{}", count(Turn::Duplicate));
        assert!((200..360).contains(&count(Turn::Swapped)), "{}", count(Turn::Swapped));
        let captures = messages.iter().filter(|message| matches!(message.what, What::Picture { .. })).count();
        assert_eq!(captures, 4 * 1200 + count(Turn::Duplicate));
        for message in &messages {
            let What::Picture { kind, number } = message.what else { continue };
            assert!((message.relative.0 - i64::from(number) * 500_000).abs() <= 50_000);
            if message.turn == Turn::Late {
                assert_eq!(message.at_send - message.relative - delay(&options, message.participant, kind), LATENESS);
            }
        }
        assert!(messages.is_sorted_by_key(|message| message.at_send));
    }

    #[test]
    fn every_pair_that_is_swapped_comes_out_of_order() {
        let options = PlanOptions { reorder: 1.0, ..PlanOptions::default() };
        let numbers: Vec<u32> = pictures(&plan(&options, 0), 0, Kind::Webcam).iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers[..6], [1, 0, 3, 2, 5, 4]);
    }
}
