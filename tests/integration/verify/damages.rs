//! What can happen to a store: each damage, where it is found, what is said of it, and whether it can be mended.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::files;

use super::TRACK;

/// The first file below `folder` whose name ends like this, and is not the first segment of its track.
pub fn file(folder: &Path, end: &str) -> PathBuf {
    let found = files(folder).into_iter().filter(|(name, _)| name.ends_with(end));
    found.map(|(_, path)| path).next().unwrap_or_else(|| panic!("no {end}"))
}

pub fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "the damage changes {}", path.display());
    fs::write(path, changed).unwrap();
}

fn edit_manifest(folder: &Path, change: impl FnOnce(&mut Value)) {
    edit(&folder.join("recording.json"), |text| {
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        change(&mut manifest);
        manifest.to_string()
    });
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// What is done to a recording's folder.
pub type Damage = fn(&Path);

/// Name, damage, the path and the words of a finding, and whether `repair` mends it all.
pub type Row = (&'static str, Damage, &'static str, &'static str, bool);

pub fn segment_damages() -> Vec<Row> {
    vec![
        (
            "a byte flipped in a segment",
            |folder| {
                let path = file(&folder.join(TRACK), "000001.m4s");
                flip(&path, fs::metadata(&path).unwrap().len() as usize - 3);
            },
            "000001.m4s",
            "SHA-256",
            false,
        ),
        (
            "a segment torn",
            |folder| {
                let path = file(&folder.join(TRACK), "000001.m4s");
                fs::write(&path, &fs::read(&path).unwrap()[..500]).unwrap();
            },
            "000001.m4s",
            "torn",
            false,
        ),
        (
            "a segment deleted",
            |folder| fs::remove_file(file(&folder.join(TRACK), "000001.m4s")).unwrap(),
            "000001.m4s",
            "missing",
            false,
        ),
        (
            "a segment deleted and the MP4 lost with it",
            |folder| {
                fs::remove_file(file(&folder.join(TRACK), "000001.m4s")).unwrap();
                fs::remove_file(folder.join(TRACK).join("video.mp4")).unwrap();
            },
            "video.mp4",
            "No such file",
            false,
        ),
        (
            "a segment that no list names",
            |folder| {
                let path = file(&folder.join(TRACK), "000001.m4s");
                fs::copy(&path, path.with_file_name("000099.m4s")).unwrap();
            },
            "000099.m4s",
            "not in segments.jsonl",
            false,
        ),
    ]
}

/// Damages of the lists of segments, and of the init segment.
pub fn list_damages() -> Vec<Row> {
    vec![
        (
            "segments.jsonl missing",
            |folder| fs::remove_file(file(&folder.join(TRACK), "segments.jsonl")).unwrap(),
            "segments.jsonl",
            "No such file",
            true,
        ),
        (
            "segments.jsonl torn",
            |folder| edit(&file(&folder.join(TRACK), "segments.jsonl"), |text| text[..text.len() - 20].to_owned()),
            "segments.jsonl",
            "torn",
            true,
        ),
        (
            "the init segment replaced",
            |folder| {
                let path = file(&folder.join(TRACK), ".mp4");
                assert!(path.file_name().unwrap().to_str().unwrap().starts_with("init-"));
                flip(&path, 300);
            },
            "init-",
            "its bytes are those of init-",
            true,
        ),
    ]
}

pub fn playlist_damages() -> Vec<Row> {
    fn playlist(folder: &Path) -> PathBuf {
        folder.join(TRACK).join("index.m3u8")
    }
    vec![
        (
            "a playlist's duration changed",
            |folder| edit(&playlist(folder), |text| text.replacen("#EXTINF:6.000,", "#EXTINF:5.000,", 1)),
            "index.m3u8",
            "differs",
            true,
        ),
        (
            "a playlist without its discontinuity",
            |folder| edit(&playlist(folder), |text| text.replacen("#EXT-X-DISCONTINUITY\n", "", 1)),
            "index.m3u8",
            "differs",
            true,
        ),
        (
            "a playlist without its end",
            |folder| edit(&playlist(folder), |text| text.replace("#EXT-X-ENDLIST\n", "")),
            "index.m3u8",
            "without its end",
            true,
        ),
        (
            "a playlist that lost its last segment",
            |folder| {
                edit(&playlist(folder), |text| {
                    let cut = text.rfind("#EXTINF").unwrap();
                    format!("{}#EXT-X-ENDLIST\n", &text[..cut])
                });
            },
            "index.m3u8",
            "segments, where segments.jsonl has",
            true,
        ),
        ("no playlist", |folder| fs::remove_file(playlist(folder)).unwrap(), "index.m3u8", "No such file", true),
    ]
}

pub fn derived_damages() -> Vec<Row> {
    fn at(folder: &Path, name: &str) -> PathBuf {
        folder.join(TRACK).join(name)
    }
    vec![
        (
            "an MP4 truncated",
            |folder| {
                let bytes = fs::read(at(folder, "video.mp4")).unwrap();
                fs::write(at(folder, "video.mp4"), &bytes[..bytes.len() / 2]).unwrap();
            },
            "video.mp4",
            "bytes, where recording.json says",
            true,
        ),
        ("a byte flipped in an MP4", |folder| flip(&at(folder, "video.mp4"), 9000), "video.mp4", "SHA-256", true),
        ("no MP4", |folder| fs::remove_file(at(folder, "video.mp4")).unwrap(), "video.mp4", "No such file", true),
        (
            "a line of ticks.jsonl gone",
            |folder| {
                edit(&at(folder, "ticks.jsonl"), |text| {
                    text.lines().enumerate().filter(|(n, _)| *n != 3).map(|(_, line)| format!("{line}\n")).collect()
                });
            },
            "ticks.jsonl",
            "goes on at tick 4 where 3 is next",
            true,
        ),
        (
            "a picture moved in time",
            |folder| {
                edit(&at(folder, "ticks.jsonl"), |text| text.replacen("\"relative\":2.5", "\"relative\":4.5", 1));
            },
            "ticks.jsonl",
            "4.00 ticks off",
            false,
        ),
        (
            "a picture called held",
            |folder| {
                edit(&at(folder, "ticks.jsonl"), |text| text.replacen("\"picture\"", "\"held\"", 1));
            },
            "ticks.jsonl",
            "by segments.jsonl",
            true,
        ),
        (
            "no ticks.jsonl",
            |folder| fs::remove_file(at(folder, "ticks.jsonl")).unwrap(),
            "ticks.jsonl",
            "No such file",
            true,
        ),
    ]
}

pub fn manifest_damages() -> Vec<Row> {
    vec![
        (
            "the ledger off by one",
            |folder| edit_manifest(folder, |manifest| manifest["tracks"][0]["ledger"]["encoded"] = 1.into()),
            "-webcam",
            "the ledger's encoded is 1",
            true,
        ),
        (
            "a capture that vanished",
            |folder| edit_manifest(folder, |manifest| manifest["tracks"][0]["ledger"]["received"] = 1.into()),
            "-webcam",
            "received 1 is not encoded",
            true,
        ),
        (
            "a gap undeclared",
            |folder| {
                edit_manifest(folder, |manifest| {
                    for track in manifest["tracks"].as_array_mut().unwrap() {
                        track["gaps"] = Value::Array(Vec::new());
                    }
                });
            },
            TRACK,
            "declares no gap there",
            true,
        ),
        (
            "a track shorter than the others",
            |folder| {
                edit_manifest(folder, |manifest| {
                    let end = manifest["tracks"][0]["end_tick"].as_i64().unwrap();
                    manifest["tracks"][0]["end_tick"] = (end - 1).into();
                });
            },
            "-webcam",
            "another track at",
            true,
        ),
    ]
}

/// More damages of the manifest.
pub fn book_damages() -> Vec<Row> {
    vec![
        (
            "a track missing in the manifest",
            |folder| edit_manifest(folder, |manifest| drop(manifest["tracks"].as_array_mut().unwrap().remove(0))),
            "-webcam",
            "names no such track",
            true,
        ),
        (
            "a schema from the future",
            |folder| edit_manifest(folder, |manifest| manifest["schema"] = 99.into()),
            "recording.json",
            "schema 99 is not known",
            false,
        ),
        (
            "numbers that overflow",
            |folder| edit_manifest(folder, |manifest| manifest["tracks"][0]["end_tick"] = i64::MAX.into()),
            "recording.json",
            "out of range",
            true,
        ),
        (
            "a name that leads elsewhere",
            |folder| edit_manifest(folder, |manifest| manifest["tracks"][0]["mp4"][0]["path"] = "../x".into()),
            "recording.json",
            "leads out",
            true,
        ),
        (
            "no manifest",
            |folder| fs::remove_file(folder.join("recording.json")).unwrap(),
            "recording.json",
            "No such",
            true,
        ),
        ("no events", |folder| fs::remove_file(folder.join("events.jsonl")).unwrap(), "events.jsonl", "No such", false),
    ]
}
