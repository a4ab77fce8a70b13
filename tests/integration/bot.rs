//! A bot of a meeting, as the server sees it: one socket, messages as Recall.ai writes them, pictures with numbers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tilecast::cli::simulate::picture::{Label, draw};
use tilecast::cli::simulate::template::Template;
use tilecast::clock::rfc3339;
use tilecast::media::{Kind, Micros};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::PATIENCE;

/// The absolute time of `relative == 0` of every meeting here: 2026-01-01T10:00:00Z.
pub const ORIGIN: Micros = Micros(1_767_261_600_000_000);
/// The size of numbered pictures: small, for the encoder's sake, and with cells of 8 samples.
pub const SIZE: (u32, u32) = (320, 180);

/// What a bot is told apart by.
pub const BOT_ID: &str = "0c3e7f4e-8f1d-4a8e-9d54-6a1c1f1b7c11";

/// A participant's camera or screen: draws numbered pictures cheaply.
pub struct Camera {
    template: Template,
    participant: u32,
    kind: Kind,
}

impl Camera {
    /// The scene of a participant (under 512), in pictures of [`SIZE`].
    pub fn new(participant: u32, kind: Kind) -> Camera {
        Camera::sized(participant, kind, SIZE)
    }

    /// In pictures of another size.
    pub fn sized(participant: u32, kind: Kind, size: (u32, u32)) -> Camera {
        Camera { template: Template::new(draw(size, participant, kind, 0, 1)), participant, kind }
    }

    /// What the picture of this number says.
    pub fn label(&self, number: u32) -> Label {
        Label { participant: self.participant, kind: self.kind, number }
    }

    /// The PNG of this number, as base64.
    pub fn base64(&self, number: u32) -> String {
        let mut text = String::new();
        self.template.write_base64(&self.label(number), &mut text);
        text
    }

    /// The PNG of this number.
    pub fn png(&self, number: u32) -> Vec<u8> {
        STANDARD.decode(self.base64(number)).unwrap()
    }
}

/// Standard base64.
pub fn base64(png: &[u8]) -> String {
    STANDARD.encode(png)
}

/// Seconds after the recording's start at which a tick of 2 a second starts.
pub fn at(tick: u32) -> f64 {
    f64::from(tick) / 2.0
}

/// A message with a picture, to be bent by the test. `participant` is a number or a text.
pub fn picture(recording: &str, participant: impl Into<Value>, kind: Kind, relative: f64, base64: &str) -> Value {
    let mut message = envelope("video_separate_png.data", recording, participant, relative);
    message["data"]["data"]["buffer"] = base64.into();
    message["data"]["data"]["type"] = kind.name().into();
    message["data"]["video_separate"] = json!({ "id": "e31c1f3e-5f4f-4c1c-8e0b-2f7a0d6a3b52", "metadata": {} });
    message
}

/// A `participant_events.{action}` message.
pub fn event(recording: &str, participant: impl Into<Value>, action: &str, relative: f64) -> Value {
    let mut message = envelope(&format!("participant_events.{action}"), recording, participant, relative);
    message["data"]["data"]["data"] = Value::Null;
    message
}

fn envelope(event: &str, recording: &str, participant: impl Into<Value>, relative: f64) -> Value {
    let absolute = rfc3339(ORIGIN + Micros::from_secs_f64(relative).unwrap_or_default());
    let participant: Value = participant.into();
    let name = format!("Participant {}", participant.to_string().trim_matches('"'));
    json!({
        "event": event,
        "data": {
            "data": {
                "timestamp": { "relative": relative, "absolute": absolute },
                "participant": { "id": participant, "name": name, "is_host": false, "platform": "desktop",
                                 "email": null, "extra_data": null },
            },
            "realtime_endpoint": { "id": "c9f0d3c0-7a0e-4b9b-8a53-0f4f7f1c2d11", "metadata": {} },
            "recording": { "id": recording, "metadata": {} },
            "bot": { "id": BOT_ID, "metadata": { "team": "blue" } },
        },
    })
}

