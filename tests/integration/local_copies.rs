//! `--spool-keep`: a finished recording stays in the spool as a folder that can be read, until its time is over or it is
//! deleted.

use std::path::PathBuf;

use tilecast::media::Kind;
use tilecast::pipeline::verify::{Options, verify_recording};

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, files, until};
use crate::restarts::{FLAGS, send};

const RECORDING: &str = "copied";

fn copy_of(folders: &Folders) -> PathBuf {
    folders.spool().join(".kept").join(RECORDING)
}

/// A meeting of two, finished.
async fn meeting(folders: &Folders, keep: &str) -> Server {
    let server = Server::start_in(folders, &[&FLAGS[..], &["--spool-keep", keep]].concat(), &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_event(RECORDING, 100, "join", 0.0).await;
    send(&mut bot, RECORDING, &[Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)], 0..9).await;
    server.finish(RECORDING).await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_what_the_store_has_and_goes_when_that_is_deleted() {
    let folders = Folders::new();
    let mut server = meeting(&folders, "1h").await;
    let report = verify_recording(&copy_of(&folders), Options { decode: true }, &mut |_| {});
    assert!(report.is_well() && report.tracks.len() == 2, "{:?}", report.findings.told);
    for (name, path) in files(&folders.recording(RECORDING)) {
        let copy = std::fs::read(copy_of(&folders).join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(copy == std::fs::read(path).unwrap(), "{name} differs");
    }
    // A start leaves it.
    assert_eq!(server.terminate().await.code(), Some(0));
    let server = Server::start_in(&folders, &[&FLAGS[..], &["--spool-keep", "1h"]].concat(), &[]).await;
    assert!(copy_of(&folders).join("100-webcam/video.mp4").exists());
    let path = format!("/api/v1/recordings/{RECORDING}");
    assert_eq!(server.delete(&format!("{path}/tracks/100-webcam")).await.status, 202);
    until("the track is gone from both", || async {
        let left = files(&folders.spool()).into_iter().any(|(name, path)| {
            let text = std::fs::read(path).unwrap_or_default();
            let named = text.windows(15).any(|window| window == b"Participant 100");
            named || name.contains("100-webcam")
        });
        (!left).then_some(())
    })
    .await;
    let report = verify_recording(&copy_of(&folders), Options { decode: true }, &mut |_| {});
    assert!(report.is_well() && report.tracks.len() == 1, "{:?}", report.findings.told);
    assert_eq!(server.delete(&path).await.status, 202);
    until("the recording is gone from both", || async { (!copy_of(&folders).exists()).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_time_is_over() {
    let folders = Folders::new();
    let server = meeting(&folders, "3s").await;
    assert!(copy_of(&folders).join("recording.json").exists());
    until("it is gone", || async { (!copy_of(&folders).exists()).then_some(()) }).await;
    assert!(folders.recording(RECORDING).exists(), "the store keeps it");
    drop(server);
}
