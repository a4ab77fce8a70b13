//! Reading back what a server wrote, strictly: every picture of the MP4s and playlists, and whether the books agree with
//! what is shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use tilecast::cli::simulate::picture::{Label, read_number};
use tilecast::ffmpeg::PictureReader;
use tilecast::media::{Micros, Picture, Tick};
use tilecast::pipeline::store::journal::{Run, RunKind, SegmentLine};
use tilecast::pipeline::store::keys;
use tilecast::pipeline::store::manifest::{Manifest, TrackManifest};

use crate::harness::Folders;
use crate::players::chromium_plays;

/// What a decoded picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A numbered picture.
    Number(Label),
    /// Nothing but black.
    Black,
    /// Neither: damage.
    Other,
}

impl Shown {
    fn of(picture: &Picture) -> Shown {
        let luma = picture.planes()[0];
        // Black is 16; H.264 may be off by a little.
        if luma.iter().all(|&y| y < 20) {
            return Shown::Black;
        }
        read_number(luma, picture.width(), picture.height()).map_or(Shown::Other, Shown::Number)
    }

    /// The number shown.
    pub fn number(self) -> Option<u32> {
        match self {
            Shown::Number(label) => Some(label.number),
            Shown::Black | Shown::Other => None,
        }
    }
}

/// Decodes a file or playlist strictly: when each picture is shown, and what it shows.
pub fn pictures(path: &Path) -> Vec<(Micros, Shown)> {
    let reader = PictureReader::open_strict(path.to_str().unwrap()).unwrap();
    reader.map(|next| next.map(|(at, picture)| (at, Shown::of(&picture)))).collect::<Result<_, _>>().unwrap()
}

/// Decodes a file or playlist of a folder with FFmpeg's own program, which may not warn of anything: when each picture is
/// shown, in the units of the output's time base.
pub fn ffmpeg_times(folder: &Path, file: &str) -> Vec<f64> {
    let live: &[&str] = if file.ends_with("m3u8") { &["-live_start_index", "0"] } else { &[] };
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "warning", "-xerror"])
        .args(live)
        .args(["-copyts", "-i", file, "-fps_mode", "passthrough", "-f", "framecrc", "-"])
        .current_dir(folder)
        .output()
        .unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{file}: {warnings}");
    let text = String::from_utf8(output.stdout).unwrap();
    let pts = |line: &str| line.split(',').nth(2).unwrap().trim().parse::<f64>().unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(pts).collect()
}

/// Decodes what a playlist names so far. FFmpeg would wait at the end of a live one for more, so an end is put to a copy.
pub fn pictures_so_far(playlist: &Path) -> Vec<(Micros, Shown)> {
    let text = std::fs::read_to_string(playlist).unwrap();
    let ended = playlist.with_extension("ended.m3u8");
    std::fs::write(&ended, text + "#EXT-X-ENDLIST\n").unwrap();
    let pictures = pictures(&ended);
    std::fs::remove_file(&ended).unwrap();
    pictures
}

/// The lines of a JSON lines file.
pub fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// The track of a participant in a manifest; panics where there is none.
pub fn track<'a>(manifest: &'a Manifest, track: &str) -> &'a TrackManifest {
    manifest.tracks.iter().find(|one| one.track == track).unwrap_or_else(|| panic!("no track {track}"))
}

/// Asserts DESIGN's two equations for every track, as far as they hold in the recording's state.
pub fn assert_books(manifest: &Manifest) {
    for track in &manifest.tracks {
        let ledger = &track.ledger;
        let discarded: u64 = ledger.discarded.values().sum();
        assert_eq!(ledger.received, ledger.encoded + discarded, "{}: {ledger:?}", track.track);
        for mp4 in &track.mp4 {
            let ticks = ledger.encoded + ledger.held + ledger.filled;
            assert_eq!(mp4.ticks as u64, ticks, "{}: {ledger:?}", track.track);
        }
    }
}

/// Checks all that a finished recording left in the store against each other: manifest, MP4, `ticks.jsonl`, playlist,
/// segments, ledger; FFmpeg, GStreamer and Chromium play it. Gives what every tick of every track's MP4 shows.
pub async fn check_finished(folders: &Folders, manifest: &Manifest) -> BTreeMap<String, Vec<Shown>> {
    assert_books(manifest);
    assert_eq!(folders.manifest(&manifest.recording_id).as_ref(), Some(manifest), "recording.json is the last word");
    let recording = folders.recording(&manifest.recording_id);
    let lengths: Vec<Tick> = manifest.tracks.iter().flat_map(|track| &track.mp4).map(|mp4| mp4.ticks).collect();
    assert!(lengths.iter().all(|ticks| *ticks == lengths[0]), "all MP4s have the same length: {lengths:?}");
    let tracks = || manifest.tracks.iter().filter(|track| !track.mp4.is_empty());
    let names: Vec<&str> = tracks().map(|track| track.track.as_str()).collect();
    ffmpeg_plays_all(&recording, &names);
    gstreamer_reads_all(&recording, &names);
    chromium_plays(&recording, manifest).await;
    tracks().map(|track| (track.track.clone(), check_track(manifest, track, &recording.join(&track.track)))).collect()
}

/// FFmpeg's own program has nothing to warn of in any MP4 or playlist of a recording.
fn ffmpeg_plays_all(recording: &Path, tracks: &[&str]) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "warning", "-xerror"]).current_dir(recording);
    let mut inputs = 0;
    for track in tracks {
        let playlist = format!("{track}/index.m3u8");
        if recording.join(&playlist).exists() {
            command.args(["-live_start_index", "0", "-i", &playlist]);
            inputs += 1;
        }
        command.args(["-i", &format!("{track}/video.mp4")]);
        inputs += 1;
    }
    if inputs == 0 {
        return;
    }
    for input in 0..inputs {
        command.args(["-map", &format!("{input}:v")]);
    }
    let output = command.args(["-fps_mode", "passthrough", "-f", "null", "-"]).output().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{}: {warnings}", recording.display());
}