/// One open socket.
pub struct Bot {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pings: u64,
}

/// How a socket ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a close, its code and its reason.
    Close(u16, String),
    /// Without one.
    Cut,
}

impl Bot {
    /// Dials `url`; panics when the server does not take it.
    pub async fn connect(url: &str) -> Bot {
        let (socket, _) = connect_async(url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        Bot { socket, pings: 0 }
    }

    /// Dials `url`; gives the status, headers and body of a refusal.
    pub async fn dial(url: &str) -> Result<Bot, (u16, String)> {
        Bot::dial_with(url, &[]).await
    }

    /// The same, with headers.
    pub async fn dial_with(url: &str, headers: &[(&'static str, &str)]) -> Result<Bot, (u16, String)> {
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Bot { socket, pings: 0 }),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(error) => panic!("{url}: {error}"),
        }
    }

    /// Sends whatever it is given.
    pub async fn send(&mut self, message: Message) {
        let sent = tokio::time::timeout(PATIENCE, self.socket.send(message)).await;
        sent.expect("the server reads on").expect("the socket is open");
    }

    /// Sends a text message.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    /// Sends a JSON message.
    pub async fn send_json(&mut self, message: &Value) {
        self.send_text(message.to_string()).await;
    }

    /// Sends a picture.
    pub async fn send_picture(&mut self, recording: &str, participant: i64, kind: Kind, relative: f64, base64: &str) {
        self.send_json(&picture(recording, participant, kind, relative, base64)).await;
    }

    /// Sends a participant event.
    pub async fn send_event(&mut self, recording: &str, participant: i64, action: &str, relative: f64) {
        self.send_json(&event(recording, participant, action, relative)).await;
    }

    /// Sends the picture of `tick` as number `tick`, on the tick, as a webcam.
    pub async fn send_tick(&mut self, recording: &str, participant: i64, camera: &Camera, tick: u32) {
        self.send_picture(recording, participant, camera.kind, at(tick), &camera.base64(tick)).await;
    }

    /// Returns when the server has taken everything sent so far into its lanes: it answers a ping in its turn.
    pub async fn taken(&mut self) {
        self.pings += 1;
        let payload = format!("ping {}", self.pings).into_bytes();
        self.send(Message::Ping(payload.clone().into())).await;
        loop {
            match self.next().await {
                Some(Ok(Message::Pong(answer))) if answer == payload => return,
                Some(Ok(Message::Close(frame))) => panic!("closed: {frame:?}"),
                Some(Ok(_)) => {}
                other => panic!("the socket ended: {other:?}"),
            }
        }
    }

    /// Hangs up after everything sent was taken, and waits for the answer to its close.
    pub async fn close(mut self) {
        self.taken().await;
        self.send(Message::Close(None)).await;
        loop {
            match self.next().await {
                Some(Ok(Message::Close(_))) => return,
                Some(Ok(_)) => {}
                other => panic!("a close is answered (RFC 6455, 5.5.1): {other:?}"),
            }
        }
    }

    /// How the server ends this socket; its close is answered.
    pub async fn ended(&mut self) -> End {
        let mut end = End::Cut;
        while let Some(Ok(message)) = self.next().await {
            if let Message::Close(Some(CloseFrame { code, reason })) = message {
                end = End::Close(code.into(), reason.as_str().to_owned());
            }
        }
        end
    }

    /// The socket's stream below WebSocket, to write what no library would.
    pub fn raw(&mut self) -> &mut TcpStream {
        match self.socket.get_mut() {
            MaybeTlsStream::Plain(stream) => stream,
            _ => unreachable!("tests speak plain TCP"),
        }
    }

    async fn next(&mut self) -> Option<Result<Message, Error>> {
        let limit = PATIENCE + Duration::from_secs(5);
        tokio::time::timeout(limit, self.socket.next()).await.expect("the server says something in time")
    }
}
