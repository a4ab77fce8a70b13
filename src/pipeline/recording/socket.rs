//! A socket, as the recordings that it serves see it: whether it holds something, and whether it still says anything.
//!
//! Not here: the socket itself.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use crate::media::Micros;

/// A socket that brings nothing for so long may be half open: ten pictures of a camera.
const SILENT_AFTER: Micros = Micros::from_secs(5);
/// Of a socket that we do not read: nobody knows that it is silent.
const NOW: i64 = i64::MAX;

/// A socket, as its recordings see it.
#[derive(Debug)]
pub struct SocketState {
    /// A message was read and is not delivered yet, or one is half received.
    pub busy: AtomicBool,
    /// When a message last came (monotonic); [`NOW`] while one is on its way into its lane.
    heard: AtomicI64,
}

impl SocketState {
    /// One that was opened just now.
    pub fn new(now: Micros) -> SocketState {
        SocketState { busy: AtomicBool::new(false), heard: AtomicI64::new(now.0) }
    }

    /// A message came, and nothing is read until it is delivered.
    pub fn hears(&self) {
        self.busy.store(true, SeqCst);
        self.heard.store(NOW, SeqCst);
    }

    /// It reads on; `half_received`: it has the beginning of a message.
    pub fn reads(&self, half_received: bool, now: Micros) {
        self.busy.store(half_received, SeqCst);
        // A look at the clock is no message.
        let _ = self.heard.compare_exchange(NOW, now.0, SeqCst, SeqCst);
    }

    /// Whether it brought nothing for so long that its peer may be gone.
    pub(super) fn is_silent(&self, now: Micros) -> bool {
        now.0.saturating_sub(self.heard.load(SeqCst)) >= SILENT_AFTER.0
    }
}
