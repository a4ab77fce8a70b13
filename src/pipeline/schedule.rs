//! The ready list: lanes that have work, in turn, for any number of workers.
//!
//! A lane is on the list at most once and is worked on by one worker of a stage at a time, so its items stay in order.
//! A worker works on a lane for [`SLICE`] and at least one item, then puts it back at the end. Nothing polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::clock::Clock;
use crate::media::Micros;

/// How long a worker stays with a lane before the next one has its turn.
const SLICE: Micros = Micros(2_000);

const IDLE: u8 = 0;
const LISTED: u8 = 1;
const WORKED: u8 = 2;
const WORKED_AND_CALLED: u8 = 3;

/// Where a lane stands with one stage's workers.
#[derive(Debug, Default)]
pub struct Turn(AtomicU8);

/// What a worker found at a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worked {
    /// One item was done; there may be more.
    One,
    /// There is nothing to do.
    Nothing,
}

enum Entry<L> {
    Lane(Arc<L>),
    Stop,
}

/// The lanes of one stage that wait for a worker.
pub struct ReadyList<L> {
    sender: Sender<Entry<L>>,
    receiver: Receiver<Entry<L>>,
    turn: fn(&L) -> &Turn,
}

impl<L> ReadyList<L> {
    /// An empty list. It is never longer than there are lanes, for each is on it once; so it needs no bound of its own.
    #[expect(clippy::disallowed_methods, reason = "the lanes bound it, and their memory bounds them")]
    pub fn new(turn: fn(&L) -> &Turn) -> ReadyList<L> {
        let (sender, receiver) = unbounded();
        ReadyList { sender, receiver, turn }
    }

