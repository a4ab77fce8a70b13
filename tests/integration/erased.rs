//! Recordings and tracks are deleted, live and finished, by a call and by their age, and whatever dies meanwhile: no object,
//! no spool file and no name of a participant is left anywhere.

use std::collections::BTreeSet;

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::Manifest;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, files, spooled, until};
use crate::playback::check_finished;
use crate::restarts::{FLAGS, playlist, send};

const NAME: &str = "Participant 100";

/// Every key of the store, but for signs of life.
fn keys(folders: &Folders) -> BTreeSet<String> {
    files(&folders.store()).into_keys().collect()
}

/// Which files have this text.
fn grep(folders: &Folders, text: &str) -> Vec<String> {
    let all = [folders.store(), folders.spool()].map(|folder| files(&folder)).into_iter().flatten();
    let has = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    all.filter(|(_, path)| has(path)).map(|(name, _)| name).collect()
}

/// Waits until nothing is left of a recording but that it was deleted.
async fn gone(folders: &Folders, recording: &str) {
    let left = BTreeSet::from([format!("_ended/_/{recording}.json"), format!("{recording}/deleted.json")]);
    until(&format!("{recording} is gone"), || async {
        (keys(folders) == left && spooled(folders).is_empty()).then_some(())
    })
    .await;
    assert_eq!(grep(folders, NAME), Vec::<String>::new());
    assert!(!folders.spool().join(recording).exists());
}

