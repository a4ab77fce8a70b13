//! The store is away or says nothing when bots come: what they send is kept in the spool, and lands later, under a name
//! that nothing has.

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::{Manifest, State};

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, files, spooled, until};
use crate::playback::check_finished;
use crate::restarts::{FLAGS, send};

/// Takes the store away and gives it back: an entry that cannot be read as a file.
struct Away(std::path::PathBuf);

impl Away {
    fn of(folders: &Folders) -> Away {
        let root = folders.store().join("_ended");
        if root.exists() {
            std::fs::rename(&root, root.with_extension("hidden")).unwrap();
        }
        std::os::unix::fs::symlink(&root, &root).unwrap();
        Away(root)
    }

    fn comes_back(self) {
        std::fs::remove_file(&self.0).unwrap();
        let hidden = self.0.with_extension("hidden");
        if hidden.exists() {
            std::fs::rename(hidden, &self.0).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_bots_are_kept_in_the_spool_and_land_when_it_is_back() {
    const RECORDING: &str = "while-away";
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let away = Away::of(&folders);
    let camera = [Camera::new(1, Kind::Webcam)];
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &camera, 0..11).await;
    let live = server.recording(RECORDING).await;
    assert_eq!(live["state"], "live");
    until("the API says why nothing lands", || async {
        server.recording(RECORDING).await["now"]["last_error"].is_string().then_some(())
    })
    .await;
    assert!(!folders.recording(RECORDING).exists(), "nothing is put anywhere");
    // A death in the middle of it costs nothing either, but what is in no part yet.
    server.drained(RECORDING).await;
    server.kill().await;
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &camera, 11..20).await;
    assert_eq!(server.metrics().await.sum("tilecast_sockets_refused_total"), 0.0);
    away.comes_back();
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&folders, &manifest).await;
    let missing = shown["100-webcam"].iter().filter(|shown| shown.number().is_none()).count();
    assert!(missing <= 2, "what was in no part when it died: {missing}");
    assert_eq!(manifest.continues, None);
}

/// Its encoder is closed once its media ended, however long the store takes: there is room for another lane.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_keeps_no_new_lane_from_being_opened() {
    let folders = Folders::new();
    let server = Server::start_in(&folders, &[&FLAGS[..], &["--lanes-max", "1"]].concat(), &[]).await;
    let away = Away::of(&folders);
    let camera = [Camera::new(1, Kind::Webcam)];
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, "first", &camera, 0..6).await;
    assert_eq!(server.get("/readyz").await.status, 503, "one lane is all that there may be");
    bot.close().await;
    assert_eq!(server.post("/api/v1/recordings/first/finish").await.status, 202);
    until("there is room for a lane", || async { (server.get("/readyz").await.status == 200).then_some(()) }).await;
    assert_eq!(server.recording("first").await["state"], "finishing", "the store is away");
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, "second", &camera, 0..6).await;
    bot.close().await;
    away.comes_back();
    for recording in ["first", "second"] {
        let manifest = server.finish(recording).await;
        assert_eq!(manifest.tracks[0].ledger.encoded, 6, "{recording}");
        check_finished(&folders, &manifest).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_for_a_deleted_one_meanwhile_goes_as_well() {
    const RECORDING: &str = "unwanted";
    let folders = Folders::new();
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let camera = [Camera::new(1, Kind::Webcam)];
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &camera, 0..6).await;
    bot.close().await;
    server.finish(RECORDING).await;
    let path = format!("/api/v1/recordings/{RECORDING}");
    assert_eq!(server.delete(&path).await.status, 202);
    let stored = || files(&folders.store()).into_keys().collect::<Vec<_>>();
    let left = [format!("_ended/_/{RECORDING}.json"), format!("{RECORDING}/deleted.json")];
    until("it is gone", || async { (stored() == left && spooled(&folders).is_empty()).then_some(()) }).await;
    // One that knows nothing of it, and cannot ask.
    assert_eq!(server.terminate().await.code(), Some(0));
    std::fs::remove_dir_all(folders.spool()).unwrap();
    let away = Away::of(&folders);
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &camera, 6..12).await;
    assert!(!spooled(&folders).is_empty(), "it is kept, for all anybody knows");
    away.comes_back();
    until("that is gone too", || async { (stored() == left && spooled(&folders).is_empty()).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_was_finished_before_is_not_touched_and_what_came_is_the_next() {
    const RECORDING: &str = "twice";
    let folders = Folders::new();
    let camera = [Camera::new(1, Kind::Webcam)];
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &camera, 0..8).await;
    server.finish(RECORDING).await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let bytes = || -> Vec<_> {
        let files = crate::harness::files(&folders.recording(RECORDING));
        files.into_iter().map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
    };
    let before = bytes();

    let away = Away::of(&folders);
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &camera, 8..16).await;
    // Asked to end while nobody knows its name: its media end, and the rest waits.
    assert_eq!(server.post(&format!("/api/v1/recordings/{RECORDING}/finish")).await.status, 202);
    until("it is being finished", || async {
        (server.manifest(RECORDING).await.state == State::Finishing).then_some(())
    })
    .await;
    away.comes_back();
    let again = format!("{RECORDING}~2");
    let manifest = until("it has landed", || async {
        let answer = server.get(&format!("/api/v1/recordings/{again}")).await;
        let manifest: Manifest = serde_json::from_slice(&answer.body).ok()?;
        (manifest.state == State::Finished).then_some(manifest)
    })
    .await;
    assert_eq!((manifest.continues.as_deref(), manifest.tracks[0].ledger.encoded), (Some(RECORDING), 8));
    check_finished(&folders, &manifest).await;
    assert!(bytes() == before, "the first one was changed");
    assert_eq!(server.manifest(RECORDING).await.tracks[0].ledger.encoded, 8);
}
