//! Bytes in flight: charged once, at the socket, for a message and the picture it becomes; later stages only release.
//!
//! Because nobody charges again further down, a budget full of compressed captures can always drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One permit of the semaphore stands for this many bytes.
const UNIT: u64 = 1024;

/// The bytes that captures and pictures of the whole process may hold. Waiters are served in turn.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    given_back: Arc<AtomicU64>,
}

/// Bytes taken from the budget; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    permit: OwnedSemaphorePermit,
    given_back: Arc<AtomicU64>,
}

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Budget {
        let units = u32::try_from(bytes / UNIT)
            .unwrap_or(u32::MAX)
            .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u32);
        Budget { free: Arc::new(Semaphore::new(units as usize)), units, given_back: Arc::default() }
    }

    /// Waits for `bytes`. What is larger than the whole budget waits until nothing else is in flight, and passes alone.
    pub async fn charge(&self, bytes: u64) -> Charge {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await;
        Charge { permit: permit.expect("the semaphore is never closed"), given_back: Arc::clone(&self.given_back) }
    }

    /// How often bytes were given back so far: who waits sees by it whether waiting helps.
    pub fn given_back(&self) -> u64 {
        self.given_back.load(SeqCst)
    }

    /// Bytes that are charged now.
    pub fn used(&self) -> u64 {
        (u64::from(self.units) - self.free.available_permits() as u64) * UNIT
    }

    /// Bytes in all.
    pub fn capacity(&self) -> u64 {
        u64::from(self.units) * UNIT
    }
}

impl Charge {
    /// Gives back early what is more than `bytes`: the message and the decoder's scratch, once it is decoded.
    pub fn shrink_to(&mut self, bytes: u64) {
        let kept = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX).max(1);
        let more = self.permit.num_permits().saturating_sub(kept);
        drop(self.permit.split(more));
        self.given_back.fetch_add(1, SeqCst);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.given_back.fetch_add(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_larger_than_the_budget_passes_alone() {
        let budget = Budget::new(10 * 1024);
        let mut small = budget.charge(4096).await;
        assert_eq!(budget.used(), 4096);
        let mut huge = Box::pin(budget.charge(1 << 30));
        assert!(futures::poll!(&mut huge).is_pending());
        // Served in turn: a small one does not overtake the huge one for ever.
        let mut later = Box::pin(budget.charge(1024));
        assert!(futures::poll!(&mut later).is_pending());
        assert_eq!(budget.given_back(), 0);
        small.shrink_to(2048);
        assert_eq!(budget.given_back(), 1);
        assert_eq!(budget.used(), 4096 - 2048 + 8192, "what is free is set aside for the first waiter");
        drop(small);
        let huge = huge.await;
        assert_eq!(budget.used(), budget.capacity());
        drop(huge);
        drop(later.await);
        assert_eq!(budget.used(), 0);
    }
}
