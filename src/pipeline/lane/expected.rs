//! A capture between the socket that announced it and the queue of its lane.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::{Lane, Queued};

/// A capture that was announced to its lane and is on its way. Dropped once its outcome is booked.
pub struct Expected(pub(super) Option<Arc<Lane>>);

impl Expected {
    /// Of no lane, for who looks at captures alone.
    #[cfg(test)]
    pub fn nowhere() -> Expected {
        Expected(None)
    }

    /// Puts the capture in, or gives it back when the lane is full: the caller waits for [`Lane::freed`], or sheds.
    pub fn offer(mut self, queued: Queued) -> Result<(), (Expected, Queued)> {
        match self.captures.offer(queued) {
            Ok(()) => {
                // From here on the queues keep the count.
                if let Some(lane) = self.0.take() {
                    lane.lists.ingest.call(&lane);
                }
                Ok(())
            }
            Err(queued) => Err((self, queued)),
        }
    }
}

impl std::ops::Deref for Expected {
    type Target = Arc<Lane>;

    fn deref(&self) -> &Arc<Lane> {
        self.0.as_ref().expect("taken only by what consumes it")
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        if let Some(lane) = self.0.take() {
            lane.pending.fetch_sub(1, SeqCst);
            // An order may wait for this.
            lane.lists.encode.call(&lane);
        }
    }
}
