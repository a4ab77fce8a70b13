//! What is sent faster than it can be worked on: the sender waits, by TCP, and loses nothing.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tilecast::media::Kind;

use crate::bot::{Bot, Camera, at, picture};
use crate::harness::{Server, until};
use crate::playback::{check_finished, track};

const RECORDING: &str = "stuck";
const SIZE: (u32, u32) = (640, 360);

/// A disk that does not answer: whoever opens this file to write waits for a reader.
fn block(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// It answers again, and does not have the file.
fn unblock(path: PathBuf) {
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::thread::spawn(move || {
        let mut file = std::fs::File::open(&aside).unwrap();
        std::fs::remove_file(&aside).unwrap();
        file.read_to_end(&mut Vec::new()).unwrap();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_lane_is_stuck_its_sender_cannot_write() {
    let server = Server::start(&["--patience", "1h"]).await;
    // A lane's pictures wait until the recording's state is on the disk.
    let state = server.folders.spool().join(RECORDING).join("state.new");
    block(&state);
    let camera = Camera::sized(1, Kind::Webcam, SIZE);
    let message = |tick| picture(RECORDING, 1, Kind::Webcam, at(tick), &camera.base64(tick)).to_string();
    let length = message(0).len();
    // Much more than queues and the kernel's buffers hold.
    let ticks = (40 << 20) / length as u32;
    let mut bot = Bot::connect(&server.ws()).await;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let mut sending = Box::pin(async move {
        for tick in 0..ticks {
            bot.send_text(message(tick)).await;
            count.fetch_add(length, SeqCst);
        }
        bot.close().await;
    });
    let stuck = tokio::time::timeout(Duration::from_secs(3), &mut sending).await;
    assert!(stuck.is_err(), "the window is closed");
    let metrics = server.metrics().await;
    let taken = metrics.get("tilecast_received_bytes_total");
    // A lane's captures and pictures, and the one that waits.
    assert!((length * 10..=length * 14).contains(&(taken as usize)), "{taken} bytes of {length} each");
    assert_eq!(metrics.get("tilecast_queue_depth{queue=\"captures\"}"), 8.0);
    assert_eq!(metrics.get("tilecast_queue_depth{queue=\"pictures\"}"), 4.0);
    let half = metrics.get("tilecast_half_received_bytes") as usize;
    assert!(half >= length, "the one that waits is counted: {half}");
    assert_eq!(server.get("/healthz").await.status, 200, "only its socket waits");
    // What it could write beyond what was taken lies in the kernel's buffers, of both sides.
    let could_write = written.load(SeqCst);
    assert!(could_write < taken as usize + (16 << 20), "{could_write} bytes written, {taken} taken");
    // No more is taken nor can be written, however long it lasts.
    let _ = tokio::time::timeout(Duration::from_secs(1), &mut sending).await;
    assert_eq!(server.metrics().await.get("tilecast_received_bytes_total"), taken);
    assert_eq!(written.load(SeqCst), could_write);

    unblock(state);
    sending.await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;
    let numbers: Vec<Option<u32>> = shown["1-webcam"].iter().map(|shown| shown.number()).collect();
    assert_eq!(numbers, (0..ticks).map(Some).collect::<Vec<_>>(), "as fast as taken nothing is lost");
    assert!(server.metrics().await.get("tilecast_socket_waited_seconds_total") >= 3.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_real_time_pace_a_stuck_lane_costs_its_siblings_no_more_than_the_patience() {
    const SIBLING: &str = "sibling";
    /// Alone first, for whether a sender keeps the pace of a meeting is known after ten seconds.
    const ALONE: u32 = 22;
    const TICKS: u32 = 50;
    let patience = 1.0;
    let server = Server::start(&["--patience", "1s"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    let mut bot = Bot::connect(&server.ws()).await;
    let state = server.folders.spool().join(RECORDING).join("state.new");
    let mut due = tokio::time::interval(Duration::from_millis(500));
    let mut waited = Vec::new();
    for tick in 0..TICKS {
        due.tick().await;
        if tick == ALONE {
            block(&state);
        }
        if tick >= ALONE {
            bot.send_tick(RECORDING, 1, &camera, tick).await;
            waited.push(server.metrics().await.get("tilecast_socket_waited_seconds_total"));
        }
        bot.send_tick(SIBLING, 1, &camera, tick).await;
    }
    let in_ten_seconds = waited.windows(20).map(|window| window[19] - window[0]).fold(0.0, f64::max);
    assert!(in_ten_seconds <= patience + 0.2, "{in_ten_seconds} s of {patience}: {waited:?}");
    assert!(in_ten_seconds >= patience / 4.0, "the stuck lane did hold the socket: {waited:?}");
    unblock(state);
    bot.close().await;
    let sibling = server.finish(SIBLING).await;
    let stuck = server.finish(RECORDING).await;
    let ledger = |manifest| track(manifest, "1-webcam").ledger.clone();
    assert_eq!(ledger(&sibling).encoded, u64::from(TICKS), "{:?}", ledger(&sibling));
    let shed = ledger(&stuck).discarded.get("shed").copied().unwrap_or(0);
    assert!(shed > 0 && ledger(&stuck).encoded >= 12, "what the queues hold is not lost: {:?}", ledger(&stuck));
    check_finished(&server.folders, &sibling).await;
    check_finished(&server.folders, &stuck).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_full_of_captures_drains() {
    // In flight is what three captures with their pictures need; six lanes want it at once.
    let server = Server::start(&["--in-flight", "3MiB", "--patience", "1h"]).await;
    const TICKS: u32 = 20;
    let bots = (0..3).map(|index| {
        let url = server.ws();
        async move {
            let cameras = [0, 1].map(|n| Camera::sized(n, Kind::Webcam, SIZE));
            let mut bot = Bot::connect(&url).await;
            for tick in 0..TICKS {
                for (n, camera) in cameras.iter().enumerate() {
                    bot.send_tick(&format!("budget-{index}"), n as i64, camera, tick).await;
                }
            }
            bot.close().await;
        }
    });
    futures::future::join_all(bots).await;
    for index in 0..3 {
        let manifest = server.finish(&format!("budget-{index}")).await;
        check_finished(&server.folders, &manifest).await;
        for n in 0..2 {
            assert_eq!(track(&manifest, &format!("{n}-webcam")).ledger.encoded, u64::from(TICKS));
        }
    }
    until("all is given back", || async {
        (server.metrics().await.get("tilecast_in_flight_bytes") == 0.0).then_some(())
    })
    .await;
}
