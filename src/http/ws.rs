//! A bot's WebSocket: upgrade, messages into the session, captures into their lanes, pings, and a close that says why.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, body::Bytes};
use futures::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite;

use crate::media::Micros;
use crate::pipeline::admission::{Full, Verdict};
use crate::pipeline::delivery::deliver;
use crate::pipeline::known::StoredError;
use crate::pipeline::pass::{Limited, SpentIds};
use crate::pipeline::session::{Accepted, Session, StoreWord, TRY_AGAIN_LATER};

use super::App;
use super::auth::{Admitted, BotRefusal};
use super::error::ApiError;
use super::server::{Peer, linger};
use super::wire::Wire;

/// How long a closing socket may take to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// A half received message is looked at this often within --message-timeout, and so is cut at most two looks late.
const HALF_LOOKS: u32 = 8;
/// What one read takes at most: small, for an idle socket keeps a buffer of this size.
const READ_BUFFER: usize = 64 * 1024;
/// Of answers to pings that the peer does not read; when it is full only the newest is kept.
const WRITE_BUFFER_MAX: usize = 16 * 1024;

/// While new bots are refused, a socket that was let in must say within this time which recording it is for.
const JUDGED_WITHIN: Duration = Duration::from_secs(5);

/// Why a socket ends, as the peer is told.
struct Close(u16, String);

/// `GET /ws/recall/` and `/ws/recall/{key}/`.
pub async fn upgrade(
    State(app): State<App>,
    key: Option<Path<String>>,
    Query(asked): Query<Vec<(String, String)>>,
    Extension(wire): Extension<Arc<Wire>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let metrics = &app.pipeline.metrics;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.as_ref().is_some_and(|Path(key)| !(1..=64).contains(&key.len()) || !key.bytes().all(plain)) {
        metrics.socket_refused("bad_key");
        return ApiError::bad_request("a key is 1 to 64 of A-Z a-z 0-9 _ -").into_response();
    }
    // Any query passes: a bot that is refused for one dials in vain 30 times.
    let token = asked.iter().find(|(name, _)| name == "token").map(|(_, token)| token.as_str());
    let admitted = match admit(&app, token, &headers) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            return refused(&app, refusal, key.as_ref().map(|Path(key)| key.as_str()), peer).into_response();
        }
    };
    if app.stop.is_rung() {
        metrics.socket_refused("stopping");
        let mut response = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping").into_response();
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
        return response;
    }
    let key = key.map(|Path(key)| key);
    let full = app.pipeline.full();
    let now = app.pipeline.clock.mono();
    let grace = || app.pipeline.registry.waits_for_bot(now);
    let judged = match app.pipeline.admission.ask(key.as_deref(), now, full, full.is_some() && grace()) {
        Verdict::Admit => None,
        Verdict::Judge(full) => Some(full),
        Verdict::Refuse(full) => {
            metrics.socket_refused(full.name());
            app.pipeline.tell_refused(key.as_deref(), admitted.tenant.as_deref(), full.name());
            return refusal(full).into_response();
        }
    };
    if let Some(limited) = admitted.pass.refuses(app.pipeline.clock.unix()) {
        metrics.socket_limited(limited.name());
        tracing::info!(reason = limited.name(), "a socket was let in for recordings that are here alone");
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            metrics.socket_refused("no_websocket");
            let agent = headers.get(header::USER_AGENT).is_some();
            tracing::debug!(has_agent = agent, "a request for a socket that is no upgrade");
            return ApiError::new(rejection.status(), rejection.body_text()).into_response();
        }
    };
    let max = usize::try_from(app.pipeline.config.message_max).unwrap_or(usize::MAX);
    upgrade
        .max_message_size(max)
        .max_frame_size(max)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .on_upgrade(move |socket| serve(app, socket, wire, Caller { admitted, key, judged }))
}

fn admit(app: &App, token: Option<&str>, headers: &HeaderMap) -> Result<Admitted, BotRefusal> {
    let unix = app.pipeline.clock.unix();
    let admitted = app.doors.admit(token, headers, unix)?;
    match admitted.pass.refuses(unix).filter(|_| !app.has_use_for(&admitted)) {
        Some(limited) => Err(BotRefusal::Limited(limited)),
        None => Ok(admitted),
    }
}

