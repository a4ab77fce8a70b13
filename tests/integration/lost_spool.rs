//! A server dies and its disk with it, or its bot comes to another machine: the recording goes on from what the store has,
//! or is finished with that.

use std::collections::BTreeSet;

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::{Manifest, State};

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, files, spooled, until};
use crate::playback::{check_finished, track};
use crate::restarts::{playlist, send};

const FLAGS: [&str; 4] = ["--segment", "2s", "--reconnect-grace", "3s"];

/// The keys of a store, but for signs of life.
fn keys(folders: &Folders) -> BTreeSet<String> {
    files(&folders.store()).into_keys().collect()
}

/// A server that had two tracks, eight seconds of each, of which the store has three segments; killed, its spool gone.
async fn lost(folders: &Folders, recording: &str, flags: &[&str]) -> Vec<String> {
    let mut server = Server::start_in(folders, flags, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    bot.send_event(recording, 100, "join", 0.0).await;
    send(&mut bot, recording, &cameras, 0..14).await;
    let tracks = ["100-webcam", "101-webcam"];
    let named = |track: &str| playlist(folders, recording, track).matches(".m4s").count();
    until("three segments are in the store", || async { tracks.iter().all(|track| named(track) >= 3).then_some(()) })
        .await;
    server.kill().await;
    std::fs::remove_dir_all(folders.spool()).unwrap();
    tracks.iter().map(|track| playlist(folders, recording, track)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_that_redials_goes_on_in_the_same_recording() {
    const RECORDING: &str = "disk-gone";
    let folders = Folders::new();
    let flags = ["--segment", "2s"];
    let published = lost(&folders, RECORDING, &flags).await;
    assert!(folders.store().join("_live/_/disk-gone.json").exists());

    let mut server = Server::start_in(&folders, &flags, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    send(&mut bot, RECORDING, &cameras, 24..36).await;
    assert!(server.log_line("took a recording up from the store alone").is_some());
    let live = server.recording(RECORDING).await;
    assert_eq!((live["state"].as_str(), live["tracks"].as_array().map(Vec::len)), (Some("live"), Some(2)));
    // And once more, by a process that finds it in its spool.
    assert_eq!(server.terminate().await.code(), Some(0));
    let server = Server::start_in(&folders, &flags, &[]).await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&folders, &manifest).await;
    for (n, name) in ["100-webcam", "101-webcam"].into_iter().enumerate() {
        let track = track(&manifest, name);
        assert_eq!(track.epochs.len(), 2, "{name}");
        assert_eq!(track.participant.name, Some(format!("Participant {}", 100 + n)), "{name}");
        let numbers: Vec<_> = shown[name].iter().map(|shown| shown.number()).collect();
        let expected: Vec<_> = (0..36).map(|tick| (!(12..24).contains(&tick)).then_some(tick)).collect();
        assert_eq!(numbers, expected, "{name}: three segments of before, and all that came after");
        assert_eq!((track.ledger.received, track.ledger.encoded), (24, 24), "{name}");
        assert!(playlist(&folders, RECORDING, name).starts_with(&published[n]), "{name}");
    }
    let keys = keys(&folders);
    assert!(!keys.contains("_live/_/disk-gone.json") && keys.contains("_ended/_/disk-gone.json"), "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains('~')), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_nobody_redials_is_finished_with_what_the_store_has() {
    const RECORDING: &str = "left-behind";
    let folders = Folders::new();
    let published = lost(&folders, RECORDING, &FLAGS).await;
    // Its own server does not come back; another one looks at the same store.
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let manifest = until("it is finished", || async {
        let answer = server.get(&format!("/api/v1/recordings/{RECORDING}")).await;
        let manifest: Manifest = serde_json::from_slice(&answer.body).ok()?;
        (manifest.state == State::Finished).then_some(manifest)
    })
    .await;
    let shown = check_finished(&folders, &manifest).await;
    let numbers: Vec<_> = shown["100-webcam"].iter().map(|shown| shown.number()).collect();
    assert_eq!(numbers, (0..12).map(Some).collect::<Vec<_>>());
    assert!(playlist(&folders, RECORDING, "100-webcam").starts_with(&published[0]));
    until("its sign of life is gone", || async {
        (!folders.store().join("_live/_/left-behind.json").exists()).then_some(())
    })
    .await;
    assert_eq!(spooled(&folders), [""; 0]);
}

/// What does not fit into the spool is left where it is: no meeting is shed for it, and others are not kept from their end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_finds_no_room_costs_nobody_anything() {
    let folders = Folders::new();
    lost(&folders, "too-large", &FLAGS).await;
    // After the other one in every listing.
    lost(&folders, "zz-small", &FLAGS).await;
    let ballast = folders.store().join("too-large/100-webcam/0000000-ballast");
    std::fs::create_dir_all(&ballast).unwrap();
    std::fs::File::create(ballast.join("000099.m4s")).unwrap().set_len(8 << 20).unwrap();
    let server = Server::start_in(&folders, &[&FLAGS[..], &["--spool-quota", "4MiB"]].concat(), &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, "goes-on", &[Camera::new(3, Kind::Webcam)], 0..6).await;
    until("the small one is finished", || async {
        (folders.manifest("zz-small")?.state == State::Finished).then_some(())
    })
    .await;
    let said = server.log_line("cannot finish for others yet").expect("it is told");
    assert!(said.to_string().contains("no room for"), "{said}");
    send(&mut bot, "goes-on", &[Camera::new(3, Kind::Webcam)], 6..12).await;
    bot.close().await;
    assert_eq!(server.get("/readyz").await.status, 200);
    let ledger = &server.finish("goes-on").await.tracks[0].ledger;
    assert!(ledger.received == 12 && !ledger.discarded.contains_key("spool_full"), "{ledger:?}");
    assert!(folders.store().join("_live/_/too-large.json").exists(), "it waits for a server that has room");
}

/// Two servers, one store, two spools: the second one must not end what the first one writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_another_server_writes_is_left_to_it() {
    const RECORDING: &str = "next-door";
    let (folders, other) = (Folders::new(), Folders::new());
    let flags = ["--segment", "2s", "--reconnect-grace", "1s"];
    let first = Server::start_in(&folders, &flags, &[]).await;
    let mut bot = Bot::connect(&first.ws()).await;
    let camera = [Camera::new(1, Kind::Webcam)];
    send(&mut bot, RECORDING, &camera, 0..6).await;
    until("it is in the store", || async { folders.manifest(RECORDING) }).await;
    let spool = other.spool();
    let args = [&flags[..], &["--spool", spool.to_str().unwrap()]].concat();
    let second = Server::start_in(&folders, &args, &[]).await;
    // Several times what it would wait for a sign of life.
    for tick in 6..16 {
        send(&mut bot, RECORDING, &camera, tick..tick + 1).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert!(second.log_line("took a recording up from the store alone").is_none());
    assert_eq!(second.manifest(RECORDING).await.state, State::Live, "it tells what the store has of it");
    // Its writer would put there again what another one deletes.
    assert_eq!(second.delete("/api/v1/recordings/next-door").await.status, 409);
    let manifest = first.finish(RECORDING).await;
    assert_eq!(manifest.tracks[0].ledger.encoded, 16);
    check_finished(&folders, &manifest).await;
}
