//! The options of `tilecast simulate`, and what they mean together.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{parse_duration, parse_percent};
use crate::media::Micros;

use super::SimulateError;
use super::plan::{CameraOff, Join, PlanOptions};

/// Sends what Recall.ai bots would send, for load tests and for trying the server without a meeting.
#[derive(Clone, Debug, clap::Args)]
pub struct SimulateArgs {
    /// Where the bots dial in, as a Recall.ai realtime endpoint would be given: ws://host:port/ws/recall/?token=...
    #[arg(long)]
    pub url: String,
    /// How many bots, each with a socket and a recording of its own.
    #[arg(long, default_value_t = 1)]
    pub bots: u32,
    /// Participants of each meeting.
    #[arg(long, default_value_t = 1)]
    pub participants: u32,
    /// How many of them share their screen as well.
    #[arg(long, default_value_t = 0)]
    pub screenshares: u32,
    /// How long the meetings last.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// What the cameras show: `synthetic`, a folder of PNGs, or a video file. The label's band covers their top.
    #[arg(long, default_value = "synthetic")]
    pub source: String,
    /// Pixels of the pictures.
    #[arg(long, default_value = "640x360", value_parser = parse_size)]
    pub size: (u32, u32),
    /// Each picture is sent this many times, under new timestamps: slides, or nobody moves.
    #[arg(long, default_value_t = 1)]
    pub still: u32,
    /// Timestamps are off by up to this much either way.
    #[arg(long, default_value = "0", value_parser = parse_duration)]
    pub jitter: Duration,
    /// Captures that are sent twice.
    #[arg(long, default_value = "0%", value_parser = parse_percent)]
    pub duplicates: f64,
    /// Captures that change places with the next one.
    #[arg(long, default_value = "0%", value_parser = parse_percent)]
    pub reorder: f64,
    /// How many captures of each meeting are sent 5 s late.
    #[arg(long, default_value_t = 0)]
    pub late: u32,
    /// A participant's camera is off for a while, in seconds: `0:10-25`. May be repeated.
    #[arg(long, value_name = "P:FROM-TO", value_parser = parse_camera_off)]
    pub camera_off: Vec<CameraOff>,
    /// A participant joins late, in seconds: `1:12.5`. May be repeated.
    #[arg(long, value_name = "P:AT", value_parser = parse_join)]
    pub join: Vec<Join>,
    /// Everybody sends at the same instants. Else bots and participants take turns within the half second
    #[arg(long)]
    pub in_phase: bool,
    /// The same seed gives the same meeting.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How fast time goes: 2 is twice as fast, 0 as fast as the server takes it.
    #[arg(long, default_value_t = 1.0)]
    pub speed: f64,
    /// Between two attempts to connect; Recall's bots wait this long. For tests.
    #[arg(long, hide = true, default_value = "3s", value_parser = parse_duration)]
    pub redial_delay: Duration,
    /// Also write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Afterwards finish the recordings, decode every file in the server's store folder, and check each picture's
    /// number, place and kind against what was sent
    #[arg(long, value_name = "STORE")]
    pub read_back: Option<PathBuf>,
    /// Recordings are called PREFIX-0, PREFIX-1 and so on. Default: `sim-` and the time in hex.
    #[arg(long, value_name = "PREFIX")]
    pub recording_id: Option<String>,
}

impl SimulateArgs {
    /// The plan's part of the options.
    ///
    /// # Errors
    /// `Options` when they contradict each other.
    pub fn plan_options(&self) -> Result<PlanOptions, SimulateError> {
        let wrong = |text: String| Err(SimulateError::Options(text));
        if self.bots == 0 || self.participants == 0 || self.duration.is_zero() {
            return wrong("there is nothing to send without bots, participants and a duration".into());
        }
        if self.participants > 512 || self.screenshares > self.participants {
            return wrong("at most 512 participants, and no more screenshares than participants".into());
        }
        let indices = self.camera_off.iter().map(|off| off.participant).chain(self.join.iter().map(|j| j.participant));
        if let Some(index) = indices.into_iter().find(|&index| index >= self.participants) {
            return wrong(format!("participant {index} does not exist: they count from 0"));
        }
        if self.still == 0 || (self.still > 1 && self.read_back.is_some()) {
            return wrong(
                "--still must be 1 or more, and 1 with --read-back, which knows pictures by their numbers".into(),
            );
        }
        if !(0.0..=1000.0).contains(&self.speed) {
            return wrong("--speed must lie between 0 and 1000".into());
        }
        let (duration, jitter) = (micros(self.duration), micros(self.jitter));
        let (Some(duration), Some(jitter)) = (duration, jitter) else {
            return wrong("a duration is beyond all measure".into());
        };
        Ok(PlanOptions {
            participants: self.participants,
            screenshares: self.screenshares,
            duration,
            jitter,
            duplicates: self.duplicates,
            reorder: self.reorder,
            late: self.late,
            camera_off: self.camera_off.clone(),
            joins: self.join.clone(),
            in_phase: self.in_phase,
            seed: self.seed,
        })
    }
}

