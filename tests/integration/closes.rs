//! Who may not talk, and who talks wrongly: each is told why, in the way its protocol has for it.

use std::time::{Duration, Instant};

use serde_json::json;
use tilecast::media::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::bot::{Bot, Camera, End};
use crate::harness::{Folders, PATIENCE, Server, refused, request, until};

/// A text message of a client as it stands on the wire, with a mask of zeros (RFC 6455, 5.2). `length` is what its
/// header says; under 65536.
fn message(length: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | 126];
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn close(code: u16, reason: &str) -> End {
    End::Close(code, reason.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_wrongly_is_told_so_in_the_close() {
    let server = Server::start(&["--message-max", "64KiB"]).await;
    let mut legacy = Bot::connect(&server.ws()).await;
    legacy.send_json(&json!({ "protocol_version": 1, "bot_id": "b", "recording_id": "r" })).await;
    let reason = "legacy protocol v1.10: subscribe video_separate_png.data to a websocket endpoint";
    assert_eq!(legacy.ended().await, close(1003, reason));

    // Many times what the sockets' buffers hold: who sends it reads the close, and no reset.
    let mut oversized = Bot::connect(&server.ws()).await;
    oversized.send(Message::text("a".repeat(8 << 20))).await;
    assert_eq!(oversized.ended().await, close(1009, "a message is larger than 65536 bytes (--message-max)"));

    let mut bytes = Bot::connect(&server.ws()).await;
    bytes.raw().write_all(&message(3, b"a\xffb")).await.unwrap();
    assert_eq!(bytes.ended().await, close(1007, "a text message is not UTF-8"));

    let mut unmasked = Bot::connect(&server.ws()).await;
    unmasked.raw().write_all(b"\x81\x02hi").await.unwrap();
    let End::Close(1002, reason) = unmasked.ended().await else { panic!("a breach of the protocol is 1002") };
    assert!(reason.contains("unmasked"), "{reason}");

    let metrics = server.metrics().await;
    let rejected = metrics.labelled("tilecast_messages_rejected_total");
    let kinds: Vec<&str> = rejected.keys().map(String::as_str).collect();
    let names = ["legacy", "not_utf8", "oversized", "protocol"].map(|name| format!("reason=\"{name}\""));
    assert_eq!(kinds, names);
    assert!(rejected.values().all(|count| *count == 1.0));
    until("all sockets are gone", || async { (server.metrics().await.get("tilecast_sockets") == 0.0).then_some(()) })
        .await;
    // Nothing of this became a recording.
    assert_eq!(server.get("/api/v1/recordings").await.json()["recordings"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_too_slow_is_cut() {
    let server = Server::start(&["--header-timeout", "500ms", "--message-timeout", "600ms"]).await;
    // Half a message and then nothing.
    let mut half = Bot::connect(&server.ws()).await;
    half.raw().write_all(&message(1000, b"{\"event\":")).await.unwrap();
    // A byte now and then is no completion.
    let mut trickle = Bot::connect(&server.ws()).await;
    trickle.raw().write_all(&message(60_000, b"{")).await.unwrap();
    let start = Instant::now();
    let feed = async {
        // The end of the socket ends it.
        while trickle.raw().write_all(b" ").await.is_ok() && start.elapsed() < Duration::from_millis(900) {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        trickle.ended().await
    };
    // The same behind a whole message, in one piece with it.
    let mut behind = Bot::connect(&server.ws()).await;
    let whole = br#"{"event":"transcript.data","data":{}}"#;
    let start_of_next = [b"{\"event\":", &[b' '; 200][..]].concat();
    behind.raw().write_all(&[message(whole.len(), whole), message(1000, &start_of_next)].concat()).await.unwrap();
    let (half, trickle, behind) = tokio::join!(half.ended(), feed, behind.ended());
    assert_eq!(behind, close(1008, "a message was not complete in time"));
    assert_eq!(half, close(1008, "a message was not complete in time"));
    assert_eq!(trickle, close(1008, "a message was not complete in time"));
    assert!(start.elapsed() > Duration::from_millis(600), "not earlier than said: {:?}", start.elapsed());

    // A whole message in pieces, each in time, is none of their business; nor is a bot that has nothing to say.
    let mut slow = Bot::connect(&server.ws()).await;
    let text = br#"{"event":"transcript.data","data":{}}"#;
    slow.raw().write_all(&message(text.len(), &text[..10])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    slow.raw().write_all(&text[10..]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(900)).await;
    slow.taken().await;
    let ignored = server.metrics().await.get("tilecast_messages_ignored_total{event=\"transcript.data\"}");
    assert_eq!(ignored, 2.0, "and the one that the start of another followed");

    // Headers, a line now and then.
    let start = Instant::now();
    let mut headers = TcpStream::connect(server.public).await.unwrap();
    headers.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    while headers.write_all(b"X-More: 1\r\n").await.is_ok() && start.elapsed() < Duration::from_millis(800) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut rest = Vec::new();
    // Cut without an answer, or with 408: both are an end.
    let _ = tokio::time::timeout(PATIENCE, headers.read_to_end(&mut rest)).await.expect("the connection ends");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_between_the_pieces_of_a_message_do_not_keep_it_open() {
    // How a server's close begins (RFC 6455, 5.2).
    const CLOSE: u8 = 0x88;
    let server = Server::start(&["--message-timeout", "600ms"]).await;
    let mut bot = Bot::connect(&server.ws()).await;
    let start = Instant::now();
    let piece = |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat();
    bot.raw().write_all(&piece(0x01, b"{")).await.unwrap();
    // A byte of the message, an answer to a ping, and a ping.
    let more = [piece(0x00, b" "), piece(0x8a, b""), piece(0x89, b"")].concat();
    let feed = async {
        loop {
            bot.raw().write_all(&more).await.unwrap();
            let mut said = [0; 2];
            bot.raw().peek(&mut said).await.unwrap();
            if said[0] == CLOSE {
                break;
            }
            // Empty pings and answers to ours.
            bot.raw().read_exact(&mut said).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    };
    tokio::time::timeout(PATIENCE, feed).await.expect("it is cut however long it goes on");
    assert_eq!(bot.ended().await, close(1008, "a message was not complete in time"));
    assert!(start.elapsed() > Duration::from_millis(600), "not earlier than said: {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_a_token_is_let_in() {
    let folders = Folders::new();
    let variables = [("TILECAST_INGEST_TOKEN", "alpha-7f3d, acme:beta-91c2")];
    let server = Server::start_in(&folders, &["--store-prefix", "{tenant}"], &variables).await;
    let base = format!("ws://{}/ws/recall", server.public);
    for query in ["", "?token=", "?token=alpha-7f3", "?token=alpha-7f3dd", "?token=acme:beta-91c2", "?other=alpha-7f3d"]
    {
        let Err((status, body)) = Bot::dial(&format!("{base}/{query}")).await else { panic!("`{query}` is let in") };
        assert_eq!(status, 401, "{query}");
        let error: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(error["error"], "give a valid ?token= or a valid signature");
    }
    assert_eq!(server.metrics().await.get("tilecast_sockets_refused_total{reason=\"unauthorized\"}"), 6.0);

    // Every form of the address.
    let long = "k".repeat(64);
    for path in ["", "/", "/bot-1_A", "/bot-1_A/", &format!("/{long}"), &format!("/{long}/")] {
        for token in ["alpha-7f3d", "beta-91c2"] {
            let url = format!("{base}{path}?token={token}");
            let bot = Bot::dial(&url).await;
            bot.unwrap_or_else(|(status, body)| panic!("{url}: {status} {body}")).close().await;
        }
    }
    for key in ["a.b", "a%2Fb", "%20", "ü", &"k".repeat(65)] {
        let path = format!("/ws/recall/{key}/?token=alpha-7f3d");
        let path = path.replace('ü', "%C3%BC");
        let Err((status, body)) = Bot::dial(&format!("ws://{}{path}", server.public)).await else {
            panic!("`{key}` is taken")
        };
        assert_eq!(status, 400, "{key}");
        assert!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["error"].is_string(), "{body}");
    }
    // Not an upgrade at all.
    let answer = request(server.public, "GET", "/ws/recall/?token=alpha-7f3d", &[]).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);

    // The token says whose recording it is.
    let camera = Camera::new(1, Kind::Webcam);
    for (token, recording) in [("alpha-7f3d", "ours"), ("beta-91c2", "theirs")] {
        let mut bot = Bot::connect(&format!("{base}/?token={token}")).await;
        bot.send_tick(recording, 100, &camera, 0).await;
        bot.close().await;
    }
    assert_eq!(server.manifest("ours").await.tenant, None);
    assert_eq!(server.manifest("acme:theirs").await.tenant.as_deref(), Some("acme"));
    let log = server.log().join("\n");
    assert!(!log.contains("7f3d") && !log.contains("91c2"), "no token is logged: {log}");
}

#[test]
fn without_a_token_only_loopback_is_listened_on() {
    let (code, said) = refused(&["--listen", "0.0.0.0:0"], &[]);
    assert_eq!(code, 2, "{said}");
    for word in ["--listen 0.0.0.0:0", "TILECAST_INGEST_TOKEN", "--insecure"] {
        assert!(said.contains(word), "{word} in: {said}");
    }
    let (code, said) = refused(&["--listen", "[::]:0"], &[("TILECAST_INGEST_TOKEN", " , ")]);
    assert_eq!(code, 2, "{said}");
    let missing = "/nonexistent/tokens";
    let (code, said) = refused(&["--ingest-token-file", missing], &[]);
    assert!(code == 2 && said.contains(missing), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_or_insecure_every_address_is_listened_on() {
    let folders = Folders::new();
    let file = folders.store().with_file_name("tokens");
    std::fs::write(&file, "alpha\nacme:beta\n").unwrap();
    let args = ["--listen", "0.0.0.0:0", "--ingest-token-file", file.to_str().unwrap(), "--store-prefix", "{tenant}"];
    let server = Server::start_in(&folders, &args, &[]).await;
    let url = |token: &str| format!("ws://127.0.0.1:{}/ws/recall/?token={token}", server.public.port());
    Bot::connect(&url("alpha")).await.close().await;
    Bot::connect(&url("beta")).await.close().await;
    assert_eq!(Bot::dial(&url("gamma")).await.err().map(|(status, _)| status), Some(401));
    drop(server);
    let server = Server::start_in(&folders, &["--listen", "0.0.0.0:0", "--insecure"], &[]).await;
    Bot::connect(&format!("ws://127.0.0.1:{}/ws/recall/", server.public.port())).await.close().await;
}
