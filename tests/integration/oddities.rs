//! What bots and their clocks do now and then, row by row: what is sent, and what a user finds afterwards in tracks, books,
//! decoded pictures, gaps and events. Each row is a recording of its own on one server.
//!
//! Messages that are broken in themselves are in [`crate::bad_messages`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tilecast::clock::rfc3339;
use tilecast::media::{GapReason, Kind, Micros, Tick};
use tilecast::pipeline::store::keys;
use tilecast::pipeline::store::manifest::{Gap, Manifest};

use crate::bot::{Bot, Camera, ORIGIN, at, event, picture};
use crate::harness::Server;
use crate::playback::{check_finished, lines, track};

mod clocks;

/// What a track must be like.
struct Track {
    participant: String,
    /// The number that each tick of the MP4 shows; `None` is black.
    shown: Vec<Option<u32>>,
    discarded: BTreeMap<&'static str, u64>,
    gaps: Vec<Gap>,
}

/// What is sent, and what comes of it.
struct Row {
    name: &'static str,
    messages: Vec<String>,
    /// The bot dials anew before this one of the messages.
    redial: Option<usize>,
    /// From this one on they are sent as fast as they are made.
    pace_from: Option<usize>,
    tracks: Vec<Track>,
    /// Events with their ticks, without those of sockets and of the end.
    events: Vec<(&'static str, Tick)>,
    /// Messages refused, by kind.
    rejected: Vec<(&'static str, u32)>,
    /// Whatever else.
    and: fn(&Manifest),
}

impl Row {
    /// One participant, and nothing is wrong yet.
    fn new(name: &'static str, messages: Vec<Value>, shown: Vec<Option<u32>>) -> Row {
        let messages = messages.iter().map(Value::to_string).collect();
        let (redial, pace_from) = (None, None);
        Row {
            name,
            messages,
            redial,
            pace_from,
            tracks: vec![of("100", shown)],
            events: vec![],
            rejected: vec![],
            and: |_| {},
        }
    }

    fn discards(mut self, reason: &'static str, n: u64) -> Row {
        self.tracks[0].discarded.insert(reason, n);
        self
    }

    fn gap(mut self, from_tick: Tick, to_tick: Tick, reason: GapReason) -> Row {
        self.tracks[0].gaps.push(Gap { from_tick, to_tick, reason });
        self
    }
}

fn of(participant: &str, shown: Vec<Option<u32>>) -> Track {
    Track { participant: participant.to_owned(), shown, discarded: BTreeMap::new(), gaps: vec![] }
}

/// Numbers as they are sent.
fn numbers(range: std::ops::Range<u32>) -> Vec<Option<u32>> {
    range.map(Some).collect()
}

/// One picture held, or black.
fn again(number: Option<u32>, ticks: usize) -> Vec<Option<u32>> {
    vec![number; ticks]
}

/// Makes the messages of a row.
struct Sender<'a> {
    row: &'a str,
    camera: &'a Camera,
}

impl Sender<'_> {
    /// The picture of that number, taken at that tick by both clocks.
    fn on(&self, number: u32, tick: u32) -> Value {
        picture(self.row, 100, Kind::Webcam, at(tick), &self.camera.base64(number))
    }

    /// With clocks of its own, in seconds since the recording's start.
    fn clocks(&self, number: u32, relative: impl Into<Value>, absolute: f64) -> Value {
        let absolute = rfc3339(ORIGIN + Micros::from_secs_f64(absolute).unwrap());
        self.stamped(number, relative, absolute)
    }

    fn stamped(&self, number: u32, relative: impl Into<Value>, absolute: impl Into<Value>) -> Value {
        let mut message = self.on(number, 0);
        message["data"]["data"]["timestamp"] = json!({ "relative": relative.into(), "absolute": absolute.into() });
        message
    }

    fn plain(&self, numbers: std::ops::Range<u32>) -> Vec<Value> {
        numbers.map(|number| self.on(number, number)).collect()
    }

