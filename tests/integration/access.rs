//! Who may ask the API and fetch media: tokens, grants, other sites' pages, webhooks, TLS, and how many may come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tilecast::http::auth::signature::SigningKey;
use tilecast::media::{GapReason, Kind};
use tilecast::pipeline::store::manifest::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::bot::{BOT_ID, Bot, Camera};
use crate::harness::{Answer, Folders, PATIENCE, Server, parse, refused, request, until};
use crate::playback::check_finished;

pub const ADMIN: &str = "admin-4711-token";
pub const READER: &str = "reader-0815-token";
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
const THEIR_SECRET: &str = "whsec_dGhlaXIgb3duIHNlY3JldCBvZiBhY21l";

/// A server with tokens, and two tracks of eight ticks that were taken.
pub async fn locked(args: &[&str], variables: &[(&str, &str)]) -> Server {
    let tokens = format!("{ADMIN}, read:{READER}");
    let variables = [&[("TILECAST_API_TOKEN", tokens.as_str())], variables].concat();
    let server = Server::start_in(&Folders::new(), args, &variables).await;
    let mut bot = Bot::connect(&server.ws()).await;
    for (participant, scene) in [(100, 1), (200, 2)] {
        let camera = Camera::new(scene, Kind::Webcam);
        for tick in 0..8 {
            bot.send_tick("meeting", participant, &camera, tick).await;
        }
    }
    bot.close().await;
    server
}

/// The header of a token.
pub fn bearer(token: &str) -> (&'static str, String) {
    ("Authorization", format!("Bearer {token}"))
}

/// One request with headers and a body.
pub async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Answer {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    text += &format!("Content-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[text.as_bytes(), b"\r\n", body].concat()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time").unwrap();
    parse(&answer)
}

/// Finishes with a token and waits for it.
pub async fn finish(server: &Server) {
    let path = "/api/v1/recordings/meeting";
    let finished = send(server.public, "POST", &format!("{path}/finish"), &[bearer(ADMIN)], b"").await;
    assert_eq!(finished.status, 202, "{}", finished.text());
    until("it is finished", || async {
        let told = send(server.public, "GET", path, &[bearer(READER)], b"").await;
        (told.json()["state"] == "finished").then_some(())
    })
    .await;
}

