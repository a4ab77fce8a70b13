//! A source that is not always there: a camera that goes off and on, a participant who comes late, one who leaves, a
//! stretch without pictures. Each track says for every tick what it shows, and all tracks keep to one time line.

use std::collections::BTreeMap;

use image::{ImageFormat, Rgb, RgbImage};
use tilecast::media::{GapReason, Kind, Tick};
use tilecast::pipeline::store::journal::{Run, RunKind};
use tilecast::pipeline::store::manifest::{Gap, Manifest};

use crate::bot::{Bot, Camera, ORIGIN, at, base64};
use crate::harness::Server;
use crate::playback::{Shown, check_finished, lines, pictures, track};

/// First tick, ticks, what they show, and why.
type Hole = (Tick, Tick, RunKind, Option<GapReason>);

const RECORDING: &str = "gaps";
const END: u32 = 60;

/// Who is seen when. Ticks in `from..to` of `off` have no pictures; an event at `off.0` says so.
struct Source {
    participant: i64,
    kind: Kind,
    joins: u32,
    leaves: u32,
    /// From, to, and the event that announces it, if one does.
    holes: Vec<(u32, u32, Option<&'static str>)>,
}

fn sources() -> Vec<Source> {
    let source = |participant, kind, joins, leaves, holes| Source { participant, kind, joins, leaves, holes };
    vec![
        source(100, Kind::Webcam, 0, END, vec![]),
        // Off for 8 s: off is no hold, not even for a tick.
        source(200, Kind::Webcam, 0, END, vec![(20, 36, Some("webcam_off"))]),
        // Silent for 4 s, and for 13 s: held up to 5 s.
        source(300, Kind::Webcam, 0, END, vec![(8, 16, None), (30, 56, None)]),
        source(400, Kind::Webcam, 13, END, vec![]),
        source(500, Kind::Webcam, 0, 25, vec![]),
        // A static slide sends nothing; the share goes on.
        source(100, Kind::Screenshare, 5, END, vec![(10, 50, None)]),
        source(200, Kind::Screenshare, 11, END, vec![(30, END, Some("screenshare_off"))]),
    ]
}

impl Source {
    fn has_picture(&self, tick: u32) -> bool {
        (self.joins..self.leaves).contains(&tick)
            && !self.holes.iter().any(|(from, to, _)| (*from..*to).contains(&tick))
    }

    fn events(&self, tick: u32) -> Vec<&'static str> {
        let mut events: Vec<&str> = Vec::new();
        if tick == self.leaves && tick < END {
            events.push("leave");
        }
        for (from, to, name) in &self.holes {
            match name {
                Some(off) if tick == *from => events.push(off),
                Some("webcam_off") if tick == *to => events.push("webcam_on"),
                _ => {}
            }
        }
        events
    }
}

/// The runs of `ticks.jsonl` that are no pictures: first tick, ticks, kind, reason.
fn holes(runs: &[Run]) -> Vec<(Tick, Tick, RunKind, Option<GapReason>)> {
    let without = runs.iter().filter(|run| run.kind != RunKind::Picture);
    without.map(|run| (run.tick, run.n, run.kind, run.reason)).collect()
}