/// The answer to who is not let in. Who dials without end must not fill the log; the metrics have all of them.
fn refused(app: &App, refusal: BotRefusal, key: Option<&str>, Peer(peer): Peer) -> ApiError {
    let (counted, answer) = match refusal {
        BotRefusal::Closed => (
            "closed",
            ApiError::new(
                StatusCode::FORBIDDEN,
                "without credentials for bots only this machine is let in; set TILECAST_INGEST_TOKEN, \
                 TILECAST_INGEST_KEY or TILECAST_RECALL_SECRET, or start with --insecure",
            ),
        ),
        // Which of the two was wrong is for the log alone.
        _ => ("unauthorized", ApiError::new(StatusCode::UNAUTHORIZED, "give a valid ?token= or a valid signature")),
    };
    let nth = app.pipeline.metrics.socket_refused(counted);
    if nth.is_power_of_two() {
        tracing::warn!(reason = refusal.name(), %peer, key, so_far = nth, "a socket was refused at the door");
    }
    answer
}

/// 503 for a bot that is new while there is no room: it dials again, as balancers do with another server.
fn refusal(full: Full) -> impl IntoResponse {
    let retry = [(header::RETRY_AFTER, HeaderValue::from_static("3"))];
    (retry, ApiError::new(StatusCode::SERVICE_UNAVAILABLE, full.name()))
}

/// Who dialed.
struct Caller {
    admitted: Admitted,
    key: Option<String>,
    /// Let in while new bots are refused.
    judged: Option<Full>,
}

async fn serve(app: App, socket: WebSocket, wire: Arc<Wire>, caller: Caller) {
    app.pipeline.metrics.sockets_opened.inc();
    app.sockets.fetch_add(1, SeqCst);
    tracing::info!("socket opened");
    let (sink, mut stream) = socket.split();
    let (close, closed) = oneshot::channel();
    let writer = tokio::spawn(write(sink, app.pipeline.config.ping_every, closed));
    let Admitted { tenant, pass } = caller.admitted;
    let mut session = Session::new(Arc::clone(&app.pipeline), tenant.clone(), pass, caller.judged);
    let end = read(&app, &mut stream, &mut session, &wire).await;
    if let Some(full) = session.judged()
        && end.as_ref().is_some_and(|end| end.0 == TRY_AGAIN_LATER)
    {
        app.pipeline.tell_refused(caller.key.as_deref(), tenant.as_deref(), full.name());
        app.pipeline.metrics.socket_refused(full.name());
        app.pipeline.admission.refused(caller.key.as_deref(), app.pipeline.clock.mono());
    }
    drop(session);
    let closed_by_bot = end.is_none();
    match end {
        Some(Close(code, reason)) => {
            tracing::info!(code, reason, "socket closed by us");
            let _ = close.send((code, reason));
        }
        None => {
            tracing::info!("socket closed by the bot");
            drop(close);
        }
    }
    let _ = writer.await;
    app.sockets.fetch_sub(1, SeqCst);
    // A peer that takes its time with the rest must not keep the pipeline.
    drop(app);
    finish_handshake(stream, &wire, closed_by_bot).await;
}

