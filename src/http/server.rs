//! Connections: accept, how many there are, socket options, and the limit on a request's headers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::metrics::Metrics;
use crate::shutdown::Stopped;

use super::wire::{Counted, Wire, Wires};

/// How long open connections may take to end after the stop.
const LINGER: Duration = Duration::from_secs(3);

/// What a listener grants its connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request's headers must be complete within this time.
    pub header_timeout: Duration,
    /// A peer that acknowledges nothing for this long is gone.
    pub peer_timeout: Duration,
    /// Connections that are open at a time; further ones are closed at once.
    pub connections_max: usize,
}

/// Ends a connection so that the peer reads our last words: closing a stream with unread bytes in it would be a reset,
/// which throws away what the peer has not read yet. Whatever still comes is thrown away, for `limit` at most.
pub async fn linger(mut stream: TcpStream, limit: Duration) {
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
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.wait() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok(_) if wires.open() >= limits.connections_max => {
                // The handles that are left are the spool's. Whoever dialed does so again.
                let nth = metrics.connection_refused();
                if nth.is_power_of_two() {
                    let max = limits.connections_max;
                    tracing::warn!(max, so_far = nth, "a connection more than --connections-max is closed");
                }
            }
            Ok((stream, _)) => {
                let wire = Arc::new(Wire::new(Arc::clone(&wires)));
                connections.spawn(connection(stream, router.clone(), limits, wire, stop.clone()));
            }
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

async fn connection(stream: TcpStream, router: Router, limits: Limits, wire: Arc<Wire>, mut stop: Stopped) {
    let socket = socket2::SockRef::from(&stream);
    // Neither is worth losing a connection for.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_user_timeout(Some(limits.peer_timeout));
    let io = TokioIo::new(Counted::new(stream, Arc::clone(&wire)));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&wire));
        router.clone().oneshot(request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.wait() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
