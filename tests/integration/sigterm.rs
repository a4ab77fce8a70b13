//! SIGTERM in the middle of a meeting: everything taken so far is in segments that play, the bots are told to dial
//! again, and the process ends in time with 0.

use std::time::{Duration, Instant};

use tilecast::media::{Kind, Tick};
use tilecast::pipeline::store::journal::{PartLine, RunKind};
use tilecast::pipeline::store::manifest::State;
use tilecast::pipeline::store::spool::JOURNAL;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::bot::{Bot, Camera, End};
use crate::harness::{Folders, Server, request};
use crate::playback::{assert_books, check_finished, lines, pictures_so_far};

const RECORDING: &str = "sigterm";
/// Not a whole number of segments, nor of parts.
const TICKS: u32 = 43;

/// The ticks that a track's spool says are in segments, with their kinds, and the numbers of their captures.
fn spooled(folders: &Folders, track: &str) -> Vec<(Tick, RunKind)> {
    let folder = folders.spool().join(RECORDING).join(track);
    let epoch = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let text = std::fs::read_to_string(epoch.unwrap().join(JOURNAL)).unwrap();
    let parts = text.lines().skip(1).map(|line| serde_json::from_str::<PartLine>(line).unwrap());
    let runs = parts.flat_map(|part| part.runs);
    runs.flat_map(|run| (run.tick..run.tick + run.n).map(move |tick| (tick, run.kind))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_keeps_everything_that_was_taken() {
    let mut server = Server::start(&["--segment", "2s"]).await;
    let mut bots = [Bot::connect(&server.ws()).await, Bot::connect(&server.ws()).await];
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Screenshare)];
    for tick in 0..TICKS {
        let relative = crate::bot::at(tick);
        bots[0].send_picture(RECORDING, 100, Kind::Webcam, relative, &cameras[0].base64(tick)).await;
        bots[1].send_picture(RECORDING, 200, Kind::Screenshare, relative, &cameras[1].base64(tick)).await;
    }
    // After the last part nothing but what is discarded: the journals say nothing of it.
    for tick in [TICKS - 1, TICKS - 2] {
        let relative = crate::bot::at(tick);
        bots[0].send_picture(RECORDING, 100, Kind::Webcam, relative, &cameras[0].base64(tick)).await;
    }
    for bot in &mut bots {
        bot.taken().await;
    }
    // Captures may wait in queues, pictures with the encoder: what was taken is not lost for that.
    let start = Instant::now();
    server.signal(rustix::process::Signal::TERM);
    for bot in &mut bots {
        assert_eq!(bot.ended().await, End::Close(1001, "the server is stopping; dial again".to_owned()));
    }
    let status = server.ended().await;
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(server.log_line("stopped").is_some());

    let manifest = server.folders.manifest(RECORDING).expect("the manifest is in the store");
    assert_eq!(manifest.state, State::Suspended);
    assert_eq!(manifest.tracks.len(), 2);
    assert_books(&manifest);
    for track in &manifest.tracks {
        assert_eq!((track.first_tick, track.end_tick), (Some(0), Some(TICKS.into())), "{}", track.track);
        assert_eq!(track.ledger.encoded, u64::from(TICKS), "{}: {:?}", track.track, track.ledger);
        assert!(track.mp4.is_empty() && track.gaps.is_empty());
        let folder = server.folders.recording(RECORDING).join(&track.track);
        let playlist = folder.join("index.m3u8");
        let text = std::fs::read_to_string(&playlist).unwrap();
        assert!(!text.contains("#EXT-X-ENDLIST"), "the next process goes on: {text}");
        let (rest, parsed) = m3u8_rs::parse_media_playlist(text.as_bytes()).unwrap();
        assert!(rest.is_empty() && !parsed.end_list);
        for segment in &parsed.segments {
            assert!(folder.join(&segment.uri).exists(), "{}", segment.uri);
        }
        // The last segment is closed early, and exact.
        let length: f32 = parsed.segments.iter().map(|segment| segment.duration).sum();
        assert_eq!(length, TICKS as f32 / 2.0);
        let numbers: Vec<Option<u32>> =
            pictures_so_far(&playlist).into_iter().map(|(_, shown)| shown.number()).collect();
        assert_eq!(numbers, (0..TICKS).map(Some).collect::<Vec<_>>(), "{}", track.track);
        // The spool has what the next process needs to go on: all of it, in whole parts.
        let expected: Vec<_> = (0..TICKS.into()).map(|tick| (tick, RunKind::Picture)).collect();
        assert_eq!(spooled(&server.folders, &track.track), expected);
    }
    let events: Vec<serde_json::Value> = lines(&server.folders.recording(RECORDING).join("events.jsonl"));
    assert_eq!(events.last().unwrap()["event"], "suspended");
    let reached = std::net::TcpStream::connect(server.public);
    assert!(reached.is_err(), "nobody listens any more");
    let server = Server::start_in(&server.folders, &["--segment", "2s"], &[]).await;
    let again = server.finish(RECORDING).await;
    check_finished(&server.folders, &again).await;
    for (track, before) in again.tracks.iter().zip(&manifest.tracks) {
        assert_eq!(track.ledger, before.ledger, "the books go on where they were");
    }
    assert_eq!(again.tracks[0].ledger.discarded["duplicate"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_right_after_the_last_manifest_leaves_the_recording_finished() {
    let mut server = Server::start(&["--segment", "2s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(1, Kind::Screenshare)];
    for tick in 0..9 {
        for (kind, camera) in [Kind::Webcam, Kind::Screenshare].into_iter().zip(&cameras) {
            bot.send_picture(RECORDING, 100, kind, crate::bot::at(tick), &camera.base64(tick)).await;
        }
    }
    bot.close().await;
    server.post(&format!("/api/v1/recordings/{RECORDING}/finish")).await;
    // Its spool is being cleared at that moment: no pause here.
    let folders = server.folders.clone();
    let finished = || folders.manifest(RECORDING).is_some_and(|manifest| manifest.state == State::Finished);
    let start = Instant::now();
    while !finished() {
        assert!(start.elapsed() < crate::harness::PATIENCE, "it is not finished");
        tokio::task::yield_now().await;
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(finished(), "the last manifest is the last");
    assert!(!folders.spool().join(RECORDING).exists(), "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_nothing_to_do_ends_at_once() {
    let mut server = Server::start(&[]).await;
    // A client that keeps its connection open does not keep the process.
    let idle = TcpStream::connect(server.public).await.unwrap();
    assert_eq!(request(server.public, "GET", "/readyz", &[]).await.status, 200);
    let start = Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_that_does_not_read_its_close_does_not_keep_the_process() {
    let mut server = Server::start(&["--segment", "2s"]).await;
    let mut deaf = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in 0..5 {
        deaf.send_tick(RECORDING, 100, &camera, tick).await;
    }
    deaf.taken().await;
    let start = Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(server.folders.manifest(RECORDING).unwrap().tracks[0].ledger.encoded, 5);
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_process_at_once() {
    let mut server = Server::start(&[]).await;
    // A request that is not complete: the first signal alone gives it half a second to get on with it.
    let mut half = TcpStream::connect(server.public).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    server.signal(rustix::process::Signal::TERM);
    crate::harness::until("the first signal is heard", || async { server.log_line("stopping") }).await;
    let start = Instant::now();
    server.signal(rustix::process::Signal::INT);
    let status = server.ended().await;
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(130));
    drop(half);
}