/// A week at most: what is longer is a typing error.
fn micros(duration: Duration) -> Option<Micros> {
    (duration <= Duration::from_secs(7 * 86_400)).then_some(Micros(duration.as_micros() as i64))
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let bad = || format!("`{text}` is no size such as 640x360");
    let (width, height) = text.split_once('x').ok_or_else(bad)?;
    let (width, height): (u32, u32) = (width.parse().map_err(|_| bad())?, height.parse().map_err(|_| bad())?);
    // Narrower, a cell of the label has less than four pixels.
    if !(160..=4096).contains(&width) || !(90..=4096).contains(&height) || height * 8 < width {
        return Err(format!("{text}: from 160x90 to 4096x4096, and at most 8:1"));
    }
    Ok((width, height))
}

fn parse_seconds(text: &str) -> Option<Micros> {
    text.parse::<f64>().ok().and_then(Micros::from_secs_f64).filter(|at| at.0 >= 0)
}

fn parse_camera_off(text: &str) -> Result<CameraOff, String> {
    let parse = || {
        let (participant, span) = text.split_once(':')?;
        let (from, to) = span.split_once('-')?;
        let off =
            CameraOff { participant: participant.parse().ok()?, from: parse_seconds(from)?, to: parse_seconds(to)? };
        (off.from < off.to).then_some(off)
    };
    parse().ok_or_else(|| format!("`{text}` is not participant:from-to, such as 0:10-25"))
}

fn parse_join(text: &str) -> Result<Join, String> {
    let parse = || {
        let (participant, at) = text.split_once(':')?;
        Some(Join { participant: participant.parse().ok()?, at: parse_seconds(at)? })
    };
    parse().ok_or_else(|| format!("`{text}` is not participant:at, such as 1:12.5"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(words: &str) -> Result<SimulateArgs, String> {
        let line = ["simulate", "--url", "ws://127.0.0.1:1/"].into_iter().chain(words.split_whitespace());
        Line::try_parse_from(line).map(|line| line.args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_becomes_a_plan() {
        let words = "--bots 2 --participants 3 --screenshares 1 --duration 90s --jitter 50ms --duplicates 1% \
                     --reorder 0.5% --late 4 --camera-off 0:10-25 --camera-off 1:3.5-4 --join 2:12.5 --in-phase --seed 9";
        let options = parse(words).unwrap().plan_options().unwrap();
        let off = |participant, from, to| CameraOff { participant, from: Micros(from), to: Micros(to) };
        let expected = PlanOptions {
            participants: 3,
            screenshares: 1,
            duration: Micros::from_secs(90),
            jitter: Micros(50_000),
            duplicates: 0.01,
            reorder: 0.005,
            late: 4,
            camera_off: vec![off(0, 10_000_000, 25_000_000), off(1, 3_500_000, 4_000_000)],
            joins: vec![Join { participant: 2, at: Micros(12_500_000) }],
            in_phase: true,
            seed: 9,
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            "--size 640",
            "--size 100x100",
            "--size 4096x100",
            "--duplicates 1",
            "--duplicates 101%",
            "--duration 60",
            "--camera-off 0:5-5",
            "--camera-off 0:-1-5",
            "--join 5",
            "--late -1",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
        for words in [
            "--bots 0",
            "--duration 0",
            "--screenshares 2",
            "--join 1:3",
            "--speed=-1",
            "--speed NaN",
            "--duration 999h",
        ] {
            assert!(parse(words).unwrap().plan_options().is_err(), "{words}");
        }
    }
}
