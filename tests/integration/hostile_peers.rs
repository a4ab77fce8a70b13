//! Bots, or who says to be one, that do the worst a socket can do, each beside an ordinary meeting: of that every picture
//! arrives at its tick, and the server's memory stays bounded.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tilecast::media::Kind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite;

use crate::bot::{Bot, Camera, End, at, picture};
use crate::harness::{Server, until};
use crate::playback::{check_finished, track};

const MEETING: &str = "meeting";
const CAMERAS: u32 = 3;
/// Of the meeting, at real time.
const TICKS: u32 = 10;
const MIB: usize = 1 << 20;

/// The head of a client's WebSocket message, with a mask of zeros (RFC 6455, 5.2).
fn head(opcode: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes
}

const TEXT: u8 = 1;
const PING: u8 = 9;

/// The meeting, at the pace of real ones: every picture must come out. Gives how many bytes of memory the server took
/// beyond `before` while `peer` did what it does.
async fn beside(server: &Server, peer: impl Future<Output = ()>) -> u64 {
    let cameras: Vec<Camera> = (0..CAMERAS).map(|n| Camera::new(n, Kind::Webcam)).collect();
    let mut bot = Bot::connect(&server.ws()).await;
    let mut due = tokio::time::interval(Duration::from_millis(500));
    let send = async |bot: &mut Bot, tick: u32| {
        for (n, camera) in cameras.iter().enumerate() {
            bot.send_tick(MEETING, n as i64, camera, tick).await;
        }
    };
    // Its lanes are open before anybody else comes.
    due.tick().await;
    send(&mut bot, 0).await;
    bot.taken().await;
    server.drained(MEETING).await;
    let before = server.memory_peak();
    let mut peer = std::pin::pin!(peer);
    let mut is_done = false;
    for tick in 1..TICKS {
        tokio::select! {
            _ = due.tick() => {}
            () = &mut peer, if !is_done => {
                is_done = true;
                due.tick().await;
            }
        }
        // Nothing that anybody does may keep this socket waiting for long.
        let sent = tokio::time::timeout(Duration::from_secs(5), send(&mut bot, tick));
        if is_done {
            sent.await.expect("the meeting is read");
        } else {
            let mut sent = std::pin::pin!(sent);
            tokio::select! {
                sent = &mut sent => sent.expect("the meeting is read"),
                () = &mut peer => {
                    is_done = true;
                    sent.await.expect("the meeting is read");
                }
            }
        }
    }
    if !is_done {
        peer.await;
    }
    bot.close().await;
    let grown = server.memory_peak() - before;
    let manifest = server.finish(MEETING).await;
    let shown = check_finished(&server.folders, &manifest).await;
    let all: Vec<Option<u32>> = (0..TICKS).map(Some).collect();
    for n in 0..CAMERAS {
        let name = format!("{n}-webcam");
        let numbers: Vec<Option<u32>> = shown[&name].iter().map(|shown| shown.number()).collect();
        assert_eq!(numbers, all, "{name}");
        assert!(track(&manifest, &name).ledger.discarded.is_empty(), "{name}");
    }
    grown
}

