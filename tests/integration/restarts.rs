//! The process dies in the middle of a meeting, by kill -9 or SIGTERM, and comes back: one recording, one playlist, one
//! MP4, and every picture of a complete part in its place.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use tilecast::media::{GapReason, Kind, Tick};
use tilecast::pipeline::store::journal::{PartLine, Run, RunKind};
use tilecast::pipeline::store::manifest::{Gap, State};
use tilecast::pipeline::store::spool::JOURNAL;

use crate::bot::{Bot, Camera, at};
use crate::harness::{Folders, PATIENCE, Server, until};
use crate::playback::{check_finished, track};

pub const FLAGS: [&str; 2] = ["--segment", "2s"];

/// The ticks with pictures that a track's journals hold.
fn journaled(folders: &Folders, recording: &str, track: &str) -> BTreeSet<Tick> {
    let folder = folders.spool().join(recording).join(track);
    let mut ticks = BTreeSet::new();
    for epoch in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let text = std::fs::read_to_string(epoch.join(JOURNAL)).unwrap_or_default();
        let parts = text.lines().skip(1).filter_map(|line| serde_json::from_str::<PartLine>(line).ok());
        let runs = parts.flat_map(|part| part.runs).filter(|run| run.kind == RunKind::Picture);
        ticks.extend(runs.map(|run| run.tick));
    }
    ticks
}

pub fn playlist(folders: &Folders, recording: &str, track: &str) -> String {
    std::fs::read_to_string(folders.recording(recording).join(track).join("index.m3u8")).unwrap_or_default()
}

pub async fn send(bot: &mut Bot, recording: &str, cameras: &[Camera], ticks: std::ops::Range<u32>) {
    for tick in ticks {
        for (n, camera) in cameras.iter().enumerate() {
            bot.send_tick(recording, 100 + n as i64, camera, tick).await;
        }
    }
    bot.taken().await;
}

/// Every file below a folder, with its bytes.
fn bytes_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = crate::harness::files(folder);
    files.into_iter().map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_costs_no_complete_part() {
    const RECORDING: &str = "killed";
    let folders = Folders::new();
    let cameras: Vec<Camera> = (0..3).map(|n| Camera::new(n, Kind::Webcam)).collect();
    let mut kept: Vec<BTreeSet<Tick>> = vec![BTreeSet::new(); 3];
    let mut published = vec![String::new(); 3];
    let tracks: Vec<String> = (0..3).map(|n| format!("{}-webcam", 100 + n)).collect();
    // Three lives, each ended by kill -9 in the middle of a segment; 10 s lie between them.
    for life in 0..3 {
        let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
        let mut bot = Bot::connect(&server.ws()).await;
        let first = life * 40;
        send(&mut bot, RECORDING, &cameras, first..first + 21).await;
        server.drained(RECORDING).await;
        server.kill().await;
        for (n, track) in tracks.iter().enumerate() {
            let now = journaled(&folders, RECORDING, track);
            assert!(kept[n].is_subset(&now), "{track}: what was complete stays");
            assert!(now.len() >= (life as usize + 1) * 20, "{track}: every complete part is there: {now:?}");
            kept[n] = now;
            let text = playlist(&folders, RECORDING, track);
            assert!(text.starts_with(&published[n]), "{track}: {text}\nafter\n{}", published[n]);
            published[n] = text;
        }
    }
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    assert!(server.log_line("took up unfinished recordings").is_some());
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&folders, &manifest).await;
    for (n, name) in tracks.iter().enumerate() {
        let track = track(&manifest, name);
        assert_eq!(track.epochs.len(), 3, "{name}: {:?}", track.epochs);
        for tick in &kept[n] {
            assert_eq!(shown[name][*tick as usize].number(), Some(*tick as u32), "{name}: tick {tick}");
        }
        let down: Vec<_> = track.gaps.iter().filter(|gap| gap.reason == GapReason::ServerDown).collect();
        assert_eq!(down.len(), 2, "{name}: {:?}", track.gaps);
        let text = playlist(&folders, RECORDING, name);
        assert!(text.starts_with(&published[n]), "{name}: {text}");
        assert!(!text.contains("DISCONTINUITY"), "{name}: ten seconds are filled: {text}");
    }
}

