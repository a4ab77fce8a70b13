//! Messages come in hundreds of packets, and nothing can be done with one that is not whole. So the kernel is asked to wake a
//! socket only for a good part of what is still to come of its message (`SO_RCVLOWAT`), and of it no more than that.
//!
//! Not here: the messages themselves, which the WebSocket library reads; of the pieces that they come in only the lengths are
//! looked at ([`super::pieces`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::pieces::Pieces;
use super::wire::Wire;

sockopt_impl!(
    /// Bytes that must have come before a socket counts as readable.
    LowWater, Both, libc::SOL_SOCKET, libc::SO_RCVLOWAT, libc::c_int);

/// What is waited for at most: what one read takes, and no more than a socket's buffer holds at its beginning.
const LOW_WATER_MAX: u64 = 64 * 1024;
/// It is raised by no less than this: each change is a system call.
const RAISED_BY: u64 = 4 * 1024;

/// A TCP stream that wakes its reader for more than single packets while a message comes.
pub struct Arrivals {
    stream: TcpStream,
    wire: Arc<Wire>,
    pieces: Pieces,
    /// What the kernel was asked for last.
    low_water: u64,
}

impl Arrivals {
    /// Says nothing to the kernel before `wire` carries messages.
    pub fn new(stream: TcpStream, wire: Arc<Wire>) -> Arrivals {
        Arrivals { stream, wire, pieces: Pieces::default(), low_water: 1 }
    }

    /// `waits`: nothing more is here now.
    fn saw(&mut self, bytes: &[u8], waits: bool) {
        self.pieces.see(bytes);
        let wanted = self.pieces.left().clamp(1, LOW_WATER_MAX);
        // More than is to come would be waited for in vain.
        if wanted < self.low_water || (waits && wanted >= self.low_water + RAISED_BY) {
            // Where it is refused, it stays as it is: more than is left was never asked for.
            match setsockopt(&self.stream, LowWater, &(wanted as libc::c_int)) {
                Ok(()) => self.low_water = wanted,
                Err(error) => tracing::debug!(%error, "SO_RCVLOWAT"),
            }
        }
    }
}

impl AsyncRead for Arrivals {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if self.wire.is_in_step() {
            let new = &buffer.filled()[before..];
            self.saw(new, new.len() < room);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Arrivals {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::socket::getsockopt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::pieces::tests::piece;
    use super::super::wire::Wires;
    use super::*;

    async fn pair() -> (TcpStream, Arrivals) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let wire = Arc::new(Wire::new(Wires::new(u64::MAX)));
        wire.upgraded();
        (client, Arrivals::new(listener.accept().await.unwrap().0, wire))
    }

    async fn read(arrivals: &mut Arrivals) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let read = arrivals.read(&mut buffer);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("nothing is waited for in vain").unwrap()
    }

    #[tokio::test]
    async fn a_reader_is_woken_for_much_of_a_message_and_for_its_end() {
        let (mut client, mut arrivals) = pair().await;
        let message = piece(0x81, 300_000, true);
        let low = |arrivals: &Arrivals| getsockopt(&arrivals.stream, LowWater).unwrap();
        client.write_all(&message[..10_000]).await.unwrap();
        let mut at = 0;
        while at < 10_000 {
            at += read(&mut arrivals).await;
        }
        assert_eq!(low(&arrivals), LOW_WATER_MAX as libc::c_int);
        // Less than that wakes nobody.
        client.write_all(&message[at..20_000]).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), arrivals.read(&mut [0; 64 * 1024])).await;
        assert!(early.is_err(), "{early:?}");
        let send = async {
            for piece in message[20_000..].chunks(7_000) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let receive = async {
            while at < message.len() {
                at += read(&mut arrivals).await;
            }
        };
        tokio::join!(send, receive);
        // To its last byte, and then a short one at once, byte by byte.
        assert_eq!((at, low(&arrivals)), (message.len(), 1));
        for byte in piece(0x89, 3, true) {
            client.write_all(&[byte]).await.unwrap();
            assert_eq!(read(&mut arrivals).await, 1);
        }
        // A peer that goes away in the middle is heard.
        client.write_all(&message[..100_000]).await.unwrap();
        drop(client);
        let mut at = 0;
        loop {
            match read(&mut arrivals).await {
                0 => break,
                n => at += n,
            }
        }
        assert_eq!(at, 100_000);
    }
}
