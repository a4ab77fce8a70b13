//! Whether the store is there. When several requests in a row got no answer, all wait at one gate, and one of them at a time
//! is let through to look: the first answer opens it for all. Each change is told once.
//!
//! Not here: a store that answers and says that it is too much ([`super::turns`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use crate::clock::Clock;
use crate::media::Micros;
use crate::metrics::Metrics;

/// So many requests in a row without an answer say that the store is away.
const SILENT_MAX: u32 = 4;
/// How often one is let through while it is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The gate of the whole process.
pub(super) struct Gate {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Requests in a row that got no answer.
    silent: AtomicU32,
    /// Since when it is away (monotonic).
    away: watch::Sender<Option<Micros>>,
    /// Held by who is let through next.
    next: Mutex<()>,
}

impl Gate {
    /// An open one.
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Gate {
        Gate { clock, metrics, silent: AtomicU32::new(0), away: watch::Sender::new(None), next: Mutex::default() }
    }

    /// Whether the store is away.
    pub(super) fn is_shut(&self) -> bool {
        self.away.borrow().is_some()
    }

    /// The store answered, be it with an error.
    pub(super) fn answered(&self) {
        self.silent.store(0, Relaxed);
        let mut since = None;
        self.away.send_if_modified(|away| {
            since = away.take();
            since.is_some()
        });
        if let Some(since) = since {
            self.metrics.store.away.set(0);
            let seconds = (self.clock.mono() - since).as_secs_f64();
            tracing::warn!(seconds, "the store answers again");
        }
    }

    /// A request got no answer.
    pub(super) fn was_silent(&self, why: &dyn std::fmt::Display) {
        if self.silent.fetch_add(1, Relaxed) + 1 < SILENT_MAX {
            return;
        }
        let now = self.clock.mono();
        let shut = self.away.send_if_modified(|away| {
            let shuts = away.is_none();
            away.get_or_insert(now);
            shuts
        });
        if shut {
            self.metrics.store.away.set(1);
            tracing::error!(error = %why, "the store is away: recordings go on in the spool");
        }
    }

    /// Returns at once while the store is there; else when it is back, or when it is one's turn to look.
    pub(super) async fn pass(&self) {
        let mut away = self.away.subscribe();
        if away.borrow_and_update().is_none() {
            return;
        }
        let look = async {
            let _next = self.next.lock().await;
            tokio::time::sleep(LOOK_EVERY).await;
        };
        tokio::select! {
            _ = away.wait_for(Option::is_none) => {}
            () = look => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::clock::ManualClock;

    #[tokio::test]
    async fn who_waits_at_a_shut_gate_goes_on_with_the_first_answer() {
        let metrics = Arc::new(Metrics::new());
        let gate = Gate::new(Arc::new(ManualClock::default()), Arc::clone(&metrics));
        for _ in 1..SILENT_MAX {
            gate.was_silent(&"no answer");
        }
        assert!(!gate.is_shut() && gate.pass().now_or_never().is_some());
        // An answer in between, whatever it says: others may have trouble, the store is there.
        gate.answered();
        gate.was_silent(&"no answer");
        assert!(!gate.is_shut());
        for _ in 1..SILENT_MAX {
            gate.was_silent(&"no answer");
        }
        assert_eq!((gate.is_shut(), metrics.store.away.get()), (true, 1));
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(gate.pass())).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        gate.answered();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_some()));
        assert_eq!((gate.is_shut(), metrics.store.away.get()), (false, 0));
    }
}