/// Asks for a grant.
pub async fn grant(server: &Server, body: &Value) -> Answer {
    let path = "/api/v1/recordings/meeting/grants";
    send(server.public, "POST", path, &[bearer(READER)], body.to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_plays_in_every_player_and_opens_nothing_else() {
    let server = locked(&["--segment", "2s", "--cors", "https://app.example"], &[]).await;
    finish(&server).await;
    let answer = grant(&server, &json!({ "track": "100-webcam", "ttl": "10m" })).await;
    assert_eq!((answer.status, answer.header("cache-control")), (201, "no-store"), "{}", answer.text());
    let granted = answer.json();
    let playlist = granted["tracks"][0]["playlist"].as_str().unwrap();
    assert_eq!(granted["tracks"].as_array().unwrap().len(), 1);
    // As a player does: whatever the playlist names, beside it.
    let told = server.get(playlist).await;
    assert_eq!((told.status, told.header("access-control-allow-origin")), (200, "*"), "{}", told.text());
    let folder = playlist.strip_suffix("index.m3u8").unwrap();
    let init = told.text().split("URI=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let segments = told.text().lines().filter(|line| line.ends_with(".m4s")).map(str::to_owned);
    let named: Vec<String> = segments.chain([init, "video.mp4".to_owned()]).collect();
    assert!(named.len() >= 4, "{named:?}");
    for name in named {
        assert_eq!(server.get(&format!("{folder}{name}")).await.status, 200, "{name}");
    }
    let range = server.get_with(&format!("{folder}video.mp4"), &[("Range", "bytes=0-9")]).await;
    assert_eq!((range.status, range.body.len()), (206, 10));
    // What the page asks: that track alone, and nothing of the bot's maker.
    let manifest = server.get(&folder.replace("100-webcam/", "recording.json")).await.json();
    assert_eq!(manifest["tracks"].as_array().unwrap().len(), 1);
    assert!(manifest["bot_id"].is_null() && manifest["metadata"].is_null(), "{manifest}");
    // All of it, for an hour.
    let whole = grant(&server, &Value::Null).await;
    assert_eq!(whole.status, 400, "null is no object");
    let whole = send(server.public, "POST", "/api/v1/recordings/meeting/grants", &[bearer(ADMIN)], b"").await.json();
    assert_eq!(whole["tracks"].as_array().unwrap().len(), 2);
    for track in whole["tracks"].as_array().unwrap() {
        assert_eq!(server.get(track["playlist"].as_str().unwrap()).await.status, 200);
    }
    // Grants outlive the process: their key is in the spool.
    let (mut server, playlist) = (server, playlist.to_owned());
    server.terminate().await;
    let tokens = format!("{ADMIN}, read:{READER}");
    let server = Server::start_in(&server.folders, &[], &[("TILECAST_API_TOKEN", &tokens)]).await;
    assert_eq!(server.get(&playlist).await.status, 200);
    let log = server.log().join("\n");
    assert!(!log.contains(ADMIN) && !log.contains(READER) && !log.contains(&playlist), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_fetch_what_they_may() {
    let server = locked(&["--cors", "https://app.example,https://b.example:8443"], &[]).await;
    finish(&server).await;
    let path = "/media/meeting/100-webcam/video.mp4";
    for (origin, allowed) in [
        ("https://app.example", "https://app.example"),
        ("https://b.example:8443", "https://b.example:8443"),
        ("https://evil.example", ""),
    ] {
        let headers = [bearer(READER), ("Origin", origin.to_owned())];
        let answer = send(server.public, "GET", path, &headers, b"").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, allowed), "{origin}");
        let asks = [
            ("Origin", origin.to_owned()),
            ("Access-Control-Request-Method", "GET".to_owned()),
            ("Access-Control-Request-Headers", "authorization,range".to_owned()),
        ];
        let preflight = send(server.public, "OPTIONS", path, &asks, b"").await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, allowed), "{origin}");
        assert!(preflight.header("access-control-allow-headers").contains("authorization"));
        let preflight = send(server.public, "OPTIONS", "/play/any/meeting/100-webcam/video.mp4", &asks, b"").await;
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (200, "*"), "{origin}");
        // The API is for its own page.
        let answer = send(server.public, "GET", "/api/v1/recordings", &headers, b"").await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ""), "{origin}");
    }
    let (code, said) = refused(&["--cors", "app.example"], &[]);
    assert!(code == 2 && said.contains("`app.example` is no origin"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_tokens_only_this_machine_is_answered() {
    let server = Server::start(&[]).await;
    let status = async |address: SocketAddr, headers: &[(&str, &str)]| {
        // A second Host would be a bad request: ours takes the place of the harness's.
        let host = headers
            .iter()
            .find(|(name, _)| *name == "Host")
            .map_or(address.to_string(), |(_, host)| (*host).to_owned());
        let mut text = format!("GET /api/v1/recordings HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        for (name, value) in headers.iter().filter(|(name, _)| *name != "Host") {
            text += &format!("{name}: {value}\r\n");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        parse(&answer).status
    };
    assert_eq!(status(server.public, &[]).await, 200);
    for header in [
        ("Host", "rebound.example"),
        ("Origin", "https://evil.example"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Host", "10.0.0.1"),
    ] {
        assert_eq!(status(server.public, &[header]).await, 403, "{header:?}");
    }
    drop(server);
    // On other addresses nobody is, and the log says so; the bots' door is another matter.
    let variables = [("TILECAST_INGEST_TOKEN", "alpha")];
    let server = Server::start_in(&Folders::new(), &["--listen", "0.0.0.0:0"], &variables).await;
    let address = SocketAddr::from(([127, 0, 0, 1], server.public.port()));
    let answer = request(address, "GET", "/api/v1/recordings", &[]).await;
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("TILECAST_API_TOKEN"), "{}", answer.text());
    assert_eq!(request(address, "GET", "/media/meeting/100-webcam/index.m3u8", &[]).await.status, 403);
    assert_eq!(request(address, "GET", "/readyz", &[]).await.status, 200);
    assert!(server.log_line("without TILECAST_API_TOKEN the API").is_some());
    Bot::connect(&format!("ws://{address}/ws/recall/?token=alpha")).await.close().await;
}

/// Sends a webhook as Recall does, `age` seconds old.
async fn hook(server: &Server, secret: &str, age: i64, body: &Value) -> Answer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let timestamp = (now - age).to_string();
    let body = body.to_string();
    let signature = SigningKey::new(secret, "").unwrap().sign("msg_1", &timestamp, body.as_bytes());
    let headers = [("svix-id", "msg_1".to_owned()), ("svix-timestamp", timestamp), ("svix-signature", signature)];
    send(server.public, "POST", "/hooks/recall", &headers, body.as_bytes()).await
}

fn status(event: &str, bot: &str) -> Value {
    json!({ "event": event, "data": { "data": { "code": "done", "sub_code": null, "updated_at": "2026-01-01T10:00:00Z" },
        "bot": { "id": bot, "metadata": {} } } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bot_that_is_gone_keeps_no_recording_waiting() {
    let secrets = format!("{SECRET}, acme:{THEIR_SECRET}");
    let variables = [("TILECAST_INGEST_TOKEN", "alpha"), ("TILECAST_RECALL_SECRET", &*secrets)];
    let flags = ["--store-prefix", "{tenant}/{recording_id}"];
    let server = Server::start_in(&Folders::new(), &flags, &variables).await;
    let mut bot = Bot::connect(&format!("{}?token=alpha", server.ws())).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in 0..8 {
        bot.send_tick("meeting", 100, &camera, tick).await;
    }
    bot.taken().await;
    for (secret, age, body, answered) in [
        ("whsec_c29tZXRoaW5nIGVsc2U=", 0, status("bot.done", BOT_ID), 401),
        (SECRET, 310, status("bot.done", BOT_ID), 401),
        (SECRET, -310, status("bot.done", BOT_ID), 401),
        (SECRET, 0, json!({ "event": 5 }), 400),
        (SECRET, 0, json!([]), 400),
        (SECRET, 0, json!("x".repeat(300_000)), 413),
        (SECRET, 0, (0..1500).fold(json!(0), |deep, _| json!([deep])), 400),
        (SECRET, 0, json!({ "event": "bot.done", "data": (0..1500).fold(json!(0), |deep, _| json!([deep])) }), 400),
        // Another tenant's secret speaks for its own bots.
        (THEIR_SECRET, 0, status("bot.done", BOT_ID), 200),
        (SECRET, 0, status("bot.in_call_recording", BOT_ID), 200),
        (SECRET, 0, status("bot.done", "somebody else's"), 200),
    ] {
        let answer = hook(&server, secret, age, &body).await;
        assert_eq!(answer.status, answered, "{age} {}", answer.text());
        assert!(answered != 200 || answer.json() == json!({ "recordings": 0 }), "{}", answer.text());
    }
    // The call is over; what is on its way still belongs to the recording.
    assert_eq!(hook(&server, SECRET, 0, &status("bot.call_ended", BOT_ID)).await.json(), json!({ "recordings": 1 }));
    bot.send_tick("meeting", 100, &camera, 8).await;
    bot.close().await;
    let manifest = until("it is finished, three minutes before its grace is over", || async {
        Some(server.manifest("meeting").await).filter(|manifest| manifest.state == State::Finished)
    })
    .await;
    assert_eq!(manifest.tracks[0].ledger.encoded, 9);
    assert_eq!(server.get("/api/v1/recordings/meeting~2").await.status, 404);
    drop(server);
    let server = Server::start(&[]).await;
    assert_eq!(
        hook(&server, SECRET, 0, &status("bot.done", BOT_ID)).await.status,
        403,
        "there is no secret to check it by"
    );
}

/// A certificate for 127.0.0.1 and its key, in PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Asks over TLS, trusting that certificate alone.
async fn asks(address: SocketAddr, certificate: &str) -> Option<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = connector.connect(name, TcpStream::connect(address).await.unwrap()).await.ok()?;
    let text = format!("GET /api/v1/recordings HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Some(parse(&answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_changed_while_the_server_runs() {
    let folders = Folders::new();
    let path = |name: &str| folders.store().with_file_name(name).to_str().unwrap().to_owned();
    let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
    let write = |(certificate, key): &(String, String)| {
        std::fs::write(&cert_file, certificate).unwrap();
        std::fs::write(&key_file, key).unwrap();
    };
    let (first, second) = (certificate(), certificate());
    write(&first);
    let args = ["--tls-cert", &cert_file, "--tls-key", &key_file];
    let server = Server::start_in(&folders, &args, &[]).await;
    assert_eq!(asks(server.public, &first.0).await.unwrap().status, 200);
    assert!(asks(server.public, &second.0).await.is_none());
    // Plain HTTP is no TLS, and costs nobody anything.
    let mut plain = TcpStream::connect(server.public).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"));
    write(&second);
    until("the new certificate is shown", || async { asks(server.public, &second.0).await }).await;
    assert!(asks(server.public, &first.0).await.is_none());
    let (code, said) = refused(&["--tls-cert", &cert_file], &[]);
    assert!(code == 2 && said.contains("--tls-key"), "{said}");
    std::fs::write(&cert_file, "no certificate").unwrap();
    let (code, said) = refused(&args, &[]);
    assert!(code == 2 && said.contains("--tls-cert"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_bot_is_paused_its_gaps_say_so() {
    let variables = [("TILECAST_RECALL_SECRET", SECRET), ("TILECAST_INGEST_TOKEN", "alpha")];
    let server = Server::start_in(&Folders::new(), &["--hold-webcam", "1s"], &variables).await;
    let mut bot = Bot::connect(&format!("{}?token=alpha", server.ws())).await;
    let camera = Camera::new(1, Kind::Webcam);
    for tick in (0..6).chain(20..26) {
        if tick == 20 {
            bot.taken().await;
            server.drained("meeting").await;
            let answer = hook(&server, SECRET, 0, &status("bot.in_call_not_recording", BOT_ID)).await;
            assert_eq!(answer.json(), json!({ "recordings": 1 }));
        }
        bot.send_tick("meeting", 100, &camera, tick).await;
    }
    bot.close().await;
    let manifest = server.finish("meeting").await;
    let shown = check_finished(&server.folders, &manifest).await;
    assert_eq!(shown["100-webcam"][20].number(), Some(20));
    let [gap] = &manifest.tracks[0].gaps[..] else { panic!("{:?}", manifest.tracks[0].gaps) };
    assert_eq!((gap.from_tick, gap.to_tick, gap.reason), (6, 20, GapReason::Paused));
}
