//! The machine dies, and with it what the page cache held: journals and lists come back short, segments that were published
//! do not.

use tilecast::media::Kind;
use tilecast::pipeline::store::spool::{JOURNAL, SEGMENTS};

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, until};
use crate::playback::check_finished;
use crate::restarts::{FLAGS, playlist, send};

/// The named segments of a recording in the spool, with their bytes.
fn named_segments(folders: &Folders, recording: &str) -> Vec<(String, Vec<u8>)> {
    let files = crate::harness::files(&folders.spool().join(recording));
    let named = files.into_iter().filter(|(name, _)| name.ends_with(".m4s"));
    named.map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_dies_costs_no_segment_that_was_published() {
    const RECORDING: &str = "power";
    let folders = Folders::new();
    let cameras: Vec<Camera> = (0..4).map(|n| Camera::new(n, Kind::Webcam)).collect();
    let tracks: Vec<String> = (0..4).map(|n| format!("{}-webcam", 100 + n)).collect();
    let mut server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send(&mut bot, RECORDING, &cameras, 0..41).await;
    server.drained(RECORDING).await;
    let all_named = async || (named_segments(&folders, RECORDING).len() == 40).then_some(());
    until("ten segments of each track are named", all_named).await;
    server.kill().await;
    let segments = named_segments(&folders, RECORDING);
    let published: Vec<String> = tracks.iter().map(|track| playlist(&folders, RECORDING, track)).collect();
    // What a lost page cache leaves: nothing at all, the first line, a few, and half a line; the open segment is gone.
    for (n, track) in tracks.iter().enumerate() {
        let files = crate::harness::files(&folders.spool().join(RECORDING).join(track));
        for (name, path) in files {
            if name.ends_with(JOURNAL) || name.ends_with(SEGMENTS) {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.split_inclusive('\n').take([0, 1, 5, 99][n]).collect::<String>();
                let torn = if n == 3 { text.len() / 2 } else { lines.len() };
                std::fs::write(&path, &text[..torn]).unwrap();
            } else if name.ends_with(".open") {
                std::fs::write(&path, b"").unwrap();
            }
        }
    }
    let server = Server::start_in(&folders, &FLAGS, &[]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    assert_eq!(named_segments(&folders, RECORDING), segments, "every named segment is there, byte for byte");
    send(&mut bot, RECORDING, &cameras, 60..80).await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&folders, &manifest).await;
    for (n, name) in tracks.iter().enumerate() {
        for tick in (0..40).chain(60..80) {
            assert_eq!(shown[name][tick].number(), Some(tick as u32), "{name}: tick {tick}");
        }
        let text = playlist(&folders, RECORDING, name);
        assert!(text.starts_with(&published[n]), "{name}: {text}\nafter\n{}", published[n]);
    }
    let verified =
        std::process::Command::new(env!("CARGO_BIN_EXE_tilecast")).arg("verify").arg(folders.store()).output();
    let verified = verified.unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}
