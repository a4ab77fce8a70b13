//! What a meeting costs in requests: counted where they arrive, and told for an hour of a participant.
//!
//! `make price` plays a whole hour, thirty times as fast as meetings are, with every clock of the server set thirty times
//! faster as well; the test plays two minutes of it.

use std::time::Duration;

use tilecast::media::Kind;

use crate::bot::{Bot, Camera};
use crate::harness::{Folders, Server};
use crate::s3::S3;

/// So much faster than a meeting.
const FASTER: u32 = 30;
const PARTICIPANTS: u32 = 4;
/// The defaults of 30 s and 180 s, so much faster.
const FLAGS: [&str; 4] = ["--store-playlist-every", "1s", "--reconnect-grace", "6s"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_of_a_participant_costs_so_many_requests() {
    let minutes = std::env::var("TILECAST_PRICE_MINUTES").map_or(2, |text| text.parse::<u32>().expect("minutes"));
    let (s3, folders) = (S3::start().await, Folders::new());
    let (url, variables) = (s3.url(), s3.variables());
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
    let server = Server::start_in(&folders, &[&FLAGS[..], &["--store", &url]].concat(), &variables).await;
    let before = server.metrics().await.labelled("tilecast_store_requests_total");
    let mut bot = Bot::connect(&server.ws()).await;
    let cameras: Vec<Camera> = (0..PARTICIPANTS).map(|n| Camera::new(n, Kind::Webcam)).collect();
    let mut every = tokio::time::interval(Duration::from_millis(500) / FASTER);
    let ticks = minutes * 120;
    for tick in 0..ticks {
        every.tick().await;
        for (n, camera) in cameras.iter().enumerate() {
            bot.send_tick("priced", 100 + n as i64, camera, tick).await;
        }
    }
    bot.taken().await;
    server.drained("priced").await;
    bot.close().await;
    let manifest = server.finish("priced").await;
    assert!(manifest.tracks.iter().all(|track| track.ledger.encoded == u64::from(ticks)), "{manifest:?}");
    let mut requests = server.metrics().await.labelled("tilecast_store_requests_total");
    for (operation, count) in before {
        *requests.entry(operation).or_default() -= count;
    }
    // MP4s of more than one part are put in parts.
    let puts =
        ["put", "put_part"].iter().filter_map(|name| requests.get(&format!("operation=\"{name}\""))).sum::<f64>();
    assert_eq!(puts, s3.requests()["PUT"] as f64, "the server counts what the store counts");
    let hours = f64::from(PARTICIPANTS * minutes) / 60.0;
    let per_hour = |count: f64| count / hours;
    let all_puts: f64 =
        requests.iter().filter(|(name, _)| name.contains("put") || name.contains("list")).map(|one| one.1).sum();
    let gets: f64 =
        requests.iter().filter(|(name, _)| name.contains("get") || name.contains("head")).map(|one| one.1).sum();
    // A segment each 6 s; what is beside it is less than as much again, and what comes once a meeting.
    let segments = f64::from(PARTICIPANTS * minutes * 10);
    assert!(
        puts >= segments && puts <= segments * 2.0 + f64::from(PARTICIPANTS) * 8.0 + 12.0,
        "{segments}: {requests:?}"
    );
    eprintln!("{PARTICIPANTS} participants, {minutes} minutes: {requests:?}");
    eprintln!(
        "a participant-hour: {:.0} PUT and LIST, {:.0} GET and HEAD; at 0.005 and 0.0004 USD for a thousand {:.2} cents",
        per_hour(all_puts),
        per_hour(gets),
        (per_hour(all_puts) * 0.005 + per_hour(gets) * 0.0004) / 10.0
    );
}
