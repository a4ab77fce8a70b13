//! What is known of a connection below HTTP and WebSocket: how much of a message is half received, and who gets the
//! stream at the end. What all sockets together have half received is bounded.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};

use super::census::Counted as Place;

/// Of one message in one piece, and of a few pings around it.
const HEADERS_MAX: u64 = 64;
/// A message up to this size is never cut: nearly every picture of a webcam is smaller.
const SMALL: u64 = 1 << 20;

/// A connection's bytes, in TLS or not.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// All connections of a listener.
#[derive(Debug)]
pub struct Wires {
    open: AtomicUsize,
    half: AtomicU64,
    half_max: u64,
}

impl Wires {
    /// None yet. When they have more than `half_max` bytes half received, whoever goes on with a large message is cut.
    pub fn new(half_max: u64) -> Arc<Wires> {
        Arc::new(Wires { open: AtomicUsize::new(0), half: AtomicU64::new(0), half_max })
    }

    /// Connections that are open, to their very end.
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Bytes of messages that are not whole, or that were not taken yet.
    pub fn half_received(&self) -> u64 {
        self.half.load(SeqCst)
    }
}

/// A connection, below HTTP; an extension of each of its requests.
pub struct Wire {
    /// Bytes read of a message that is not whole.
    half: AtomicU64,
    /// Whether it speaks messages by now.
    counts: AtomicBool,
    /// It went on with a large message while there was too much half received: nothing more is read.
    is_cut: AtomicBool,
    cut: Notify,
    all: Arc<Wires>,
    /// Who gets the stream when HTTP and WebSocket are done with it.
    heir: Mutex<Option<oneshot::Sender<Box<dyn Stream>>>>,
}

impl Wire {
    /// One that says nothing yet.
    pub fn new(all: Arc<Wires>) -> Wire {
        all.open.fetch_add(1, SeqCst);
        Wire {
            half: AtomicU64::new(0),
            counts: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
            all,
            heir: Mutex::default(),
        }
    }

    /// From here on it carries messages; what was read so far was none.
    pub fn upgraded(&self) {
        self.counts.store(true, SeqCst);
    }

    /// Whether what comes now are messages.
    pub fn is_upgraded(&self) -> bool {
        self.counts.load(SeqCst)
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
        self.all.half.fetch_sub(before - left(before), SeqCst);
    }

    /// Returns when nothing more of it is read, for there is too much half received.
    pub async fn is_cut(&self) {
        while !self.is_cut.load(SeqCst) {
            self.cut.notified().await;
        }
    }

    /// Asks for the stream: it comes once everybody else has dropped it, and is to be passed to [`super::server::linger`].
    pub fn inherit(&self) -> oneshot::Receiver<Box<dyn Stream>> {
        let (give, take) = oneshot::channel();
        *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = Some(give);
        take
    }

    fn read(&self, bytes: u64) {
        if !self.is_upgraded() {
            return;
        }
        let half = self.half.fetch_add(bytes, SeqCst) + bytes;
        let total = self.all.half.fetch_add(bytes, SeqCst) + bytes;
        if total > self.all.half_max && half > SMALL {
            self.is_cut.store(true, SeqCst);
            self.cut.notify_one();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, SeqCst);
        self.all.half.fetch_sub(*self.half.get_mut(), SeqCst);
    }
}

/// A stream that counts what it reads, and leaves itself to the [`Wire`]'s heir.
pub struct Counted {
    /// `None` only while it is dropped.
    stream: Option<Box<dyn Stream>>,
    wire: Arc<Wire>,
    /// An upgraded connection lives on in its stream.
    _place: Place,
}

impl Counted {
    /// Counts on `wire`.
    pub fn new(stream: Box<dyn Stream>, wire: Arc<Wire>, place: Place) -> Counted {
        Counted { stream: Some(stream), wire, _place: place }
    }

    fn stream(&mut self) -> Pin<&mut Box<dyn Stream>> {
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
        if self.wire.is_cut.load(SeqCst) {
            // Whoever reads was told, and waits for nothing but the end.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(self.stream().poll_read(cx, buffer))?;
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
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn wire(all: &Arc<Wires>) -> Wire {
        let wire = Wire::new(Arc::clone(all));
        wire.read(1_000);
        assert_eq!(wire.half_received(), 0, "a request is no message");
        wire.upgraded();
        wire
    }

    #[test]
    fn the_start_of_the_next_message_counts() {
        let all = Wires::new(u64::MAX);
        let wire = wire(&all);
        let half = || (wire.half_received(), all.half_received());
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
        assert_eq!((all.half_received(), all.open()), (0, 0));
    }

    #[test]
    fn when_there_is_too_much_large_messages_are_cut_and_small_ones_are_not() {
        let all = Wires::new(6 << 20);
        let is_cut = |wire: &Wire| wire.is_cut().now_or_never().is_some();
        let (stuck, large, small) = (wire(&all), wire(&all), wire(&all));
        stuck.read(4 << 20);
        large.read(1 << 20);
        small.read(SMALL);
        assert!(![&stuck, &large, &small].into_iter().any(is_cut), "nobody went on with a large one since");
        large.read(1);
        assert!(is_cut(&large) && !is_cut(&stuck));
        drop(large);
        stuck.read(1);
        assert!(!is_cut(&stuck), "there is room again");
    }
}