/// GStreamer's demuxer and parser get through every MP4 of a recording.
fn gstreamer_reads_all(recording: &Path, tracks: &[&str]) {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("-q").current_dir(recording);
    for track in tracks {
        command.args(["filesrc", &format!("location={track}/video.mp4"), "!", "qtdemux", "!", "h264parse", "!"]);
        command.args(["video/x-h264,stream-format=byte-stream,alignment=au", "!", "fakesink", "sync=false"]);
    }
    if tracks.is_empty() {
        return;
    }
    let output = command.output().expect("gst-launch-1.0 is installed: make deps");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", recording.display());
}

fn check_track(manifest: &Manifest, track: &TrackManifest, folder: &Path) -> Vec<Shown> {
    let name = &track.track;
    let [mp4] = &track.mp4[..] else { panic!("{name}: one MP4") };
    let path = folder.join(&mp4.path);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!((bytes.len() as u64, keys::hex(&Sha256::digest(&bytes))), (mp4.bytes, mp4.sha256.clone()), "{name}");
    let pictures = pictures(&path);
    assert_eq!(pictures.len() as Tick, mp4.ticks, "{name}: one picture a tick");
    let time = |tick: usize| Micros(tick as i64 * 1_000_000 / i64::from(manifest.fps));
    for (tick, (at, _)) in pictures.iter().enumerate() {
        assert_eq!(*at, time(tick), "{name}: tick {tick}");
    }
    let shown: Vec<Shown> = pictures.into_iter().map(|(_, shown)| shown).collect();
    check_ticks(track, &lines(&folder.join("ticks.jsonl")), &shown);
    if folder.join("index.m3u8").exists() {
        check_playlist(manifest, track, folder, &shown);
    }
    shown
}

/// `ticks.jsonl` covers every tick once, and says what it shows.
fn check_ticks(track: &TrackManifest, runs: &[Run], shown: &[Shown]) {
    let name = &track.track;
    let mut next = 0;
    let (mut counts, mut before) = (BTreeMap::new(), Shown::Black);
    for run in runs {
        assert_eq!(run.tick, next, "{name}: {run:?}");
        next += run.n;
        *counts.entry(format!("{:?}", run.kind)).or_insert(0) += run.n as u64;
        for tick in run.tick..next {
            let now = shown[tick as usize];
            match run.kind {
                RunKind::Picture => assert!(matches!(now, Shown::Number(_)), "{name}: tick {tick}: {now:?}"),
                RunKind::Held => assert_eq!(now, before, "{name}: tick {tick} is held"),
                RunKind::Filled => assert_eq!(now, Shown::Black, "{name}: tick {tick} is filled"),
            }
            before = now;
        }
    }
    assert_eq!(next, shown.len() as Tick, "{name}: ticks.jsonl covers the MP4");
    let count = |kind: &str| counts.get(kind).copied().unwrap_or(0);
    let ledger = &track.ledger;
    assert_eq!(
        (count("Picture"), count("Held"), count("Filled")),
        (ledger.encoded, ledger.held, ledger.filled),
        "{name}: the ledger counts what is shown"
    );
}

/// A finished playlist: each segment is there as `segments.jsonl` has it, and all of it shows what the MP4 shows.
fn check_playlist(manifest: &Manifest, track: &TrackManifest, folder: &Path, shown: &[Shown]) {
    let name = &track.track;
    let text = std::fs::read_to_string(folder.join("index.m3u8")).unwrap();
    assert!(text.ends_with("#EXT-X-ENDLIST\n"), "{name}: {text}");
    let segments = segments(folder);
    let listed: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(listed.len(), segments.len(), "{name}: {text}");
    let mut ticks = Vec::new();
    for (path, line) in &segments {
        assert!(listed.iter().any(|uri| folder.join(uri) == *path), "{name}: {} is listed", path.display());
        let bytes = std::fs::read(path).unwrap();
        assert_eq!((bytes.len() as u64, keys::hex(&Sha256::digest(&bytes))), (line.bytes, line.sha256.clone()));
        let cell = line.number * i64::from(manifest.segment_ticks);
        assert!(cell <= line.first_tick && line.first_tick + line.ticks <= cell + i64::from(manifest.segment_ticks));
        ticks.extend(line.first_tick..line.first_tick + line.ticks);
    }
    assert_eq!(ticks.first(), track.first_tick.as_ref(), "{name}: nothing before the first picture");
    let played: Vec<Shown> = pictures(&folder.join("index.m3u8")).into_iter().map(|(_, shown)| shown).collect();
    let expected: Vec<Shown> = ticks.iter().map(|tick| shown[*tick as usize]).collect();
    assert_eq!(played, expected, "{name}: the playlist shows what the MP4 shows");
}

/// The closed segments of a track in the store, in order, with what `segments.jsonl` says of them.
pub fn segments(folder: &Path) -> Vec<(PathBuf, SegmentLine)> {
    let mut found: Vec<(PathBuf, SegmentLine)> = Vec::new();
    let epochs = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for epoch in epochs.filter(|path| path.join("segments.jsonl").exists()) {
        for line in lines::<SegmentLine>(&epoch.join("segments.jsonl")) {
            found.push((epoch.join(keys::segment(line.number)), line));
        }
    }
    found.sort_by_key(|(_, line)| line.first_tick);
    found
}
