//! One recording: its manifest, its events, and its tracks against each other.

use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::media::{Grid, Micros};
use crate::pipeline::EVENTS;
use crate::pipeline::store::manifest::{Manifest, SCHEMA, State};

use super::lines::{each_line, read_text};
use super::track::{Against, check_track, insane};
use super::{Findings, MANIFEST, Options, RecordingReport, names};

/// A server may write while somebody looks: when the manifest changed meanwhile, everything is read again.
const TRIES: u32 = 3;

/// Checks the recording in `folder`. `progress` is told what is looked at.
pub fn verify_recording(folder: &Path, options: Options, progress: &mut dyn FnMut(&str)) -> RecordingReport {
    let mut tries = 0;
    loop {
        tries += 1;
        let before = read_manifest(folder);
        let report = check(folder, &before, options, progress);
        let live = before.as_ref().is_ok_and(|manifest| manifest.state != State::Finished);
        if report.is_well() || !live || tries == TRIES || read_manifest(folder) == before {
            return report;
        }
        progress("the recording changed meanwhile: once more");
    }
}

/// The manifest of a recording.
pub(super) fn read_manifest(folder: &Path) -> Result<Manifest, String> {
    let text = read_text(&folder.join(MANIFEST)).map_err(|error| error.to_string())?;
    let value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if value["schema"] != SCHEMA {
        return Err(format!("schema {} is not known here; {SCHEMA} is", value["schema"]));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if !(1..=30).contains(&manifest.fps) || !(1..=1_000_000).contains(&manifest.segment_ticks) {
        return Err(format!("a grid of {} ticks a second, {} a segment", manifest.fps, manifest.segment_ticks));
    }
    Ok(manifest)
}

/// The grid of a recording. Parts are not needed to read it.
pub(super) fn grid_of(manifest: &Manifest) -> Grid {
    Grid { fps: manifest.fps, part_ticks: 1, segment_ticks: manifest.segment_ticks }
}

/// An origin as the manifest writes it.
pub(super) fn parse_origin(text: &str) -> Option<Micros> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1000).ok().map(Micros)
}

fn check(
    folder: &Path,
    manifest: &Result<Manifest, String>,
    options: Options,
    progress: &mut dyn FnMut(&str),
) -> RecordingReport {
    let mut report = RecordingReport { folder: folder.display().to_string(), ..RecordingReport::default() };
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(error) => {
            report.findings.push(MANIFEST, format!("{error}; nothing else was checked"));
            return report;
        }
    };
    report.recording_id = Some(manifest.recording_id.clone());
    report.state = Some(manifest.state.name());
    report.fps = Some(manifest.fps);
    let findings = &mut report.findings;
    let origin = manifest.origin.as_deref().map(parse_origin);
    if origin == Some(None) {
        findings.push(MANIFEST, "its origin is no time");
    }
    let rebased = check_events(folder, manifest.state, findings);
    let against = Against { manifest, grid: grid_of(manifest), origin: origin.flatten(), rebased, options };
    for (number, track) in manifest.tracks.iter().enumerate() {
        progress(&format!("track {} of {}: {}", number + 1, manifest.tracks.len(), track.track));
        match insane(track) {
            Some(what) => findings.push(MANIFEST, format!("{}: {what}", track.track)),
            None => report.tracks.push(check_track(&against, folder, track, findings)),
        }
    }
    check_together(folder, manifest, findings);
    report
}

/// Whether the events can be read, and whether they say that the source's clock was re-based.
fn check_events(folder: &Path, state: State, findings: &mut Findings) -> bool {
    let mut rebased = false;
    let mut wrong = None;
    let read = each_line::<Value>(&folder.join(EVENTS), |number, line| {
        match line {
            Ok(line) => rebased |= line["event"] == "clock_rebased",
            Err(error) => wrong = wrong.take().or(Some(format!("line {number}: {error}"))),
        }
        true
    });
    match (read, wrong) {
        (Err(error), _) if state == State::Finished => findings.push(EVENTS, error),
        (Ok(()), Some(wrong)) => findings.push(EVENTS, wrong),
        _ => {}
    }
    rebased
}

/// Tracks against each other, and folders against the manifest.
fn check_together(folder: &Path, manifest: &Manifest, findings: &mut Findings) {
    for name in names(folder, true).unwrap_or_default() {
        if !manifest.tracks.iter().any(|track| track.track == name) {
            findings.push(name, "recording.json names no such track");
        }
    }
    if manifest.state != State::Finished {
        return;
    }
    let with_pictures = || manifest.tracks.iter().filter(|track| track.first_tick.is_some());
    let longest = with_pictures().filter_map(|track| track.end_tick).max().unwrap_or(0);
    for track in with_pictures().filter(|track| track.end_tick != Some(longest)) {
        let ends = track.end_tick.unwrap_or(0);
        findings.push(&track.track, format!("recording.json: ends at tick {ends}, another track at {longest}"));
    }
}