/// A meeting of two with a name each, some of it in the store.
async fn meeting(server: &Server, recording: &str) -> Bot {
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_event(recording, 100, "join", 0.0).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    send(&mut bot, recording, &cameras, 0..14).await;
    until("some of it is in the store", || async {
        (playlist(&server.folders, recording, "101-webcam").matches(".m4s").count() >= 2).then_some(())
    })
    .await;
    assert!(!grep(&server.folders, NAME).is_empty(), "the name is what is looked for");
    bot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_recording_goes_from_everywhere_and_what_still_comes_is_counted() {
    const RECORDING: &str = "unwanted";
    let folders = Folders::new();
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = meeting(&server, RECORDING).await;
    let path = format!("/api/v1/recordings/{RECORDING}");
    assert_eq!(server.delete(&path).await.status, 202);
    assert_eq!(server.delete(&path).await.status, 202, "once more changes nothing");
    send(&mut bot, RECORDING, &[Camera::new(1, Kind::Webcam)], 14..20).await;
    bot.send_event(RECORDING, 100, "leave", 11.0).await;
    gone(&folders, RECORDING).await;
    let deleted = "tilecast_captures_discarded_total{kind=\"webcam\",reason=\"deleted\"}";
    assert_eq!(server.metrics().await.get(deleted), 6.0);
    assert_eq!(server.get(&path).await.status, 404);
    assert_eq!(server.get(&format!("/media/{RECORDING}/100-webcam/index.m3u8")).await.status, 404);
    assert_eq!(server.get("/api/v1/recordings").await.json()["recordings"], serde_json::json!([]));
    assert_eq!(server.delete("/api/v1/recordings/never-was").await.status, 404);
    // Another one is not touched by it.
    let mut other = Bot::connect(&server.ws()).await;
    send(&mut other, "wanted", &[Camera::new(1, Kind::Webcam)], 0..6).await;
    assert_eq!(server.finish("wanted").await.tracks[0].ledger.encoded, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_one_goes_through_a_kill_right_after_the_answer() {
    for (recording, live) in [("finished", false), ("still-live", true)] {
        let folders = Folders::new();
        let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
        let bot = meeting(&server, recording).await;
        if !live {
            server.finish(recording).await;
        }
        assert_eq!(server.delete(&format!("/api/v1/recordings/{recording}")).await.status, 202);
        server.kill().await;
        drop(bot);
        let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
        gone(&folders, recording).await;
        // And by one that knows of it from the store alone.
        assert_eq!(server.terminate().await.code(), Some(0));
        std::fs::remove_dir_all(folders.spool()).unwrap();
        let server = Server::start_in(&folders, &FLAGS, &[]).await;
        let mut bot = Bot::connect(&server.ws()).await;
        send(&mut bot, recording, &[Camera::new(1, Kind::Webcam)], 0..6).await;
        let metrics = server.metrics().await;
        assert_eq!(metrics.get("tilecast_captures_discarded_total{kind=\"webcam\",reason=\"deleted\"}"), 6.0);
        gone(&folders, recording).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_ask_at_once_delete_it_once() {
    let server = Server::start(&FLAGS).await;
    let bot = meeting(&server, "twice").await;
    server.finish("twice").await;
    bot.close().await;
    let delete = || server.delete("/api/v1/recordings/twice");
    let (one, other) = tokio::join!(delete(), delete());
    assert_eq!((one.status, other.status), (202, 202));
    gone(&server.folders, "twice").await;
    // Whoever came second has nothing left to do, and does not try it again and again, however long another one takes.
    let bot = meeting(&server, "another").await;
    assert_eq!(server.delete("/api/v1/recordings/another").await.status, 202);
    bot.close().await;
    let all_gone = || async {
        keys(&server.folders).iter().all(|key| key.starts_with("_ended") || key.ends_with("deleted.json")).then_some(())
    };
    until("the other one is gone", all_gone).await;
    assert!(server.log_line("cannot delete a recording yet").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_its_age() {
    const RECORDING: &str = "old";
    let folders = Folders::new();
    let flags = [&FLAGS[..], &["--retention", "4s"]].concat();
    let server = Server::start_in(&folders, &flags, &[]).await;
    drop(meeting(&server, RECORDING).await);
    server.finish(RECORDING).await;
    assert!(folders.manifest(RECORDING).is_some());
    gone(&folders, RECORDING).await;
    // Its last trace goes after as long again.
    until("nothing at all is left", || async { keys(&folders).is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_to_be_stored_of_a_participant_is_nowhere() {
    let folders = Folders::new();
    let mut server =
        Server::start_in(&folders, &[&FLAGS[..], &["--participant-fields", "id,is_host"]].concat(), &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_event("nameless", 100, "join", 0.0).await;
    send(&mut bot, "nameless", &[Camera::new(1, Kind::Webcam)], 0..8).await;
    server.drained("nameless").await;
    assert_eq!(grep(&folders, NAME), Vec::<String>::new());
    let manifest = server.finish("nameless").await;
    assert_eq!((manifest.tracks[0].participant.id.as_str(), &manifest.tracks[0].participant.name), ("100", &None));
    assert_eq!(grep(&folders, NAME), Vec::<String>::new(), "nor in events or MP4");
    assert_eq!(server.terminate().await.code(), Some(0));
}

/// The files of a track, and those that name its participant.
fn left_of_track(folders: &Folders, recording: &str) -> Vec<String> {
    let all = [folders.store(), folders.spool()].map(|folder| files(&folder)).into_iter().flatten();
    let of_track = all.map(|(name, _)| name).filter(|name| name.contains(&format!("{recording}/100-webcam")));
    of_track.chain(grep(folders, NAME)).chain(grep(folders, "\"id\":\"100\"")).collect()
}

/// Waits until nothing is left of the first participant, nor of what was to be done.
async fn track_gone(folders: &Folders, recording: &str) {
    until("the track is gone", || async {
        let erasing = files(&folders.spool()).into_keys().any(|name| name.starts_with(".erasing"));
        (!erasing && left_of_track(folders, recording).is_empty()).then_some(())
    })
    .await;
    assert!(!folders.spool().join(recording).join("100-webcam").exists());
    assert!(!folders.recording(recording).join("100-webcam").exists());
    assert!(!grep(folders, "Participant 101").is_empty(), "the other one stays");
}

/// The books of the deleted track: all its captures were discarded.
fn deleted_books(manifest: &Manifest) -> (u64, u64) {
    let names: Vec<_> = manifest.tracks.iter().map(|track| track.track.as_str()).collect();
    assert_eq!((names, manifest.deleted.len()), (vec!["101-webcam"], 1), "{manifest:?}");
    let deleted = &manifest.deleted[0];
    assert_eq!((deleted.track.as_str(), deleted.ledger.ticks()), ("100-webcam", 0));
    assert!(deleted.ledger.captures_balance());
    (deleted.ledger.received, deleted.ledger.discarded["deleted"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_of_a_live_recording_goes_and_the_others_go_on() {
    const RECORDING: &str = "one-less";
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = meeting(&server, RECORDING).await;
    let path = |track: &str| format!("/api/v1/recordings/{RECORDING}/tracks/{track}");
    for (track, status) in [("100-webcam", 202), ("100-webcam", 202), ("102-webcam", 404), ("100-screenshare", 404)] {
        assert_eq!(server.delete(&path(track)).await.status, status, "{track}");
    }
    assert_eq!(server.delete("/api/v1/recordings/never-was/tracks/100-webcam").await.status, 404);
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    bot.send_event(RECORDING, 100, "webcam_off", 6.9).await;
    send(&mut bot, RECORDING, &cameras, 14..20).await;
    bot.send_event(RECORDING, 100, "leave", 11.0).await;
    track_gone(&folders, RECORDING).await;
    assert_eq!(server.get(&format!("/media/{RECORDING}/100-webcam/index.m3u8")).await.status, 404);
    let deleted = "tilecast_captures_discarded_total{kind=\"webcam\",reason=\"deleted\"}";
    assert_eq!(server.metrics().await.get(deleted), 6.0);
    // A later process knows of it.
    assert_eq!(server.terminate().await.code(), Some(0));
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 20..24).await;
    let manifest = server.finish(RECORDING).await;
    assert_eq!(deleted_books(&manifest), (24, 24));
    check_finished(&folders, &manifest).await;
    assert_eq!(manifest.tracks[0].ledger.encoded, 24);
    track_gone(&folders, RECORDING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_track_goes_through_a_kill_right_after_the_answer() {
    for (recording, live) in [("finished", false), ("still-live", true)] {
        let folders = Folders::new();
        let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
        let bot = meeting(&server, recording).await;
        server.drained(recording).await;
        if !live {
            server.finish(recording).await;
        }
        let path = format!("/api/v1/recordings/{recording}/tracks/100-webcam");
        assert_eq!(server.delete(&path).await.status, 202);
        server.kill().await;
        drop(bot);
        let server = Server::start_in(&folders, &FLAGS, &[]).await;
        track_gone(&folders, recording).await;
        assert_eq!(server.delete(&path).await.status, 202, "it is known");
        let manifest = server.finish(recording).await;
        let (received, discarded) = deleted_books(&manifest);
        assert!(
            received == discarded && received >= 12,
            "what was in no part may be lost with the process: {received}"
        );
        check_finished(&folders, &manifest).await;
        assert_eq!(deleted_books(&folders.manifest(recording).unwrap()).0, received);
    }
}

/// Who shows two things is named for as long as one of them is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_participant_is_forgotten_with_the_last_track() {
    const RECORDING: &str = "two-of-one";
    let folders = Folders::new();
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_event(RECORDING, 100, "join", 0.0).await;
    for camera in [Camera::new(1, Kind::Webcam), Camera::new(1, Kind::Screenshare), Camera::new(2, Kind::Webcam)] {
        let participant = if camera.label(0).participant == 2 { 101 } else { 100 };
        for tick in 0..8 {
            let (kind, png) = (camera.label(0).kind, camera.base64(tick));
            bot.send_picture(RECORDING, participant, kind, crate::bot::at(tick), &png).await;
        }
    }
    bot.taken().await;
    server.finish(RECORDING).await;
    let delete = async |track: &str| {
        let path = format!("/api/v1/recordings/{RECORDING}/tracks/{track}");
        assert_eq!(server.delete(&path).await.status, 202);
        until("it is deleted", || async {
            let manifest = server.manifest(RECORDING).await;
            manifest.deleted.iter().any(|deleted| deleted.track == track).then_some(())
        })
        .await;
    };
    delete("100-screenshare").await;
    assert_eq!(server.manifest(RECORDING).await.tracks[0].participant.name.as_deref(), Some(NAME));
    assert!(grep(&folders, NAME).contains(&format!("{RECORDING}/events.jsonl")));
    delete("100-webcam").await;
    track_gone(&folders, RECORDING).await;
    assert_eq!(server.manifest(RECORDING).await.deleted.len(), 2);
    check_finished(&folders, &server.manifest(RECORDING).await).await;
}