    /// By another participant.
    fn by(&self, mut message: Value, id: impl Into<Value>, name: &str) -> Value {
        message["data"]["data"]["participant"]["id"] = id.into();
        message["data"]["data"]["participant"]["name"] = name.into();
        message
    }

    fn event(&self, action: &str, relative: impl Into<Value>) -> Value {
        let mut message = event(self.row, 100, action, 0.0);
        message["data"]["data"]["timestamp"] = json!({ "relative": relative.into(), "absolute": null });
        message
    }
}

type Make = fn(&str, &Sender<'_>) -> Row;

fn order() -> Vec<(&'static str, Make)> {
    vec![
        ("every message twice", |_, s| {
            let twice = s.plain(0..10).into_iter().flat_map(|message| [message.clone(), message]).collect();
            Row::new("", twice, numbers(0..10)).discards("duplicate", 10)
        }),
        ("all of it again, as after a blip", |_, s| {
            let again = [s.plain(0..10), s.plain(0..12)].concat();
            Row::new("", again, numbers(0..12)).discards("duplicate", 10)
        }),
        ("another picture of the same moment", |_, s| {
            let messages = [s.plain(0..5), vec![s.on(77, 4)], s.plain(5..8)].concat();
            Row::new("", messages, numbers(0..8)).discards("duplicate", 1)
        }),
        ("neighbours swapped", |_, s| {
            let messages = [0, 2, 1, 4, 3, 6, 5, 7].map(|tick| s.on(tick, tick)).to_vec();
            Row::new("", messages, numbers(0..8))
        }),
        ("a time long gone", |_, s| {
            let old = s.clocks(77, 1.25, 1.25);
            Row::new("", [s.plain(0..10), vec![old], s.plain(10..12)].concat(), numbers(0..12)).discards("late", 1)
        }),
    ]
}

fn people() -> Vec<(&'static str, Make)> {
    vec![
        ("two of the same name", |_, s| {
            let both = |tick| [s.by(s.on(tick, tick), 100, "Ana"), s.by(s.on(tick + 50, tick), 200, "Ana")];
            let row = Row::new("", (0..6).flat_map(both).collect(), numbers(0..6));
            let and = |manifest: &Manifest| {
                assert!(manifest.tracks.iter().all(|track| track.participant.name.as_deref() == Some("Ana")));
            };
            Row { tracks: row.tracks.into_iter().chain([of("200", numbers(50..56))]).collect(), and, ..row }
        }),
        ("a name of 10,000 characters", |_, s| {
            let name = "é".repeat(10_000);
            let messages = s.plain(0..6).into_iter().map(|message| s.by(message, 100, &name)).collect();
            let and = |manifest: &Manifest| {
                assert_eq!(manifest.tracks[0].participant.name, Some("é".repeat(512)), "1024 bytes, no half character");
            };
            Row { and, ..Row::new("", messages, numbers(0..6)) }
        }),
        ("a name that would be a path, and markup", |_, s| {
            let name = "../../etc/passwd\u{0}<script>\n\"";
            let messages = s.plain(0..6).into_iter().map(|message| s.by(message, 100, name)).collect();
            Row::new("", messages, numbers(0..6))
        }),
        ("an id as a number and as text", |_, s| {
            let id = |tick| if tick % 2 == 0 { json!(100) } else { json!("100") };
            Row::new("", (0..8).map(|tick| s.by(s.on(tick, tick), id(tick), "Ana")).collect(), numbers(0..8))
        }),
        ("ids negative, huge and strange", |_, s| {
            let ids = [json!(-5), json!(u64::MAX), json!("../../x"), json!("ü"), json!("1e3"), json!("a".repeat(256))];
            let all = |tick| ids.clone().map(|id| s.by(s.on(tick, tick), id, "Ana"));
            let messages = (0..4).flat_map(all).collect();
            let texts = ["-5", "18446744073709551615", "../../x", "ü", "1e3"].map(str::to_owned);
            let texts = texts.into_iter().chain(["a".repeat(256)]);
            Row { tracks: texts.map(|id| of(&id, numbers(0..4))).collect(), ..Row::new("", messages, vec![]) }
        }),
        ("an id of 40 digits", |_, s| {
            let digits = "1234567890".repeat(4);
            let mut row = Row::new("", s.plain(0..4), vec![]);
            row.messages.iter_mut().for_each(|text| *text = text.replace("\"id\":100,", &format!("\"id\":{digits},")));
            Row { tracks: vec![of(&digits, numbers(0..4))], ..row }
        }),
        ("ids that are none", |_, s| {
            let ids = [json!(""), json!("a".repeat(257)), json!(1.5), json!(true), json!(null), json!([])];
            let odd = ids.map(|id| s.by(s.on(77, 3), id, "Ana"));
            let row = Row::new("", [s.plain(0..3), odd.to_vec(), s.plain(3..6)].concat(), numbers(0..6));
            Row { rejected: vec![("wrong_shape", 6)], ..row }
        }),
    ]
}

async fn rejected(server: &Server) -> BTreeMap<String, f64> {
    server.metrics().await.labelled("tilecast_messages_rejected_total")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oddities_have_the_outcome_that_a_user_would_want() {
    let server = Server::start(&["--segment", "2s"]).await;
    let camera = Camera::new(1, Kind::Webcam);
    for (n, (name, make)) in [order(), clocks::rows(), people()].into_iter().flatten().enumerate() {
        let recording = format!("row-{n}");
        let row = Row { name, ..make(name, &Sender { row: &recording, camera: &camera }) };
        let before = rejected(&server).await;
        let mut bot = Bot::connect(&server.ws()).await;
        for (n, message) in row.messages.iter().enumerate() {
            if row.redial == Some(n) {
                bot.close().await;
                bot = Bot::connect(&server.ws()).await;
            }
            if row.pace_from.is_some_and(|from| n > from && n < from + 5) {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            bot.send_text(message.clone()).await;
        }
        bot.close().await;
        let manifest = server.finish(&recording).await;
        check(&server, &row, &manifest).await;
        let mut counted = rejected(&server).await;
        counted.retain(|label, count| {
            *count -= before.get(label).copied().unwrap_or(0.0);
            *count != 0.0
        });
        let expected = row.rejected.iter().map(|(kind, n)| (format!("reason=\"{kind}\""), f64::from(*n)));
        assert_eq!(counted, expected.collect(), "{name}");
    }
}

async fn check(server: &Server, row: &Row, manifest: &Manifest) {
    let name = row.name;
    let shown = check_finished(&server.folders, manifest).await;
    assert_eq!(manifest.tracks.len(), row.tracks.len(), "{name}");
    for expected in &row.tracks {
        let key = keys::track(&expected.participant, Kind::Webcam);
        let lane = track(manifest, &key);
        assert_eq!(lane.participant.id, expected.participant, "{name}");
        let seen: Vec<Option<u32>> = shown[&key].iter().map(|shown| shown.number()).collect();
        assert_eq!(seen, expected.shown, "{name}: {key}");
        let discarded: BTreeMap<&str, u64> = lane.ledger.discarded.iter().map(|(why, n)| (&**why, *n)).collect();
        assert_eq!(discarded, expected.discarded, "{name}: {key}");
        assert_eq!(lane.gaps, expected.gaps, "{name}: {key}");
    }
    let events: Vec<Value> = lines(&server.folders.recording(&manifest.recording_id).join("events.jsonl"));
    let told = events.iter().map(|line| (line["event"].as_str().unwrap(), line["tick"].as_i64().unwrap()));
    let told: Vec<(&str, Tick)> = told.filter(|(event, _)| !matches!(*event, "sockets_lost" | "finished")).collect();
    assert_eq!(told, row.events, "{name}");
    (row.and)(manifest);
}
