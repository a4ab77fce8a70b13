//! The main job, whole: three meetings at once, sent as fast as the server takes them, with jitter, duplicates and
//! reordering; every picture is read back from what came out, by our decoder and by FFmpeg's own tools.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tilecast::cli::simulate::bot::participant_id;
use tilecast::cli::simulate::plan::{PlanOptions, Planned, Turn, What, plan};
use tilecast::media::{Kind, Micros};
use tilecast::pipeline::store::keys;
use tilecast::pipeline::store::manifest::{Manifest, State};

use crate::bot::{Bot, Camera};
use crate::harness::{PATIENCE, Server};
use crate::playback::{Shown, check_finished, ffmpeg_times, lines, track};

const BOTS: u32 = 3;

fn options() -> PlanOptions {
    PlanOptions {
        participants: 6,
        screenshares: 2,
        duration: Micros::from_secs(60),
        jitter: Micros(100_000),
        duplicates: 0.02,
        reorder: 0.02,
        seed: 7,
        ..PlanOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_meetings_at_once_come_out_whole() {
    let server = Server::start(&[]).await;
    let report = server.folders.store().with_file_name("report.json");
    let url = server.ws();
    let arguments = ["simulate", "--url", &url, "--bots", "3", "--participants", "6", "--screenshares", "2"];
    let sent = Command::new(env!("CARGO_BIN_EXE_tilecast"))
        .args(arguments)
        .args(["--duration", "60s", "--jitter", "100ms", "--duplicates", "2%", "--reorder", "2%", "--seed", "7"])
        .args(["--speed", "0", "--recording-id", "meeting", "--report", report.to_str().unwrap()])
        .output();
    let sent = tokio::task::spawn_blocking(|| sent).await.unwrap().unwrap();
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));

    let mut encoded = 0;
    for bot in 0..BOTS {
        let id = format!("meeting-{bot}");
        let manifest = server.finish(&id).await;
        let shown = check_finished(&server.folders, &manifest).await;
        assert_eq!(shown.len(), 8, "six cameras and two shares");
        let planned = plan(&options(), bot);
        for participant in 0..6 {
            check_track(&manifest, &shown, &planned, participant, Kind::Webcam);
            if participant < 2 {
                check_track(&manifest, &shown, &planned, participant, Kind::Screenshare);
            }
        }
        encoded += manifest.tracks.iter().map(|track| track.ledger.encoded).sum::<u64>();
        let name = keys::track(&participant_id(1).to_string(), Kind::Webcam);
        let folder = server.folders.recording(&id).join(name);
        check_with_tools(&folder, track(&manifest, folder.file_name().unwrap().to_str().unwrap()).first_tick.unwrap());
    }
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("tilecast_pictures_encoded_total"), encoded as f64);
    assert_eq!(metrics.sum("tilecast_sockets"), 0.0);
    assert_eq!(metrics.sum("tilecast_in_flight_bytes"), 0.0, "whatever was charged is given back");
}

/// Every number that was sent is there once, at its tick, in its track; duplicates alone are discarded.
fn check_track(
    manifest: &Manifest,
    shown: &BTreeMap<String, Vec<Shown>>,
    planned: &[Planned],
    participant: u32,
    kind: Kind,
) {
    let name = keys::track(&participant_id(participant).to_string(), kind);
    let mut relatives = BTreeMap::new();
    let mut repeated = 0;
    for message in planned.iter().filter(|message| message.participant == participant) {
        if let What::Picture { kind: of, number } = message.what
            && of == kind
        {
            relatives.insert(number, message.relative);
            repeated += u64::from(message.turn == Turn::Duplicate);
        }
    }
    let mut found = BTreeSet::new();
    let mut before = None;
    for (tick, shown) in shown[&name].iter().enumerate() {
        let Shown::Number(label) = shown else { continue };
        assert_eq!((label.participant, label.kind), (participant, kind), "{name}: tick {tick}");
        if before == Some(label.number) {
            continue; // held; ticks.jsonl was compared with what is shown
        }
        before = Some(label.number);
        assert!(found.insert(label.number), "{name}: {} is there twice", label.number);
        let off = relatives[&label.number].0 * 2 - tick as i64 * 1_000_000;
        assert!(off.abs() < 1_000_000, "{name}: {} is {off} micro-ticks off", label.number);
    }
    let sent: BTreeSet<u32> = relatives.keys().copied().collect();
    assert_eq!(sent.difference(&found).collect::<Vec<_>>(), Vec::<&u32>::new(), "{name}: missing");
    let ledger = &track(manifest, &name).ledger;
    assert_eq!(ledger.encoded, sent.len() as u64, "{name}: {ledger:?}");
    let expected = BTreeMap::from([("duplicate".to_owned(), repeated)]);
    let expected = if repeated == 0 { BTreeMap::new() } else { expected };
    assert_eq!(ledger.discarded, expected, "{name}");
}

