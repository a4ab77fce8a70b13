//! Connections: accept, socket options, the limit on a request's headers, and how much of a message is half received.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tower::ServiceExt;

use crate::shutdown::Stopped;

/// How long open connections may take to end after the stop.
const LINGER: Duration = Duration::from_secs(3);

/// Of one message in one piece, and of a few pings around it.
const HEADERS_MAX: u64 = 64;

/// How long the next read waits while a message is half received and nothing more of it was there. Bots behind a proxy
/// send in pieces of 1.5 to 16 kB; to wake up for each costs as much as decoding the picture.
const READ_APART: Duration = Duration::from_millis(5);

/// What a listener grants its connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A request's headers must be complete within this time.
    pub header_timeout: Duration,
    /// A peer that acknowledges nothing for this long is gone.
    pub peer_timeout: Duration,
}

/// What is known of a connection below HTTP; an extension of each of its requests.
#[derive(Debug)]
pub struct Wire {
    /// Bytes read of a message that is not whole.
    half: AtomicU64,
    /// The same, of all connections.
    total: Arc<AtomicU64>,
    /// Whether it carries messages now, not requests.
    upgraded: AtomicBool,
    /// Who gets the stream when HTTP and WebSocket are done with it.
    heir: Mutex<Option<oneshot::Sender<TcpStream>>>,
}

impl Wire {
    fn new(total: Arc<AtomicU64>) -> Wire {
        Wire { half: AtomicU64::new(0), total, upgraded: AtomicBool::new(false), heir: Mutex::default() }
    }

    /// Bytes read of a message that is not whole, or of several that nobody took yet.
    pub fn half_received(&self) -> u64 {
        self.half.load(SeqCst)
    }

    /// A whole message of so many bytes was taken. What was read beyond it is the start of the next one; within a
    /// sixteenth it may as well be the headers of the pieces that it came in, and counts as those.
    pub fn message_taken(&self, bytes: usize) {
        let taken = bytes as u64 + bytes as u64 / 16 + HEADERS_MAX;
        let left = |half: u64| if half > taken { half - bytes as u64 } else { 0 };
        let before = self.half.fetch_update(SeqCst, SeqCst, |half| Some(left(half))).expect("always a value");
        self.total.fetch_sub(before - left(before), SeqCst);
    }

    /// From here on it carries messages; what was read so far was none.
    pub fn upgraded(&self) {
        self.forget();
        self.upgraded.store(true, SeqCst);
    }

    fn forget(&self) {
        let half = self.half.swap(0, SeqCst);
        self.total.fetch_sub(half, SeqCst);
    }

    /// Asks for the stream: it comes once everybody else has dropped it, and is to be passed to [`linger`].
    pub fn inherit(&self) -> oneshot::Receiver<TcpStream> {
        let (give, take) = oneshot::channel();
        *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = Some(give);
        take
    }

    fn read(&self, bytes: u64) {
        self.half.fetch_add(bytes, SeqCst);
        self.total.fetch_add(bytes, SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.forget();
    }
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
    half_total: Arc<AtomicU64>,
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
            Ok((stream, _)) => {
                let wire = Arc::new(Wire::new(Arc::clone(&half_total)));
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

/// A stream that counts what it reads, lets the pieces of a message gather, and leaves itself to the [`Wire`]'s heir.
struct Counted {
    /// `None` only while it is dropped.
    stream: Option<TcpStream>,
    wire: Arc<Wire>,
    /// The last read took all that was there.
    emptied: bool,
    /// Until when the next one waits.
    apart: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    fn new(stream: TcpStream, wire: Arc<Wire>) -> Counted {
        Counted { stream: Some(stream), wire, emptied: false, apart: None }
    }

    /// Ready once enough of a half received message may have gathered.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.emptied) && self.wire.upgraded.load(SeqCst) && self.wire.half_received() > 0 {
            self.apart = Some(Box::pin(tokio::time::sleep(READ_APART)));
        }
        if let Some(apart) = &mut self.apart {
            ready!(apart.as_mut().poll(cx));
            self.apart = None;
        }
        Poll::Ready(())
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(self.stream.as_mut().expect("taken when dropped, and not before"))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let heir = self.wire.heir.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(heir), Some(stream)) = (heir, self.stream.take()) {
            // Who asked and did not wait does not want it.
            let _ = heir.send(stream);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_gathered(cx));
        let before = buffer.filled().len();
        ready!(self.stream().poll_read(cx, buffer))?;
        self.emptied = buffer.remaining() > 0;
        self.wire.read((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_of_a_message_gather() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let wire = Arc::new(Wire::new(Arc::default()));
        let mut counted = Counted::new(listener.accept().await.unwrap().0, Arc::clone(&wire));
        let mut bytes = [0; 64];
        for _ in 0..2 {
            sender.write_all(b"GET /").await.unwrap();
            assert_eq!(read_one(&mut counted, &mut bytes).await, (5, false), "a request");
        }
        wire.upgraded();
        // What is sent, what is taken as a message before that, what one read gives, and whether it waits for more.
        for (sent, taken, read, waits) in
            [(10, 0, 10, false), (20, 0, 20, true), (70, 30, 64, false), (0, 0, 6, false), (9, 0, 9, true)]
        {
            if taken > 0 {
                wire.message_taken(taken);
            }
            sender.write_all(&vec![0; sent]).await.unwrap();
            assert_eq!(read_one(&mut counted, &mut bytes).await, (read, waits), "{sent} bytes sent");
        }
    }

    /// Bytes of one read, and whether it waited for more to gather.
    async fn read_one(counted: &mut Counted, bytes: &mut [u8]) -> (usize, bool) {
        let first = futures::poll!(std::pin::pin!(counted.read(bytes)));
        let waited = counted.apart.is_some();
        let read = match first {
            Poll::Ready(read) => read,
            Poll::Pending => counted.read(bytes).await,
        };
        (read.unwrap(), waited)
    }

    #[test]
    fn the_start_of_the_next_message_counts() {
        let total = Arc::new(AtomicU64::new(0));
        let wire = Wire::new(Arc::clone(&total));
        let half = || (wire.half_received(), total.load(SeqCst));
        wire.read(100_014);
        assert_eq!(half(), (100_014, 100_014));
        wire.message_taken(100_000);
        assert_eq!(half(), (0, 0));
        // In pieces of 16 kB, each with its header.
        wire.read(100_014 + 6 * 14);
        wire.message_taken(100_000);
        assert_eq!(half(), (0, 0));
        // Three messages in one read, and a start.
        wire.read(3 * 1_008 + 500);
        (0..3).for_each(|_| wire.message_taken(1_000));
        assert_eq!(half(), (524, 524));
        wire.read(484);
        wire.message_taken(1_000);
        assert_eq!(half(), (0, 0));
        wire.read(7);
        drop(wire);
        assert_eq!(total.load(SeqCst), 0);
    }
}
