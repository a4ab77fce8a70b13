//! Connections: accept, TLS, how many there are, socket options, and the limits on a request's headers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::metrics::Metrics;
use crate::shutdown::Stopped;

use super::arrivals::Arrivals;
use super::census::{Census, Counted as Place};
use super::wire::{Counted, Stream, Wire, Wires};

/// How long open connections may take to end after the stop.
const LINGER: Duration = Duration::from_secs(3);

/// A request's headers in bytes; Recall's and browsers' are below 2 KiB. More are 431.
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Lines of a request's headers. More are 431.
const HEADER_LINES_MAX: usize = 64;
/// Connections over a limit that are told so at the same time; more are cut without a word.
const TOLD_MAX: usize = 64;
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\nConnection: close\r\n\
    Content-Type: application/json\r\nContent-Length: 32\r\n\r\n{\"error\":\"too many connections\"}";
/// How long who is told may take to read it.
const TELL: Duration = Duration::from_secs(1);

/// What a listener grants its connections.
#[derive(Clone)]
pub struct Limits {
    /// A request's headers must be complete within this time.
    pub header_timeout: Duration,
    /// A peer that acknowledges nothing for this long is gone.
    pub peer_timeout: Duration,
    /// Connections that are open at a time; further ones get 503.
    pub connections_max: usize,
    /// How many there may be of one address.
    pub census: Arc<Census>,
    /// Speaks TLS, where there is a certificate.
    pub tls: Option<TlsAcceptor>,
}

/// Who sent a request, as far as the connection tells: behind a proxy that is the proxy.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Ends a connection so that the peer reads our last words: closing a stream with unread bytes in it would be a reset,
/// which throws away what the peer has not read yet. Whatever still comes is thrown away, for `limit` at most.
pub async fn linger(mut stream: impl Stream, limit: Duration) {
    let rest = async {
        let mut bytes = vec![0; 16 * 1024];
        stream.shutdown().await?;
        while stream.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    // A peer that is gone has nothing left to read.
    let _ = tokio::time::timeout(limit, rest).await;
}

/// Serves `router` until `stop`; then no connection is taken, and those open have a few seconds to end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    wires: Arc<Wires>,
    metrics: Arc<Metrics>,
    mut stop: Stopped,
) {
    let mut connections = JoinSet::new();
    let told = Arc::new(Semaphore::new(TOLD_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) if wires.open() >= limits.connections_max => {
                // The handles that are left are the spool's. Whoever dialed does so again.
                let nth = metrics.connection_refused();
                if nth.is_power_of_two() {
                    let max = limits.connections_max;
                    tracing::warn!(max, so_far = nth, "a connection more than --connections-max is closed");
                }
                turn_away(stream, &limits, &told, &mut connections);
            }
            Ok((stream, peer)) => match limits.census.enter(peer.ip()) {
                Some(place) => {
                    let wire = Arc::new(Wire::new(Arc::clone(&wires)));
                    let came = Came { stream, peer: Peer(peer.ip()), place, wire, metrics: Arc::clone(&metrics) };
                    connections.spawn(connection(came, router.clone(), limits.clone(), stop.clone()));
                }
                None => {
                    metrics.request_refused("address_connections");
                    turn_away(stream, &limits, &told, &mut connections);
                }
            },
            Err(error) => {
                // Out of file descriptors, most often: what is open goes on, and new ones get their turn.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LINGER, all).await;
}

/// Tells who comes beyond a limit so, where that takes no handshake and not too many are being told already.
fn turn_away(stream: TcpStream, limits: &Limits, told: &Arc<Semaphore>, connections: &mut JoinSet<()>) {
    if limits.tls.is_none()
        && let Ok(turn) = Arc::clone(told).try_acquire_owned()
    {
        connections.spawn(async move {
            tell(stream).await;
            drop(turn);
        });
    }
}

/// Says that there are too many connections.
async fn tell(mut stream: TcpStream) {
    let said = tokio::time::timeout(TELL, stream.write_all(TOO_MANY)).await;
    if said.is_ok_and(|said| said.is_ok()) {
        linger(stream, TELL).await;
    }
}

/// A connection that was taken.
struct Came {
    stream: TcpStream,
    peer: Peer,
    place: Place,
    wire: Arc<Wire>,
    metrics: Arc<Metrics>,
}

async fn connection(came: Came, router: Router, limits: Limits, mut stop: Stopped) {
    let Came { stream, peer, place, wire, metrics } = came;
    let socket = socket2::SockRef::from(&stream);
    // Neither is worth losing a connection for.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(limits.peer_timeout));
    let stream: Box<dyn Stream> = match &limits.tls {
        None => Box::new(Arrivals::new(stream, Arc::clone(&wire))),
        Some(tls) => match tokio::time::timeout(limits.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            // Too slow, or no TLS: nobody to be told.
            _ => return metrics.request_refused("tls"),
        },
    };
    let io = TokioIo::new(Counted::new(stream, Arc::clone(&wire), place));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        wire.request_came();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&wire));
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(HEADER_LINES_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.wait() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
