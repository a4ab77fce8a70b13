//! `verify` and `repair`: a good recording passes, each damage is found and named, and what can be made again is.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tilecast::media::Kind;
use tilecast::pipeline::verify::repair::repair_recording;
use tilecast::pipeline::verify::{Options, RecordingReport, verify_recording};

use crate::bot::{Bot, Camera};
use crate::harness::{Server, files, until};

mod damages;

use damages::{
    Row, book_damages, derived_damages, edit, file, list_damages, manifest_damages, playlist_damages, segment_damages,
};

const ID: &str = "meeting";
const TRACK: &str = "100-webcam";

fn tilecast(arguments: &[&str], path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tilecast")).args(arguments).arg(path).output().unwrap()
}

fn verify(recording: &Path) -> RecordingReport {
    verify_recording(recording, Options { decode: true }, &mut |_| {})
}

/// Copies a folder that a server may be writing: what names files first, then the files, which are there by then.
fn copy(from: &Path, to: &Path) {
    let names_files = |name: &str| name.ends_with(".m3u8") || name.ends_with(".json");
    for first in [true, false] {
        for (name, path) in files(from).into_iter().filter(|(name, _)| names_files(name) == first) {
            fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
            match fs::copy(path, to.join(name)) {
                // What is written aside is renamed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
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
    let rows =
        [segment_damages(), list_damages(), playlist_damages(), derived_damages(), manifest_damages(), book_damages()]
            .concat();
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

#[tokio::test(flavor = "multi_thread")]
async fn segments_alone_are_enough_for_a_whole_recording() {
    let server = finished_meeting().await;
    let good = server.folders.recording(ID);
    let before = verify(&good);
    let dir = tempfile::tempdir().unwrap();
    let strip = |store: &str| {
        let folder = dir.path().join(store).join(ID);
        copy(&good, &folder);
        let derived = |name: &str| !name.ends_with(".m4s") && !name.contains("init-");
        files(&folder)
            .into_iter()
            .filter(|(name, _)| derived(name))
            .for_each(|(_, path)| fs::remove_file(path).unwrap());
        folder
    };
    let folder = strip("alone");
    let repaired = repair_recording(&folder, &mut |_| {});
    let left: Vec<&str> = repaired.after.findings.told.iter().map(|finding| &*finding.path).collect();
    assert_eq!(left, ["events.jsonl"], "what nothing can tell again: {:#?}", repaired.done);
    assert_eq!(repaired.after.state, Some("finished"));
    for (was, is) in before.tracks.iter().zip(&repaired.after.tracks) {
        // Which ticks of a segment were held or filled nobody can tell any more.
        assert_eq!(
            (is.ticks, is.pictures + is.held + is.filled, is.decoded),
            (was.ticks, was.ticks as u64, was.decoded)
        );
        let playlist = |folder: &Path| fs::read_to_string(folder.join(&is.track).join("index.m3u8")).unwrap();
        let without_dates = |text: String| text.lines().filter(|line| !line.contains("DATE-TIME")).count();
        assert_eq!(without_dates(playlist(&folder)), without_dates(playlist(&good)), "{}", is.track);
    }
    // What a server still has on its list is left for it to end, with the books of what is there: by what an entry says, or by
    // its name where it says nothing.
    let cases = [
        (ID, r#"{"recording":{"prefix":"elsewhere"}}"#.to_owned(), "finished"),
        ("another", format!(r#"{{"recording":{{"prefix":"{ID}"}}}}"#), "suspended"),
        (ID, "{}".to_owned(), "suspended"),
    ];
    let repair_listed = |n: usize, entry: &str, says: &str| {
        let folder = strip(&format!("listed-{n}"));
        let live = folder.parent().unwrap().join("_live/_");
        fs::create_dir_all(&live).unwrap();
        fs::write(live.join(format!("{entry}.json")), says).unwrap();
        (repair_recording(&folder, &mut |_| {}), folder)
    };
    for (n, (entry, says, state)) in cases.iter().enumerate() {
        let (repaired, _) = repair_listed(n, entry, says);
        assert_eq!(repaired.after.state, Some(*state), "{says}: {:#?}", repaired.done);
    }
    let (repaired, folder) = repair_listed(cases.len(), ID, "{}");
    let pictures: Vec<u64> = repaired.after.tracks.iter().map(|track| track.pictures).collect();
    assert!(pictures.iter().all(|pictures| *pictures > 0), "the books say what the segments show: {pictures:?}");
    assert!(!fs::read_to_string(folder.join(TRACK).join("index.m3u8")).unwrap().contains("ENDLIST"));
}