/// Writes until the server takes no more, or ends the connection.
async fn pour(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(tokio::time::timeout(Duration::from_secs(3), stream.write_all(bytes)).await, Ok(Ok(())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_reads_nothing_and_wants_answers() {
    let server = Server::start(&[]).await;
    let grown = beside(
        &server,
        Box::pin(async {
            let mut peer = Bot::connect(&server.ws()).await;
            let ping = [head(PING, 125), vec![b'a'; 125]].concat();
            let pings = ping.repeat(MIB / ping.len());
            // Answers to as many, kept for a peer that never reads them, would be 24 MiB.
            for _ in 0..24 {
                assert!(pour(peer.raw(), &pings).await, "pings cost nothing");
            }
        }),
    )
    .await;
    assert!(grown < 12 << 20, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_sends_a_byte_now_and_then() {
    let server = Server::start(&["--message-timeout", "2s"]).await;
    beside(
        &server,
        Box::pin(async {
            let mut peer = Bot::connect(&server.ws()).await;
            peer.raw().write_all(&head(TEXT, 1000)).await.unwrap();
            // It is cut in the midst of it.
            for _ in 0..40 {
                if peer.raw().write_all(b" ").await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(peer.ended().await, End::Close(1008, "a message was not complete in time".to_owned()));
        }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_sends_the_largest_messages_back_to_back() {
    // In flight is what two of them need.
    let server = Server::start(&["--in-flight", "64MiB"]).await;
    let png = {
        let mut png = Camera::new(1, Kind::Webcam).png(0);
        // Bytes behind the end: read, and never a picture.
        png.resize(12 * MIB - 1024, 7);
        crate::bot::base64(&png)
    };
    let grown = beside(
        &server,
        Box::pin(async {
            let mut peer = Bot::connect(&server.ws()).await;
            for tick in 0..8 {
                let text = picture("huge", 1, Kind::Webcam, at(tick), &png).to_string();
                assert!((15 * MIB..=16 * MIB).contains(&text.len()), "{}", text.len());
                peer.send_text(text).await;
            }
            peer.taken().await;
            server.drained("huge").await;
        }),
    )
    .await;
    assert!(grown < 160 << 20, "{grown} bytes");
    let ledger = &server.manifest("huge").await.tracks[0].ledger;
    assert_eq!(ledger.received, 8, "each is accounted for: {ledger:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_opens_thousands_of_lanes() {
    let server = Server::start(&["--socket-lanes-max", "32"]).await;
    beside(
        &server,
        Box::pin(async {
            let mut peer = Bot::connect(&server.ws()).await;
            let png = Camera::sized(1, Kind::Webcam, (160, 90)).base64(0);
            for recording in 0..100 {
                for participant in 0..50 {
                    peer.send_picture(&format!("lanes-{recording}"), participant, Kind::Webcam, 0.0, &png).await;
                }
            }
            peer.close().await;
        }),
    )
    .await;
    let metrics = server.metrics().await;
    assert_eq!(metrics.get("tilecast_lanes"), 32.0);
    // 32 are taken; the others are beyond the lanes or the recordings of a socket.
    assert_eq!(metrics.get("tilecast_lanes_refused_total{reason=\"socket_lanes\"}"), 8.0 * 50.0 - 32.0);
    assert_eq!(metrics.get("tilecast_messages_rejected_total{reason=\"too_many_recordings\"}"), 92.0 * 50.0);
    assert_eq!(server.recording("lanes-7").await["now"]["lanes_refused"], 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_sockets_stuck_inside_a_huge_message() {
    // Half received may be half of that.
    let server = Server::start(&["--in-flight", "64MiB"]).await;
    let half = Arc::new([head(TEXT, 16 * MIB), vec![b' '; 8 * MIB]].concat());
    let grown = beside(
        &server,
        Box::pin(async {
            let mut peers = JoinSet::new();
            for _ in 0..50 {
                let mut peer = Bot::connect(&server.ws()).await;
                let half = Arc::clone(&half);
                peers.spawn(async move {
                    // Taken or not, it is read, and then it is stuck or told what becomes of it.
                    let _ = peer.raw().write_all(&half).await;
                    let end = tokio::time::timeout(Duration::from_secs(3), peer.ended()).await.ok();
                    (peer, end)
                });
            }
            let peers = peers.join_all().await;
            let cut = End::Close(1013, "too many large messages are half received; dial again".to_owned());
            let cut = peers.iter().filter(|(_, end)| end.as_ref() == Some(&cut)).count();
            assert!((40..50).contains(&cut), "{cut} are told so");
            let stuck = peers.iter().filter(|(_, end)| end.is_none()).count();
            assert_eq!(stuck + cut, 50);
            let held = server.metrics().await.get("tilecast_half_received_bytes");
            // With those whose closing handshakes are under way.
            assert!((8.0 * MIB as f64..96.0 * MIB as f64).contains(&held), "{held}");
        }),
    )
    .await;
    // Of 400 MiB that they sent.
    assert!(grown < 96 << 20, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sockets_that_send_nothing() {
    let server = Server::start(&["--connections-max", "800"]).await;
    let grown = beside(
        &server,
        Box::pin(async {
            let (mut peers, mut told) = (Vec::new(), 0);
            for _ in 0..1000 {
                match tokio_tungstenite::connect_async(server.ws()).await {
                    Ok((peer, _)) => peers.push(peer),
                    // Beyond the limit it is said, unless too many are being told already.
                    Err(tungstenite::Error::Http(answer)) => {
                        let retry = answer.headers()["retry-after"].to_str().unwrap();
                        assert_eq!((answer.status().as_u16(), retry), (503, "3"));
                        told += 1;
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            assert!(told >= 100, "{told} are told why");
            let answer = server.get("/healthz").await;
            assert_eq!((answer.status, answer.text()), (503, "{\"error\":\"too many connections\"}"));
            assert!((790..800).contains(&peers.len()), "{}", peers.len());
            drop(peers);
            // And the next one finds a place again.
            until("a place is free", || async { tokio_tungstenite::connect_async(server.ws()).await.ok() }).await;
        }),
    )
    .await;
    assert!(grown < 128 << 20, "{grown} bytes");
    assert!(server.metrics().await.get("tilecast_sockets_refused_total{reason=\"connections\"}") >= 200.0);
}
