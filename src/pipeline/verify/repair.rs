//! A recording's derived files, made again from its segments: playlists, MP4s, `ticks.jsonl`, lists of segments, the
//! manifest. No segment is ever touched.
//!
//! What is well is left as it is. A segment that cannot be played is left where it is, told, and left out as a gap; an
//! MP4 that is still whole keeps what its segments lost.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::clock::rfc3339;
use crate::config::Fill;
use crate::media::{Kind, Micros, Tick};
use crate::pipeline::EVENTS;
use crate::pipeline::assembly::MP4;
use crate::pipeline::store::keys;
use crate::pipeline::store::manifest::{Manifest, ParticipantManifest, SCHEMA, State, TrackManifest};
use crate::pipeline::store::spool::write_whole;

use super::gather::gather;
use super::lines::{each_line, read_text};
use super::lost_manifest::{grid_from_segments, may_go_on, origin_from_playlists};
use super::rebuild::{Rebuild, entry_of, readable_runs};
use super::recording::{grid_of, parse_origin, read_manifest};
use super::segments::{Segment, TICKS_MAX};
use super::track::insane;
use super::{MANIFEST, Options, RecordingReport, names, verify_recording};

/// What was done to a recording.
#[derive(Clone, Debug)]
pub struct RepairReport {
    /// What was written, and what could not be used, in words.
    pub done: Vec<String>,
    /// What `verify` says now.
    pub after: RecordingReport,
}

/// Repairs the recording in `folder`, if `verify` finds anything wrong with it. `progress` is told what is looked at.
pub fn repair_recording(folder: &Path, progress: &mut dyn FnMut(&str)) -> RepairReport {
    let options = Options { decode: true };
    let before = verify_recording(folder, options, progress);
    if before.is_well() {
        return RepairReport { done: Vec::new(), after: before };
    }
    let mut done = Vec::new();
    if let Err(error) = rebuild(folder, &mut done, progress) {
        done.push(error);
    }
    progress("looking again");
    RepairReport { done, after: verify_recording(folder, options, progress) }
}

/// What the events say that is needed when the manifest is gone.
#[derive(Default)]
struct Events {
    /// Ticks of the finished recording.
    ticks: Option<Tick>,
    finished: bool,
    participants: BTreeMap<String, ParticipantManifest>,
    /// The absolute time of tick 0.
    origin: Option<Micros>,
}

fn read_events(folder: &Path) -> Events {
    let mut events = Events::default();
    let read = each_line::<Value>(&folder.join(EVENTS), |_, line| {
        let Ok(line) = line else { return true };
        if line["event"] == "finished" {
            events.finished = true;
            events.ticks = line["detail"]["ticks"].as_i64().filter(|ticks| (0..=TICKS_MAX).contains(ticks));
        }
        if let Ok(who) = serde_json::from_value::<ParticipantManifest>(line["participant"].clone()) {
            events.participants.insert(who.id.clone(), who);
        }
        if events.origin.is_none() {
            let time = line["time"].as_str().and_then(parse_origin);
            let relative = line["relative"].as_f64().and_then(Micros::from_secs_f64);
            events.origin = time.zip(relative).map(|(time, relative)| whole_millis(time - relative));
        }
        true
    });
    // What cannot be read is done without.
    let _ = read;
    events
}

pub(super) fn whole_millis(time: Micros) -> Micros {
    Micros((time.0 + 500).div_euclid(1000) * 1000)
}

/// What the recording was, by the old manifest or by what else is left.
fn outline(folder: &Path, events: &Events, done: &mut Vec<String>) -> Result<(Option<Manifest>, Manifest), String> {
    let error = match read_manifest(folder) {
        Ok(old) => {
            let mut new = old.clone();
            let lost = new.origin.as_deref().and_then(parse_origin).is_none();
            if lost {
                new.origin = origin_from_playlists(folder, grid_of(&old)).or(events.origin).map(rfc3339);
            }
            return Ok((Some(old), new));
        }
        Err(error) => error,
    };
    if is_of_another_version(folder) {
        return Err(format!("{MANIFEST}: {error}: left alone, for the program that wrote it"));
    }
    let grid = grid_from_segments(folder).ok_or(format!("{MANIFEST}: {error}; and no segment says the grid"))?;
    let finished = events.finished || !may_go_on(folder);
    let state = if finished { State::Finished } else { State::Suspended };
    done.push(format!(
        "{MANIFEST}: {error}; made again from what is left, as {}, without bot and metadata",
        state.name()
    ));
    let manifest = Manifest {
        prefix: None,
        schema: SCHEMA,
        recording_id: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        tenant: None,
        bot_id: None,
        metadata: BTreeMap::new(),
        state,
        continues: None,
        origin: origin_from_playlists(folder, grid).or(events.origin).map(rfc3339),
        origin_from_server: false,
        fps: grid.fps,
        segment_ticks: grid.segment_ticks,
        fill: Fill::default(),
        overload: Vec::new(),
        tracks: Vec::new(),
    };
    Ok((None, manifest))
}

/// Whether there is a manifest that another version of this program can read.
fn is_of_another_version(folder: &Path) -> bool {
    let text = read_text(&folder.join(MANIFEST)).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    value["schema"].is_u64() && value["schema"] != SCHEMA
}

