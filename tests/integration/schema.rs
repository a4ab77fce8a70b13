//! `recording.json` goes out of step with its published schema: real manifests of every state are held to it, wrong ones
//! are refused, and neither knows a key that the other does not.

use jsonschema::Validator;
use serde_json::{Value, json};
use tilecast::media::{DiscardReason, Kind};

use crate::bot::{Bot, Camera};
use crate::harness::Server;
use crate::playback::lines;

const RECORDING: &str = "7c0e1f0a-1f0b-4f3e-9b7e-1a2b3c4d5e6f";

fn schema() -> Value {
    serde_json::from_str(include_str!("../recording.schema.json")).unwrap()
}

fn complaints(validator: &Validator, manifest: &Value) -> Vec<String> {
    validator.iter_errors(manifest).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// A recording with all there is: two kinds, a gap, a broken capture, a track that never had a picture.
async fn meeting(server: &Server) -> Bot {
    let mut bot = Bot::connect(&server.ws()).await;
    let (webcam, screen) = (Camera::new(1, Kind::Webcam), Camera::new(1, Kind::Screenshare));
    for tick in (0..10).filter(|tick| !(5..8).contains(tick)) {
        bot.send_tick(RECORDING, 100, &webcam, tick).await;
        bot.send_tick(RECORDING, 100, &screen, tick + 3).await;
        if tick == 4 {
            bot.send_event(RECORDING, 100, "webcam_off", 2.5).await;
        }
    }
    bot.send_picture(RECORDING, 200, Kind::Webcam, 1.0, "bm8gcGljdHVyZQ==").await;
    bot.taken().await;
    server.drained(RECORDING).await;
    bot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manifest_keeps_to_the_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut server = Server::start(&["--segment", "2s"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_event("no-picture-yet", 100, "join", 0.0).await;
    bot.taken().await;
    let mut manifests = vec![("live, empty", server.recording("no-picture-yet").await)];

    let second = meeting(&server).await;
    manifests.push(("live", server.recording(RECORDING).await));
    second.close().await;
    let finished = server.finish(RECORDING).await;
    manifests.push(("finished", server.recording(RECORDING).await));
    let stored = server.folders.recording(RECORDING).join("recording.json");
    manifests.push(("finished, in the store", serde_json::from_slice(&std::fs::read(stored).unwrap()).unwrap()));
    assert_eq!(server.terminate().await.code(), Some(0));
    // Even of a recording without any media the events are kept.
    let events: Vec<Value> = lines(&server.folders.recording("no-picture-yet").join("events.jsonl"));
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["join", "sockets_lost", "suspended"]);
    let suspended = server.folders.recording("no-picture-yet").join("recording.json");
    manifests.push(("suspended", serde_json::from_slice(&std::fs::read(suspended).unwrap()).unwrap()));

    for (name, manifest) in &manifests {
        assert!(name.starts_with(manifest["state"].as_str().unwrap()), "{name}: {}", manifest["state"]);
        assert_eq!(complaints(&validator, manifest), Vec::<String>::new(), "{name}: {manifest:#}");
    }
    let [webcam, screen, never] = &finished.tracks[..] else { panic!("three tracks") };
    assert!(!webcam.gaps.is_empty() && !screen.gaps.is_empty() && !webcam.mp4.is_empty() && never.mp4.is_empty());
    same_keys(&schema(), &schema(), &serde_json::to_value(&finished).unwrap(), "recording.json");
    refuses_what_is_wrong(&validator, &manifests[3].1);
    welcomes_what_is_new(&validator, &manifests[3].1);
}

/// Every key of the manifest is described, and every key described is in the manifest.
fn same_keys(schema: &Value, part: &Value, found: &Value, place: &str) {
    let part = match part["$ref"].as_str() {
        Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
        None => part,
    };
    // Of arrays the first entry that is there, where it is described.
    if let (Some(items), Some(first)) = (part.get("items"), found.get(0)) {
        return same_keys(schema, items, first, place);
    }
    let (Some(described), Some(object)) = (part["properties"].as_object(), found.as_object()) else { return };
    // What metadata holds is the bot's business.
    if place.ends_with("metadata") {
        return;
    }
    let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
    let (mut ours, mut theirs) = (keys(object), keys(described));
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{place}");
    for (key, value) in object {
        same_keys(schema, &described[key], value, &format!("{place} {key}"));
    }
}

fn refuses_what_is_wrong(validator: &Validator, good: &Value) {
    let wrong: [(&str, Value); 22] = [
        ("/schema", json!(2)),
        ("/recording_id", json!("")),
        ("/recording_id", json!(17)),
        ("/tenant", json!(17)),
        ("/state", json!("Live!")),
        ("/state", Value::Null),
        ("/origin", json!("yesterday")),
        ("/origin", json!("2026-01-01T10:00:00+02:00")),
        ("/fps", json!(0)),
        ("/fps", json!(2.5)),
        ("/tracks", json!({})),
        ("/tracks/0/track", json!("../../etc-webcam")),
        ("/tracks/0/participant/id", json!(100)),
        ("/tracks/0/width", json!(321)),
        ("/tracks/0/codecs", json!("h264")),
        ("/tracks/0/first_tick", json!("0")),
        ("/tracks/0/epochs/0/epoch", json!("0")),
        ("/tracks/0/epochs/0/init", json!("../init.mp4")),
        ("/tracks/0/gaps/0/reason", json!(3)),
        ("/tracks/0/ledger/encoded", json!(-1)),
        ("/tracks/0/ledger/discarded", json!({ "late": "many" })),
        ("/tracks/0/mp4/0/sha256", json!("abc")),
    ];
    for (place, value) in wrong {
        let mut manifest = good.clone();
        *manifest.pointer_mut(place).unwrap_or_else(|| panic!("{place} in {good:#}")) = value.clone();
        assert!(!validator.is_valid(&manifest), "{place} = {value} is taken");
    }
    for place in ["/state", "/tracks", "/tracks/0/ledger", "/tracks/0/ledger/received", "/tracks/0/mp4/0/ticks"] {
        let mut manifest = good.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        manifest.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
        assert!(!validator.is_valid(&manifest), "it may do without {place}");
    }
}

fn welcomes_what_is_new(validator: &Validator, good: &Value) {
    let mut manifest = good.clone();
    manifest["later"] = json!({ "anything": [] });
    manifest["state"] = json!("archived");
    manifest["tracks"][0]["kind"] = json!("audio");
    manifest["tracks"][0]["gaps"][0]["reason"] = json!("bored");
    manifest["tracks"][0]["gaps"][0]["later"] = json!(1);
    manifest["tracks"][0]["ledger"]["discarded"]["blurred"] = json!(3);
    manifest["tracks"][0]["participant"]["email"] = json!("a@example.com");
    assert_eq!(complaints(validator, &manifest), Vec::<String>::new());
}

#[test]
fn the_schema_names_what_the_program_writes() {
    let schema = schema();
    let discarded = &schema["$defs"]["ledger"]["properties"]["discarded"]["examples"][0];
    for reason in DiscardReason::ALL {
        assert!(discarded.get(reason.name()).is_some(), "{} is not named", reason.name());
    }
    assert!(jsonschema::meta::is_valid(&schema));
}
