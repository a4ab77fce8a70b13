//! Somebody asks for the wrong thing, or for the right one with an odd name: the API, media addresses, and the options
//! that a start refuses.

use serde_json::{Value, json};
use tilecast::clock::rfc3339;
use tilecast::media::{Kind, Micros};
use tilecast::pipeline::store::manifest::State;

use crate::bot::{BOT_ID, Bot, Camera, ORIGIN, at, picture};
use crate::harness::{Answer, Folders, Server, escape, refused, request, until};
use crate::playback::check_finished;

/// An id of which hardly a letter may stand in an address or a key as it is.
const ODD: &str = "a/b ü?#%&~";

/// A recording that begins some hours after the others, of a bot of its own.
struct Meeting {
    id: &'static str,
    hours: i64,
    bot_id: &'static str,
    metadata: Value,
    participant: Value,
}

fn meetings() -> [Meeting; 4] {
    let meeting = |id, hours, bot_id, metadata| Meeting { id, hours, bot_id, metadata, participant: json!(100) };
    [
        meeting("meeting-1", 0, "bot-1", json!({ "team": "blue", "room": 7 })),
        meeting("meeting-2", 1, "bot-2", json!({ "team": "red" })),
        meeting("meeting-3", 2, "bot-2", json!({ "team": "blue", "room": "7" })),
        Meeting { participant: json!("jo/é 1"), ..meeting(ODD, 3, BOT_ID, json!({ "team": "ünïts & more" })) },
    ]
}

/// Eight ticks of each meeting, taken by the server.
async fn hold(server: &Server, meetings: &[Meeting]) {
    let mut bot = Bot::connect(&server.ws()).await;
    let camera = Camera::new(1, Kind::Webcam);
    for meeting in meetings {
        for tick in 0..8 {
            let base64 = camera.base64(tick);
            let mut message = picture(meeting.id, meeting.participant.clone(), Kind::Webcam, at(tick), &base64);
            let absolute = ORIGIN + Micros::from_secs(meeting.hours * 3600 + i64::from(tick) / 2);
            message["data"]["data"]["timestamp"]["absolute"] = rfc3339(absolute).into();
            message["data"]["bot"]["id"] = meeting.bot_id.into();
            message["data"]["bot"]["metadata"] = meeting.metadata.clone();
            bot.send_json(&message).await;
        }
    }
    bot.close().await;
}

/// The ids of a page of the list, and the cursor of the next.
async fn list(server: &Server, query: &str) -> (Vec<String>, Option<String>) {
    let answer = server.get(&format!("/api/v1/recordings{query}")).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{query}: {}", answer.text());
    let page = answer.json();
    let ids = page["recordings"].as_array().unwrap().iter().map(|one| one["recording_id"].as_str().unwrap().to_owned());
    (ids.collect(), page["next_cursor"].as_str().map(str::to_owned))
}

