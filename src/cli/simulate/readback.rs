//! What was sent against what came out: decodes a track's files and compares every picture with the plan.
//!
//! Reads files only; asking the server to finish is [`super::finish`]'s part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::bot::participant_id;
use super::picture::{Label, read_number};
use super::plan::{Planned, What};
use crate::ffmpeg::PictureReader;
use crate::media::{Kind, Micros, Tick};
use crate::pipeline::store::journal::{Run, RunKind};
use crate::pipeline::store::manifest::{Manifest, TrackManifest};
use crate::pipeline::store::spool::read_lines;

/// Faults of one track that are told in words; the rest is only counted.
const FAULTS_TOLD: usize = 5;

/// A track as it was found.
#[derive(Clone, Debug)]
pub struct TrackFound {
    /// Its folder's name.
    pub track: String,
    /// Pictures that carry a number of their own.
    pub pictures: usize,
    /// Ticks that show the picture before them again.
    pub held: usize,
    /// Ticks that show the fill picture.
    pub filled: usize,
    /// Pictures in the MP4.
    pub ticks: Tick,
    /// Size of the MP4.
    pub bytes: u64,
    /// The MP4.
    pub file: PathBuf,
    /// Sent in time and not found, by the ledger's account: merged, late, ...
    pub missing: Vec<u32>,
    /// What is not as it should be.
    pub faults: Vec<String>,
}

/// Checks every track of a finished recording in the store folder against the plan of its bot.
pub fn read_back(folder: &Path, manifest: &Manifest, planned: &[Planned]) -> Vec<TrackFound> {
    manifest.tracks.iter().map(|track| read_track(folder, manifest, track, planned)).collect()
}

fn read_track(folder: &Path, manifest: &Manifest, track: &TrackManifest, planned: &[Planned]) -> TrackFound {
    let dir = folder.join(&track.track);
    let file = dir.join("video.mp4");
    let mut found = TrackFound {
        track: track.track.clone(),
        pictures: 0,
        held: 0,
        filled: 0,
        ticks: 0,
        bytes: std::fs::metadata(&file).map_or(0, |meta| meta.len()),
        file: file.clone(),
        missing: Vec::new(),
        faults: Vec::new(),
    };
    let index = (0..512).find(|index| participant_id(*index).to_string() == track.participant.id);
    let Some(participant) = index else {
        found.faults.push(format!("participant {} is not one of the plan", track.participant.id));
        return found;
    };
    let expected = Expected::new(planned, participant, track.kind, &dir, manifest.fps);
    let mp4 = expected.compare(&file, 0, &mut found.faults);
    found.ticks = mp4.ticks;
    (found.pictures, found.held, found.filled) = (mp4.numbers.len(), mp4.held, mp4.filled);
    let playlist = dir.join("index.m3u8");
    if playlist.exists() {
        let hls = expected.compare(&playlist, track.first_tick.unwrap_or(0), &mut found.faults);
        if hls.numbers != mp4.numbers {
            found.faults.push(format!("HLS shows {} pictures, the MP4 {}", hls.numbers.len(), mp4.numbers.len()));
        }
    }
    let sent: BTreeSet<u32> = expected.sent.keys().copied().collect();
    found.missing = sent.difference(&mp4.numbers).copied().collect();
    check_books(track, &mp4, &mut found);
    found
}

/// The ledger's equations, and that it counts just what is missing.
fn check_books(track: &TrackManifest, mp4: &Seen, found: &mut TrackFound) {
    let ledger = &track.ledger;
    let mut equal = |what: &str, left: u64, right: u64| {
        if left != right {
            found.faults.push(format!("ledger: {what}: {left} against {right}"));
        }
    };
    equal("received = encoded + discarded", ledger.received, ledger.encoded + ledger.discarded_total());
    equal("encoded = pictures found", ledger.encoded, mp4.numbers.len() as u64);
    equal("held = ticks found held", ledger.held, mp4.held as u64);
    equal("filled = ticks found filled", ledger.filled, mp4.filled as u64);
    equal("ticks of the MP4", ledger.ticks(), mp4.ticks as u64);
}