/// Without the state a start could not take up the parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_state_is_in_the_spool_before_any_part() {
    // Every picture is a part, written milliseconds after the recording's first message.
    let server = Server::start(&["--fps", "2", "--part", "500ms", "--segment", "2s"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    for n in 0..12 {
        let recording = format!("state-{n}");
        let watcher = tokio::task::spawn_blocking({
            let (folders, recording) = (server.folders.clone(), recording.clone());
            move || {
                let (start, spool) = (Instant::now(), folders.spool().join(&recording));
                let begun =
                    || spool.join("100-webcam").exists() && !journaled(&folders, &recording, "100-webcam").is_empty();
                while !begun() {
                    assert!(start.elapsed() < PATIENCE, "no part comes");
                }
                spool.join("state.json").exists()
            }
        });
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, &recording, std::slice::from_ref(&camera), 0..4).await;
        assert!(watcher.await.unwrap(), "{recording}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_recording_goes_on_and_a_finished_one_is_never_changed() {
    const RECORDING: &str = "suspended";
    let folders = Folders::new();
    let cameras = [Camera::new(7, Kind::Webcam)];
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 0..11).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    assert_eq!(folders.manifest(RECORDING).unwrap().state, State::Suspended);
    drop(bot);

    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 11..20).await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&folders, &manifest).await;
    let numbers: Vec<_> = shown["100-webcam"].iter().map(|shown| shown.number()).collect();
    assert_eq!(numbers, (0..20).map(Some).collect::<Vec<_>>(), "a restart that loses nothing shows nothing");
    assert!(manifest.tracks[0].gaps.is_empty(), "{:?}", manifest.tracks[0].gaps);
    assert_eq!(server.terminate().await.code(), Some(0));
    drop(bot);

    // Another process, an empty spool: what still comes opens the next one, and the first stays as it is.
    let before = bytes_of(&folders.recording(RECORDING));
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 20..26).await;
    let again = format!("{RECORDING}~2");
    let manifest = server.finish(&again).await;
    assert_eq!((manifest.continues.as_deref(), manifest.tracks[0].ledger.encoded), (Some(RECORDING), 6));
    check_finished(&folders, &manifest).await;
    assert_eq!(bytes_of(&folders.recording(RECORDING)), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_dials_again_and_the_grace_ends_it() {
    const RECORDING: &str = "orphan";
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &[Camera::new(1, Kind::Webcam)], 0..9).await;
    server.drained(RECORDING).await;
    server.kill().await;
    let server = Server::start_in(&folders, &["--segment", "2s", "--reconnect-grace", "1s"], &[]).await;
    let manifest = until("the grace to end", async || {
        folders.manifest(RECORDING).filter(|manifest| manifest.state == State::Finished)
    })
    .await;
    let shown = check_finished(&folders, &manifest).await;
    assert!((8..=9).contains(&shown["100-webcam"].len()), "all but what was in an unfinished part");
    assert_eq!(server.metrics().await.sum("tilecast_lanes"), 0.0);
}

