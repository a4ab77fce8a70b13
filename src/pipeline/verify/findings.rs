//! What a check found, in words and numbers.

use std::fmt::Display;

use serde::Serialize;

use crate::media::Tick;

/// Findings of one recording that are told; more are counted.
const FINDINGS_MAX: usize = 200;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, in the recording's folder.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

/// All of them, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// In the order of the checks.
    pub told: Vec<Finding>,
    /// How many more there are.
    pub untold: u64,
}

impl Findings {
    /// Notes one.
    pub fn push(&mut self, path: impl Display, what: impl Display) {
        if self.told.len() < FINDINGS_MAX {
            self.told.push(Finding { path: path.to_string(), what: what.to_string() });
        } else {
            self.untold += 1;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.told.len() as u64 + self.untold
    }
}

/// A track as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrackReport {
    /// Its folder.
    pub track: String,
    /// The participant's name.
    pub name: Option<String>,
    /// Ticks with a picture of their own, by the ledger.
    pub pictures: u64,
    /// Ticks that show the picture before them, by the ledger.
    pub held: u64,
    /// Ticks that show the fill picture, by the ledger.
    pub filled: u64,
    /// Segments whose files were read.
    pub segments: u64,
    /// Pictures that were decoded, from segments and MP4.
    pub decoded: u64,
    /// Ticks of the track.
    pub ticks: Tick,
    /// Bytes of segments and MP4.
    pub bytes: u64,
    /// Findings that concern it.
    pub findings: u64,
}

/// A recording as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RecordingReport {
    /// Where it lies.
    pub folder: String,
    /// Its id, where the manifest says it.
    pub recording_id: Option<String>,
    /// Its state, likewise.
    pub state: Option<&'static str>,
    /// Pictures a second, likewise.
    pub fps: Option<u32>,
    /// In the manifest's order.
    pub tracks: Vec<TrackReport>,
    /// What is wrong.
    pub findings: Findings,
}

impl RecordingReport {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.findings.count() == 0
    }
}
