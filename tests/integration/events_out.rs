//! Events go to a receiver: signed, in order, and once it is there, however often the server was restarted meanwhile; one
//! for each thing that happens to recordings, tracks and bots.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tilecast::http::auth::signature::{SigningKey, Stamp};
use tilecast::media::Kind;

use crate::bot::{BOT_ID, Bot, Camera};
use crate::harness::{Folders, Server, refused, until};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";

/// What came, and how often each is refused before it is taken.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, Value)>>>);

/// Takes events at `address`; each is answered with 500 first. Gives what came, and where it listens.
async fn receive(address: SocketAddr) -> (Received, SocketAddr) {
    let received = Received::default();
    let (taken, tried) = (received.clone(), Arc::new(Mutex::new(Vec::new())));
    let hook = async move |headers: HeaderMap, body: Bytes| {
        let keys = [SigningKey::new(SECRET, "").unwrap()];
        let stamp = Stamp::read(&headers).expect("three headers");
        assert!(stamp.signer(&keys, &body).is_some(), "signed with our secret");
        let id = stamp.id.to_owned();
        let mut tried = tried.lock().unwrap();
        if !tried.contains(&id) {
            tried.push(id);
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        taken.0.lock().unwrap().push((id, serde_json::from_slice(&body).unwrap()));
        StatusCode::NO_CONTENT
    };
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(hook))).await });
    (received, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_told_in_order_and_through_restarts() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}/hook?code=hush");
    let variables = [("TILECAST_WEBHOOK_SECRET", SECRET)];
    let folders = Folders::new();
    // Nobody is there yet.
    let mut server = Server::start_in(&folders, &["--webhook-url", &url], &variables).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in 0..8 {
        bot.send_tick("meeting", 100, &camera, tick).await;
    }
    bot.close().await;
    let manifest = server.finish("meeting").await;
    until("it was tried", || async { server.log_line("an event was not taken") }).await;
    let log = server.log().join("\n");
    assert!(!log.contains("hush") && !log.contains("MDEyMzQ1"), "{log}");
    assert_eq!(server.terminate().await.code(), Some(0));
    let (received, _) = receive(address).await;
    let server = Server::start_in(&folders, &["--webhook-url", &url], &variables).await;
    let events = until("all are told", || async {
        let events = received.0.lock().unwrap().clone();
        (events.len() >= 4).then_some(events)
    })
    .await;
    let names: Vec<&str> = events.iter().map(|(_, event)| event["type"].as_str().unwrap()).collect();
    assert_eq!(names, ["recording.started", "track.started", "track.finished", "recording.finished"]);
    for (_, event) in &events {
        let data = &event["data"];
        assert_eq!((&data["recording_id"], &data["manifest"]), (&"meeting".into(), &"meeting/recording.json".into()));
        assert!(data["tenant"].is_null() && event["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    let finished = &events[3].1["data"];
    assert_eq!((&finished["bot_id"], &finished["metadata"]["bot"]["team"]), (&BOT_ID.into(), &"blue".into()));
    assert_eq!(finished["tracks"][0]["ledger"], serde_json::to_value(&manifest.tracks[0].ledger).unwrap());
    assert_eq!(events[2].1["data"]["track"]["track"], "100-webcam");
    until("all are counted", || async {
        let told = server.metrics().await;
        (told.get("tilecast_events_told_total{reason=\"taken\"}") == 4.0).then_some(())
    })
    .await;
    drop(server);
    for (url, variables) in [("ftp://a/hush", &variables[..]), ("https://a/hush", &[])] {
        let (code, said) = refused(&["--webhook-url", url], variables);
        assert!(code == 2 && said.contains("--webhook-url") && !said.contains("hush"), "{said}");
    }
}

/// The events of a kind of thing so far, by name.
fn told(received: &Received, is: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
    let events = received.0.lock().unwrap().clone();
    let named = |(_, event): (String, Value)| (event["type"].as_str().unwrap().to_owned(), event["data"].clone());
    events.into_iter().map(named).filter(|(_, data)| is(data)).collect()
}

fn of<'a>(recording: &'a str) -> impl Fn(&Value) -> bool + Copy + 'a {
    move |data| data["recording_id"] == recording
}

