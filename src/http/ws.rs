//! A bot's WebSocket: upgrade, messages into the session, captures into their lanes, pings, and a close that says why.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, body::Bytes};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite;

use crate::media::Micros;
use crate::pipeline::lane::Queued;
use crate::pipeline::session::{Accepted, Offer, Session};

use super::App;
use super::error::ApiError;
use super::server::Wire;

/// How long a closing socket may take to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// How often a half received message is looked at.
const HALF_CHECK: Duration = Duration::from_secs(5);
/// What one read takes at most: small, for an idle socket keeps a buffer of this size.
const READ_BUFFER: usize = 32 * 1024;

/// The query of the upgrade.
#[derive(Deserialize)]
pub struct Asked {
    token: Option<String>,
}

/// Why a socket ends, as the peer is told.
struct Close(u16, String);

/// `GET /ws/recall/` and `/ws/recall/{key}/`.
pub async fn upgrade(
    State(app): State<App>,
    key: Option<Path<String>>,
    Query(asked): Query<Asked>,
    Extension(wire): Extension<Arc<Wire>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let metrics = &app.pipeline.metrics;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.as_ref().is_some_and(|Path(key)| !(1..=64).contains(&key.len()) || !key.bytes().all(plain)) {
        metrics.socket_refused("bad_key");
        return ApiError::bad_request("a key is 1 to 64 of A-Z a-z 0-9 _ -").into_response();
    }
    let Some(admitted) = app.tokens.admit(asked.token.as_deref()) else {
        metrics.socket_refused("unauthorized");
        return ApiError::new(StatusCode::UNAUTHORIZED, "give a valid ?token=").into_response();
    };
    if app.stop.is_rung() {
        metrics.socket_refused("stopping");
        let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
        return response;
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            metrics.socket_refused("no_websocket");
            let agent = headers.get(header::USER_AGENT).is_some();
            tracing::debug!(has_agent = agent, "a request for a socket that is no upgrade");
            return rejection.into_response();
        }
    };
    let max = usize::try_from(app.pipeline.config.message_max).unwrap_or(usize::MAX);
    upgrade
        .max_message_size(max)
        .max_frame_size(max)
        .read_buffer_size(READ_BUFFER)
        .on_upgrade(move |socket| serve(app, socket, wire, admitted.tenant))
}

async fn serve(app: App, socket: WebSocket, wire: Arc<Wire>, tenant: Option<String>) {
    app.pipeline.metrics.sockets_opened.inc();
    app.sockets.fetch_add(1, SeqCst);
    tracing::info!("socket opened");
    let (sink, mut stream) = socket.split();
    let (close, closed) = oneshot::channel();
    let writer = tokio::spawn(write(sink, app.pipeline.config.ping_every, closed));
    let mut session = Session::new(Arc::clone(&app.pipeline), tenant);
    let end = read(&app, &mut stream, &mut session, &wire).await;
    drop(session);
    match end {
        Some(Close(code, reason)) => {
            tracing::info!(code, reason, "socket closed by us");
            let _ = close.send((code, reason));
            let _ = writer.await;
            wire.drain();
            let _ = tokio::time::timeout(CLOSE_WAIT, async { while let Some(Ok(_)) = stream.next().await {} }).await;
        }
        None => {
            tracing::info!("socket closed by the bot");
            drop(close);
            let _ = writer.await;
        }
    }
    app.sockets.fetch_sub(1, SeqCst);
}

/// Owns the sending side: pings, and at the end the close.
async fn write(mut sink: SplitSink<WebSocket, Message>, every: Duration, mut closed: oneshot::Receiver<(u16, String)>) {
    let mut ping = tokio::time::interval(every.max(Duration::from_millis(100)));
    ping.tick().await;
    loop {
        tokio::select! {
            _ = ping.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
            }
            close = &mut closed => {
                if let Ok((code, reason)) = close {
                    let message = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
                    let _ = tokio::time::timeout(CLOSE_WAIT, sink.send(message)).await;
                }
                return;
            }
        }
    }
}

