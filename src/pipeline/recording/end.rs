//! How a recording moves on while nothing comes, and what ends it: its grace, its bot, somebody who asks.
//!
//! Not here: what is done at the end ([`crate::pipeline::keeper`]).

use std::sync::atomic::Ordering::SeqCst;

use crate::media::{GapReason, Micros};
use crate::pipeline::store::manifest::State;
use crate::pipeline::timeline::Mark;

use super::{Inner, Recording};

impl Recording {
    /// The visit that each recording gets once a second: silent lanes move on, and a recording that was alone for
    /// longer than `grace` is to be finished. Nothing moves while no socket is connected: a replay may still come.
    pub fn visit(&self, wall: Micros, grace: Micros) {
        let mut inner = self.lock();
        if inner.state != State::Live {
            return;
        }
        let gone = self.bot_gone.load(SeqCst);
        if gone && inner.sockets.iter().all(|socket| socket.is_silent(wall)) {
            self.begin_to_finish(&mut inner);
            return;
        }
        if let Some(since) = inner.alone_since {
            if wall - since >= grace {
                self.begin_to_finish(&mut inner);
            }
            return;
        }
        let busy = inner.sockets.iter().any(|socket| socket.busy.load(SeqCst));
        let idle = !busy && inner.limbo.is_empty() && inner.lanes.values().all(|lane| lane.is_drained());
        let clock = inner.clock.now(wall, idle);
        inner.lanes.values().for_each(|lane| lane.advance(clock));
    }

    /// Its bot does not come back: it is finished once nothing comes any more, without its grace. What is on its way still
    /// belongs to it.
    pub fn bot_is_gone(&self) {
        self.bot_gone.store(true, SeqCst);
    }

    /// Its bot records nothing until its next pictures come.
    pub fn bot_is_paused(&self) {
        let mut inner = self.lock();
        if inner.state != State::Live {
            return;
        }
        let at = inner.clock.newest();
        // Behind the newest picture, which would answer it.
        inner.lanes.values().for_each(|lane| lane.mark(at + Micros(1), Mark::Off(GapReason::Paused)));
        self.note(&mut inner, at, "paused", None, serde_json::Value::Null);
    }

    /// Goes on with an end that an earlier process began.
    pub fn go_on_finishing(&self) {
        self.begin_to_finish(&mut self.lock());
    }

    /// From here on it takes no media, whatever the keeper waits for.
    pub(super) fn begin_to_finish(&self, inner: &mut Inner) {
        if inner.state == State::Deleted {
            return;
        }
        inner.state = State::Finishing;
        self.told_to_finish.notify_one();
        self.changed.notify_one();
    }

    /// Ends it, unless a socket is here.
    pub fn finish_alone(&self) {
        let mut inner = self.lock();
        if inner.state == State::Live && inner.sockets.is_empty() {
            self.begin_to_finish(&mut inner);
        }
    }

    /// Asks for the end of the recording. Returns whether it was live.
    pub fn ask_to_finish(&self) -> bool {
        let mut inner = self.lock();
        let live = inner.state == State::Live;
        if live {
            self.begin_to_finish(&mut inner);
        }
        live
    }

    /// Whether it is being finished: by a call, or because its grace is over.
    pub fn is_to_finish(&self) -> bool {
        self.state() == State::Finishing
    }

    /// Returns when it is to be finished. For its keeper alone.
    pub async fn to_finish(&self) {
        while !self.is_to_finish() {
            self.told_to_finish.notified().await;
        }
    }

    /// From here on it takes nothing and publishes nothing: it is to be deleted.
    pub fn ask_to_delete(&self) {
        self.lock().state = State::Deleted;
        self.told_to_delete.notify_one();
    }

    /// Returns when it is to be deleted. For its keeper alone.
    pub async fn to_delete(&self) {
        while self.state() != State::Deleted {
            self.told_to_delete.notified().await;
        }
    }

    /// Its keeper came to its end.
    pub fn leave(&self) {
        self.left.ring();
    }

    /// Returns when its keeper came to its end.
    pub async fn left(&self) {
        self.left.listen().wait().await;
    }
}
