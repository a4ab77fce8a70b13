//! A bot sends what it must not: each bad message costs exactly itself. The socket stays, the other participants and the
//! later captures of the same lane are in the MP4 at their ticks, and every message is counted by its kind.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use serde_json::{Value, json};
use tilecast::media::{GapReason, Kind};
use tokio_tungstenite::tungstenite::Message;

use crate::bot::{Bot, Camera, at, base64, picture};
use crate::harness::{Server, until};
use crate::playback::{check_finished, track};

const RECORDING: &str = "bad-messages";
/// Who misbehaves, and who does not.
const BAD: i64 = 100;
const GOOD: i64 = 200;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Its picture is in the output.
    Taken,
    /// It is no capture, and counted for this reason.
    Rejected(&'static str),
    /// It is a capture, and its picture is lost for this reason.
    Undecodable(&'static str),
    /// It is a capture whose time is not believed.
    BadTimestamp,
    /// It is another event, and counted by name.
    Ignored(&'static str),
}
use Fate::*;

type Case = (&'static str, Fate, Box<dyn Fn(&Camera, u32) -> Message>);

fn case(name: &'static str, fate: Fate, make: impl Fn(&Camera, u32) -> Message + 'static) -> Case {
    (name, fate, Box::new(make))
}

fn text(message: Value) -> Message {
    Message::text(message.to_string())
}

/// A good message, before it is bent.
fn good(camera: &Camera, tick: u32) -> Value {
    picture(RECORDING, BAD, Kind::Webcam, at(tick), &camera.base64(tick))
}

/// A message whose JSON is bent.
fn bent(name: &'static str, fate: Fate, bend: impl Fn(&mut Value) + 'static) -> Case {
    case(name, fate, move |camera, tick| {
        let mut message = good(camera, tick);
        bend(&mut message);
        text(message)
    })
}

/// A message whose PNG is bent.
fn broken(name: &'static str, fate: Fate, bend: impl Fn(Vec<u8>) -> Vec<u8> + 'static) -> Case {
    case(name, fate, move |camera, tick| {
        text(picture(RECORDING, BAD, Kind::Webcam, at(tick), &base64(&bend(camera.png(tick)))))
    })
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = (data.len() as u32).to_be_bytes().to_vec();
    chunk.extend(kind);
    chunk.extend(data);
    chunk.extend(crc32fast::hash(&chunk[4..]).to_be_bytes());
    chunk
}

/// Signature and IHDR of a PNG of that size, and nothing else.
fn header(width: u32, height: u32) -> Vec<u8> {
    let ihdr = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &ihdr)].concat()
}

/// A picture's PNG with a chunk behind IHDR, and at the end of its image data other bytes.
fn with_chunk(mut png: Vec<u8>, chunk: Vec<u8>) -> Vec<u8> {
    png.splice(33..33, chunk);
    png
}

fn zeros(megabytes: usize) -> Vec<u8> {
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    let megabyte = vec![0; 1 << 20];
    (0..megabytes).for_each(|_| zlib.write_all(&megabyte).unwrap());
    zlib.finish().unwrap()
}

/// Where the first chunk of that kind begins.
fn find(png: &[u8], kind: &[u8; 4]) -> usize {
    png.windows(4).position(|four| four == kind).expect("the chunk is there") - 4
}

fn not_messages() -> Vec<Case> {
    vec![
        case("text", Rejected("not_json"), |_, _| Message::text("hello")),
        case("empty text", Rejected("not_json"), |_, _| Message::text("")),
        case("half an object", Rejected("not_json"), |camera, tick| {
            let whole = good(camera, tick).to_string();
            Message::text(whole[..whole.len() / 2].to_owned())
        }),
        case("binary rubbish", Rejected("not_utf8"), |_, _| Message::binary(vec![0xff; 100])),
        case("a number", Rejected("wrong_shape"), |_, _| Message::text("17")),
        case("no event", Rejected("wrong_shape"), |_, _| text(json!({ "data": {} }))),
        case("no data", Rejected("wrong_shape"), |_, _| text(json!({ "event": "video_separate_png.data" }))),
        bent("no buffer", Rejected("wrong_shape"), |message| {
            message["data"]["data"].as_object_mut().unwrap().remove("buffer");
        }),
        bent("a number for the buffer", Rejected("wrong_shape"), |m| m["data"]["data"]["buffer"] = json!(5)),
        bent("a text for relative", Rejected("wrong_shape"), |m| {
            m["data"]["data"]["timestamp"]["relative"] = json!("12.5");
        }),
        bent("no timestamp", Rejected("wrong_shape"), |m| m["data"]["data"]["timestamp"] = Value::Null),
        bent("an object for the participant's id", Rejected("wrong_shape"), |m| {
            m["data"]["data"]["participant"]["id"] = json!({});
        }),
        bent("another type of picture", Rejected("wrong_shape"), |m| m["data"]["data"]["type"] = json!("hologram")),
        bent("no recording", Rejected("wrong_shape"), |m| m["data"]["recording"] = Value::Null),
        bent("an empty recording id", Rejected("wrong_shape"), |m| m["data"]["recording"]["id"] = json!("")),
        bent("a recording id of 1000 letters", Rejected("wrong_shape"), |m| {
            m["data"]["recording"]["id"] = json!("a".repeat(1000));
        }),
        bent("a time that nobody lives to see", BadTimestamp, |m| {
            m["data"]["data"]["timestamp"] = json!({ "relative": 1e18, "absolute": null });
        }),
        case("another event", Ignored("transcript.data"), |_, _| {
            text(json!({ "event": "transcript.data", "data": { "words": [] } }))
        }),
        case("another event, nested 10,000 deep", Ignored("deep.data"), |_, _| {
            let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
            Message::text(format!(r#"{{"event":"deep.data","data":{open}{close}}}"#))
        }),
    ]
}

fn not_pictures() -> Vec<Case> {
    vec![
        bent("not base64", Undecodable("bad_base64"), |m| m["data"]["data"]["buffer"] = json!("iVBO*&^%")),
        bent("base64 of the URL alphabet", Undecodable("bad_base64"), |m| {
            let url = m["data"]["data"]["buffer"].as_str().unwrap().replace('/', "_").replace('+', "-");
            m["data"]["data"]["buffer"] = url.into();
        }),
        bent("an empty buffer", Undecodable("truncated"), |m| m["data"]["data"]["buffer"] = json!("")),
        broken("a JPEG", Undecodable("not_png"), |_| b"\xff\xd8\xff\xe0 JFIF and so on and so forth".to_vec()),
        broken("the first half", Undecodable("truncated"), |png| png[..png.len() / 2].to_vec()),
        broken("all but IEND", Undecodable("truncated"), |png| png[..png.len() - 12].to_vec()),
        broken("too few rows", Undecodable("truncated"), |png| [header(320, 181), png[33..].to_vec()].concat()),
        broken("4097 pixels in a row", Undecodable("too_large"), |_| header(4097, 1)),
        broken("4096x2161", Undecodable("too_large"), |_| header(4096, 2161)),
        broken("2^31 - 1 on both sides", Undecodable("too_large"), |_| header(0x7fff_ffff, 0x7fff_ffff)),
        broken("no width", Undecodable("zero_size"), |png| [header(0, 180), png[33..].to_vec()].concat()),
        broken("a wrong CRC of image data", Undecodable("corrupt"), |mut png| {
            let at = find(&png, b"IDAT");
            png[at + 8 + 20] ^= 1;
            png
        }),
        broken("a wrong CRC of IHDR", Undecodable("corrupt"), |mut png| {
            png[30] ^= 1;
            png
        }),
        broken("a wrong Adler-32", Undecodable("corrupt"), |png| {
            // The last IDAT of a template is an empty block and the checksum.
            let end = png.len() - 12;
            let mut last = png[end - 10..end - 4].to_vec();
            last[5] ^= 1;
            [&png[..end - 18], &chunk(b"IDAT", &last), &chunk(b"IEND", &[])].concat()
        }),
        broken("an animation", Undecodable("animated"), |png| {
            with_chunk(png, chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]))
        }),
    ]
}

fn odd_but_good() -> Vec<Case> {
    vec![
        bent("unknown keys", Taken, |m| {
            m["new"] = json!([1, 2]);
            m["data"]["new"] = json!({ "deep": {} });
            m["data"]["data"]["new"] = json!("key");
            m["data"]["data"]["participant"]["extra_data"] = json!({ "zoom": { "conf_user_id": 1 } });
        }),
        bent("describing fields of other types", Taken, |m| {
            m["data"]["data"]["participant"]["name"] = json!(17);
            m["data"]["data"]["participant"]["is_host"] = json!("yes");
            m["data"]["bot"] = Value::Null;
            m["data"]["realtime_endpoint"]["metadata"] = Value::Null;
        }),
        bent("a wrong absolute time", Taken, |m| m["data"]["data"]["timestamp"]["absolute"] = json!("yesterday")),
        bent("the id as a text", Taken, |m| m["data"]["data"]["participant"]["id"] = json!(BAD.to_string())),
        case("JSON in a binary message", Taken, |camera, tick| {
            Message::binary(good(camera, tick).to_string().into_bytes())
        }),
        case("escaped slashes", Taken, |camera, tick| {
            Message::text(good(camera, tick).to_string().replace('/', r"\/"))
        }),
        broken("bytes behind IEND", Taken, |png| [png, b"nobody's".to_vec()].concat()),
        bent("no padding", Taken, |m| {
            let bare = m["data"]["data"]["buffer"].as_str().unwrap().trim_end_matches('=').to_owned();
            m["data"]["data"]["buffer"] = bare.into();
        }),
    ]
}

/// Chunks that would inflate to 256 MB: they do not touch pixels, and are never inflated.
fn bombs() -> Vec<Case> {
    let zeros = std::sync::Arc::new(zeros(256));
    let of = |kind: &'static [u8; 4], name: &'static [u8]| {
        let zeros = zeros.clone();
        move |png| with_chunk(png, chunk(kind, &[name, &[0, 0], &zeros].concat()))
    };
    vec![broken("an iCCP bomb", Taken, of(b"iCCP", b"icc")), broken("a zTXt bomb", Taken, of(b"zTXt", b"Comment"))]
}

/// What `/metrics` counts of messages that became no picture: (reason or event, count), sorted.
async fn counted(server: &Server) -> Vec<(String, f64)> {
    let metrics = server.metrics().await;
    let mut counted: Vec<(String, f64)> = metrics.labelled("tilecast_messages_rejected_total").into_iter().collect();
    counted.extend(metrics.labelled("tilecast_messages_ignored_total"));
    counted.extend(metrics.labelled("tilecast_captures_discarded_total"));
    counted
}

/// The same, as the table says after these fates.
fn expected(fates: &[Fate]) -> Vec<(String, f64)> {
    let mut counts: Vec<(String, f64)> = Vec::new();
    let mut count = |label: String| match counts.iter_mut().find(|(known, _)| *known == label) {
        Some((_, count)) => *count += 1.0,
        None => counts.push((label, 1.0)),
    };
    for fate in fates {
        match fate {
            Taken => {}
            Rejected(reason) => count(format!("reason=\"{reason}\"")),
            Undecodable(reason) => {
                count(format!("reason=\"{reason}\""));
                count("kind=\"webcam\",reason=\"undecodable\"".to_owned());
            }
            BadTimestamp => count("kind=\"webcam\",reason=\"bad_timestamp\"".to_owned()),
            Ignored(event) => count(format!("event=\"{event}\"")),
        }
    }
    counts.sort_by(|a, b| a.0.cmp(&b.0));
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bad_message_costs_exactly_itself() {
    let server = Server::start(&["--segment", "2s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let (bad, good) = (Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam));
    let cases: Vec<Case> = [not_messages(), not_pictures(), odd_but_good(), bombs()].into_iter().flatten().collect();
    let mut fates = Vec::new();
    for (n, (name, fate, make)) in cases.iter().enumerate() {
        let tick = 2 * n as u32;
        bot.send_tick(RECORDING, BAD, &bad, tick).await;
        bot.send_tick(RECORDING, GOOD, &good, tick).await;
        bot.send(make(&bad, tick + 1)).await;
        bot.send_tick(RECORDING, GOOD, &good, tick + 1).await;
        fates.push(*fate);
        let expected = expected(&fates);
        bot.taken().await;
        until(&format!("{name} is counted: {expected:?}"), || async {
            let mut counted = counted(&server).await;
            counted.sort_by(|a, b| a.0.cmp(&b.0));
            (counted == expected).then_some(())
        })
        .await;
    }
    let end = 2 * cases.len() as u32;
    bot.send_tick(RECORDING, BAD, &bad, end).await;
    bot.send_tick(RECORDING, GOOD, &good, end).await;
    assert_eq!(server.metrics().await.get("tilecast_sockets"), 1.0);
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    let shown = check_finished(&server.folders, &manifest).await;

    // Nobody else noticed anything.
    let numbers: Vec<Option<u32>> = shown["200-webcam"].iter().map(|shown| shown.number()).collect();
    assert_eq!(numbers, (0..=end).map(Some).collect::<Vec<_>>());
    let ledger = &track(&manifest, "200-webcam").ledger;
    assert_eq!((ledger.received, ledger.encoded), (u64::from(end) + 1, u64::from(end) + 1));

    // The lane of the bad ones shows the good ones at their ticks, and the picture before in place of a bad one.
    let count = |of: fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count() as u64;
    for (n, (name, fate, _)) in cases.iter().enumerate() {
        let tick = 2 * n as u32;
        let after = if *fate == Taken { tick + 1 } else { tick };
        let seen = [0, 1].map(|k| shown["100-webcam"][(tick + k) as usize].number());
        assert_eq!(seen, [Some(tick), Some(after)], "{name}");
    }
    assert_eq!(shown["100-webcam"][end as usize].number(), Some(end));
    let lane = track(&manifest, "100-webcam");
    let taken = count(|fate| *fate == Taken);
    assert_eq!(lane.ledger.encoded, cases.len() as u64 + 1 + taken);
    assert_eq!(lane.ledger.discarded["undecodable"], count(|fate| matches!(fate, Undecodable(_))));
    assert_eq!(lane.ledger.discarded["bad_timestamp"], count(|fate| *fate == BadTimestamp));
    assert_eq!(lane.ledger.held, cases.len() as u64 - taken);
    // A hole that a broken capture left says so; one of a message that was no capture is an ordinary hold.
    for (n, (name, fate, _)) in cases.iter().enumerate() {
        let tick = 2 * n as i64 + 1;
        let gap = lane.gaps.iter().find(|gap| (gap.from_tick..gap.to_tick).contains(&tick)).map(|gap| gap.reason);
        let expected = matches!(fate, Undecodable(_)).then_some(GapReason::Undecodable);
        assert_eq!(gap, expected, "{name}");
    }
    assert!(manifest.tracks.len() == 2, "no message opened a lane of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_inflate_to_256_megabytes_is_not_inflated() {
    let server = Server::start(&["--outputs", "hls"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in 0..4 {
        bot.send_tick(RECORDING, BAD, &camera, tick).await;
    }
    bot.taken().await;
    server.drained(RECORDING).await;
    let before = server.memory_peak();
    for (tick, (_, _, make)) in (4..).zip(bombs()) {
        bot.send(make(&camera, tick)).await;
    }
    bot.close().await;
    let manifest = server.finish(RECORDING).await;
    assert_eq!(manifest.tracks[0].ledger.encoded, 6);
    let grown = server.memory_peak() - before;
    assert!(grown < 32 << 20, "{grown} bytes");
}