fn rebuild(folder: &Path, done: &mut Vec<String>, progress: &mut dyn FnMut(&str)) -> Result<(), String> {
    let events = read_events(folder);
    let (old, mut manifest) = outline(folder, &events, done)?;
    match manifest.state {
        State::Live | State::Finishing => {
            return Err(
                "a server may be writing it: finish it first, or start its server, which takes it up".to_owned()
            );
        }
        State::Unknown => return Err(format!("{MANIFEST}: a state that only another version of the program knows")),
        State::Deleted => return Err("deleted: there is nothing to repair".to_owned()),
        _ => {}
    }
    let old_tracks: BTreeMap<&str, &TrackManifest> = old
        .iter()
        .flat_map(|old| &old.tracks)
        .filter(|track| insane(track).is_none())
        .map(|track| (&*track.track, track))
        .collect();
    let mut tracks = rebuild_tracks(folder, &manifest, &old_tracks, &events, done, progress)?;
    // Tracks of which there is no folder any more are still part of the books.
    let known: Vec<String> = tracks.iter().map(|track| track.track.clone()).collect();
    tracks.extend(old_tracks.values().filter(|old| !known.contains(&old.track)).map(|old| (*old).clone()));
    // In the order that the manifest had, for then it is the same text.
    let place = |track: &TrackManifest| {
        let tracks = old.as_ref().map(|old| &old.tracks);
        tracks.and_then(|tracks| tracks.iter().position(|known| known.track == track.track)).unwrap_or(usize::MAX)
    };
    tracks.sort_by(|a, b| (place(a), &a.participant.id, a.kind).cmp(&(place(b), &b.participant.id, b.kind)));
    manifest.tracks = tracks;
    if old.as_ref() != Some(&manifest) {
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
        write_whole(&folder.join(MANIFEST), &text).map_err(|error| format!("{MANIFEST}: {error}"))?;
        done.push(format!("{MANIFEST}: rebuilt"));
    }
    Ok(())
}

/// All tracks that have a folder: first what is left of each, then, with the end that they share, their files.
fn rebuild_tracks(
    folder: &Path,
    manifest: &Manifest,
    old_tracks: &BTreeMap<&str, &TrackManifest>,
    events: &Events,
    done: &mut Vec<String>,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<TrackManifest>, String> {
    let (grid, finished) = (grid_of(manifest), manifest.state == State::Finished);
    let origin = manifest.origin.as_deref().and_then(parse_origin).unwrap_or_default();
    let folders = names(folder, true).map_err(|error| error.to_string())?;
    let has_movie = |track: &String| folder.join(track).join(MP4).exists();
    let had_movie = |track: &&TrackManifest| !track.mp4.is_empty();
    // With neither manifest nor MP4 nobody knows whether one was wanted.
    let mp4 = folders.iter().any(has_movie) || old_tracks.is_empty() || old_tracks.values().any(had_movie);
    let mut gathered = Vec::new();
    for track in &folders {
        progress(&format!("gathering {track}"));
        let path = folder.join(track);
        let mut note = |what: String| done.push(format!("{track}/{what}"));
        let runs = readable_runs(&path);
        let old = old_tracks.get(&**track).copied();
        let found =
            gather(&path, grid, old, &runs, finished, &mut note).map_err(|error| format!("{track}: {error}"))?;
        gathered.push((track, found, runs.last().map(|run| run.tick + run.n)));
    }
    let media = gathered.iter().flat_map(|(_, found, _)| found.segments.iter().chain(&found.lost)).map(Segment::end);
    let media_end = media.max().unwrap_or(0);
    let ticks_end = gathered.iter().filter_map(|(.., ends)| *ends).max();
    let manifest_end = old_tracks.values().filter_map(|track| track.end_tick).max();
    let ends = [events.ticks, ticks_end, manifest_end];
    let end = ends.into_iter().flatten().find(|end| *end >= media_end).unwrap_or(media_end);
    let mut tracks = Vec::new();
    for (track, found, _) in gathered {
        let old = old_tracks.get(&**track).copied();
        if found.segments.is_empty() && found.lost.is_empty() {
            tracks.extend(old.cloned());
            done.extend(old.is_none().then(|| format!("{track}: holds no segment; left out")));
            continue;
        }
        progress(&format!("rebuilding {track}"));
        let Some(entry) = old.cloned().or_else(|| new_entry(track, events)) else {
            done.push(format!("{track}: no name of a track; left out"));
            continue;
        };
        let (path, end) = (folder.join(track), finished.then_some(end));
        let runs = readable_runs(&path);
        let rebuild =
            Rebuild { folder: &path, grid, fill: manifest.fill, origin, gathered: &found, old, entry, runs, end, mp4 };
        let made = rebuild.run(&mut |what| done.push(format!("{track}/{what}")));
        tracks.push(made.map_err(|error| format!("{track}: {error}"))?);
    }
    Ok(tracks)
}

/// An entry for a track that no manifest names: whom it shows is told by the events, else by its folder's name.
fn new_entry(track: &str, events: &Events) -> Option<TrackManifest> {
    let kinds = [Kind::Webcam, Kind::Screenshare];
    let (id, kind) = kinds.into_iter().find_map(|kind| Some((track.strip_suffix(&format!("-{kind}"))?, kind)))?;
    let known = events.participants.values().find(|who| keys::component(&who.id) == id).cloned();
    let participant = known.unwrap_or_else(|| ParticipantManifest { id: id.to_owned(), ..Default::default() });
    Some(entry_of(track, participant, kind))
}
