//! `verify` and `repair`: a good recording passes, each damage is found and named, and what can be made again is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tilecast::media::Kind;
use tilecast::pipeline::verify::repair::repair_recording;
use tilecast::pipeline::verify::{Options, RecordingReport, verify_recording};

use crate::bot::{Bot, Camera};
use crate::harness::{Server, files, until};

const ID: &str = "meeting";
const TRACK: &str = "100-webcam";

fn tilecast(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tilecast")).args(arguments).arg(path).output().unwrap()
}

fn verify(recording: &Path) -> RecordingReport {
    verify_recording(recording, Options { decode: true }, &mut |_| {})
}

fn copy(from: &Path, to: &Path) {
    for (name, path) in files(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::copy(path, to.join(name)).unwrap();
    }
}

/// The first file below `folder` whose name ends like this, and is not the first segment of its track.
fn file(folder: &Path, end: &str) -> PathBuf {
    let found = files(folder).into_iter().filter(|(name, _)| name.ends_with(end));
    found.map(|(_, path)| path).next().unwrap_or_else(|| panic!("no {end}"))
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
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

/// A meeting of two cameras and a share: one is off for a while and comes back in a new epoch, one comes late.
async fn send_meeting(server: &Server, bot: &mut Bot) {
    let cameras = [Camera::new(100, Kind::Webcam), Camera::new(101, Kind::Webcam), Camera::new(100, Kind::Screenshare)];
    // A name that only the manifest knew would be gone with it.
    for participant in [100, 101] {
        bot.send_event(ID, participant, "join", 0.0).await;
    }
    for tick in 0..80 {
        if tick == 20 {
            bot.send_event(ID, 100, "webcam_off", 10.0).await;
        }
        if !(20..50).contains(&tick) {
            bot.send_tick(ID, 100, &cameras[0], tick).await;
        }
        if tick >= 17 {
            bot.send_tick(ID, 101, &cameras[1], tick).await;
        }
        // A share that sends seldom is held.
        if tick % 3 == 0 {
            bot.send_tick(ID, 100, &cameras[2], tick).await;
        }
    }
    bot.taken().await;
    server.drained(ID).await;
}

async fn finished_meeting() -> Server {
    let server = Server::start(&["--live-fill", "5s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send_meeting(&server, &mut bot).await;
    bot.close().await;
    server.finish(ID).await;
    server
}

/// What is done to a recording's folder.
type Damage = fn(&Path);

/// Name, damage, the path and the words of a finding, and whether `repair` mends it all.
type Row = (&'static str, Damage, &'static str, &'static str, bool);

fn segment_damages() -> Vec<Row> {
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

fn playlist_damages() -> Vec<Row> {
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

fn derived_damages() -> Vec<Row> {
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

fn manifest_damages() -> Vec<Row> {
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

fn segments(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let segments = files(folder).into_iter().filter(|(name, _)| name.ends_with(".m4s"));
    segments.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

fn check_damage(good: &Path, (name, damage, path, what, mended): Row) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join(ID);
    copy(good, &folder);
    damage(&folder);
    let found = verify(&folder).findings;
    let named = found.told.iter().any(|finding| finding.path.contains(path) && finding.what.contains(what));
    assert!(named, "{name}: {found:#?}");

    let before = segments(&folder);
    let repaired = repair_recording(&folder, &mut |_| {});
    let after = &repaired.after.findings;
    assert_eq!(segments(&folder), before, "{name}: no segment is touched");
    assert_eq!(after.count() == 0, mended, "{name}: {:#?} {after:#?}", repaired.done);
    if mended {
        assert!(!repaired.done.is_empty(), "{name}: it says what it did");
        let again = repair_recording(&folder, &mut |_| {});
        assert_eq!(again.done, Vec::<String>::new(), "{name}: what is well is left alone");
        for track in [TRACK, "101-webcam", "100-screenshare"] {
            let mp4 = |folder: &Path| fs::read(folder.join(track).join("video.mp4")).unwrap();
            assert!(mp4(good) == mp4(&folder), "{name}: the MP4 of {track} is what it was");
            let playlist = |folder: &Path| fs::read_to_string(folder.join(track).join("index.m3u8")).unwrap();
            assert_eq!(playlist(good), playlist(&folder), "{name}: {track}");
        }
    } else {
        // What is lost stays named, and nothing else is wrong.
        let others: Vec<_> = after.told.iter().filter(|finding| !finding.path.contains(path)).collect();
        let lost_segment = |finding: &&&tilecast::pipeline::verify::Finding| finding.path.ends_with(".m4s");
        assert!(others.iter().all(|finding| lost_segment(&finding)), "{name}: {:#?} {others:#?}", repaired.done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_named_and_mended_where_it_can_be() {
    let server = finished_meeting().await;
    let good = server.folders.recording(ID);
    let report = verify(&good);
    assert!(report.is_well(), "{:#?}", report.findings);
    assert_eq!(report.tracks.len(), 3);
    assert!(report.tracks.iter().all(|track| track.ticks == 80 && track.decoded > 100), "{report:#?}");
    assert!(good.join(TRACK).read_dir().unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count() > 1);
    let rows = [segment_damages(), playlist_damages(), derived_damages(), manifest_damages()].concat();
    tokio::task::spawn_blocking(move || rows.into_iter().for_each(|row| check_damage(&good, row))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_tell_by_their_exit_codes() {
    let server = finished_meeting().await;
    let store = server.folders.store();
    let code = |arguments: &[&str], path: &Path| tilecast(arguments, path).status.code();
    assert_eq!(code(&["verify"], &store), Some(0));
    assert_eq!(code(&["repair"], &store), Some(0));
    assert_eq!(code(&["verify"], &store.join("none")), Some(2));
    fs::remove_file(server.folders.recording(ID).join(TRACK).join("index.m3u8")).unwrap();
    let output = tilecast(&["verify", "--json", "--no-decode"], &server.folders.recording(ID));
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["well"], &report["schema"]), (&false.into(), &1.into()));
    assert_eq!(report["recordings"][0]["findings"]["told"][0]["path"], format!("{TRACK}/index.m3u8"));
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(progress.contains("track 3 of 3"), "{progress}");
    let repaired = tilecast(&["repair"], &store);
    let said = String::from_utf8(repaired.stdout).unwrap();
    assert_eq!((repaired.status.code(), said.contains("index.m3u8: rebuilt")), (Some(0), true), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_not_finished_is_checked_as_far_as_it_holds() {
    let server = Server::start(&["--live-fill", "5s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send_meeting(&server, &mut bot).await;
    let folder = server.folders.recording(ID);
    let playlist = folder.join(TRACK).join("index.m3u8");
    until("segments are published", || async {
        fs::read_to_string(&playlist).ok().filter(|text| text.contains("000005"))
    })
    .await;
    let report = verify(&folder);
    assert!(report.is_well(), "{:#?}", report.findings);
    assert_eq!(report.state, Some("live"));
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join(ID);
    copy(&folder, &damaged);
    fs::remove_file(file(&damaged.join(TRACK), "000001.m4s")).unwrap();
    edit(&damaged.join(TRACK).join("index.m3u8"), |text| text + "#EXT-X-ENDLIST\n");
    let found = verify(&damaged).findings.told;
    let whats: Vec<&str> = found.iter().map(|finding| &*finding.what).collect();
    assert_eq!(whats, ["ended, and not finished", "missing"], "{found:#?}");
    let refused = repair_recording(&damaged, &mut |_| {});
    assert!(refused.done.iter().any(|what| what.contains("may be writing")), "{:#?}", refused.done);
    bot.close().await;
}
