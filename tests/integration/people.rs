//! What becomes of people in a meeting: they change their names, become hosts, leave and come back, write in the chat. Each
//! of it is in `events.jsonl` with its tick, and what is private in no file.

use serde_json::{Value, json};
use tilecast::media::{GapReason, Kind};
use tilecast::pipeline::store::manifest::Gap;

use crate::bot::{Bot, Camera, ORIGIN, at, event, picture};
use crate::harness::{Server, files};
use crate::playback::{check_finished, lines, track};

const RECORDING: &str = "people";
const EMAILS: [&str; 2] = ["ana@example.com", "ana@example.org"];
const CHAT: &str = "the secret word is swordfish";

/// What the bot says of a participant at some tick: name, host, address.
fn describe(message: &mut Value, tick: u32) {
    let who = &mut message["data"]["data"]["participant"];
    let ana = who["id"] == 100;
    who["name"] = if ana && tick >= 8 { "Ana B." } else { "Ana" }.into();
    who["is_host"] = (ana && tick >= 12).into();
    who["email"] = if ana { EMAILS[usize::from(tick >= 14)] } else { "ben@example.com" }.into();
}

/// Two of the same name. One is renamed (an event says so), made host, given another address (pictures alone say so), leaves
/// at 16 and comes back at 24 under the same id; from 30 on under a new one.
async fn meeting(server: &Server) {
    let cameras = [Camera::new(1, Kind::Webcam), Camera::new(2, Kind::Webcam), Camera::new(3, Kind::Webcam)];
    let mut bot = Bot::connect(&server.ws()).await;
    for tick in 0..36 {
        let events = match tick {
            0 => vec![(100, "join"), (200, "join")],
            5 => vec![(200, "chat_message")],
            7 => vec![(200, "speech_on")],
            8 => vec![(100, "update")],
            16 => vec![(100, "leave")],
            24 => vec![(100, "join")],
            30 => vec![(100, "leave"), (300, "join")],
            _ => vec![],
        };
        for (who, action) in events {
            let mut message = event(RECORDING, who, action, at(tick));
            describe(&mut message, tick);
            if action == "chat_message" {
                message["data"]["data"]["data"] = json!({ "text": CHAT, "to": "everyone" });
            }
            bot.send_json(&message).await;
        }
        for (who, camera) in [100, 200, 300].into_iter().zip(&cameras) {
            let there = match who {
                100 => tick < 16 || (24..30).contains(&tick),
                300 => tick >= 30,
                _ => true,
            };
            if there {
                let mut message = picture(RECORDING, who, Kind::Webcam, at(tick), &camera.base64(tick));
                describe(&mut message, tick);
                bot.send_json(&message).await;
            }
        }
        if tick == 15 {
            // Half-dead sockets say again what was: old names are no news.
            let mut again = picture(RECORDING, 100, Kind::Webcam, at(3), &cameras[0].base64(3));
            describe(&mut again, 3);
            bot.send_json(&again).await;
        }
    }
    bot.close().await;
}

/// Tick, participant, event, name, host, detail.
type Line = (i64, i64, String, String, bool, Value);

fn events(server: &Server) -> Vec<Line> {
    let lines: Vec<Value> = lines(&server.folders.recording(RECORDING).join("events.jsonl"));
    let of_people = lines.iter().filter(|line| line["participant"].is_object());
    let read = |line: &Value| {
        let (tick, who) = (line["tick"].as_i64().unwrap(), &line["participant"]);
        let time = tilecast::clock::rfc3339(ORIGIN + tilecast::media::Micros(tick * 500_000));
        // Before the first picture nothing says when tick 0 was.
        assert!(line["time"] == time.as_str() || (tick == 0 && line["time"].is_null()), "{line}");
        assert_eq!((&line["schema"], &line["relative"]), (&json!(1), &json!(tick as f64 / 2.0)), "{line}");
        (
            tick,
            who["id"].as_str().unwrap().parse().unwrap(),
            line["event"].as_str().unwrap().to_owned(),
            who["name"].as_str().unwrap().to_owned(),
            who["is_host"].as_bool().unwrap(),
            line["detail"].clone(),
        )
    };
    of_people.map(read).collect()
}

fn expected(chat: Value) -> Vec<Line> {
    let line = |tick, who, event: &str, name: &str, host, detail| (tick, who, event.into(), name.into(), host, detail);
    let null = || Value::Null;
    vec![
        line(0, 100, "join", "Ana", false, null()),
        line(0, 200, "join", "Ana", false, null()),
        line(5, 200, "chat_message", "Ana", false, chat),
        line(7, 200, "speech_on", "Ana", false, null()),
        line(8, 100, "update", "Ana B.", false, json!({ "changed": ["name"] })),
        line(12, 100, "update", "Ana B.", true, json!({ "changed": ["is_host"], "by": "picture" })),
        line(16, 100, "leave", "Ana B.", true, null()),
        line(24, 100, "join", "Ana B.", true, null()),
        line(30, 100, "leave", "Ana B.", true, null()),
        line(30, 300, "join", "Ana", false, null()),
    ]
}

/// Asserts that no file below the server's folders says any of this.
fn assert_unsaid(server: &Server, words: &[&str]) {
    for folder in [server.folders.store(), server.folders.spool()] {
        for (name, path) in files(&folder) {
            let bytes = std::fs::read(&path).unwrap_or_default();
            let said = words.iter().find(|word| bytes.windows(word.len()).any(|window| window == word.as_bytes()));
            assert_eq!(said, None, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_and_event_is_told_with_its_tick() {
    let server = Server::start(&["--segment", "2s"]).await;
    meeting(&server).await;
    server.drained(RECORDING).await;
    let private = [EMAILS[0], EMAILS[1], "ben@example.com", CHAT, "swordfish"];
    assert_unsaid(&server, &private);
    let manifest = server.finish(RECORDING).await;
    assert_eq!(events(&server), expected(Value::Null));
    assert_unsaid(&server, &private);
    let log = server.log().join("\n");
    assert!(!private.iter().any(|word| log.contains(word)), "{log}");

    // The same id is the same track, another one is another track, the same name is nothing.
    let shown = check_finished(&server.folders, &manifest).await;
    let gap = |from_tick, to_tick, reason| Gap { from_tick, to_tick, reason };
    let ana = track(&manifest, "100-webcam");
    assert_eq!((ana.participant.name.as_deref(), ana.participant.is_host), (Some("Ana B."), Some(true)));
    assert_eq!(ana.gaps, [gap(16, 24, GapReason::NotJoined), gap(30, 36, GapReason::NotJoined)]);
    assert_eq!(track(&manifest, "300-webcam").gaps, [gap(0, 30, GapReason::NotJoined)]);
    assert_eq!((manifest.tracks.len(), ana.epochs.len()), (3, 1));
    let numbers: Vec<_> = shown["100-webcam"].iter().map(|shown| shown.number()).collect();
    assert_eq!(
        numbers,
        (0..36).map(|tick| (tick < 16 || (24..30).contains(&tick)).then_some(tick)).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_is_kept_where_that_was_asked_for() {
    let server = Server::start(&["--outputs", "hls", "--store-chat"]).await;
    meeting(&server).await;
    server.finish(RECORDING).await;
    assert_eq!(events(&server), expected(json!({ "text": CHAT, "to": "everyone" })));
    assert_unsaid(&server, &EMAILS);
}
