//! The bounded channel between two stages of a lane: crossbeam's, with what the stages need to know about it.
//!
//! The rule for when it is full is always the sender's: it looks first, or it is told. Nothing here waits.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// A bounded queue with one reader at a time. Both ends live in the lane.
#[derive(Debug)]
pub struct Channel<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
    capacity: usize,
}

impl<T> Channel<T> {
    /// A queue of `capacity` places, at least one.
    pub fn new(capacity: usize) -> Channel<T> {
        let capacity = capacity.max(1);
        let (sender, receiver) = bounded(capacity);
        Channel { sender, receiver, capacity }
    }

    /// Puts `item` in, or gives it back when the queue is full.
    pub fn offer(&self, item: T) -> Result<(), T> {
        match self.sender.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(item) | TrySendError::Disconnected(item)) => Err(item),
        }
    }

    /// The oldest item, if there is one.
    pub fn take(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Whether every place is taken.
    pub fn is_full(&self) -> bool {
        self.len() >= self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_gives_the_item_back() {
        let channel = Channel::new(2);
        assert_eq!((channel.offer(1), channel.offer(2), channel.offer(3)), (Ok(()), Ok(()), Err(3)));
        assert!(channel.is_full());
        assert_eq!((channel.take(), channel.len()), (Some(1), 1));
        assert_eq!(
            (channel.offer(3), channel.take(), channel.take(), channel.take()),
            (Ok(()), Some(2), Some(3), None)
        );
    }
}