/// Waits until so many are told; gives their names, and the last one.
async fn names(received: &Received, is: impl Fn(&Value) -> bool + Copy, count: usize) -> (Vec<String>, Value) {
    let events = until("they are told", || async {
        let events = told(received, is);
        (events.len() >= count).then_some(events)
    })
    .await;
    let last = events.last().unwrap().1.clone();
    (events.into_iter().map(|(name, _)| name).collect(), last)
}

const LIFE: [&str; 4] = ["recording.started", "track.started", "track.finished", "recording.finished"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_deletions_and_refusals_are_told() {
    let received = receive(([127, 0, 0, 1], 0).into()).await;
    let url = format!("http://{}/hook", received.1);
    let variables = [("TILECAST_WEBHOOK_SECRET", SECRET)];
    let folders = Folders::new();
    let args = ["--webhook-url", &url, "--lanes-max", "1", "--segment", "2s"];
    let server = Server::start_in(&folders, &args, &variables).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in 0..8 {
        bot.send_tick("doomed", 100, &camera, tick).await;
    }
    bot.taken().await;
    server.drained("doomed").await;
    // The only lane is taken.
    assert_eq!(Bot::dial(&server.ws_of("late")).await.err().map(|(status, _)| status), Some(503));
    let (refused, data) = names(&received.0, |data| data["key"] == "late", 1).await;
    assert_eq!(
        (&*refused, &data["reason"], &data["tenant"]),
        (&["bot.refused".to_owned()][..], &"memory".into(), &Value::Null)
    );

    // Somebody takes away what the spool has of it.
    let track = folders.spool().join("doomed/100-webcam");
    let epoch = std::fs::read_dir(&track).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    std::fs::remove_file(epoch.unwrap().join("journal.jsonl")).unwrap();
    bot.close().await;
    assert_eq!(server.post("/api/v1/recordings/doomed/finish").await.status, 202);
    let (failed, data) = names(&received.0, of("doomed"), 3).await;
    assert_eq!(failed, ["recording.started", "track.started", "recording.failed"]);
    assert_eq!((&data["state"], &data["bot_id"]), (&"failed".into(), &BOT_ID.into()));

    // Deleted while it is live, and after it was finished, by a process that knows of it from the store alone.
    let mut bot = until("there is room again", || async { Bot::dial(&server.ws()).await.ok() }).await;
    for tick in 0..8 {
        bot.send_tick("unwanted", 100, &camera, tick).await;
    }
    bot.taken().await;
    server.drained("unwanted").await;
    assert_eq!(server.delete("/api/v1/recordings/unwanted").await.status, 202);
    bot.close().await;
    let (unwanted, data) = names(&received.0, of("unwanted"), 3).await;
    assert_eq!(unwanted, ["recording.started", "track.started", "recording.deleted"]);
    assert_eq!((&data["state"], &data["bot_id"]), (&"deleted".into(), &BOT_ID.into()));
    assert_eq!(
        (&data["metadata"]["bot"]["team"], &data["manifest"]),
        (&"blue".into(), &"unwanted/deleted.json".into())
    );
    assert_eq!(data["tracks"][0]["ledger"]["received"], 8);

    let mut bot = until("there is room again", || async { Bot::dial(&server.ws()).await.ok() }).await;
    bot.send_tick("old", 100, &camera, 0).await;
    bot.close().await;
    server.finish("old").await;
    assert_eq!(names(&received.0, of("old"), 4).await.0, LIFE);
    drop(server);
    std::fs::remove_dir_all(folders.spool()).unwrap();
    let server = Server::start_in(&folders, &args, &variables).await;
    assert_eq!(server.delete("/api/v1/recordings/old").await.status, 202);
    let (old, data) = names(&received.0, of("old"), 5).await;
    assert_eq!((&*old[4], &data["bot_id"]), ("recording.deleted", &BOT_ID.into()));
    assert_eq!(server.delete("/api/v1/recordings/old").await.status, 202);
    // Each once.
    let ids: Vec<String> = received.0.0.lock().unwrap().iter().map(|(id, _)| id.clone()).collect();
    let once: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(once.len(), ids.len());
}