    /// Says that `lane` has work. Cheap when it is listed already.
    pub fn call(&self, lane: &Arc<L>) {
        let turn = &(self.turn)(lane).0;
        let mut seen = turn.load(Ordering::SeqCst);
        loop {
            let next = match seen {
                IDLE => LISTED,
                WORKED => WORKED_AND_CALLED,
                _ => return,
            };
            match turn.compare_exchange_weak(seen, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) if next == LISTED => return self.list(Arc::clone(lane)),
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    /// Lanes that wait for a worker.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no lane waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Lets one worker return once it meets this entry; lanes listed before it are still served.
    pub fn stop_one(&self) {
        let _ = self.sender.send(Entry::Stop);
    }

    /// A worker's life: takes lanes in turn and calls `work` until it says that nothing is left or the slice is over.
    pub fn serve(&self, clock: &dyn Clock, mut work: impl FnMut(&Arc<L>) -> Worked) {
        while let Ok(Entry::Lane(lane)) = self.receiver.recv() {
            let turn = &(self.turn)(&lane).0;
            turn.store(WORKED, Ordering::SeqCst);
            let until = clock.mono() + SLICE;
            let mut last = work(&lane);
            while last == Worked::One && clock.mono() < until {
                last = work(&lane);
            }
            // A call that came while we worked may be about an item that we did not see.
            let done = last == Worked::Nothing
                && turn.compare_exchange(WORKED, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if !done {
                turn.store(LISTED, Ordering::SeqCst);
                self.list(lane);
            }
        }
    }

    fn list(&self, lane: Arc<L>) {
        // The receiver lives as long as the sender.
        let _ = self.sender.send(Entry::Lane(lane));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    struct Lane {
        turn: Turn,
        todo: AtomicUsize,
        inside: AtomicUsize,
        done: Mutex<Vec<usize>>,
    }

    #[test]
    fn every_item_is_worked_once_and_no_lane_by_two_workers() {
        let lanes: Vec<_> = (0..7)
            .map(|_| {
                Arc::new(Lane {
                    turn: Turn::default(),
                    todo: AtomicUsize::new(0),
                    inside: AtomicUsize::new(0),
                    done: Mutex::new(Vec::new()),
                })
            })
            .collect();
        let list = ReadyList::new(|lane: &Lane| &lane.turn);
        let clock = SystemClock::new();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    list.serve(&clock, |lane| {
                        assert_eq!(lane.inside.fetch_add(1, Ordering::SeqCst), 0, "one worker at a time");
                        let mut worked = Worked::Nothing;
                        let left = lane.todo.load(Ordering::SeqCst);
                        if left > 0 {
                            lane.todo.fetch_sub(1, Ordering::SeqCst);
                            lane.done.lock().unwrap().push(left);
                            worked = Worked::One;
                        }
                        lane.inside.fetch_sub(1, Ordering::SeqCst);
                        worked
                    });
                });
            }
            for _ in 0..5_000 {
                for lane in &lanes {
                    lane.todo.fetch_add(1, Ordering::SeqCst);
                    list.call(lane);
                }
            }
            while lanes.iter().any(|lane| lane.todo.load(Ordering::SeqCst) > 0) {
                thread::yield_now();
            }
            (0..3).for_each(|_| list.stop_one());
        });
        for lane in &lanes {
            assert_eq!(lane.done.lock().unwrap().len(), 5_000);
        }
    }

    /// One worker; a screenshare of 4 MB pictures always has work, a hundred webcams have some twice a second.
    #[test]
    fn one_large_lane_delays_a_hundred_small_ones_by_its_share_and_no_more() {
        const SMALL: Micros = Micros(3_000);
        const LARGE: Micros = Micros(60_000);
        const WEBCAMS: usize = 100;
        struct Source {
            turn: Turn,
            cost: Micros,
            /// When its waiting items came.
            waiting: Mutex<VecDeque<Micros>>,
        }
        let source = |cost| Arc::new(Source { turn: Turn::default(), cost, waiting: Mutex::default() });
        let large = source(LARGE);
        let webcams: Vec<_> = (0..WEBCAMS).map(|_| source(SMALL)).collect();
        let list = ReadyList::new(|source: &Source| &source.turn);
        let clock = ManualClock::default();
        // What comes within the half second from `now` on, in phase: the worst there is.
        let arrive = |now: Micros| {
            for source in &webcams {
                source.waiting.lock().unwrap().push_back(now);
                list.call(source);
            }
        };
        large.waiting.lock().unwrap().extend([Micros(0); 10_000]);
        list.call(&large);
        arrive(Micros(0));
        let (mut next, mut worked, mut delay_max) = (Micros(500_000), [Micros(0); 2], Micros(0));
        list.serve(&clock, |source| {
            let Some(came) = source.waiting.lock().unwrap().pop_front() else { return Worked::Nothing };
            let is_large = source.cost == LARGE;
            clock.advance(source.cost);
            let so_far = &mut worked[usize::from(is_large)];
            *so_far = *so_far + source.cost;
            if !is_large {
                delay_max = delay_max.max(clock.mono() - came);
            }
            while clock.mono() >= next {
                arrive(next);
                next = next + Micros(500_000);
            }
            if clock.mono() >= Micros::from_secs(20) {
                source.waiting.lock().unwrap().clear();
                list.stop_one();
            }
            Worked::One
        });
        // Every webcam is served once, and the large one once in between: no webcam waits for two of its pictures.
        let round = Micros(SMALL.0 * WEBCAMS as i64);
        assert!(delay_max <= round + LARGE + LARGE, "{delay_max:?}");
        // And what the webcams leave is all the large one's: 200 ms of each 500.
        let [small, large] = worked.map(|time| time.0 as f64 / 20e6);
        assert!((0.58..=0.62).contains(&small) && (0.38..0.42).contains(&large), "{small} {large}");
    }

    #[test]
    fn a_busy_lane_goes_to_the_end_of_the_list() {
        let lane = |todo| {
            Arc::new(Lane {
                turn: Turn::default(),
                todo: AtomicUsize::new(todo),
                inside: AtomicUsize::new(0),
                done: Mutex::new(Vec::new()),
            })
        };
        let (busy, quiet) = (lane(3), lane(1));
        let list = ReadyList::new(|lane: &Lane| &lane.turn);
        list.call(&busy);
        list.call(&quiet);
        list.call(&quiet);
        assert_eq!(list.len(), 2);
        let clock = ManualClock::default();
        let mut order = Vec::new();
        list.serve(&clock, |lane| {
            clock.advance(SLICE);
            let left = lane.todo.load(Ordering::SeqCst);
            if left == 0 {
                if order.len() == 4 {
                    list.stop_one();
                }
                return Worked::Nothing;
            }
            lane.todo.store(left - 1, Ordering::SeqCst);
            order.push(Arc::ptr_eq(lane, &busy));
            Worked::One
        });
        assert_eq!(order, [true, false, true, true]);
    }
}
