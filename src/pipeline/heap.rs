//! When memory that lanes left behind goes back to the system.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::heap;

use super::Pipeline;

/// Each time the allocator is locked for some milliseconds.
const EVERY: Duration = Duration::from_secs(30);

impl Pipeline {
    /// Gives back what lanes left, as long as there are any, and once more behind the last one.
    pub(super) async fn give_memory_back(self: Arc<Self>) {
        let mut stop = self.stop.listen();
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = 0;
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = stop.wait() => return,
            }
            let lanes = self.lane_memory.lanes();
            if before.max(lanes) > 0 {
                let start = self.clock.mono();
                let _ = tokio::task::spawn_blocking(heap::give_back).await;
                tracing::debug!(lanes, micros = (self.clock.mono() - start).0, "gave memory back");
            }
            before = lanes;
        }
    }
}
