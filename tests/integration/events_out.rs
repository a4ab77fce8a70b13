//! Events go to a receiver: signed, in order, and once it is there, however often the server was restarted meanwhile.

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

/// Takes events at `address`; each is answered with 500 first.
async fn receive(address: SocketAddr) -> Received {
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
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(hook))).await });
    received
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
    let received = receive(address).await;
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
