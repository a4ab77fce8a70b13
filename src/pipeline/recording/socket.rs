//! A socket, as the recordings that it serves see it: whether it holds something, and whether it still says anything.
//! And the recording's side: who serves it, and since when nobody does.
//!
//! Not here: the socket itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use crate::media::Micros;
use crate::pipeline::store::manifest::State;
use crate::pipeline::timeline::Mark;

use super::Recording;

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

impl Recording {
    /// Whether its bot may be on the way back: it takes media, and no socket brings any. A socket that is silent may be half
    /// open, with nobody at its other end.
    pub fn waits_for_bot(&self, now: Micros) -> bool {
        let inner = self.lock();
        inner.state == State::Live && inner.sockets.iter().all(|socket| socket.is_silent(now))
    }

    /// A socket begins to serve it.
    pub fn join_socket(&self, socket: &Arc<SocketState>) {
        let mut inner = self.lock();
        inner.sockets.push(Arc::clone(socket));
        inner.alone_since_unix = None;
        if inner.alone_since.take().is_some() && inner.sockets.len() == 1 {
            // When that is on the recording's time line, its first capture says: the clock stands still without a socket.
            inner.back_since = (!inner.lanes.is_empty()).then(|| inner.clock.newest());
        }
    }

    /// A socket is gone. Returns whether it was the last one.
    pub fn leave_socket(&self, socket: &Arc<SocketState>, wall: Micros) -> bool {
        let mut inner = self.lock();
        inner.sockets.retain(|other| !Arc::ptr_eq(other, socket));
        let alone = inner.sockets.is_empty();
        if alone && inner.alone_since.is_none() {
            inner.alone_since = Some(wall);
            let at = inner.clock.newest();
            inner.lanes.values().for_each(|lane| lane.mark(at, Mark::SocketLost));
            self.note(&mut inner, at, "sockets_lost", None, serde_json::Value::Null);
        }
        alone
    }
}
