//! Bytes in flight: charged once, at the socket, for a message and the picture it becomes; later stages only release.
//!
//! Because nobody charges again further down, a budget full of compressed captures can always drain.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One permit of the semaphore stands for this many bytes.
const UNIT: u64 = 1024;

/// The bytes that captures and pictures of the whole process may hold. Waiters are served in turn.
#[derive(Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
}

/// Bytes taken from the budget; given back when dropped.
#[derive(Debug)]
pub struct Charge(OwnedSemaphorePermit);

impl Budget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Budget {
        let units = u32::try_from(bytes / UNIT)
            .unwrap_or(u32::MAX)
            .clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize) as u32);
        Budget { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits for `bytes`. What is larger than the whole budget waits until nothing else is in flight, and passes alone.
    pub async fn charge(&self, bytes: u64) -> Charge {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await;
        Charge(permit.expect("the semaphore is never closed"))
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
    /// Gives a part back early: the message, once it is decoded.
    pub fn release(&mut self, bytes: u64) {
        let units = (bytes / UNIT).min(self.0.num_permits().saturating_sub(1) as u64);
        drop(self.0.split(units as usize));
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
        small.release(2048);
        assert_eq!(budget.used(), 4096 - 2048 + 8192, "what is free is set aside for the first waiter");
        drop(small);
        let huge = huge.await;
        assert_eq!(budget.used(), budget.capacity());
        drop(huge);
        drop(later.await);
        assert_eq!(budget.used(), 0);
    }
}