fn assert_error(answer: &Answer, status: u16, words: &str) {
    assert_eq!((answer.status, answer.header("content-type")), (status, "application/json"), "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let text = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains(words), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_filtered_and_paged() {
    let server = Server::start(&[]).await;
    assert_eq!(list(&server, "").await, (Vec::new(), None));
    hold(&server, &meetings()).await;
    server.finish("meeting-1").await;
    let table: [(&str, &[&str]); 21] = [
        ("", &[ODD, "meeting-3", "meeting-2", "meeting-1"]),
        ("?state=finished", &["meeting-1"]),
        ("?state=live", &[ODD, "meeting-3", "meeting-2"]),
        ("?state=suspended", &[]),
        ("?bot_id=bot-2", &["meeting-3", "meeting-2"]),
        ("?bot_id=bot", &[]),
        // What begins at that very moment is in.
        ("?since=2026-01-01T12:00:00Z", &[ODD, "meeting-3"]),
        ("?since=2026-01-01T12:00:00.001Z", &[ODD]),
        ("?since=2026-01-01T14:00:00%2B02:00", &[ODD, "meeting-3"]),
        ("?since=2026-01-01%2012:00:00", &[ODD, "meeting-3"]),
        ("?since=2030-01-01T00:00:00Z", &[]),
        ("?metadata.team=blue", &["meeting-3", "meeting-1"]),
        ("?metadata.team=%C3%BCn%C3%AFts%20%26%20more", &[ODD]),
        ("?metadata.room=7", &["meeting-3", "meeting-1"]),
        ("?metadata.room=8", &[]),
        ("?metadata.nothing=blue", &[]),
        ("?metadata.team=blue&state=live&bot_id=bot-2", &["meeting-3"]),
        ("?limit=4", &[ODD, "meeting-3", "meeting-2", "meeting-1"]),
        ("?limit=1&state=live&metadata.team=blue", &["meeting-3"]),
        ("?limit=500", &[ODD, "meeting-3", "meeting-2", "meeting-1"]),
        ("?state=live&since=2026-01-01T11:00:00Z&limit=9", &[ODD, "meeting-3", "meeting-2"]),
    ];
    for (query, expected) in table {
        assert_eq!(list(&server, query).await, (expected.iter().map(|id| (*id).to_owned()).collect(), None), "{query}");
    }
    // Page by page, each once.
    let (mut seen, mut query) = (Vec::new(), "?limit=1".to_owned());
    while let (page, Some(cursor)) = list(&server, &query).await {
        seen.extend(page);
        query = format!("?limit=2&cursor={}", escape(&cursor));
    }
    seen.extend(list(&server, &query).await.0);
    assert_eq!(seen, [ODD, "meeting-3", "meeting-2", "meeting-1"]);
    let (page, _) = list(&server, "?limit=2").await;
    assert_eq!(page, [ODD, "meeting-3"]);

    for (query, words) in [
        ("?limit=0", "limit is a number from 1 to 500"),
        ("?limit=501", "limit is a number from 1 to 500"),
        ("?limit=many", "limit is a number from 1 to 500"),
        ("?cursor=rubbish", "cursor"),
        ("?since=yesterday", "since"),
        ("?stat=live", "unknown filter `stat`"),
    ] {
        assert_error(&server.get(&format!("/api/v1/recordings{query}")).await, 400, words);
    }
    let summary = server.get("/api/v1/recordings?state=finished").await.json()["recordings"][0].clone();
    let expected = json!({ "recording_id": "meeting-1", "address": "meeting-1", "tenant": null, "state": "finished", "origin": "2026-01-01T10:00:00.000Z",
        "bot_id": "bot-1", "tracks": 1, "duration_ticks": 8, "fps": 2 });
    assert_eq!(summary, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finishing_twice_is_finishing_once() {
    let server = Server::start(&[]).await;
    hold(&server, &meetings()[..1]).await;
    let address = "/api/v1/recordings/meeting-1/finish";
    let (first, second) = tokio::join!(server.post(address), server.post(address));
    for answer in [first, second] {
        assert!(matches!(answer.status, 200 | 202), "{}", answer.status);
        assert_eq!(answer.json()["recording_id"], "meeting-1");
    }
    let manifest = server.finish("meeting-1").await;
    let again = server.post(address).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.json(), serde_json::to_value(&manifest).unwrap());
    assert_eq!(server.folders.manifest("meeting-1").unwrap(), manifest);
    // What comes for it later is another recording, that says so.
    hold(&server, &meetings()[..1]).await;
    let later = server.finish("meeting-1~2").await;
    assert_eq!(later.continues.as_deref(), Some("meeting-1"));
    assert_eq!(server.folders.manifest("meeting-1").unwrap(), manifest, "a finished recording is never changed");
    check_finished(&server.folders, &manifest).await;
    check_finished(&server.folders, &later).await;

    for unknown in ["nobody", "meeting-1~3", "..", "a%2F..%2Fmeeting-1", "%FF", "recording.json"] {
        let address = format!("/api/v1/recordings/{unknown}");
        let expected = if unknown == "%FF" { 400 } else { 404 };
        assert_eq!(server.get(&address).await.status, expected, "{unknown}");
        assert_eq!(server.post(&format!("{address}/finish")).await.status, expected, "{unknown}");
    }
    assert_error(&server.get("/api/v1/recordings/nobody").await, 404, "no such recording");
    assert_error(&server.post("/api/v1/recordings/nobody/finish").await, 404, "no such recording");
    assert_error(&server.get("/nowhere").await, 404, "no such page");
    assert_eq!(request(server.public, "DELETE", "/healthz", &[]).await.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_reach_their_media() {
    let server = Server::start(&["--segment", "2s"]).await;
    hold(&server, &meetings()[3..]).await;
    let manifest = server.finish(ODD).await;
    check_finished(&server.folders, &manifest).await;
    assert_eq!(manifest.recording_id, ODD);
    let track = &manifest.tracks[0];
    assert_eq!(track.participant.id, "jo/é 1");
    let safe = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~.".contains(&byte));
    assert!(safe(&track.track), "{}", track.track);

    let base = format!("/media/{}", escape(ODD));
    let playlist = server.get(&format!("{base}/{}/index.m3u8", track.track)).await;
    assert_eq!((playlist.status, playlist.header("content-type")), (200, "application/vnd.apple.mpegurl"));
    assert_eq!(playlist.header("cache-control"), "no-cache");
    for uri in playlist.text().lines().filter(|line| !line.starts_with('#')) {
        let segment = server.get(&format!("{base}/{}/{uri}", track.track)).await;
        assert_eq!((segment.status, segment.header("content-type")), (200, "video/iso.segment"), "{uri}");
        assert_eq!(segment.header("cache-control"), "max-age=31536000, immutable");
    }
    let mp4 = server.get(&format!("{base}/{}/video.mp4", track.track)).await;
    assert_eq!((mp4.status, mp4.body.len() as u64), (200, track.mp4[0].bytes));
    assert_eq!(server.get(&format!("{base}/recording.json")).await.json(), serde_json::to_value(&manifest).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_is_served_in_ranges_and_nothing_else_is_served() {
    let server = Server::start(&["--segment", "2s"]).await;
    hold(&server, &meetings()[..1]).await;
    let manifest = server.finish("meeting-1").await;
    let folder = "/media/meeting-1/100-webcam";
    let whole = server.get(&format!("{folder}/video.mp4")).await;
    let size = whole.body.len();
    assert_eq!((whole.header("content-type"), whole.header("accept-ranges")), ("video/mp4", "bytes"));
    let last = format!("bytes {}-{}/{size}", size - 10, size - 1);
    for (range, status, content_range, body) in [
        ("bytes=0-99", 206, format!("bytes 0-99/{size}"), &whole.body[..100]),
        ("bytes=100-", 206, format!("bytes 100-{}/{size}", size - 1), &whole.body[100..]),
        ("bytes=-10", 206, last, &whole.body[size - 10..]),
        ("bytes=0-99999999999", 206, format!("bytes 0-{}/{size}", size - 1), &whole.body[..]),
        ("bytes=99999999999-", 416, format!("bytes */{size}"), &[]),
        ("lines=1-2", 200, String::new(), &whole.body[..]),
    ] {
        let answer = server.get_with(&format!("{folder}/video.mp4"), &[("Range", range)]).await;
        assert_eq!((answer.status, answer.header("content-range")), (status, content_range.as_str()), "{range}");
        assert!(status == 416 || answer.body == body, "{range}");
    }
    let tag = whole.header("etag");
    assert_eq!(server.get_with(&format!("{folder}/video.mp4"), &[("If-None-Match", tag)]).await.status, 304);
    let head = request(server.public, "HEAD", &format!("{folder}/video.mp4"), &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, &*size.to_string(), 0));
    assert_eq!(request(server.public, "PUT", &format!("{folder}/video.mp4"), &[]).await.status, 405);

    let epoch = &manifest.tracks[0].epochs[0].epoch;
    for missing in [
        "/media/",
        "/media/meeting-1",
        "/media/meeting-1/",
        "/media/meeting-1/100-webcam/",
        "/media/meeting-2/100-webcam/index.m3u8",
        "/media/meeting-1/100-webcam/../../../spool",
        "/media/meeting-1/100-webcam/..%2F..%2Fmeeting-1/recording.json",
        "/media/..%2Fstore/meeting-1/recording.json",
        "/media/meeting-1%2F100-webcam/video.mp4",
        "/media/%2e%2e/store/meeting-1/recording.json",
        &format!("/media/meeting-1/100-webcam/{epoch}/journal.jsonl"),
        "/media/meeting-1/100-webcam/%00",
    ] {
        assert_eq!(server.get(missing).await.status, 404, "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_answered_on_the_right_listener() {
    let mut server = Server::start(&[]).await;
    for listener in [server.public, server.internal] {
        let health = request(listener, "GET", "/healthz", &[]).await;
        assert_eq!((health.status, health.text()), (200, "ok\n"));
        let ready = request(listener, "GET", "/readyz", &[]).await;
        assert_eq!((ready.status, ready.text()), (200, "ready\n"));
    }
    assert_eq!(server.get("/metrics").await.status, 404);
    let metrics = request(server.internal, "GET", "/metrics", &[]).await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    assert!(metrics.text().ends_with("# EOF\n"));
    assert_eq!(request(server.internal, "GET", "/api/v1/recordings", &[]).await.status, 404);

    // A recording that an earlier process finished is known by its store.
    hold(&server, &meetings()[..1]).await;
    let manifest = server.finish("meeting-1").await;
    assert_eq!(server.terminate().await.code(), Some(0));
    let server = Server::start_in(&server.folders, &[], &[]).await;
    let found = until("the recording is known", || async {
        let answer = server.get("/api/v1/recordings/meeting-1").await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    let mut told = serde_json::to_value(&manifest).unwrap();
    told["address"] = "meeting-1".into();
    assert_eq!(found, told);
    assert_eq!(manifest.state, State::Finished);
    assert_eq!(server.get("/media/meeting-1/100-webcam/video.mp4").await.status, 200);
}

#[test]
fn a_start_with_wrong_options_says_which() {
    let folders = Folders::new();
    let file = folders.store().with_extension("toml");
    let file_name = file.to_str().unwrap();
    let with_file = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refused(&["--config", file_name], &[])
    };
    for (text, words) in [
        ("segmnet = \"4s\"\n", &["unknown key `segmnet`", file_name][..]),
        ("reconnect_grace = \"4s\"\n", &["unknown key `reconnect_grace`"]),
        ("fps = 99\n", &["99", "--fps"]),
        ("fps = \n", &["not TOML", "line 1"]),
        ("[serve]\nfps = 2\n", &["unknown key `serve`"]),
        ("listen = { port = 8080 }\n", &["`listen` must be text"]),
    ] {
        let (code, said) = with_file(text);
        assert_eq!(code, 2, "{text}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{text}: {word} in: {said}"));
    }
    for (args, variables, words) in [
        (&["--preset", "ludicrous"][..], &[][..], &["preset", "ludicrous"][..]),
        (&["--segmnet", "4s"], &[], &["--segmnet"]),
        (&["--segment", "5s", "--part", "2s"], &[], &["--segment must be a whole number of --part"]),
        (&["--part", "700ms"], &[], &["--part must be whole ticks"]),
        (&["--segment", "6"], &[], &["`6` is no duration", "--segment"]),
        (&["--outputs", "hls,flv"], &[], &["flv", "--outputs"]),
        (&["--config", "/nonexistent/tilecast.toml"], &[], &["cannot read /nonexistent/tilecast.toml"]),
        (&["--store", "ftp://somewhere/else"], &[], &["--store ftp://somewhere/else"]),
        (&["--listen", "127.0.0.1:99999"], &[], &["--listen"]),
        (&[], &[("TILECAST_FPS", "0")], &["--fps", "0"]),
        (&[], &[("TILECAST_LOG_LEVEL", "=loud=")], &["--log-level =loud="]),
    ] {
        let (code, said) = refused(args, variables);
        assert_eq!(code, 2, "{args:?} {variables:?}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{args:?} {variables:?}: {word} in: {said}"));
    }
    // A port that is taken is named, too.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refused(&["--internal-listen", &address], &[]);
    assert!(code == 2 && said.contains(&format!("--internal-listen {address}")), "{said}");
}