async fn meeting(server: &Server) -> Manifest {
    let sources = sources();
    let cameras: Vec<Camera> =
        sources.iter().map(|source| Camera::new((source.participant / 100) as u32, source.kind)).collect();
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 0..END {
        for (source, camera) in sources.iter().zip(&cameras) {
            for event in source.events(tick) {
                bot.send_event(RECORDING, source.participant, event, at(tick)).await;
            }
            if source.has_picture(tick) {
                bot.send_picture(RECORDING, source.participant, source.kind, at(tick), &camera.base64(tick)).await;
            }
        }
    }
    bot.close().await;
    server.finish(RECORDING).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tick_says_what_it_shows() {
    use GapReason::{CameraOff, NotJoined, Unknown};
    use RunKind::{Filled, Held};
    let server = Server::start(&["--segment", "2s", "--hold-webcam", "5s"]).await;
    let manifest = meeting(&server).await;
    // Among others: ticks.jsonl agrees with the decoded numbers and black, the playlist with the MP4, the ledger with both.
    let shown = check_finished(&server.folders, &manifest).await;
    let end = Tick::from(END);
    let expected: BTreeMap<&str, Vec<Hole>> = BTreeMap::from([
        ("100-webcam", vec![]),
        ("200-webcam", vec![(20, 16, Filled, Some(CameraOff))]),
        ("300-webcam", vec![(8, 8, Held, None), (30, 10, Held, None), (40, 16, Filled, Some(Unknown))]),
        ("400-webcam", vec![(0, 13, Filled, Some(NotJoined))]),
        ("500-webcam", vec![(25, end - 25, Filled, Some(NotJoined))]),
        ("100-screenshare", vec![(0, 5, Filled, Some(NotJoined)), (10, 40, Held, None)]),
        ("200-screenshare", vec![(0, 11, Filled, Some(NotJoined)), (30, end - 30, Filled, Some(CameraOff))]),
    ]);
    assert_eq!(shown.len(), expected.len());
    for (source, name) in sources().iter().zip(manifest_names()) {
        let folder = server.folders.recording(RECORDING).join(&name);
        let runs: Vec<Run> = lines(&folder.join("ticks.jsonl"));
        assert_eq!(holes(&runs), expected[&*name], "{name}");
        for tick in 0..END {
            if source.has_picture(tick) {
                let Shown::Number(label) = shown[&name][tick as usize] else { panic!("{name}: no picture at {tick}") };
                assert_eq!(
                    (i64::from(label.participant) * 100, label.kind, label.number),
                    (source.participant, source.kind, tick)
                );
            }
        }
        // Every picture's line names its capture: the nth that was sent, and when.
        for (n, run) in runs.iter().filter(|run| run.kind == RunKind::Picture).enumerate() {
            assert_eq!((run.capture, run.n, run.relative), (Some(n as u64), 1, Some(at(run.tick as u32))), "{name}");
            assert!(run.png_bytes.is_some_and(|bytes| bytes > 1000) && run.absolute.is_some() && !run.same, "{name}");
        }
        let track = track(&manifest, &name);
        assert_eq!((track.first_tick, track.end_tick), (Some(source.joins.into()), Some(end)), "{name}");
        // The manifest's gaps are what is filled, and what is held for a reason.
        let gap = |(from, ticks, _, reason): (Tick, Tick, RunKind, Option<GapReason>)| {
            Some(Gap { from_tick: from, to_tick: from + ticks, reason: reason? })
        };
        let gaps: Vec<Gap> = expected[&*name].iter().copied().filter_map(gap).collect();
        assert_eq!(track.gaps, gaps, "{name}");
        assert!(track.epochs.len() == 1, "{name}: no gap here is so long that an epoch ends");
        check_dates(&std::fs::read_to_string(folder.join("index.m3u8")).unwrap(), source.joins);
    }
}

fn manifest_names() -> Vec<String> {
    sources().iter().map(|source| format!("{}-{}", source.participant, source.kind)).collect()
}

/// The playlist begins at the first picture, and its cuts are at the same instants as those of all other tracks.
fn check_dates(text: &str, joins: u32) {
    let (_, playlist) = m3u8_rs::parse_media_playlist(text.as_bytes()).unwrap();
    let date = playlist.segments[0].program_date_time.expect("the first segment has its date").timestamp_micros();
    assert_eq!(date - ORIGIN.0, i64::from(joins) * 500_000);
    let mut at = date - ORIGIN.0;
    for segment in &playlist.segments {
        at += (f64::from(segment.duration) * 1e6).round() as i64;
        assert_eq!(at % 2_000_000, 0, "a cut at {at} is not on the recording's grid");
    }
    assert_eq!(at, i64::from(END) * 500_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_is_too_long_is_left_out_of_the_playlist_alone() {
    let server = Server::start(&["--segment", "2s", "--live-fill", "10s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    let other = Camera::new(2, Kind::Webcam);
    // Off for 45 s; the other one is there all the time.
    for tick in 0..120_u32 {
        bot.send_tick(RECORDING, 200, &other, tick).await;
        if tick == 10 {
            bot.send_event(RECORDING, 100, "webcam_off", at(10)).await;
        }
        if !(10..100).contains(&tick) {
            bot.send_tick(RECORDING, 100, &camera, tick).await;
        }
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;
    let numbers = |track: &str| shown[track].iter().map(|shown| shown.number()).collect::<Vec<_>>();
    let expected = |tick: u32| (!(10..100).contains(&tick)).then_some(tick);
    assert_eq!(numbers("100-webcam"), (0..120).map(expected).collect::<Vec<_>>());
    assert_eq!(numbers("200-webcam"), (0..120).map(Some).collect::<Vec<_>>());
    let lane = track(&manifest, "100-webcam");
    assert_eq!(lane.gaps, [Gap { from_tick: 10, to_tick: 100, reason: GapReason::CameraOff }]);
    assert_eq!(lane.epochs.iter().map(|epoch| epoch.first_tick).collect::<Vec<_>>(), [0, 100]);
    let folder = server.folders.recording(RECORDING).join("100-webcam");
    let text = std::fs::read_to_string(folder.join("index.m3u8")).unwrap();
    let (_, playlist) = m3u8_rs::parse_media_playlist(text.as_bytes()).unwrap();
    let back = playlist.segments.iter().position(|segment| segment.discontinuity).expect("a discontinuity");
    let length: f32 = playlist.segments[..back].iter().map(|segment| segment.duration).sum();
    assert_eq!(length, 15.0, "5 s of pictures, and 10 s that are filled");
    let date = playlist.segments[back].program_date_time.expect("a date behind the hole").timestamp_micros();
    assert_eq!(date - ORIGIN.0, 50_000_000);
}

/// A PNG of that size, as base64: what is sent for a camera that is off.
fn placeholder(width: u32, height: u32) -> String {
    let mut png = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, Rgb([200; 3])).write_to(&mut png, ImageFormat::Png).unwrap();
    base64(png.get_ref())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn placeholders_are_not_shown_and_a_real_picture_resumes_the_track() {
    const OFF: std::ops::Range<u32> = 20..36;
    let server = Server::start(&["--segment", "2s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    // With an event, without one, and a share that shrinks; what is sent while they are off.
    let sources = [
        (100, Kind::Webcam, Some("webcam_off"), placeholder(16, 16)),
        (200, Kind::Webcam, None, placeholder(1, 1)),
        (300, Kind::Webcam, None, placeholder(320, 63)),
        (100, Kind::Screenshare, Some("screenshare_off"), placeholder(32, 32)),
    ];
    let cameras: Vec<Camera> = sources.iter().map(|(who, kind, ..)| Camera::new(*who as u32 / 100, *kind)).collect();
    for tick in 0..50 {
        for ((who, kind, event, tiny), camera) in sources.iter().zip(&cameras) {
            if let Some(event) = event.filter(|_| tick == OFF.start) {
                bot.send_event(RECORDING, *who, event, at(tick)).await;
            }
            // The first four ticks too: a camera that is off when its participant joins.
            let off = OFF.contains(&tick) || tick < 4;
            let png = if off { tiny.clone() } else { camera.base64(tick) };
            bot.send_picture(RECORDING, *who, *kind, at(tick), &png).await;
        }
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;
    let gap = |from_tick, to_tick, reason| Gap { from_tick, to_tick, reason };
    let gaps = [gap(0, 4, GapReason::NotJoined), gap(20, 36, GapReason::CameraOff)];
    for (who, kind, ..) in sources {
        let name = format!("{who}-{kind}");
        let lane = track(&manifest, &name);
        assert_eq!((lane.gaps.as_slice(), lane.epochs.len()), (&gaps[..], 1), "{name}");
        assert_eq!((lane.width, lane.height), (Some(320), Some(180)), "{name}");
        assert_eq!(
            (lane.ledger.encoded, lane.ledger.discarded["placeholder"], lane.ledger.held),
            (30, 20, 0),
            "{name}"
        );
        let numbers: Vec<Option<u32>> = shown[&name].iter().map(|shown| shown.number()).collect();
        let expected = |tick| (tick >= 4 && !OFF.contains(&tick)).then_some(tick);
        assert_eq!(numbers, (0..50).map(expected).collect::<Vec<_>>(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_hold_a_gap_shows_the_last_picture() {
    let server = Server::start(&["--segment", "2s", "--live-fill", "5s", "--fill", "hold"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in (3..10).chain(60..70) {
        if tick == 60 {
            bot.send_event(RECORDING, 100, "webcam_off", at(10)).await;
        }
        bot.send_tick(RECORDING, 100, &camera, tick).await;
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    assert_eq!(track(&manifest, "100-webcam").epochs.len(), 2, "the gap outgrew --live-fill");
    let folder = server.folders.recording(RECORDING).join("100-webcam");
    let numbers = |file: &str| pictures(&folder.join(file)).iter().map(|(_, shown)| shown.number()).collect::<Vec<_>>();
    // Nobody was there yet; then the gap holds, in HLS as far as it is filled live.
    let lead_in = (0..3).map(|_| None);
    let shown = |hold: u32| (3..10).chain((0..hold).map(|_| 9)).chain(60..70).map(Some);
    assert_eq!(numbers("index.m3u8"), shown(10).collect::<Vec<_>>());
    assert_eq!(numbers("video.mp4"), lead_in.clone().chain(shown(50)).collect::<Vec<_>>());

    std::fs::remove_file(folder.join("video.mp4")).unwrap();
    let repair = std::process::Command::new(env!("CARGO_BIN_EXE_tilecast"))
        .arg("repair")
        .arg(server.folders.recording(RECORDING))
        .output()
        .unwrap();
    assert!(repair.status.success(), "{repair:?}");
    assert_eq!(numbers("video.mp4"), lead_in.chain(shown(50)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_that_hangs_up_and_dials_again_leaves_a_gap() {
    let server = Server::start(&["--segment", "2s"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 0..10 {
        bot.send_tick(RECORDING, 100, &camera, tick).await;
    }
    bot.close().await;
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 30..40 {
        bot.send_tick(RECORDING, 100, &camera, tick).await;
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;
    // Held for the 2 s in which it might have come back, then a gap.
    let expected = |tick: u32| match tick {
        0..10 | 30..40 => Some(tick),
        10..13 => Some(9),
        _ => None,
    };
    let numbers: Vec<Option<u32>> = shown["100-webcam"].iter().map(|shown| shown.number()).collect();
    assert_eq!(numbers, (0..40).map(expected).collect::<Vec<_>>());
    let lane = &manifest.tracks[0];
    assert_eq!(lane.gaps, [Gap { from_tick: 13, to_tick: 30, reason: GapReason::Disconnected }]);
    assert_eq!(lane.epochs.len(), 1, "a reconnect goes on in the same epoch");
}
