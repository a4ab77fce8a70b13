//! The end of a lane whose track is deleted: it takes nothing more, and who puts something of it into the store stops.

use std::sync::Arc;

use tokio::sync::{Mutex, Notify};

use crate::shutdown::Stop;

use super::{Lane, Order};

/// Whether a lane's track is deleted.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    asked: Stop,
    /// Locked by whoever puts something of it into the store.
    serving: Mutex<()>,
    /// Told when an order was carried out.
    pub(super) obeyed: Notify,
}

impl Lane {
    /// From here on its track is deleted.
    pub fn delete(&self) {
        self.deletion.asked.ring();
    }

    /// Whether its track is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deletion.asked.is_rung()
    }

    /// Does what puts something of the track into the store; `None` where it is deleted before that is done.
    pub async fn unless_deleted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let _serving = self.deletion.serving.lock().await;
        let mut asked = self.deletion.asked.listen();
        tokio::select! {
            biased;
            () = asked.wait() => None,
            done = work => Some(done),
        }
    }

    /// Returns when a deleted lane has written its last, and nobody puts anything of it any more.
    pub async fn stopped(self: &Arc<Self>) {
        self.order(Order::Suspend);
        while self.view(|view| view.done) != Some(Order::Suspend) {
            self.deletion.obeyed.notified().await;
        }
        drop(self.deletion.serving.lock().await);
    }
}
