//! The table of attacks, each with the status that answers it. What bad messages of a bot that was let in cost (PNG bombs,
//! deep JSON, wrong pictures) is in [`crate::bad_messages`], who is too slow or speaks wrongly in [`crate::closes`], stale and
//! repeated signatures in [`crate::doors`].

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tilecast::http::auth::grants::GrantKeys;
use tilecast::media::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::access::{ADMIN, READER, bearer, finish, grant, locked, send};
use crate::bot::{Bot, Camera, at, event, picture};
use crate::harness::{Folders, PATIENCE, Server, command, parse, until};

const GRANT_KEY: &str = "the key of grants";

/// A request, and the status that answers it: method, path, Authorization, body.
type Attack = (&'static str, &'static str, String, &'static str, u16);

/// No auth, wrong auth, too little of it, and methods that there are not.
fn of_the_door() -> Vec<Attack> {
    let none = String::new;
    let (admin, reader) = (bearer(ADMIN).1, bearer(READER).1);
    let basic = "Basic YWRtaW4tNDcxMS10b2tlbg==".to_owned();
    let (list, one, finish) = ("/api/v1/recordings", "/api/v1/recordings/meeting", "/api/v1/recordings/meeting/finish");
    let media = "/media/meeting/100-webcam/index.m3u8";
    vec![
        ("GET", list, none(), "", 401),
        ("GET", one, none(), "", 401),
        ("GET", media, none(), "", 401),
        ("POST", finish, none(), "", 401),
        ("GET", list, "Bearer wrong".into(), "", 401),
        ("GET", list, format!("Bearer {ADMIN}x"), "", 401),
        ("GET", list, format!("Bearer read:{READER}"), "", 401),
        ("GET", list, basic, "", 401),
        ("GET", list, format!("Bearer {}", "x".repeat(8000)), "", 401),
        ("POST", finish, reader.clone(), "", 403),
        ("DELETE", one, none(), "", 401),
        ("GET", "/api/v1/recordings?token=admin-4711-token", none(), "", 401),
        ("GET", "/api/v1/openapi.json", none(), "", 401),
        ("GET", media, format!("Bearer {ADMIN}x"), "", 401),
        ("DELETE", one, reader.clone(), "", 403),
        ("POST", "/api/v1/recordings/meeting/grants", none(), "", 401),
        // Who may, may.
        ("GET", list, reader.clone(), "", 200),
        ("GET", one, admin.clone(), "", 200),
        ("GET", "/api/v1/openapi.json", reader.clone(), "", 200),
        // By methods that there are not.
        ("TRACE", list, admin.clone(), "", 405),
        ("PUT", media, admin.clone(), "x", 405),
        ("POST", one, admin.clone(), "", 405),
        ("GET", "/hooks/recall", none(), "", 405),
    ]
}

/// Traversal in every id, key and path.
fn of_paths() -> Vec<Attack> {
    let (none, admin) = (String::new, bearer(ADMIN).1);
    vec![
        ("GET", "/api/v1/recordings/..%2F..%2Fetc%2Fpasswd", admin.clone(), "", 404),
        ("GET", "/api/v1/recordings/%2e%2e", admin.clone(), "", 404),
        ("GET", "/api/v1/recordings/%00", admin.clone(), "", 404),
        ("GET", "/api/v1/recordings/%FF", admin.clone(), "", 400),
        ("GET", "/media/%FF/100-webcam/index.m3u8", admin.clone(), "", 400),
        ("GET", "/play/%FF/meeting/recording.json", none(), "", 400),
        ("DELETE", "/api/v1/recordings/..%2Fmeeting", admin.clone(), "", 404),
        ("DELETE", "/api/v1/recordings/_ended", admin.clone(), "", 404),
        ("GET", "/api/v1/recordings/..%2F..%2F:meeting", admin.clone(), "", 404),
        ("GET", "/media/_ended/_/meeting.json", admin.clone(), "", 404),
        ("GET", "/api/v1/recordings?cursor=..%2F..%2Fetc", admin.clone(), "", 400),
        ("GET", "/api/v1/recordings?limit=99999999999999999999", admin.clone(), "", 400),
        ("POST", "/api/v1/recordings/..%2Fmeeting/finish", admin.clone(), "", 404),
        ("POST", "/api/v1/recordings/..%2Fmeeting/grants", admin.clone(), "", 404),
        ("GET", "/media/../../etc/passwd", admin.clone(), "", 404),
        ("GET", "/media/meeting/..%2F..%2F..%2Fetc%2Fpasswd.json", admin.clone(), "", 404),
        ("GET", "/media/meeting/100-webcam/../../meeting/recording.json", admin.clone(), "", 404),
        ("GET", "/media/%2e%2e/spool/meeting/state.json", admin.clone(), "", 404),
        ("GET", "/media/meeting%2F..%2Fmeeting/recording.json", admin.clone(), "", 404),
        ("GET", "/web/..%2F..%2FCargo.toml", none(), "", 404),
        ("GET", "/web/%2e%2e/web.rs", none(), "", 404),
        ("GET", "/ws/recall/..%2Fx/", none(), "", 400),
        ("GET", "/ws/recall/%0d%0aX-Injected:1/", none(), "", 400),
    ]
}

/// What is no request that there is.
fn of_bodies() -> Vec<Attack> {
    let (none, reader) = (String::new, bearer(READER).1);
    vec![
        ("POST", "/api/v1/recordings/meeting/grants", reader.clone(), "{", 400),
        ("POST", "/api/v1/recordings/meeting/grants", reader.clone(), r#"{"admin":true}"#, 400),
        ("POST", "/api/v1/recordings/meeting/grants", reader.clone(), r#"{"ttl":"0"}"#, 400),
        ("POST", "/api/v1/recordings/meeting/grants", reader.clone(), r#"{"ttl":"8d"}"#, 400),
        ("POST", "/api/v1/recordings/meeting/grants", reader.clone(), r#"{"track":"../200-webcam"}"#, 404),
        ("POST", "/api/v1/recordings/nothing/grants", reader.clone(), "", 404),
        ("POST", "/hooks/recall", none(), "{}", 403),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_attack_has_its_status() {
    let variables = [("TILECAST_GRANT_KEY", GRANT_KEY)];
    let server = locked(&["--segment", "2s"], &variables).await;
    let table = [of_the_door(), of_paths(), of_bodies()].concat();
    for (method, path, authorization, body, status) in table {
        let headers = [("Authorization", authorization)];
        let headers = if headers[0].1.is_empty() { &[][..] } else { &headers[..] };
        let answer = send(server.public, method, path, headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}: {}", answer.text());
        assert!(status != 401 || answer.header("www-authenticate") == "Bearer");
        assert!(status != 405 || answer.header("allow").contains(if path == "/hooks/recall" { "POST" } else { "GET" }));
        let is_json = answer.header("content-type") == "application/json";
        assert!(status < 400 || (is_json && answer.json()["error"].is_string()), "{method} {path}: {}", answer.text());
    }
    let huge =
        send(server.public, "POST", "/api/v1/recordings/meeting/grants", &[bearer(READER)], &[b' '; 10_000]).await;
    assert_eq!(huge.status, 413);
    let deep = format!("{}{}", "[".repeat(1500), "]".repeat(1500));
    let grants = "/api/v1/recordings/meeting/grants";
    assert_eq!(send(server.public, "POST", grants, &[bearer(READER)], deep.as_bytes()).await.status, 400);
    headers_without_end(&server).await;
    a_body_that_does_not_come(&server).await;
    assert_eq!(server.get("/healthz").await.status, 200);
    let refused = server.metrics().await;
    assert_eq!(refused.get("tilecast_requests_refused_total{reason=\"unauthorized\"}"), 14.0);
    let log = server.log().join("\n");
    assert!(!log.contains(ADMIN) && !log.contains(READER) && !log.contains(GRANT_KEY), "{log}");
}

/// What a page of another site, a rebound name and a proxy bring to the bots' door.
const NOT_OF_THIS_MACHINE: [(&str, &str); 8] = [
    ("origin", "https://evil.example"),
    ("origin", "null"),
    ("host", "rebound.example"),
    ("host", "127.0.0.1.nip.io:8080"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-real-ip", "127.0.0.1"),
    ("forwarded", "for=203.0.113.7"),
    ("via", "1.1 proxy"),
];

/// 101, or the status of a refusal.
async fn dialed(url: &str, headers: &[(&'static str, &str)]) -> u16 {
    match Bot::dial_with(url, headers).await {
        Ok(_) => 101,
        Err((status, body)) => {
            assert!(body.starts_with("{\"error\":"), "{body}");
            status
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_without_credentials_is_open_to_this_machine_alone() {
    let server = Server::start(&[]).await;
    assert_eq!(dialed(&server.ws(), &[]).await, 101);
    assert_eq!(dialed(&server.ws(), &[("origin", "http://localhost:8080")]).await, 101, "our own page");
    for header in NOT_OF_THIS_MACHINE {
        assert_eq!(dialed(&server.ws(), &[header]).await, 403, "{header:?}");
    }
    let refused = server.metrics().await.get("tilecast_sockets_refused_total{reason=\"closed\"}");
    assert_eq!(refused, NOT_OF_THIS_MACHINE.len() as f64);
    let log = server.log();
    let told: Vec<&String> = log.iter().filter(|line| line.contains("refused at the door")).collect();
    assert_eq!(told.len(), 4, "the first, the second, the fourth and the eighth: {told:?}");
    for part in ["\"reason\":\"closed\"", "\"peer\":\"127.0.0.1\"", "\"so_far\":8"] {
        assert!(told[3].contains(part), "{part} in {}", told[3]);
    }
    let insecure = Server::start(&["--insecure"]).await;
    let variables = [("TILECAST_INGEST_TOKEN", "good")];
    let with_token = Server::start_in(&Folders::new(), &[], &variables).await;
    for header in NOT_OF_THIS_MACHINE {
        assert_eq!(dialed(&insecure.ws(), &[header]).await, 101, "--insecure: {header:?}");
        assert_eq!(dialed(&format!("{}?token=good", with_token.ws()), &[header]).await, 101, "a token: {header:?}");
        assert_eq!(dialed(&with_token.ws(), &[header]).await, 401, "no token: {header:?}");
    }
}

/// Its length is named, and then nothing.
async fn a_body_that_does_not_come(server: &Server) {
    let mut slow = TcpStream::connect(server.public).await.unwrap();
    let token = bearer(READER).1;
    let head = format!("POST /api/v1/recordings/meeting/grants HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n");
    slow.write_all(format!("{head}Connection: close\r\nContent-Length: 9\r\n\r\n{{").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, slow.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    assert_eq!(parse(&answer).status, 408);
}

/// In lines, and in bytes.
async fn headers_without_end(server: &Server) {
    let lines: Vec<(&str, String)> = (0..80).map(|_| ("X-More", "1".to_owned())).collect();
    assert_eq!(send(server.public, "GET", "/healthz", &lines, b"").await.status, 431);
    let long = [("X-More", "x".repeat(60_000))];
    assert_eq!(send(server.public, "GET", "/healthz", &long, b"").await.status, 431);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_for_its_recording_its_track_and_its_time() {
    let server = locked(&["--segment", "2s"], &[("TILECAST_GRANT_KEY", GRANT_KEY)]).await;
    let granted = grant(&server, &json!({ "track": "100-webcam" })).await.json();
    let mine = granted["grant"].as_str().unwrap().to_owned();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let keys = GrantKeys::new([GRANT_KEY.as_bytes()]);
    let (whole, expired) = (keys.grant("meeting", None, now + 60), keys.grant("meeting", None, now - 1));
    let forged = GrantKeys::new([&b"another key"[..]]).grant("meeting", None, now + 60);
    let other = keys.grant("another meeting", None, now + 60);
    finish(&server).await;
    for (grant, path, status) in [
        (&mine, "meeting/recording.json", 200),
        (&mine, "meeting/200-webcam/index.m3u8", 403),
        (&mine, "meeting/100-webcam/../200-webcam/index.m3u8", 404),
        (&mine, "meeting/100-webcam/..%2F200-webcam/index.m3u8", 404),
        (&mine, "meeting/100-webcam%2F..%2F200-webcam/index.m3u8", 404),
        (&mine, "meeting/100-webcam/%2e%2e/200-webcam/index.m3u8", 404),
        (&mine, "another%20meeting/100-webcam/index.m3u8", 403),
        (&mine, "..%2Fmeeting/100-webcam/index.m3u8", 403),
        (&mine, "meeting/100-webcam/ticks.jsonl", 404),
        (&mine, "meeting/events.jsonl", 404),
        (&whole, "meeting/200-webcam/index.m3u8", 200),
        (&whole, "meeting/events.jsonl", 404),
        (&whole, "meeting/200-webcam/nothing.m4s", 404),
        (&expired, "meeting/100-webcam/index.m3u8", 403),
        (&forged, "meeting/100-webcam/index.m3u8", 403),
        (&other, "meeting/100-webcam/index.m3u8", 403),
        (&other, "another%20meeting/recording.json", 404),
        (&"..".to_owned(), "meeting/100-webcam/index.m3u8", 403),
        (&"%2e%2e".to_owned(), "meeting/100-webcam/index.m3u8", 403),
        (&"x".repeat(5000), "meeting/100-webcam/index.m3u8", 403),
    ] {
        let answer = server.get(&format!("/play/{grant}/{path}")).await;
        assert_eq!(answer.status, status, "{grant:.60} {path}: {}", answer.text());
    }
    let expired = server.get(&format!("/play/{expired}/meeting/recording.json")).await;
    assert_eq!(expired.json()["error"], "this address has expired");
    let put = send(server.public, "PUT", &format!("/play/{whole}/meeting/200-webcam/video.mp4"), &[], b"x").await;
    assert_eq!(put.status, 405);
}

/// As many files as this process may have open.
fn many_files() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_sockets_keep_no_bot_out() {
    many_files();
    let server = Server::start(&["--header-timeout", "2s"]).await;
    let mut idle = Vec::new();
    for n in 0..1000 {
        let mut stream = TcpStream::connect(server.public).await.unwrap();
        // Half of them begin an upgrade and never end it.
        if n % 2 == 0 {
            stream.write_all(b"GET /ws/recall/ HTTP/1.1\r\nUpgrade: websocket\r\n").await.unwrap();
        }
        idle.push(stream);
    }
    let mut bot = Bot::connect(&server.ws()).await;
    bot.send_tick("meeting", 100, &Camera::new(1, Kind::Webcam), 0).await;
    bot.taken().await;
    until("its picture was taken", || async {
        (server.recording("meeting").await["tracks"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let start = Instant::now();
    for mut stream in idle {
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is cut");
        assert!(answer.is_empty(), "without a word: {}", String::from_utf8_lossy(&answer));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    bot.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_has_so_many_connections_and_no_more() {
    let server = Server::start(&["--address-connections-max", "5"]).await;
    let mut bots = Vec::new();
    for _ in 0..5 {
        bots.push(Bot::connect(&server.ws()).await);
    }
    let Err((status, _)) = Bot::dial(&server.ws()).await else { panic!("a sixth is let in") };
    assert_eq!(status, 503);
    let answer = server.get("/healthz").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "3"));
    let counted = server.metrics().await.get("tilecast_requests_refused_total{reason=\"address_connections\"}");
    assert_eq!(counted, 2.0);
    bots.pop().unwrap().close().await;
    until("there is room again", || async { (server.get("/healthz").await.status == 200).then_some(()) }).await;
    drop(bots);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Names and ids that would forge a line, colour a terminal, or end a JSON text.
const FORGED: &str = "x\n2026-01-01T00:00:00Z ERROR forged line \u{1b}[31m\" } \r\n{\"level\":\"ERROR\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_forges_a_line_of_the_log() {
    let folders = Folders::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let mut child =
        command(&folders, &["--log", "text", "--log-level", "debug", "--listen", &listen], &[]).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let _child = Killed(child);
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&log);
    std::thread::spawn(move || {
        // Split where a terminal would: a forged end of a line is one.
        for line in stderr.split(b'\n').map_while(Result::ok) {
            lines.lock().unwrap().push(String::from_utf8(line).unwrap());
        }
    });
    let said = |words: &'static str| {
        let log = Arc::clone(&log);
        until(words, move || {
            let found = log.lock().unwrap().iter().any(|line| line.contains(words)).then_some(());
            async move { found }
        })
    };
    said(" ready: ").await;
    let mut bot = Bot::connect(&format!("ws://{listen}/ws/recall/")).await;
    let mut message = picture(FORGED, FORGED, Kind::Webcam, at(0), &Camera::new(1, Kind::Webcam).base64(0));
    message["data"]["data"]["participant"]["name"] = FORGED.into();
    message["data"]["bot"]["id"] = FORGED.into();
    bot.send_json(&message).await;
    let mut join = event(FORGED, FORGED, "join", 0.0);
    join["data"]["data"]["participant"]["name"] = FORGED.into();
    bot.send_json(&join).await;
    let mut other: Value = event(FORGED, FORGED, "join", 0.0);
    other["event"] = FORGED.into();
    bot.send_json(&other).await;
    bot.send_text(FORGED).await;
    bot.close().await;
    said("socket closed by the bot").await;
    let log = log.lock().unwrap().clone();
    assert!(log.iter().any(|line| line.contains("forged line")), "the recording's id is logged, quoted: {log:#?}");
    for line in &log {
        assert!(line.starts_with("20") && !line.starts_with("2026-01-01T00:00:00Z ERROR"), "{line}");
        assert!(!line.contains('\u{1b}') && !line.contains('\r'), "{line:?}");
    }
}
