//! What is known of a connection below HTTP and WebSocket: how much of a message is half received, and who gets the
//! stream at the end. What all sockets together have half received is bounded.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};

use super::census::Counted as Place;
use super::pieces::{Pieces, with_header};

/// When there is too much, a message up to this size goes on: nearly every picture of a webcam is smaller.
const SMALL: u64 = 1 << 20;
/// When there is twice too much, one up to this size does: what a bot says beside its pictures.
const TINY: u64 = 16 << 10;

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
    /// None yet. When they have more than `half_max` bytes half received, whoever goes on with a large message is cut; when
    /// it is twice that, whoever goes on with any but a tiny one.
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

/// What was read of HTTP, to know whether the first message begins right behind it: not where a client sends messages
/// before it is told that it may.
#[derive(Debug, Default)]
struct Requests {
    /// Requests whose headers were read.
    served: u64,
    /// Empty lines. Each request's headers end with one; others are in bodies, or in what came too early.
    empty_lines: u64,
    /// Bytes behind the last of them.
    behind: u64,
    /// Nothing was read yet of the line.
    line_is_empty: bool,
}

impl Requests {
    fn see(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.behind += 1;
            if *byte == b'\n' && self.line_is_empty {
                self.empty_lines += 1;
                self.behind = 0;
            }
            self.line_is_empty = *byte == b'\n' || (*byte == b'\r' && self.line_is_empty);
        }
    }

    /// Whether the last one ends where reading has come to. With as many empty lines as requests each is the end of one, so
    /// that nobody who sends too early can pretend it.
    fn end_here(&self) -> bool {
        self.empty_lines == self.served && self.behind == 0
    }
}

/// What was read of a connection.
#[derive(Debug, Default)]
struct Heard {
    requests: Requests,
    /// It speaks messages by now.
    upgraded: bool,
    /// Of its messages. Lost where it is not known where they begin: then headers of pieces stay half received.
    pieces: Pieces,
    /// Messages that were taken.
    taken: u64,
    /// Bytes of messages that are not whole, or that were not taken yet.
    half: u64,
}

/// A connection, below HTTP; an extension of each of its requests.
pub struct Wire {
    heard: Mutex<Heard>,
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
            heard: Mutex::default(),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
            all,
            heir: Mutex::default(),
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The headers of a request were read.
    pub fn request_came(&self) {
        self.heard().requests.served += 1;
    }

    /// From here on it carries messages; what was read so far was none.
    pub fn upgraded(&self) {
        let mut heard = self.heard();
        heard.upgraded = true;
        if !heard.requests.end_here() {
            heard.pieces = Pieces::lost();
        }
    }

    /// Whether what comes now are messages, and it is known where they began.
    pub fn is_in_step(&self) -> bool {
        let heard = self.heard();
        heard.upgraded && !heard.pieces.is_lost()
    }

    /// Bytes read of a message that is not whole, or of several that nobody took yet.
    pub fn half_received(&self) -> u64 {
        self.heard().half
    }

    /// A whole message of so many bytes, headers apart, was taken. To be told of each that the WebSocket library gives.
    pub fn message_taken(&self, bytes: usize) {
        let mut heard = self.heard();
        heard.taken += 1;
        let left = if heard.pieces.is_lost() || heard.pieces.whole() > heard.taken {
            // Never more than it took. Of one in several pieces it is less, which is mended at the last one that is whole.
            heard.half.saturating_sub(with_header(bytes as u64))
        } else {
            heard.pieces.open()
        };
        self.keep(&mut heard, left);
    }

