//! The threads of a running pipeline: named when they start, joined in data order when they end.
//!
//! Not here: what they do and how many there are ([`super::Pipeline::start`]).

use std::thread::{self, JoinHandle};

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

/// Starts a thread. Linux keeps 15 bytes of its name.
///
/// # Errors
/// Text that names the thread.
pub(super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    thread::Builder::new()
        .name(name.clone())
        .spawn(work)
        .map_err(|error| format!("cannot start thread {name}: {error}"))
}

/// Waits for threads, one log line each.
pub(super) fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        match thread.join() {
            Ok(()) => tracing::debug!(thread = name, "ended"),
            Err(_) => tracing::error!(thread = name, "a worker panicked: this is a bug"),
        }
    }
}