/// What a decoded file showed.
#[derive(Default)]
struct Seen {
    ticks: Tick,
    numbers: BTreeSet<u32>,
    held: usize,
    filled: usize,
}

/// What a track's files must show.
struct Expected {
    participant: u32,
    kind: Kind,
    fps: i64,
    /// `relative` by number, of captures that were sent.
    sent: BTreeMap<u32, Micros>,
    /// What `ticks.jsonl` says of each tick.
    runs: Vec<Run>,
}

impl Expected {
    fn new(planned: &[Planned], participant: u32, kind: Kind, dir: &Path, fps: u32) -> Expected {
        let mine = planned.iter().filter(|message| message.participant == participant);
        let sent = mine.filter_map(|message| match message.what {
            What::Picture { kind: of, number } if of == kind => Some((number, message.relative)),
            _ => None,
        });
        let runs = read_lines(&dir.join("ticks.jsonl"), 0).unwrap_or_default();
        Expected { participant, kind, fps: fps.into(), sent: sent.collect(), runs }
    }

    fn compare(&self, file: &Path, first: Tick, faults: &mut Vec<String>) -> Seen {
        let mut seen = Seen::default();
        let mut faulty = 0;
        let mut fault = |text: String| {
            faulty += 1;
            if faulty <= FAULTS_TOLD {
                faults.push(format!("{}: {text}", file.file_name().unwrap_or_default().to_string_lossy()));
            }
        };
        let reader = match PictureReader::open_strict(&file.to_string_lossy()) {
            Ok(reader) => reader,
            Err(error) => {
                fault(error.to_string());
                return seen;
            }
        };
        let mut before = None;
        for picture in reader {
            let (pts, picture) = match picture {
                Ok(picture) => picture,
                Err(error) => {
                    fault(error.to_string());
                    break;
                }
            };
            let tick = first + seen.ticks;
            seen.ticks += 1;
            if pts.0 * self.fps != tick * 1_000_000 {
                fault(format!("picture {tick} is shown at {} s", pts.as_secs_f64()));
            }
            let label = read_number(picture.planes()[0], picture.width(), picture.height());
            if let Err(text) = self.judge(tick, label, &mut before, &mut seen) {
                fault(format!("tick {tick}: {text}"));
            }
        }
        if faulty > FAULTS_TOLD {
            faults.push(format!("and {} faults more", faulty - FAULTS_TOLD));
        }
        seen
    }

    /// Whether what is seen at `tick` is what `ticks.jsonl` and the plan say.
    fn judge(
        &self,
        tick: Tick,
        label: Option<Label>,
        before: &mut Option<Label>,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let at = self.runs.partition_point(|run| run.tick + run.n <= tick);
        let run = self.runs.get(at).filter(|run| run.tick <= tick).ok_or("not in ticks.jsonl")?;
        match run.kind {
            RunKind::Held => {
                seen.held += 1;
                (label == *before && label.is_some()).then_some(()).ok_or(format!("held, but it shows {label:?}"))
            }
            RunKind::Filled => {
                seen.filled += 1;
                *before = None;
                label.is_none().then_some(()).ok_or(format!("filled, but it shows {label:?}"))
            }
            RunKind::Picture => {
                let label = label.ok_or("no number can be read")?;
                *before = Some(label);
                if (label.participant, label.kind) != (self.participant, self.kind) {
                    return Err(format!("it shows {label:?}"));
                }
                let relative = self.sent.get(&label.number).ok_or(format!("{} was never sent", label.number))?;
                if run.relative.and_then(Micros::from_secs_f64).is_none_or(|at| (at - *relative).0.abs() > 1000) {
                    return Err(format!("it shows {}, taken at {}", label.number, relative.as_secs_f64()));
                }
                if (relative.0 * self.fps - tick * 1_000_000).abs() >= 1_000_000 {
                    return Err(format!("{} is a tick or more off", label.number));
                }
                seen.numbers.insert(label.number).then_some(()).ok_or(format!("{} is there twice", label.number))
            }
        }
    }
}