    /// Of what is half received so much is left.
    fn keep(&self, heard: &mut Heard, left: u64) {
        let gone = heard.half.saturating_sub(left);
        heard.half -= gone;
        self.all.half.fetch_sub(gone, SeqCst);
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

    fn read(&self, bytes: &[u8]) {
        let mut heard = self.heard();
        if !heard.upgraded {
            return heard.requests.see(bytes);
        }
        heard.pieces.see(bytes);
        let new = bytes.len() as u64;
        heard.half += new;
        let (half, total) = (heard.half, self.all.half.fetch_add(new, SeqCst) + new);
        let half_max = self.all.half_max;
        if total > half_max && half > SMALL || total > half_max.saturating_mul(2) && half > TINY {
            self.is_cut.store(true, SeqCst);
            self.cut.notify_one();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, SeqCst);
        self.keep(&mut self.heard(), 0);
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
        // Whoever read it is gone, and with it what was half received. Its heir keeps nothing.
        self.wire.keep(&mut self.wire.heard(), 0);
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
        self.wire.read(&buffer.filled()[before..]);
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

    use super::super::pieces::tests::piece;
    use super::*;

    const REQUEST: &[u8] = b"GET /ws/recall/ HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
    const TEXT: u8 = 0x81;
    const PING: u8 = 0x89;
    const PONG: u8 = 0x8a;
    /// The pieces of a text: the first, one in the middle, the last.
    const PIECES: [u8; 3] = [0x01, 0x00, 0x80];

    fn wire(all: &Arc<Wires>) -> Wire {
        let wire = Wire::new(Arc::clone(all));
        wire.read(REQUEST);
        wire.request_came();
        wire.upgraded();
        assert_eq!(wire.half_received(), 0, "a request is no message");
        wire
    }

    fn text(bytes: usize) -> Vec<u8> {
        piece(TEXT, bytes, true)
    }

    #[test]
    fn the_start_of_the_next_message_counts() {
        let all = Wires::new(u64::MAX);
        let wire = wire(&all);
        let half = || (wire.half_received(), all.half_received());
        wire.read(&text(100_000));
        assert_eq!(half(), (100_014, 100_014));
        wire.message_taken(100_000);
        assert_eq!(half(), (0, 0));
        // Three messages in one read, and a start.
        let next = text(1_000);
        wire.read(&[&next.repeat(3)[..], &next[..500]].concat());
        assert_eq!(half(), (3_524, 3_524));
        (0..3).for_each(|_| wire.message_taken(1_000));
        assert_eq!(half(), (500, 500));
        wire.read(&next[500..]);
        wire.message_taken(1_000);
        assert_eq!(half(), (0, 0));
        // A header alone is a start, too.
        wire.read(&next[..1]);
        assert_eq!(half(), (1, 1));
        drop(wire);
        assert_eq!((all.half_received(), all.open()), (0, 0));
    }

    #[test]
    fn of_a_burst_of_messages_nothing_is_left() {
        let all = Wires::new(u64::MAX);
        let wire = wire(&all);
        for bytes in [0, 125, 126, 500, 5_000, 70_000] {
            wire.read(&text(bytes).repeat(12));
            (0..12).for_each(|_| wire.message_taken(bytes));
            assert_eq!((wire.half_received(), all.half_received()), (0, 0), "12 of {bytes}");
        }
    }

    #[test]
    fn pings_between_the_pieces_of_a_message_do_not_end_it() {
        let all = Wires::new(u64::MAX);
        let wire = wire(&all);
        let half = || (wire.half_received(), all.half_received());
        wire.read(&piece(PIECES[0], 1, true));
        for n in 1..=1_000 {
            wire.read(&[piece(PING, 4, true), piece(PIECES[1], 1, true), piece(PONG, 0, true)].concat());
            wire.message_taken(4);
            wire.message_taken(0);
            assert_eq!(half(), (7 + 7 * n, 7 + 7 * n), "a byte each, and its header");
        }
        // Its end and a whole one behind it, in one read: what the headers took is known once both are taken.
        wire.read(&[piece(PIECES[2], 1, true), text(500)].concat());
        wire.message_taken(1_002);
        assert!(half().0 >= 508, "{:?}", half());
        wire.message_taken(500);
        assert_eq!(half(), (0, 0));
    }

    /// A wire that read this before it was upgraded, of so many requests.
    fn after(all: &Arc<Wires>, read: &[&[u8]], requests: usize) -> Wire {
        let wire = Wire::new(Arc::clone(all));
        read.iter().for_each(|bytes| wire.read(bytes));
        (0..requests).for_each(|_| wire.request_came());
        wire.upgraded();
        wire
    }

    #[test]
    fn where_messages_begin_is_known_for_sure_or_not_at_all() {
        let all = Wires::new(u64::MAX);
        let is_in_step = |read: &[&[u8]], requests| after(&all, read, requests).is_in_step();
        assert!(is_in_step(&[REQUEST], 1));
        assert!(is_in_step(&[&REQUEST[..47], &REQUEST[47..]], 1));
        let bare = &b"GET / HTTP/1.1\nHost: a\n\n"[..];
        assert!(is_in_step(&[bare, REQUEST], 2), "the connection was used before");
        let early = piece(TEXT, 5, true);
        assert!(!is_in_step(&[REQUEST, &early[..1]], 1));
        // Even where it looks like the end of a request.
        let early_lines = &b"\x81\x84....\r\n\r\n"[..];
        assert!(!is_in_step(&[REQUEST, early_lines], 1));
        assert!(!is_in_step(&[bare, REQUEST, early_lines], 2));
        let body = &b"POST / HTTP/1.1\r\n\r\na\r\n\r\nb"[..];
        assert!(!is_in_step(&[body, REQUEST], 2), "bodies are not read");
        // Then it is counted by lengths: of messages in one piece nothing is left either.
        let wire = after(&all, &[REQUEST, &early[..4]], 1);
        wire.read(&early[4..]);
        wire.message_taken(5);
        wire.read(&[text(500).repeat(12), text(70_000)].concat());
        (0..12).for_each(|_| wire.message_taken(500));
        assert_eq!(wire.half_received(), 70_014);
        wire.message_taken(70_000);
        assert_eq!((wire.half_received(), all.half_received()), (0, 0));
    }

    fn is_cut(wire: &Wire) -> bool {
        wire.is_cut().now_or_never().is_some()
    }

    #[test]
    fn when_there_is_too_much_large_messages_are_cut_and_small_ones_are_not() {
        let all = Wires::new(6 << 20);
        let (stuck, large, small) = (wire(&all), wire(&all), wire(&all));
        let message = text(8 << 20);
        stuck.read(&message[..4 << 20]);
        large.read(&message[..1 << 20]);
        small.read(&message[..SMALL as usize]);
        assert!(![&stuck, &large, &small].into_iter().any(is_cut), "nobody went on with a large one since");
        large.read(b"a");
        assert!(is_cut(&large) && !is_cut(&stuck));
        drop(large);
        stuck.read(b"a");
        assert!(!is_cut(&stuck), "there is room again");
    }

    #[test]
    fn when_there_is_twice_too_much_only_tiny_messages_go_on() {
        let all = Wires::new(4 << 20);
        let message = text(2 << 20);
        let stuck: Vec<Wire> = (0..8).map(|_| wire(&all)).collect();
        stuck.iter().for_each(|wire| wire.read(&message[..SMALL as usize]));
        assert!(!stuck.iter().any(is_cut), "none is larger than small, and it is not more than twice");
        let (tiny, more) = (wire(&all), wire(&all));
        tiny.read(&message[..TINY as usize]);
        more.read(&message[..TINY as usize + 1]);
        assert!(is_cut(&more) && !is_cut(&tiny));
        tiny.read(&message[TINY as usize..TINY as usize * 2]);
        assert!(is_cut(&tiny), "it is not tiny any more");
        drop(stuck);
        let small = wire(&all);
        small.read(&message[..SMALL as usize]);
        assert!(!is_cut(&small), "there is room again");
    }
}
