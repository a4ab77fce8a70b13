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

fn relative_clock() -> Vec<(&'static str, Make)> {
    vec![
        ("relative jumps two hours ahead once", |_, s| {
            let odd = s.clocks(5, 7200.0, 2.5);
            let shown = [numbers(0..5), again(Some(4), 1), numbers(6..12)].concat();
            Row::new("", [s.plain(0..5), vec![odd], s.plain(6..12)].concat(), shown).discards("bad_timestamp", 1)
        }),
        ("both clocks go on twelve minutes later", |_, s| {
            let later = (6..12).map(|number| s.on(number, number + 1440));
            let shown = [numbers(0..6), again(Some(5), 20), again(None, 1420), numbers(6..12)].concat();
            Row::new("", s.plain(0..6).into_iter().chain(later).collect(), shown).gap(26, 1446, GapReason::Unknown)
        }),
        ("relative alone jumps 30 s ahead", |_, s| {
            let ahead = (10..16).map(|number| s.clocks(number, at(number + 60), at(number)));
            let shown = [numbers(0..10), again(Some(9), 20), again(None, 40), numbers(10..16)].concat();
            Row::new("", s.plain(0..10).into_iter().chain(ahead).collect(), shown).gap(30, 70, GapReason::Unknown)
        }),
        ("relative begins anew after a pause", |_, s| {
            let anew = (10..20).map(|number| s.clocks(number, at(number - 10), at(number)));
            let row = Row::new("", s.plain(0..10).into_iter().chain(anew).collect(), numbers(0..20));
            Row { events: vec![("clock_rebased", 12)], ..row }
        }),
        ("a pause, and absolute an hour back", |_, s| {
            let anew = (10..30).map(|number| s.clocks(number, at(number - 10), at(number) - 3600.0));
            let row = Row::new("", s.plain(0..10).into_iter().chain(anew).collect(), numbers(0..30));
            Row { events: vec![("clock_rebased", 12)], ..row }
        }),
        ("a pause, and absolute some seconds back", |_, s| {
            let anew = (20..40).map(|number| s.clocks(number, at(number - 20), at(number) - 5.0));
            let row = Row::new("", s.plain(0..20).into_iter().chain(anew).collect(), numbers(0..40));
            Row { events: vec![("clock_rebased", 22)], ..row }
        }),
        ("a pause without absolute", |_, s| {
            let messages = (0..40).map(|n| s.stamped(n, at(n % 20), json!(null))).collect();
            let row = Row::new("", messages, numbers(0..40));
            // How fast they come tells them from a replay.
            Row { events: vec![("clock_rebased", 22)], pace_from: Some(20), ..row }
        }),
        ("all of it again, without absolute", |_, s| {
            let messages = (0..44).map(|n| s.stamped(n % 22, at(n % 22), json!(null))).collect();
            Row { redial: Some(22), ..Row::new("", messages, numbers(0..22)).discards("duplicate", 22) }
        }),
        ("pictures from before the start", |_, s| {
            let before = [-1.0, -0.5].map(|relative| s.clocks(77, relative, relative));
            let messages = before.into_iter().chain(s.plain(0..6)).collect();
            Row::new("", messages, numbers(0..6)).discards("before_start", 2)
        }),
        ("times that nobody lives to see", |_, s| {
            let odd = [json!(3.0e9), json!(-3.0e9), json!(1e18), json!(-1e300), json!(i64::MAX), json!(u64::MAX)];
            let odd = odd.map(|relative| s.clocks(77, relative, 3.0));
            let messages = [s.plain(0..6), odd.to_vec(), s.plain(6..9)].concat();
            Row::new("", messages, numbers(0..9)).discards("bad_timestamp", 6)
        }),
        ("the first one's time is impossible", |_, s| {
            let messages = [vec![s.clocks(77, 1.0e9, 0.0)], s.plain(0..6)].concat();
            Row::new("", messages, numbers(0..6)).discards("bad_timestamp", 1)
        }),
        ("no number at all", |_, s| {
            let odd = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"];
            let good = s.clocks(77, "RELATIVE", 3.0).to_string();
            let odd = odd.map(|number| good.replace("\"RELATIVE\"", number));
            let mut row = Row::new("", s.plain(0..9), numbers(0..9));
            row.messages.splice(5..5, odd);
            Row { rejected: vec![("not_json", 5)], ..row }
        }),
        ("events at impossible times", |_, s| {
            let odd = [json!(1e300), json!(3.0e9), json!(-3.0e9)].map(|relative| s.event("speech_on", relative));
            let row = Row::new("", [s.plain(0..7), odd.to_vec(), s.plain(7..9)].concat(), numbers(0..9));
            Row { events: vec![("speech_on", 6); 3], ..row }
        }),
        ("a camera that goes off at an impossible time", |_, s| {
            let odd = [3.0e9, -3.0e9].map(|relative| s.event("webcam_off", relative));
            let row = Row::new("", [s.plain(0..7), odd.to_vec(), s.plain(7..9)].concat(), numbers(0..9));
            Row { events: vec![("webcam_off", 6); 2], ..row }
        }),
    ]
}

