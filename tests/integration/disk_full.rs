//! The spool's quota is used up in the middle of a meeting: captures are shed and counted, everybody can see why, what was
//! named stays, and the meeting goes on when another one made room.

use tilecast::media::{GapReason, Kind};
use tilecast::pipeline::store::manifest::State;
use tilecast::pipeline::verify::{Options, verify_recording};

use crate::bot::{Bot, Camera, at};
use crate::harness::{Server, files, spooled, until};
use crate::playback::{check_finished, track};

/// Of which an eighth is kept for journals and playlists.
const QUOTA: u64 = 512 << 10;
const TRACK: &str = "100-webcam";

fn playlist(server: &Server, recording: &str) -> String {
    std::fs::read_to_string(server.folders.recording(recording).join(TRACK).join("index.m3u8")).unwrap_or_default()
}

async fn spool_used(server: &Server) -> u64 {
    server.metrics().await.get("tilecast_spool_used_bytes") as u64
}

/// Sends whole segments from this tick on until `enough`; gives the next tick.
async fn send_until(
    server: &Server,
    bot: &mut Bot,
    recording: &str,
    first: u32,
    enough: impl AsyncFn(&Server) -> bool,
) -> u32 {
    let camera = Camera::new(3, Kind::Webcam);
    for tick in first..first + 2000 {
        bot.send_tick(recording, 100, &camera, tick).await;
        if tick % 12 == 11 {
            bot.taken().await;
            server.drained(recording).await;
            if enough(server).await {
                return tick + 1;
            }
        }
    }
    panic!("2000 pictures are not enough");
}

async fn is_full(server: &Server) -> bool {
    server.get("/readyz").await.status == 503
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_is_told_and_left_behind() {
    let server = Server::start(&["--spool-quota", "512KiB", "--segment", "2s"]).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    let mut bot = Bot::connect(&server.ws()).await;
    send_until(&server, &mut bot, "first", 0, async |server| spool_used(server).await > QUOTA / 2).await;
    let mut other = Bot::connect(&server.ws()).await;
    let next = send_until(&server, &mut other, "second", 0, is_full).await;
    let next = send_until(&server, &mut other, "second", next, async |_| true).await;
    // What follows is a gap for another reason.
    other.send_event("second", 100, "webcam_off", at(next)).await;
    other.taken().await;

    // Everybody can see it.
    assert_eq!(server.get("/readyz").await.text(), "spool_full\n");
    let metrics = server.metrics().await;
    assert_eq!((metrics.get("tilecast_spool_full"), metrics.get("tilecast_spool_quota_bytes")), (1.0, QUOTA as f64));
    let used = spool_used(&server).await;
    assert!((QUOTA * 3 / 4..=QUOTA).contains(&used), "{used}");
    let recording = server.recording("second").await;
    assert_eq!(recording["now"]["spool_full"], true);
    let shed = recording["tracks"][0]["ledger"]["discarded"]["spool_full"].as_u64().expect("captures are shed");
    assert!(shed >= 12, "{shed}");
    let gaps = recording["tracks"][0]["gaps"].as_array().unwrap();
    let gap = gaps.iter().find(|gap| gap["reason"] == "spool_full").expect("a gap for that reason");
    assert_eq!(gap["to_tick"].as_u64(), Some(u64::from(next)), "{gaps:?}");
    assert_eq!(metrics.get("tilecast_captures_discarded_total{kind=\"webcam\",reason=\"spool_full\"}"), shed as f64);
    let named = until("the second playlist to stand still", async || {
        let before = playlist(&server, "second");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        (playlist(&server, "second") == before && !before.is_empty()).then_some(before)
    })
    .await;

    // Another meeting ends and leaves the spool.
    drop(bot);
    let first = server.finish("first").await;
    check_finished(&server.folders, &first).await;
    until("there is room", async || (!is_full(&server).await).then_some(())).await;
    assert_eq!(server.recording("second").await["now"]["spool_full"], false);
    let camera = Camera::new(3, Kind::Webcam);
    // Further on than the clock went meanwhile.
    for tick in next + 480..next + 492 {
        other.send_tick("second", 100, &camera, tick).await;
    }
    other.taken().await;
    let second = server.finish("second").await;
    assert_eq!(second.state, State::Finished);
    let shown = check_finished(&server.folders, &second).await;
    assert_eq!(shown[TRACK][next as usize + 490].number(), Some(next + 490));
    let track = track(&second, TRACK);
    assert_eq!((track.ledger.discarded["spool_full"], track.ledger.received), (shed, u64::from(next) + 12));
    assert_eq!(track.epochs.len(), 2, "{:?}", track.epochs);
    assert!(track.gaps.iter().any(|gap| gap.reason == GapReason::SpoolFull), "{:?}", track.gaps);
    for id in ["first", "second"] {
        let report = verify_recording(&server.folders.recording(id), Options { decode: true }, &mut |_| {});
        assert!(report.is_well(), "{id}: {:?}", report.findings.told);
    }
    assert!(playlist(&server, "second").starts_with(&named));
    for segment in named.lines().filter(|line| !line.starts_with('#')) {
        assert!(server.folders.recording("second").join(TRACK).join(segment).exists(), "{segment}");
    }
    told_once(&server).await;
}

/// It is told once, and so is its end; and nothing is left in the spool.
async fn told_once(server: &Server) {
    let events = std::fs::read_to_string(server.folders.recording("second").join("events.jsonl")).unwrap();
    let count = |text: &str| server.log().iter().filter(|line| line.contains(text)).count();
    for (event, line) in [("\"spool_full\"", "the spool is full"), ("\"spool_has_room\"", "the spool has room again")] {
        assert_eq!((events.matches(event).count(), count(line)), (1, 1), "{event}: {events}");
    }
    assert_eq!(count("lost its epoch"), 0);
    // But for the server's own files.
    until("the spool is empty", async || {
        let own: u64 =
            files(&server.folders.spool()).values().map(|path| path.metadata().map_or(0, |meta| meta.len())).sum();
        (spooled(&server.folders).is_empty() && spool_used(server).await == own).then_some(())
    })
    .await;
}
