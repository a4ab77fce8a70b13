//! Whose turn it is to use the store: so many requests at once in the whole process, in turn over the recordings, live
//! segments before finished MP4s; fewer, and later, while the store says that it is too much.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::media::Micros;

/// What waits for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What a player waits for.
    Live,
    /// A piece of a finished file. It takes long, and 8 MiB of memory.
    Finished,
}

/// So many pieces of finished files are on their way at most: 64 MiB.
const FINISHED_MAX: usize = 8;
/// The first pause after "slow down", and the longest: it doubles with each one in a row.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(10);
/// Answers to requests that were sent together are one sign, not many.
const ONE_SIGN: Duration = Duration::from_secs(1);

/// Those who wait, by the recording that they belong to.
#[derive(Default)]
struct Waiting {
    /// Each recording that waits, once.
    order: VecDeque<String>,
    queues: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
}

impl Waiting {
    fn push(&mut self, owner: &str, gives: oneshot::Sender<Turn>) {
        let queue = self.queues.entry(owner.to_owned()).or_default();
        if queue.is_empty() {
            self.order.push_back(owner.to_owned());
        }
        queue.push_back(gives);
    }

    /// The next one that still waits; its recording goes to the end.
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some(owner) = self.order.pop_front() {
            let queue = self.queues.get_mut(&owner)?;
            let found = std::iter::from_fn(|| queue.pop_front()).find(|gives| !gives.is_closed());
            match queue.is_empty() {
                true => drop(self.queues.remove(&owner)),
                false => self.order.push_back(owner),
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

struct Inner {
    limit: usize,
    taken: usize,
    finished: usize,
    live_waiting: Waiting,
    finished_waiting: Waiting,
    /// Good answers since the limit last changed.
    good: usize,
    /// "Slow down" in a row, and when it was last counted.
    slowed: u32,
    slowed_at: Option<Micros>,
    not_before: Micros,
}

impl Inner {
    fn next(&mut self) -> Option<(oneshot::Sender<Turn>, Class)> {
        if self.taken >= self.limit {
            return None;
        }
        if let Some(gives) = self.live_waiting.pop() {
            return Some((gives, Class::Live));
        }
        // Never all of them: the next live segment finds one free.
        let most = (self.limit * 3 / 4).clamp(1, FINISHED_MAX);
        if self.finished >= most {
            return None;
        }
        self.finished_waiting.pop().map(|gives| (gives, Class::Finished))
    }

    fn count(&mut self, class: Class, by: isize) {
        self.taken = self.taken.saturating_add_signed(by);
        if class == Class::Finished {
            self.finished = self.finished.saturating_add_signed(by);
        }
    }
}

/// The turns of the whole process.
pub struct Turns {
    inner: Mutex<Inner>,
    limit_max: usize,
}

/// A turn: from when it is given until it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    class: Class,
    /// Not so while it is on its way to somebody who may have gone.
    given: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.given {
            self.turns.lock().count(self.class, -1);
            self.turns.give();
        }
    }
}

impl Turns {
    /// So many at once.
    pub fn new(limit: usize) -> Turns {
        let inner = Inner {
            limit,
            taken: 0,
            finished: 0,
            live_waiting: Waiting::default(),
            finished_waiting: Waiting::default(),
            good: 0,
            slowed: 0,
            slowed_at: None,
            not_before: Micros(0),
        };
        Turns { inner: Mutex::new(inner), limit_max: limit }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn of `owner`, a recording.
    pub async fn turn(self: &Arc<Self>, owner: &str, class: Class) -> Turn {
        let (gives, hears) = oneshot::channel();
        {
            let mut inner = self.lock();
            match class {
                Class::Live => inner.live_waiting.push(owner, gives),
                Class::Finished => inner.finished_waiting.push(owner, gives),
            }
        }
        self.give();
        hears.await.expect("who waits is asked until it has gone")
    }

    /// Gives what is free to those who wait.
    fn give(self: &Arc<Self>) {
        loop {
            let (gives, class) = {
                let mut inner = self.lock();
                let Some((gives, class)) = inner.next() else { return };
                inner.count(class, 1);
                (gives, class)
            };
            let turn = Turn { turns: Arc::clone(self), class, given: true };
            if let Err(mut turn) = gives.send(turn) {
                turn.given = false;
                self.lock().count(class, -1);
            }
        }
    }

    /// How long who has a turn waits before its request, for the store's sake.
    pub fn pause(&self, now: Micros) -> Option<Duration> {
        let left = self.lock().not_before - now;
        (left.0 > 0).then(|| Duration::from_micros(left.0.unsigned_abs()))
    }

    /// The store said that it is too much.
    pub fn slow_down(&self, now: Micros) {
        let mut inner = self.lock();
        if inner.slowed_at.is_some_and(|at| now - at < Micros::from(ONE_SIGN)) {
            return;
        }
        inner.slowed_at = Some(now);
        inner.limit = (inner.limit / 2).max(1);
        inner.good = 0;
        let pause = PAUSE_FIRST.saturating_mul(1 << inner.slowed.min(10)).min(PAUSE_LAST);
        inner.slowed += 1;
        inner.not_before = now + Micros::from(pause);
    }

    /// The store took a request.
    pub fn went_well(self: &Arc<Self>) {
        let mut inner = self.lock();
        inner.slowed = 0;
        inner.good += 1;
        if inner.good >= inner.limit && inner.limit < self.limit_max {
            inner.limit += 1;
            inner.good = 0;
            drop(inner);
            self.give();
        }
    }

    /// Turns that are taken, and how many there may be now.
    pub fn levels(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.taken, inner.limit)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Asks for turns; gives the names of those who have one, in the order of asking.
    fn served(
        waiting: &mut Vec<(&'static str, futures::future::BoxFuture<'static, Turn>)>,
    ) -> Vec<(&'static str, Turn)> {
        let mut served = Vec::new();
        let mut n = 0;
        while n < waiting.len() {
            match waiting[n].1.as_mut().now_or_never() {
                Some(turn) => served.push((waiting.remove(n).0, turn)),
                None => n += 1,
            }
        }
        served
    }

    fn ask(
        turns: &Arc<Turns>,
        name: &'static str,
        owner: &'static str,
        class: Class,
    ) -> (&'static str, futures::future::BoxFuture<'static, Turn>) {
        let turns = Arc::clone(turns);
        (name, async move { turns.turn(owner, class).await }.boxed())
    }

    #[test]
    fn live_segments_go_first_and_recordings_take_turns() {
        let turns = Arc::new(Turns::new(1));
        let mut waiting = vec![ask(&turns, "busy", "a", Class::Live)];
        let mut busy = served(&mut waiting);
        assert_eq!(busy.len(), 1);
        for (name, owner, class) in [
            ("mp4", "c", Class::Finished),
            ("a1", "a", Class::Live),
            ("a2", "a", Class::Live),
            ("a3", "a", Class::Live),
            ("b1", "b", Class::Live),
            ("b2", "b", Class::Live),
        ] {
            waiting.push(ask(&turns, name, owner, class));
        }
        let mut order = Vec::new();
        assert!(served(&mut waiting).is_empty());
        while let Some((name, turn)) = busy.pop() {
            order.push(name);
            drop(turn);
            busy = served(&mut waiting);
            assert!(busy.len() <= 1);
        }
        assert_eq!(order, ["busy", "a1", "b1", "a2", "b2", "a3", "mp4"]);
    }

    #[test]
    fn finished_files_leave_turns_for_what_is_live() {
        let turns = Arc::new(Turns::new(4));
        let mut waiting: Vec<_> = (0..6).map(|_| ask(&turns, "mp4", "a", Class::Finished)).collect();
        let finished = served(&mut waiting);
        assert_eq!(finished.len(), 3);
        waiting.push(ask(&turns, "live", "b", Class::Live));
        let live = served(&mut waiting);
        assert_eq!(live[0].0, "live");
        drop((finished, live));
        assert_eq!(served(&mut waiting).len(), 3);
        assert_eq!(turns.levels().0, 0, "all of them are given back");
    }

    #[test]
    fn who_has_gone_costs_no_turn() {
        let turns = Arc::new(Turns::new(1));
        let mut waiting = vec![ask(&turns, "first", "a", Class::Live)];
        let first = served(&mut waiting);
        waiting.push(ask(&turns, "gone", "a", Class::Live));
        waiting.push(ask(&turns, "gone too", "a", Class::Live));
        assert!(served(&mut waiting).is_empty());
        drop(waiting.remove(0));
        drop(first);
        // The turn lies ready for one that goes before it takes it.
        drop(waiting.remove(0));
        waiting.push(ask(&turns, "next", "b", Class::Live));
        assert_eq!(served(&mut waiting).len(), 1);
    }

    #[test]
    fn a_store_that_says_slow_down_gets_less_and_then_more_again() {
        let turns = Arc::new(Turns::new(32));
        let secs = Micros::from_secs;
        for _ in 0..20 {
            turns.slow_down(secs(10));
        }
        assert_eq!(turns.levels(), (0, 16), "answers at once are one sign");
        assert_eq!(turns.pause(secs(10)), Some(PAUSE_FIRST));
        assert_eq!(turns.pause(secs(11)), None);
        for n in 0..20 {
            turns.slow_down(secs(20 + 2 * n));
        }
        assert_eq!(turns.levels().1, 1, "never nothing");
        assert_eq!(turns.pause(secs(58)), Some(PAUSE_LAST));
        for _ in 0..600 {
            turns.went_well();
        }
        assert_eq!(turns.levels().1, 32);
        turns.slow_down(secs(100));
        assert_eq!(turns.pause(secs(100)), Some(PAUSE_FIRST));
    }
}
