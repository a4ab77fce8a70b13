//! Bytes in flight: charged once, at the socket, for a message and the picture it becomes; later stages only release.
//!
//! Because nobody charges again further down, a budget full of compressed captures can always drain.
//!
//! Beside it the memory of open lanes, which is charged as long as a lane is open.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// What open lanes of the whole process may take: each its encoder, so as many as their canvases allow.
#[derive(Debug)]
pub struct LaneMemory {
    bytes: u64,
    lanes_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    lanes: usize,
    bytes: u64,
}

/// The memory of an open lane; given back when dropped.
#[derive(Debug)]
pub struct LaneCharge {
    memory: Arc<LaneMemory>,
    bytes: u64,
}

impl LaneMemory {
    /// Memory for lanes of `bytes` together, and for no more than `lanes_max`.
    pub fn new(bytes: u64, lanes_max: usize) -> Arc<LaneMemory> {
        Arc::new(LaneMemory { bytes, lanes_max, taken: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of one more lane, if there is as much. A first lane always finds it.
    pub fn open(self: &Arc<Self>, bytes: u64) -> Option<LaneCharge> {
        let mut taken = self.lock();
        self.has_room(*taken, bytes).then(|| self.charge(&mut taken, bytes))
    }

    /// The memory of a lane that is there in any case.
    pub fn take(self: &Arc<Self>, bytes: u64) -> LaneCharge {
        self.charge(&mut self.lock(), bytes)
    }

    fn charge(self: &Arc<Self>, taken: &mut Taken, bytes: u64) -> LaneCharge {
        taken.lanes += 1;
        taken.bytes += bytes;
        LaneCharge { memory: Arc::clone(self), bytes }
    }

    /// Whether one more lane of `bytes` would not be opened.
    pub fn is_full_for(&self, bytes: u64) -> bool {
        !self.has_room(*self.lock(), bytes)
    }

    fn has_room(&self, taken: Taken, bytes: u64) -> bool {
        taken.lanes < self.lanes_max && (taken.lanes == 0 || taken.bytes + bytes <= self.bytes)
    }

    /// Open lanes.
    pub fn lanes(&self) -> usize {
        self.lock().lanes
    }

    /// Bytes that open lanes are charged.
    pub fn used(&self) -> u64 {
        self.lock().bytes
    }

    /// Bytes in all.
    pub fn capacity(&self) -> u64 {
        self.bytes
    }
}

impl LaneCharge {
    /// The lane turned out to need so many bytes. It is open, so it gets them.
    pub fn resize(&mut self, bytes: u64) {
        let mut taken = self.memory.lock();
        taken.bytes = taken.bytes - self.bytes + bytes;
        self.bytes = bytes;
    }

    /// The lane wants so many bytes from here on. Returns whether it got them: less it always does, more where there is
    /// room; a lane alone gets all that it wants.
    pub fn try_resize(&mut self, bytes: u64) -> bool {
        let mut taken = self.memory.lock();
        let after = taken.bytes - self.bytes + bytes;
        let fits = bytes <= self.bytes || after <= self.memory.bytes || taken.lanes == 1;
        if fits {
            (taken.bytes, self.bytes) = (after, bytes);
        }
        fits
    }
}

impl Drop for LaneCharge {
    fn drop(&mut self) {
        let mut taken = self.memory.lock();
        taken.lanes -= 1;
        taken.bytes -= self.bytes;
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

    #[test]
    fn lanes_open_as_long_as_their_canvases_fit() {
        let memory = LaneMemory::new(100, 3);
        let first = memory.open(70).unwrap();
        assert!(memory.open(40).is_none());
        let mut second = memory.open(10).unwrap();
        second.resize(60);
        assert_eq!((memory.lanes(), memory.used()), (2, 130));
        assert!(second.try_resize(50) && !second.try_resize(51), "70 and 50 are too much, but less than before");
        assert!(memory.is_full_for(1));
        drop(first);
        assert!(!memory.is_full_for(50) && memory.is_full_for(51), "what is refused is told before");
        assert!(second.try_resize(60));
        let third = memory.open(20).unwrap();
        let fourth = memory.open(20).unwrap();
        assert!(memory.open(0).is_none(), "three lanes are open");
        drop((second, third, fourth));
        assert_eq!((memory.lanes(), memory.used()), (0, 0));
        assert!(memory.open(1_000).is_some(), "one lane always finds memory");
    }
}
