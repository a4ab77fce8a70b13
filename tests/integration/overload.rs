//! More live meetings than the machine may carry: encoders become cheaper, new bots are refused in a way that they and
//! balancers understand, a bot whose recording is here gets back in, and when the load falls all is as before.

use std::time::{Duration, Instant};

use serde_json::Value;
use tilecast::media::Kind;

use crate::bot::{Bot, Camera, End};
use crate::harness::{Server, until};
use crate::playback::{check_finished, lines, track};

const RECORDING: &str = "here";
const TRACKS: i64 = 4;

/// A bot of [`TRACKS`] cameras at real-time pace, until it is dropped.
async fn meeting(mut bot: Bot, first: u32) {
    let cameras: Vec<Camera> = (0..TRACKS as u32).map(|n| Camera::sized(n, Kind::Webcam, (640, 360))).collect();
    let mut due = tokio::time::interval(Duration::from_millis(500));
    for tick in first.. {
        due.tick().await;
        for (n, camera) in cameras.iter().enumerate() {
            bot.send_tick(RECORDING, n as i64, camera, tick).await;
        }
    }
}

async fn ready(server: &Server, status: u16) -> String {
    until("/readyz", || async {
        let answer = server.get("/readyz").await;
        (answer.status == status).then(|| answer.text().to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_meetings_are_refused_and_those_that_are_here_go_on() {
    // A hundredth of the machine is all that meetings may take.
    let server = Server::start(&["--segment", "2s", "--load-max", "1%"]).await;
    assert_eq!(ready(&server, 200).await, "ready\n");
    let first = tokio::spawn(meeting(Bot::connect(&server.ws()).await, 0));
    assert_eq!(ready(&server, 503).await, "overloaded\n");
    let refused = server.metrics().await;
    assert_eq!(refused.get("tilecast_overload_level"), 2.0);
    assert!(refused.get("tilecast_load_ratios") >= 0.01);

    let (status, body) = Bot::dial(&server.ws_of("late")).await.err().expect("no room for a new bot");
    assert_eq!((status, &*body), (503, r#"{"error":"overloaded"}"#));
    let head = server.get_with("/ws/recall/late/", &[]).await;
    assert_eq!((head.status, head.header("retry-after")), (503, "3"));

    // Our bot's socket breaks. Whoever dials now may be it, and says so with the first message.
    first.abort();
    let _ = first.await;
    until("the socket is gone", || async { (server.recording(RECORDING).await["now"]["sockets"] == 0).then_some(()) })
        .await;
    let mut other = Bot::dial(&server.ws_of("other")).await.expect("it may be the bot that is awaited");
    let mut silent = Bot::dial(&server.ws_of("silent")).await.expect("it may be the bot that is awaited");
    let again = Bot::dial(&server.ws_of("again")).await.expect("it is the bot that is awaited");
    other.send_tick("new", 1, &Camera::new(1, Kind::Webcam), 0).await;
    let close = |reason: &str| End::Close(1013, reason.to_owned());
    assert_eq!(other.ended().await, close("overloaded"));
    let again = tokio::spawn(meeting(again, 40));
    let start = Instant::now();
    assert_eq!(silent.ended().await, close("overloaded"));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert!(!again.is_finished(), "the recording that is here goes on");
    again.abort();
    let _ = again.await;

    // The load falls: within ten seconds new bots are let in, by the door that refused them.
    let start = Instant::now();
    ready(&server, 200).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    Bot::dial(&server.ws_of("late")).await.expect("there is room again").close().await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.get("tilecast_sockets_refused_total{reason=\"overloaded\"}"), 4.0);
    assert!(server.get("/api/v1/recordings/new").await.status == 404, "nothing was begun for who was refused");

    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;
    assert_eq!(shown.len(), TRACKS as usize);
    for n in 0..TRACKS {
        let track = track(&manifest, &format!("{n}-webcam"));
        assert_eq!(track.ledger.discarded.len(), 0, "{:?}", track.ledger);
        assert_eq!(track.epochs.len(), 1, "other encoder options begin no epoch");
    }
    let events: Vec<Value> = lines(&server.folders.recording(RECORDING).join("events.jsonl"));
    let levels: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "overload")
        .map(|event| event["detail"]["level"].as_str().unwrap())
        .collect();
    assert!(levels.contains(&"refusing"), "{events:#?}");
}