/// The rest of the closing handshake (RFC 6455, 7.1.2), whoever began it: reading also sends the answer to a close.
async fn finish_handshake(mut stream: SplitStream<WebSocket>, wire: &Wire, mut peer_closed: bool) {
    let rest = async {
        while let Some(Ok(message)) = stream.next().await {
            peer_closed |= matches!(message, Message::Close(_));
            // Thrown away, and so not held against the others.
            wire.message_taken(length(&message));
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(CLOSE_WAIT, rest) => {}
        // Nothing more is read that way.
        () = wire.is_cut() => {}
    }
    let inherited = wire.inherit();
    drop(stream);
    if let Ok(stream) = inherited.await
        && !peer_closed
    {
        linger(stream, CLOSE_WAIT).await;
    }
}

/// Owns the sending side: pings, and at the end the close.
async fn write(mut sink: SplitSink<WebSocket, Message>, every: Duration, mut closed: oneshot::Receiver<(u16, String)>) {
    let mut ping = tokio::time::interval(every.max(Duration::from_millis(100)));
    ping.tick().await;
    loop {
        tokio::select! {
            _ = ping.tick() => {
                // Who reads nothing must not keep us from hearing that the socket is to be closed.
                let sent = tokio::time::timeout(CLOSE_WAIT, sink.send(Message::Ping(Bytes::new()))).await;
                if sent.is_ok_and(|sent| sent.is_err()) {
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
async fn read(app: &App, stream: &mut SplitStream<WebSocket>, session: &mut Session, wire: &Wire) -> Option<Close> {
    let mut stop = app.closing.listen();
    let limit = app.pipeline.config.message_timeout;
    let mut check = tokio::time::interval((limit / HALF_LOOKS).max(Duration::from_millis(20)));
    let limit = Micros::from(limit);
    let mut half_since: Option<Micros> = None;
    // Of the message that is being delivered: it counts as half received until it is charged as bytes in flight.
    let mut taken: Option<usize> = None;
    wire.upgraded();
    let mut judgement = std::pin::pin!(tokio::time::sleep(JUDGED_WITHIN));
    loop {
        if let Some(bytes) = taken.take() {
            wire.message_taken(bytes);
        }
        session.socket().reads(wire.half_received() > 0, app.pipeline.clock.mono());
        let message = tokio::select! {
            message = stream.next() => message?,
            () = &mut judgement, if session.judged().is_some() => {
                return session.judged().map(|full| Close(TRY_AGAIN_LATER, full.name().to_owned()));
            }
            () = stop.wait() => return Some(Close(1001, "the server is stopping; dial again".to_owned())),
            () = wire.is_cut() => {
                app.pipeline.metrics.rejected("half_received");
                return Some(Close(TRY_AGAIN_LATER, "too many large messages are half received; dial again".to_owned()));
            }
            _ = check.tick() => {
                let now = app.pipeline.clock.mono();
                half_since = (wire.half_received() > 0).then(|| half_since.unwrap_or(now));
                if half_since.is_some_and(|since| now - since >= limit) {
                    return Some(Close(1008, "a message was not complete in time".to_owned()));
                }
                continue;
            }
        };
        taken = Some(message.as_ref().map_or(0, length));
        session.socket().hears();
        let message = match message {
            Ok(message) => message,
            Err(error) => return close_for(app, error),
        };
        let bytes: Bytes = match &message {
            Message::Text(text) => text.clone().into(),
            Message::Binary(bytes) => bytes.clone(),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return None,
        };
        // Not by a ping: it may lie between the pieces of a message, which goes on to be incomplete.
        half_since = None;
        // Of a text message it is known already.
        let text = match &message {
            Message::Text(text) => Some(text.as_str()),
            _ => std::str::from_utf8(&bytes).ok(),
        };
        let accepted = accept(app, session, text, &bytes).await;
        match accepted {
            Accepted::LookUp(_) => {}
            Accepted::Close(code, reason) => return Some(Close(code, reason.to_owned())),
            Accepted::NothingNew(limited) => return Some(nothing_new(app, limited)),
            Accepted::Offers(offers) => {
                for offer in offers {
                    deliver(&app.pipeline, &mut session.patience, offer).await;
                }
            }
        }
    }
}

/// Takes a message; where it would open a recording, the store is asked for it first.
async fn accept(app: &App, session: &mut Session, text: Option<&str>, bytes: &Bytes) -> Accepted {
    let name = match session.accept(text, bytes, StoreWord::NotAsked) {
        Accepted::LookUp(name) => name,
        accepted => return accepted,
    };
    let unspent = session.unspent();
    let accepted = match app.pipeline.look_up(&name).await {
        Ok(()) => session.accept(text, bytes, StoreWord::Said),
        Err(StoredError::TooMany) => {
            app.pipeline.metrics.socket_refused("store");
            Accepted::Close(TRY_AGAIN_LATER, "too many recordings of this id were finished before")
        }
        // A bot is lost for good after 90 s: what it sends is kept in the spool, and lands where there is room.
        Err(_) => session.accept(text, bytes, StoreWord::Silent),
    };
    if let Some((id, spent)) = unspent.filter(|_| session.unspent().is_none()) {
        keep_id(app, id, spent);
    }
    accepted
}

/// Has the disk remember that a signed upgrade has opened a recording: behind the recording itself, for a bot that is
/// remembered and whose recording is not would be locked out by a death in between.
fn keep_id(app: &App, id: String, spent: Arc<SpentIds>) {
    let (pipeline, unix) = (Arc::clone(&app.pipeline), app.pipeline.clock.unix());
    tokio::spawn(async move {
        pipeline.sync_barrier().await;
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || spent.keep(&id, unix)).await {
            tracing::warn!(%error, "which signed upgrade opened a recording is known as long as the process lives");
        }
    });
}

/// The end of a socket that would open a recording, and may not.
fn nothing_new(app: &App, limited: Limited) -> Close {
    let reason = limited.name();
    app.pipeline.metrics.socket_refused(reason);
    Close(1008, format!("{reason}: this socket is for recordings that are here alone"))
}

/// Bytes that a message came with, headers apart.
fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(close) => close.as_ref().map_or(0, |close| 2 + close.reason.len()),
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
