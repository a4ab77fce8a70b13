//! Three hours of a meeting: tracks that begin late, stop, jitter and run at rates of their own still show the same
//! instant at the same time, in every MP4 and by the dates of every playlist, at the end as at the start.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tilecast::media::{Kind, Tick};

use crate::bot::{Bot, Camera, ORIGIN};
use crate::harness::Server;
use crate::playback::{Shown, check_finished, pictures};

const RECORDING: &str = "three-hours";
const SECONDS: f64 = 10_800.0;
/// Small, for 60,000 pictures: cells of 4 samples.
const SIZE: (u32, u32) = (160, 90);

struct Source {
    participant: i64,
    camera: Camera,
    joins: f64,
    /// Seconds from one picture to the next.
    spacing: f64,
    jitter: f64,
    /// The camera is off in these seconds.
    off: (f64, f64),
}

fn sources() -> Vec<Source> {
    let source = |participant: i64, joins, spacing, jitter, off| {
        let camera = Camera::sized((participant / 100) as u32, Kind::Webcam, SIZE);
        Source { participant, camera, joins, spacing, jitter, off }
    };
    vec![
        source(100, 0.0, 0.5, 0.12, (3_000.0, 4_500.0)),
        source(200, 1_200.3, 0.499, 0.05, (7_000.0, 7_240.0)),
        source(300, 5_400.1, 0.502, 0.2, (9_000.0, 10_000.0)),
    ]
}

/// The instants, in seconds, at which a source sends pictures, in order.
fn instants(source: &Source, seed: u64) -> Vec<f64> {
    let mut dice = StdRng::seed_from_u64(seed);
    let steps = ((SECONDS - source.joins) / source.spacing) as u32;
    let exact = (0..steps).map(|n| source.joins + f64::from(n) * source.spacing);
    let on = exact.filter(|at| !(source.off.0..source.off.1).contains(at));
    let mut at: Vec<f64> = on.map(|at| (at + dice.random_range(-source.jitter..source.jitter)).max(0.0)).collect();
    at.sort_by(f64::total_cmp);
    at
}

/// A picture says the half second of the meeting at which it was taken. It must come up in that one, or in one next to
/// it; the ticks after it may hold it.
#[derive(Default)]
struct InTime(Option<u32>);

impl InTime {
    fn assert(&mut self, what: &str, tick: Tick, shown: Shown) {
        let number = shown.number();
        if let Some(taken) = number
            && number != self.0
        {
            let off = Tick::from(taken) - tick;
            assert!(off.abs() <= 1, "{what}: tick {tick} shows the picture of half second {taken}");
        }
        self.0 = number;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_three_hours_the_tracks_show_the_same_instant() {
    let server = Server::start(&[]).await;
    let sources = sources();
    let mut messages = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        messages.extend(instants(source, n as u64).into_iter().map(|at| (at, n, None)));
        // Behind the last picture, whatever its jitter; a picture behind it would switch the camera on.
        messages.push((source.off.0 + 0.25, n, Some("webcam_off")));
        messages.push((source.off.1 - 0.25, n, Some("webcam_on")));
    }
    messages.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut bot = Bot::connect(&server.ws()).await;
    for (at, n, event) in messages {
        let Source { participant, camera, .. } = &sources[n];
        match event {
            Some(event) => bot.send_event(RECORDING, *participant, event, at).await,
            None => {
                let png = camera.base64((at * 2.0).round() as u32);
                bot.send_picture(RECORDING, *participant, Kind::Webcam, at, &png).await;
            }
        }
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;

    assert_eq!(shown.len(), 3);
    for source in &sources {
        let name = format!("{}-webcam", source.participant);
        let track = &shown[&name];
        let mut in_time = InTime::default();
        for (tick, shown) in track.iter().enumerate() {
            in_time.assert(&name, tick as Tick, *shown);
        }
        // What is not there is what was not sent: the lead-in, the span without camera.
        let seen = track.iter().filter(|shown| shown.number().is_some()).count() as f64;
        let sent = (SECONDS - source.joins - (source.off.1 - source.off.0)) * 2.0;
        assert!((seen - sent).abs() < 8.0, "{name}: {seen} ticks with pictures of {sent}");
        check_dates(&name, &server.folders.recording(RECORDING).join(&name).join("index.m3u8"));
    }
}

/// The playlist by itself: each picture's time by PROGRAM-DATE-TIME is the instant that it shows.
fn check_dates(name: &str, path: &Path) {
    let text = std::fs::read(path).unwrap();
    let (_, playlist) = m3u8_rs::parse_media_playlist(&text).unwrap();
    let mut shown = pictures(path).into_iter().map(|(_, shown)| shown);
    let (mut micros, mut in_time) = (0, InTime::default());
    for segment in &playlist.segments {
        if let Some(date) = segment.program_date_time {
            micros = date.timestamp_micros() - ORIGIN.0;
        } else {
            assert!(micros > 0, "{name}: the first segment has its date");
        }
        for _ in 0..(segment.duration * 2.0) as u32 {
            assert_eq!(micros % 500_000, 0, "{name}: dates are on the grid");
            in_time.assert(name, micros / 500_000, shown.next().expect("as many pictures as the playlist says"));
            micros += 500_000;
        }
    }
    assert!(shown.next().is_none(), "{name}: more pictures than the playlist says");
    assert!(micros > 10_780_000_000, "{name}: the playlist ends at {micros}");
}
