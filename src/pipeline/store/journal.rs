//! The lines that the spool writes beside the media: one per part, so that after any death of the process the books
//! and the media agree up to the last complete part.

use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::media::{Canvas, GapReason, Kind, Micros, Tick};

use super::manifest::Gap;

/// What a tick shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A capture of its own.
    Picture,
    /// The picture before it.
    Held,
    /// The fill picture.
    Filled,
}

/// A picture, or a run of alike ticks: a line of `ticks.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The first tick.
    pub tick: Tick,
    /// How many ticks.
    pub n: Tick,
    /// What they show.
    pub kind: RunKind,
    /// Why there is no picture of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<GapReason>,
    /// `timestamp.relative` of the capture, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// `timestamp.absolute` of the capture, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<String>,
    /// The capture's number in its lane, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<u64>,
    /// Size of the PNG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub png_bytes: Option<u64>,
    /// Whether the PNG was the same, byte by byte, as the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same: bool,
}

impl Run {
    /// Ticks without a picture of their own.
    pub fn without_picture(tick: Tick, n: Tick, kind: RunKind, reason: Option<GapReason>) -> Run {
        Run { tick, n, kind, reason, relative: None, absolute: None, capture: None, png_bytes: None, same: false }
    }

    /// Whether `next` goes on where this run ends and says the same, so that both are one line.
    pub fn joins(&self, next: &Run) -> bool {
        self.kind != RunKind::Picture
            && (self.kind, self.reason) == (next.kind, next.reason)
            && self.tick + self.n == next.tick
    }
}

/// Puts `run` at the end of `runs`, as part of the last one where both say the same.
pub fn push_run(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.joins(&run) => last.n += run.n,
        _ => runs.push(run),
    }
}

/// The first line of an epoch's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochLine {
    /// The version of the spool's form.
    pub spool: u32,
    /// Recall's participant id.
    pub participant_id: String,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// The size of its pictures.
    pub canvas: Canvas,
    /// RFC 6381.
    pub codecs: String,
    /// First tick.
    pub first_tick: Tick,
    /// Name of the init segment.
    pub init: String,
    /// What the encoder was opened with.
    pub encoder_options: String,
    /// Ticks before it that are in no segment, since the last epoch that has a part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Gap>,
}

/// The version of the spool's form that this program writes.
pub const SPOOL_VERSION: u32 = 1;

/// One part: a line of an epoch's journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartLine {
    /// The segment it belongs to.
    pub segment: i64,
    /// Where it begins in the segment's file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
    /// Its first tick.
    pub first_tick: Tick,
    /// Its ticks.
    pub ticks: Tick,
    /// Whether it is the segment's last one.
    pub closes: bool,
    /// SHA-256 of the segment's file up to the end of this part, hex.
    pub sha256: String,
    /// The track's books, this part included.
    pub ledger: Ledger,
    /// The newest time placed, in microseconds on the recording's time line.
    pub last_at: Micros,
    /// What each tick shows.
    pub runs: Vec<Run>,
}

/// One closed segment: a line of `segments.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentLine {
    /// Its number on the recording's segment grid.
    pub number: i64,
    /// Its first tick.
    pub first_tick: Tick,
    /// Its ticks.
    pub ticks: Tick,
    /// Its size.
    pub bytes: u64,
    /// SHA-256, hex.
    pub sha256: String,
    /// What its ticks show, in runs.
    pub runs: Vec<KindRun>,
}

/// So many ticks of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindRun {
    /// What they show.
    pub kind: RunKind,
    /// How many.
    pub n: Tick,
}

/// The runs of kinds in `runs`.
pub fn kinds(runs: &[Run]) -> Vec<KindRun> {
    let mut kinds: Vec<KindRun> = Vec::new();
    for run in runs {
        match kinds.last_mut() {
            Some(last) if last.kind == run.kind => last.n += run.n,
            _ => kinds.push(KindRun { kind: run.kind, n: run.n }),
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_ticks_become_one_run_and_pictures_never_do() {
        let held = |tick| Run::without_picture(tick, 1, RunKind::Held, None);
        let filled = |tick, reason| Run::without_picture(tick, 1, RunKind::Filled, Some(reason));
        let mut runs = Vec::new();
        for run in [
            Run { kind: RunKind::Picture, ..held(0) },
            Run { kind: RunKind::Picture, ..held(1) },
            held(2),
            held(3),
            filled(4, GapReason::CameraOff),
            filled(5, GapReason::Unknown),
            filled(6, GapReason::Unknown),
        ] {
            push_run(&mut runs, run);
        }
        assert_eq!(
            runs.iter().map(|run| (run.tick, run.n)).collect::<Vec<_>>(),
            [(0, 1), (1, 1), (2, 2), (4, 1), (5, 2)]
        );
        let kinds: Vec<_> = kinds(&runs).into_iter().map(|run| run.n).collect();
        assert_eq!(kinds, [2, 2, 3]);
    }
}
