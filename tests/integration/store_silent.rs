//! A store that takes connections and never answers: nobody waits for it but uploads, and when it is back all go on at once.

use std::time::{Duration, Instant};

use tilecast::media::Kind;
use tilecast::pipeline::store::manifest::State;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server, until};
use crate::restarts::send;
use crate::s3::{Fault, S3};
use crate::store_faults::{check_stored, media, serve};

const TIMEOUT: [&str; 2] = ["--store-timeout", "2s"];

/// Nothing that is asked gets an answer.
fn hang(s3: &S3) {
    for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
        s3.fault(method, "", Fault::Hang, usize::MAX);
    }
}

/// Sends, and sees the lanes take it at once, whatever the store does.
async fn send_now(server: &Server, bot: &mut Bot, recording: &str, cameras: &[Camera], ticks: std::ops::Range<u32>) {
    let start = Instant::now();
    send(bot, recording, cameras, ticks).await;
    server.drained(recording).await;
    assert!(start.elapsed() < Duration::from_secs(8), "{recording}: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_says_nothing_blocks_nobody() {
    let (s3, folders) = (S3::start().await, Folders::new());
    let mut server = serve(&s3, &folders, &TIMEOUT).await;
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
    let mut bot = Bot::connect(&server.ws()).await;
    send_now(&server, &mut bot, "middle", &cameras, 0..13).await;
    let playlist = async |server: &Server, recording: &str| {
        let answer = server.get(&format!("/media/{recording}/100-webcam/index.m3u8")).await;
        (answer.status, answer.text().matches(".m4s").count())
    };
    until("three segments are named", || async { (playlist(&server, "middle").await == (200, 3)).then_some(()) }).await;
    hang(&s3);
    // In the middle of a meeting: what was named stays named, and nothing more is.
    send_now(&server, &mut bot, "middle", &cameras, 13..25).await;
    assert_eq!(playlist(&server, "middle").await, (200, 3));
    // A new bot: its recording has no place yet, and is kept.
    let mut other = Bot::connect(&server.ws()).await;
    let asked = Instant::now();
    send(&mut other, "new", &cameras, 0..13).await;
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "the store is asked once, and not for long: {:?}",
        asked.elapsed()
    );
    server.drained("new").await;
    assert_eq!(server.manifest("new").await.state, State::Live);
    until("its playlist is on its way", || async { (playlist(&server, "new").await.0 == 503).then_some(()) }).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    // A process that starts now has to put the playlist together again first.
    server.kill().await;
    let server = serve(&s3, &folders, &TIMEOUT).await;
    let soon = server.get("/media/middle/100-webcam/index.m3u8").await;
    assert_eq!((soon.status, soon.header("retry-after")), (503, "1"), "{}", soon.text());
    let mut bot = Bot::connect(&server.ws()).await;
    send_now(&server, &mut bot, "middle", &cameras, 25..33).await;
    send_now(&server, &mut bot, "new", &cameras, 13..21).await;
    bot.close().await;
    let spooled = ["middle", "new"].map(|recording| {
        let folder = std::fs::read_dir(folders.spool()).unwrap().map(|entry| entry.unwrap().path());
        let mut folder = folder.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(recording));
        media(&folder.next().unwrap())
    });
    s3.heal();
    until("it has caught up", || async { (playlist(&server, "middle").await.0 == 200).then_some(()) }).await;
    for (recording, spooled) in ["middle", "new"].into_iter().zip(&spooled) {
        let manifest = server.finish(recording).await;
        check_stored(&s3, &manifest, spooled);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_is_back_all_goes_on_at_once_and_each_change_is_told_once() {
    for hangs in [false, true] {
        let (mut s3, folders) = (S3::start().await, Folders::new());
        let server = serve(&s3, &folders, &TIMEOUT).await;
        let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam)];
        let mut bot = Bot::connect(&server.ws()).await;
        for recording in ["one", "two"] {
            send_now(&server, &mut bot, recording, &cameras, 0..13).await;
        }
        let stored = |recording: &str| media(&s3_folder(&s3, recording)).len();
        until("both are there", || async { (stored("one") + stored("two") >= 16).then_some(()) }).await;
        match hangs {
            false => s3.go_away().await,
            true => hang(&s3),
        }
        for recording in ["one", "two"] {
            send_now(&server, &mut bot, recording, &cameras, 13..33).await;
        }
        let count = |text: &str| server.log().iter().filter(|line| line.contains(text)).count();
        until("it is told", || async { (count("the store is away") > 0).then_some(()) }).await;
        assert_eq!(server.metrics().await.get("tilecast_store_away"), 1.0);
        // Long enough for every object to be at its longest pause.
        let before = s3.requests().values().sum::<usize>();
        tokio::time::sleep(Duration::from_secs(8)).await;
        let asked = s3.requests().values().sum::<usize>() - before;
        assert!(asked <= 12, "one at a time looks whether it is back: {asked} requests in 8 s");
        let back = Instant::now();
        match hangs {
            false => s3.come_back().await,
            true => s3.heal(),
        }
        // Of each track eight segments are closed, and the init segment.
        until("all is there", || async {
            let stored = |recording: &str| media(&s3_folder(&s3, recording)).len();
            (stored("one") + stored("two") >= 2 * 2 * 9).then_some(())
        })
        .await;
        assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
        let count = |text: &str| server.log().iter().filter(|line| line.contains(text)).count();
        assert_eq!((count("the store is away"), count("the store answers again")), (1, 1));
        assert!(count("did not take an object") <= 4, "{}", count("did not take an object"));
        assert_eq!(server.metrics().await.get("tilecast_store_away"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_recordings_are_listed_by_a_process_that_began_without_the_store() {
    let (mut s3, folders) = (S3::start().await, Folders::new());
    let mut server = serve(&s3, &folders, &TIMEOUT).await;
    let mut bot = Bot::connect(&server.ws()).await;
    send_now(&server, &mut bot, "earlier", &[Camera::new(1, Kind::Webcam)], 0..5).await;
    bot.close().await;
    server.finish("earlier").await;
    assert_eq!(server.terminate().await.code(), Some(0));
    s3.go_away().await;
    let server = serve(&s3, &folders, &TIMEOUT).await;
    let list = async || server.get("/api/v1/recordings").await.json()["recordings"].clone();
    assert_eq!(list().await, serde_json::json!([]));
    s3.come_back().await;
    until("it is listed", || async { (list().await[0]["recording_id"] == "earlier").then_some(()) }).await;
}

fn s3_folder(s3: &S3, recording: &str) -> std::path::PathBuf {
    s3.bucket().join("recordings").join(recording)
}