/// Times that are an hour ahead, and are believed only when nothing contradicts them.
fn far_ahead() -> Vec<(&'static str, Make)> {
    fn origin_is_right(manifest: &Manifest) {
        assert_eq!((manifest.origin.as_deref(), manifest.origin_from_server), (Some(&*rfc3339(ORIGIN)), false));
    }
    vec![
        ("the first one is an hour ahead", |_, s| {
            let row = Row::new("", [vec![s.on(77, 7200)], s.plain(0..9)].concat(), numbers(0..9));
            Row { and: origin_is_right, ..row.discards("bad_timestamp", 1) }
        }),
        ("the first one's relative is an hour ahead", |_, s| {
            let row = Row::new("", [vec![s.clocks(77, 3600.0, 0.0)], s.plain(0..9)].concat(), numbers(0..9));
            Row { and: origin_is_right, ..row.discards("bad_timestamp", 1) }
        }),
        ("the first one is an hour ahead, without absolute", |_, s| {
            let messages = [7200, 0, 1, 2, 3, 4, 5].map(|n| s.stamped(n % 100, at(n), json!(null)));
            let and = |manifest: &Manifest| assert!(manifest.origin.is_some() && manifest.origin_from_server);
            Row { and, ..Row::new("", messages.to_vec(), numbers(0..6)).discards("bad_timestamp", 1) }
        }),
        ("the first one after a redial is an hour ahead", |_, s| {
            let messages = [s.plain(0..6), vec![s.on(77, 7206)], s.plain(6..20)].concat();
            Row { redial: Some(6), ..Row::new("", messages, numbers(0..20)).discards("bad_timestamp", 1) }
        }),
        ("back after fifteen minutes", |_, s| {
            let later = (6..12).map(|number| s.on(number, number + 1800));
            let shown = [numbers(0..6), again(Some(5), 3), again(None, 1797), numbers(6..12)].concat();
            let row = Row::new("", s.plain(0..6).into_iter().chain(later).collect(), shown);
            Row { redial: Some(6), ..row.gap(9, 1806, GapReason::Disconnected) }
        }),
        ("one picture after fifteen minutes, and no more", |_, s| {
            let messages = [s.plain(0..6), vec![s.on(6, 1806)]].concat();
            // It is placed at the end, when the socket is gone: the hole counts as the socket's.
            let shown = [numbers(0..6), again(Some(5), 3), again(None, 1797), numbers(6..7)].concat();
            Row::new("", messages, shown).gap(9, 1806, GapReason::Disconnected)
        }),
    ]
}

fn absolute_clock() -> Vec<(&'static str, Make)> {
    fn origin_is(manifest: &Manifest, seconds: i64) {
        let origin = rfc3339(Micros(ORIGIN.0 + seconds * 1_000_000));
        assert_eq!((manifest.origin.as_deref(), manifest.origin_from_server), (Some(&*origin), false));
    }
    vec![
        ("absolute changes by an hour", |_, s| {
            let messages = (0..20).map(|n| s.clocks(n, at(n), at(n) + if n < 10 { 0.0 } else { 3600.0 })).collect();
            Row { and: |manifest| origin_is(manifest, 0), ..Row::new("", messages, numbers(0..20)) }
        }),
        ("absolute changes by an hour and back", |_, s| {
            let off = |n| if (6..14).contains(&n) { -3600.0 } else { 0.0 };
            let messages = (0..20).map(|n| s.clocks(n, at(n), at(n) + off(n))).collect();
            Row { and: |manifest| origin_is(manifest, 0), ..Row::new("", messages, numbers(0..20)) }
        }),
        ("absolute is a year off all through", |_, s| {
            let messages = (0..8).map(|n| s.clocks(n, at(n), at(n) - 31_536_000.0)).collect();
            Row { and: |manifest| origin_is(manifest, -31_536_000), ..Row::new("", messages, numbers(0..8)) }
        }),
        ("absolute stands still", |_, s| {
            let messages = (0..20).map(|n| s.clocks(n, at(n), 0.0)).collect();
            Row { and: |manifest| origin_is(manifest, 0), ..Row::new("", messages, numbers(0..20)) }
        }),
        ("absolute is of every wrong form", |_, s| {
            let forms = [
                json!("yesterday"),
                json!(17),
                json!(null),
                json!({}),
                json!(""),
                json!("9999-99-99T99:99:99Z"),
                json!("+262000-01-01T00:00:00Z"),
                json!("-9999-01-01T00:00:00Z"),
            ];
            let messages = (0..8).zip(forms).map(|(n, absolute)| s.stamped(n, at(n), absolute)).collect();
            let and = |manifest: &Manifest| assert!(manifest.origin.is_some() && manifest.origin_from_server);
            Row { and, ..Row::new("", messages, numbers(0..8)) }
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
    for (n, (name, make)) in
        [order(), relative_clock(), far_ahead(), absolute_clock(), people()].into_iter().flatten().enumerate()
    {
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
        check(&server, &row, &manifest);
        let mut counted = rejected(&server).await;
        counted.retain(|label, count| {
            *count -= before.get(label).copied().unwrap_or(0.0);
            *count != 0.0
        });
        let expected = row.rejected.iter().map(|(kind, n)| (format!("reason=\"{kind}\""), f64::from(*n)));
        assert_eq!(counted, expected.collect(), "{name}");
    }
}

fn check(server: &Server, row: &Row, manifest: &Manifest) {
    let name = row.name;
    let shown = check_finished(&server.folders, manifest);
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