/// Reads until the socket ends; says why we end it, or `None` when the peer did.
async fn read(
    app: &App,
    stream: &mut futures::stream::SplitStream<WebSocket>,
    session: &mut Session,
    wire: &Wire,
) -> Option<Close> {
    let mut stop = app.closing.listen();
    let mut check = tokio::time::interval(HALF_CHECK);
    let mut half_since: Option<Micros> = None;
    wire.message_complete();
    loop {
        session.socket().busy.store(wire.half_received() > 0, SeqCst);
        let message = tokio::select! {
            message = stream.next() => message?,
            () = stop.wait() => return Some(Close(1001, "the server is stopping; dial again".to_owned())),
            _ = check.tick() => {
                let now = app.pipeline.clock.mono();
                half_since = (wire.half_received() > 0).then(|| half_since.unwrap_or(now));
                let limit = Micros::from(app.pipeline.config.message_timeout);
                if half_since.is_some_and(|since| now - since >= limit) {
                    return Some(Close(1008, "a message was not complete in time".to_owned()));
                }
                continue;
            }
        };
        wire.message_complete();
        half_since = None;
        session.socket().busy.store(true, SeqCst);
        let text: Bytes = match message {
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) => return None,
            Err(error) => return close_for(app, error),
        };
        match session.accept(&text) {
            Accepted::Close(code, reason) => return Some(Close(code, reason.to_owned())),
            Accepted::Offers(offers) => {
                for offer in offers {
                    deliver(app, session, offer).await;
                }
            }
        }
    }
}

/// What an error of the socket is answered with.
fn close_for(app: &App, error: axum::Error) -> Option<Close> {
    use tungstenite::Error;
    match error.into_inner().downcast::<Error>().map(|error| *error) {
        Ok(Error::Capacity(_)) => {
            app.pipeline.metrics.rejected("oversized");
            let max = app.pipeline.config.message_max;
            Some(Close(1009, format!("a message is larger than {max} bytes (--message-max)")))
        }
        Ok(Error::Utf8(_)) => {
            app.pipeline.metrics.rejected("not_utf8");
            Some(Close(1007, "a text message is not UTF-8".to_owned()))
        }
        Ok(Error::Protocol(error))
            if !matches!(error, tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) =>
        {
            app.pipeline.metrics.rejected("protocol");
            Some(Close(1002, error.to_string()))
        }
        _ => None,
    }
}

/// Brings a capture into its lane: waits for the budget and for a place, for as long as the socket has patience.
async fn deliver(app: &App, session: &mut Session, offer: Offer) {
    let Offer { lane, capture, message_bytes, picture_bytes } = offer;
    let clock = &app.pipeline.clock;
    let since = clock.mono();
    let at = capture.at;
    if lane.sheds_next() {
        return lane.shed(at);
    }
    let charge = app.pipeline.budget.charge(message_bytes + picture_bytes).await;
    let mut queued = Queued { capture, charge, message_bytes };
    loop {
        let freed = lane.freed().notified();
        let mut freed = std::pin::pin!(freed);
        freed.as_mut().enable();
        match lane.offer(queued) {
            Ok(()) => break,
            Err(back) => queued = back,
        }
        let now = clock.mono();
        let until = session.patience.until(since, lane.freed_at(), now);
        if now >= until {
            lane.shed_more();
            lane.shed(at);
            break;
        }
        let wait = Duration::from_micros((until - now).0.max(0) as u64);
        let _ = tokio::time::timeout(wait, freed).await;
    }
    let now = clock.mono();
    session.patience.held(since, now);
    // Below a millisecond nothing was full.
    if now - since > Micros(1000) {
        app.pipeline.metrics.socket_waited.inc_by((now - since).as_secs_f64());
    }
}