/// The runs of a kind that a track's journals hold.
fn runs(folders: &Folders, recording: &str, track: &str, kind: RunKind) -> Vec<Run> {
    let folder = folders.spool().join(recording).join(track);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let journals = entries.filter_map(|epoch| std::fs::read_to_string(epoch.join(JOURNAL)).ok());
    let parts = |text: String| -> Vec<PartLine> {
        text.lines().skip(1).filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let runs = journals.flat_map(parts).flat_map(|part| part.runs);
    runs.filter(|run| run.kind == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_keep_their_reasons_through_two_deaths() {
    use GapReason::{CameraOff, ServerDown};
    const RECORDING: &str = "reasons";
    // All gaps here outgrow what is filled live: they are in no segment.
    let flags = ["--segment", "2s", "--live-fill", "3s"];
    let folders = Folders::new();
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    let mut server = Server::start_in(&folders, &flags, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 0..10).await;
    // One is off and comes back, the other one is off from here on, all through.
    for who in [100, 101] {
        bot.send_event(RECORDING, who, "webcam_off", at(10)).await;
    }
    send(&mut bot, RECORDING, &cameras[..1], 60..80).await;
    until("the other one's gap is journaled", async || {
        (!runs(&folders, RECORDING, "101-webcam", RunKind::Filled).is_empty()).then_some(())
    })
    .await;
    server.drained(RECORDING).await;
    server.kill().await;
    let mut last = Vec::new();
    for first in [130, 180] {
        last.push(*journaled(&folders, RECORDING, "100-webcam").last().unwrap() + 1);
        server = Server::start_in(&folders, &flags, &[]).await;
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, RECORDING, &cameras[..1], first..first + 20).await;
        server.drained(RECORDING).await;
        server.kill().await;
    }
    let server = Server::start_in(&folders, &flags, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 230..240).await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&folders, &manifest).await;
    let gap = |from_tick, to_tick, reason| Gap { from_tick, to_tick, reason };
    last.push(track(&manifest, "100-webcam").gaps.last().unwrap().from_tick);
    assert!((199..=200).contains(&last[2]) && (79..=80).contains(&last[0]), "{last:?}");
    let down = |n: usize, to| gap(last[n], to, ServerDown);
    let expected = [gap(10, 60, CameraOff), down(0, 130), down(1, 180), down(2, 230)];
    assert_eq!(track(&manifest, "100-webcam").gaps, expected);
    assert_eq!(shown["100-webcam"][239].number(), Some(239));
    // The ticks since its last part are lost with the process each time, and what it was is known again afterwards.
    let other = track(&manifest, "101-webcam");
    let reasons: Vec<GapReason> = other.gaps.iter().map(|gap| gap.reason).collect();
    assert!(reasons.starts_with(&[CameraOff, ServerDown]), "{:?}", other.gaps);
    assert!(reasons.iter().all(|reason| matches!(reason, CameraOff | ServerDown)), "{:?}", other.gaps);
    assert_eq!((other.gaps[0].from_tick, other.gaps.last().unwrap().to_tick), (10, 230), "{:?}", other.gaps);
    assert!(other.gaps.windows(2).all(|pair| pair[0].to_tick == pair[1].from_tick), "{:?}", other.gaps);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meeting_with_all_cameras_off_goes_on_after_a_restart() {
    for ends_well in [true, false] {
        const RECORDING: &str = "cameras-off";
        let folders = Folders::new();
        let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
        let mut bot = Bot::connect(&server.ws()).await;
        for (who, action) in [(100, "join"), (101, "join"), (101, "leave")] {
            bot.send_event(RECORDING, who, action, 0.5).await;
        }
        bot.taken().await;
        let events = folders.spool().join(RECORDING).join("events.jsonl");
        until("the events are in the spool", async || {
            std::fs::read_to_string(&events).ok().filter(|text| text.lines().count() == 3)
        })
        .await;
        if ends_well {
            assert_eq!(server.terminate().await.code(), Some(0));
        } else {
            server.kill().await;
        }
        let server = Server::start_in(&folders, &FLAGS, &[]).await;
        assert!(server.log_line("left alone").is_none());
        assert_eq!(server.metrics().await.get("tilecast_spool_failed_total"), 0.0);
        assert_eq!(server.manifest(RECORDING).await.state, State::Live);
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, RECORDING, &[Camera::new(1, Kind::Webcam)], 10..18).await;
        let manifest = server.finish(RECORDING).await;
        let shown = check_finished(&folders, &manifest).await;
        let numbers: Vec<_> = shown["100-webcam"].iter().map(|shown| shown.number()).collect();
        assert_eq!(numbers, (0..18).map(|n| (n >= 10).then_some(n)).collect::<Vec<_>>());
        let manifests = crate::harness::files(&folders.store());
        assert_eq!(manifests.keys().filter(|name| name.ends_with("recording.json")).count(), 1);
        let text = std::fs::read_to_string(folders.recording(RECORDING).join("events.jsonl")).unwrap();
        assert_eq!(text.matches("\"join\"").count(), 2, "{text}");
        assert!(!folders.spool().join(RECORDING).exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_recording_whose_manifest_nobody_can_read_is_never_changed() {
    let folders = Folders::new();
    let camera = [Camera::new(1, Kind::Webcam)];
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let damages = ["word", "torn", "other"];
    for id in damages {
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, id, &camera, 0..8).await;
        server.finish(id).await;
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    for id in damages {
        let path = folders.recording(id).join("recording.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let damaged = match id {
            "word" => text.replace("\"finished\"", "\"archived\""),
            "torn" => text[..text.len() / 2].to_owned(),
            _ => text.replace("\"other\"", "\"another\""),
        };
        assert_ne!(damaged, text);
        std::fs::write(&path, damaged).unwrap();
    }
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    for id in damages {
        let before = bytes_of(&folders.recording(id));
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, id, &camera, 0..6).await;
        let manifest = server.finish(&format!("{id}~2")).await;
        assert_eq!((manifest.continues.as_deref(), manifest.tracks[0].ledger.encoded), (Some(id), 6));
        check_finished(&folders, &manifest).await;
        assert!(bytes_of(&folders.recording(id)) == before, "{id}: it was changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_start_left_alone_in_the_spool_is_never_changed() {
    let folders = Folders::new();
    let camera = [Camera::new(1, Kind::Webcam)];
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let damages = ["newer", "torn", "failed"];
    let mut bot = Bot::connect(&server.ws()).await;
    for id in damages {
        send(&mut bot, id, &camera, 0..7).await;
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    for id in damages {
        let path = folders.spool().join(id).join("state.json");
        let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        match id {
            "newer" => state["spool"] = 99.into(),
            "failed" => state["state"] = "failed".into(),
            _ => state = serde_json::Value::Null,
        }
        std::fs::write(&path, state.to_string()).unwrap();
        // As if the store had lost it: the folder in the spool alone says that the name is taken.
        std::fs::remove_dir_all(folders.recording(id)).unwrap();
    }
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    assert_eq!(server.metrics().await.get("tilecast_spool_failed_total"), 2.0, "one was given up by an operator");
    let mut bot = Bot::connect(&server.ws()).await;
    for id in damages {
        let before = bytes_of(&folders.spool().join(id));
        send(&mut bot, id, &camera, 7..12).await;
        let manifest = server.finish(&format!("{id}~2")).await;
        assert_eq!((manifest.continues.as_deref(), manifest.tracks[0].ledger.encoded), (Some(id), 5));
        assert!(bytes_of(&folders.spool().join(id)) == before, "{id}: it was changed");
        assert!(!folders.recording(id).exists(), "{id}");
    }
    let told = server.log().iter().filter(|line| line.contains("\"continues\":\"newer\"")).count();
    assert_eq!(told, 1);
}