/// What FFmpeg's own tools say: constant 2 fps, time stamps on the grid, no warning.
fn check_with_tools(folder: &Path, first_tick: i64) {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
        let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && warnings.is_empty(), "{program} {arguments:?}: {warnings}");
        String::from_utf8(output.stdout).unwrap()
    };
    let entries = ["-v", "warning", "-select_streams", "v", "-show_entries", "stream=avg_frame_rate,r_frame_rate"];
    let rates = run("ffprobe", &[&entries[..], &["-of", "csv=p=0", "video.mp4"]].concat());
    assert_eq!(rates.trim(), "2/1,2/1");
    for (source, first) in [("video.mp4", 0), ("index.m3u8", first_tick)] {
        let pts = ffmpeg_times(folder, source);
        let step = pts[1] - pts[0];
        for (n, at) in pts.iter().enumerate() {
            assert_eq!(*at, (first as f64 + n as f64) * step, "{source}: picture {n}");
        }
    }
    let text = std::fs::read(folder.join("index.m3u8")).unwrap();
    let (_, playlist) = m3u8_rs::parse_media_playlist(&text).unwrap();
    assert!(playlist.end_list && playlist.independent_segments);
    assert_eq!((playlist.version, playlist.target_duration), (Some(7), 6));
    let seconds: f32 = playlist.segments.iter().map(|segment| segment.duration).sum();
    assert_eq!(seconds, 60.0 - first_tick as f32 / 2.0);
    assert!(playlist.segments.iter().all(|segment| !segment.discontinuity));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_its_bot_replaced_ends_while_the_socket_goes_on() {
    let server = Server::start(&["--segment", "2s", "--reconnect-grace", "1s"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 0..10 {
        bot.send_tick("replaced", 100, &camera, tick).await;
    }
    bot.taken().await;
    // From now on the other one alone, which begins at 0 again.
    let (mut sent, start) = (0, Instant::now());
    let manifest = loop {
        bot.send_tick("present", 100, &camera, sent).await;
        sent += 1;
        let manifest = server.manifest("replaced").await;
        if manifest.state == State::Finished {
            break manifest;
        }
        assert!(start.elapsed() < PATIENCE, "the first one is not finished");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(server.manifest("present").await.state, State::Live);
    bot.close().await;
    let present = server.finish("present").await;
    let shown = check_finished(&server.folders, &manifest).await;
    let numbers = |shown: &[Shown]| shown.iter().map(|shown| shown.number()).collect::<Vec<_>>();
    assert_eq!(numbers(&shown["100-webcam"])[..10], (0..10).map(Some).collect::<Vec<_>>());
    let shown = check_finished(&server.folders, &present).await;
    assert_eq!(numbers(&shown["100-webcam"]), (0..sent).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_beyond_the_limit_and_their_captures_are_counted() {
    let server = Server::start(&["--outputs", "hls", "--recording-lanes-max", "1"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 0..5 {
        for participant in [100, 200, 300] {
            bot.send_tick("crowded", participant, &camera, tick).await;
        }
    }
    bot.taken().await;
    let now = &server.recording("crowded").await["now"];
    assert_eq!((&now["lanes_refused"], &now["captures_refused"]), (&2.into(), &10.into()));
    bot.close().await;
    let manifest = server.finish("crowded").await;
    assert_eq!((manifest.tracks.len(), manifest.tracks[0].ledger.encoded), (1, 5));
    let events: Vec<serde_json::Value> = lines(&server.folders.recording("crowded").join("events.jsonl"));
    let refused = events.iter().filter(|line| line["event"] == "lane_refused");
    assert_eq!(refused.map(|line| line["participant"]["id"].as_str().unwrap()).collect::<Vec<_>>(), ["200", "300"]);
}
