//! The sync thread: makes closed segments durable in batches, gives them their names, and writes event lines.
//! Neither the workers nor the tokio tasks ever wait for a disk's cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crossbeam_channel::Receiver;

use crate::clock::Clock;
use crate::metrics::{Metrics, Stage};

use super::spool::{Closed, WhenClosed, append_to};

/// Jobs that wait for the sync thread; when it is full the sender waits.
pub const SYNC_JOBS_MAX: usize = 1024;

/// What the sync thread is asked for.
pub enum SyncJob {
    /// Make a closed segment durable and give it its name.
    Segment {
        /// The segment's file, still open.
        file: File,
        /// Its name while it grew.
        growing: PathBuf,
        /// What it becomes.
        closed: Closed,
        /// Told at the end.
        done: WhenClosed,
    },
    /// Append lines to a file.
    Lines {
        /// The file.
        path: PathBuf,
        /// Whole lines.
        text: String,
    },
    /// Write a file whole.
    Whole {
        /// The file.
        path: PathBuf,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// Answer once everything before it is done.
    Barrier(tokio::sync::oneshot::Sender<()>),
}

/// The thread's life: ends when every sender is gone.
pub fn run(jobs: &Receiver<SyncJob>, clock: &dyn Clock, metrics: &Metrics) {
    while let Ok(first) = jobs.recv() {
        let mut batch: Vec<SyncJob> = std::iter::once(first).chain(jobs.try_iter().take(SYNC_JOBS_MAX)).collect();
        let start = clock.mono();
        make_durable(&mut batch);
        metrics.took(Stage::Sync, clock.mono() - start);
    }
}

/// Works a batch off: every file is synced, then renamed, then each folder is synced once, and only then is anybody told.
pub fn make_durable(batch: &mut Vec<SyncJob>) {
    let mut folders = BTreeSet::new();
    let mut segments: Vec<(io::Result<()>, Closed, WhenClosed)> = Vec::new();
    let mut barriers = Vec::new();
    for job in batch.drain(..) {
        match job {
            SyncJob::Segment { file, growing, closed, done } => {
                let renamed = file.sync_data().and_then(|()| fs::rename(&growing, closed.path()));
                folders.insert(closed.folder.dir.clone());
                segments.push((renamed, closed, done));
            }
            SyncJob::Lines { path, text } => {
                // Participants join before the first picture makes the folder.
                if let Err(error) = make_folder(&path)
                    .and_then(|()| append_to(&path))
                    .and_then(|mut file| file.write_all(text.as_bytes()))
                {
                    tracing::error!(path = %path.display(), %error, "cannot append events");
                }
            }
            SyncJob::Whole { path, bytes } => {
                if let Err(error) = make_folder(&path).and_then(|()| super::spool::write_whole(&path, &bytes)) {
                    tracing::error!(path = %path.display(), %error, "cannot write");
                }
            }
            SyncJob::Barrier(done) => barriers.push(done),
        }
    }
    let unsynced: BTreeSet<PathBuf> =
        folders.into_iter().filter(|folder| File::open(folder).and_then(|dir| dir.sync_all()).is_err()).collect();
    for (renamed, closed, done) in segments {
        let folder_failed = unsynced.contains(&closed.folder.dir);
        let result = if folder_failed { Err(io::Error::other("cannot sync the folder")) } else { renamed };
        done(result.map(|()| closed));
    }
    for barrier in barriers {
        let _ = barrier.send(());
    }
}

/// Makes the folder of a file, where it is not there.
fn make_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}
