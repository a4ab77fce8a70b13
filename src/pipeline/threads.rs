//! The threads of a running pipeline: named when they start, joined in data order when they end.
//!
//! Not here: how many there are ([`super::Pipeline::start`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::clock::Clock;
use crate::machine;

use super::ingest::decode::Ingest;
use super::lane::{Lane, Lists};
use super::schedule::Worked;

/// How often a full queue is looked at.
const PLACE_EVERY: Duration = Duration::from_millis(20);

/// The threads of a running pipeline.
#[derive(Debug, Default)]
pub struct Threads {
    /// Ingest workers.
    pub(super) ingest: Vec<JoinHandle<()>>,
    /// Encoder workers.
    pub(super) encode: Vec<JoinHandle<()>>,
    /// Sync and assembly, which end when the pipeline is dropped.
    pub(super) last: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Waits for the sync and assembly threads, which end when the pipeline is dropped.
    pub fn join_last(mut self) {
        join(&mut self.last);
    }
}

/// Starts a thread. Linux keeps 15 bytes of its name. A panic of it, a bug, ends the process: without it meetings would stand
/// still for ever, while the next start takes up what the spool holds.
///
/// # Errors
/// Text that names the thread.
pub(super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    thread::Builder::new()
        .name(name.clone())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                let thread = thread::current();
                let name = thread.name().unwrap_or_default();
                tracing::error!(
                    thread = name,
                    "a worker panicked: this is a bug. The next start goes on from the spool"
                );
                std::process::abort();
            }
        })
        .map_err(|error| format!("cannot start thread {name}: {error}"))
}

/// Hands a job to a thread, and waits for a place where its queue is full: who hands over has time. A thread that has ended
/// gets none.
pub(super) async fn hand_over<T>(queue: &Sender<T>, mut job: T) {
    while let Err(error) = queue.try_send(job) {
        if error.is_disconnected() {
            return;
        }
        job = error.into_inner();
        tokio::time::sleep(PLACE_EVERY).await;
    }
}

/// Waits for threads, one log line each.
pub(super) fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        thread.join().expect("a panic ends the process");
        tracing::debug!(thread = name, "ended");
    }
}

/// The threads that decode, and those that encode.
pub(super) fn spawn_workers(
    threads: &mut Threads,
    lists: &Arc<Lists>,
    clock: &Arc<dyn Clock>,
    ingest: usize,
    encode: usize,
) -> Result<(), String> {
    for n in 0..ingest {
        let (lists, clock) = (Arc::clone(lists), Arc::clone(clock));
        threads.ingest.push(spawn(format!("ingest-{n}"), move || {
            let mut decoder = Ingest::default();
            lists.ingest.serve(&*clock, |lane| timed(lane, |lane| lane.ingest_one(&mut decoder, &*clock)));
        })?);
    }
    for n in 0..encode {
        let (lists, clock) = (Arc::clone(lists), Arc::clone(clock));
        threads.encode.push(spawn(format!("encode-{n}"), move || {
            lists.encode.serve(&*clock, |lane| timed(lane, Lane::encode_one));
        })?);
    }
    Ok(())
}

/// A worker's visit, and what CPU it took: a thread that waits for a core does no work.
fn timed(lane: &Arc<Lane>, visit: impl FnOnce(&Arc<Lane>) -> Worked) -> Worked {
    let start = machine::thread_cpu();
    let worked = visit(lane);
    lane.worked(machine::thread_cpu() - start);
    worked
}
