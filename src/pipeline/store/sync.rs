//! The sync thread: makes closed segments durable in batches, several at a time, gives them their names, and writes event lines.
//! Neither the workers nor the tokio tasks ever wait for a disk's cache. Small files that a full disk does not take are
//! kept and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::clock::Clock;
use crate::metrics::{Metrics, Stage};
use crate::parallel;

use super::space::{Op, Space};
use super::spool::{Closed, EpochFolder, JOURNAL, SEGMENTS, WhenClosed, append_to};

/// Told of each try to write a file whole: whether it is there.
pub type WhenTried = Arc<dyn Fn(bool) + Send + Sync>;

/// Whether a line is to stay.
pub type Keep = Box<dyn Fn(&str) -> bool + Send>;

/// Jobs that wait for the sync thread; when it is full the sender waits.
pub const SYNC_JOBS_MAX: usize = 1024;
/// Files synced at a time: every track of a recording closes its segments at the same instant, and syncs that come together
/// share the disk's journal. 100 tracks on ext4 took 1.0 s one after the other, 0.4 s by four, no less by sixteen.
const SYNC_THREADS: usize = 4;
/// How often what is late is tried again.
const TRY_LATE_EVERY: Duration = Duration::from_secs(1);
/// Event lines of a recording that wait for a disk that takes none.
const LATE_LINES_MAX: usize = 1 << 20;
/// What an abandoned segment's name ends with.
const ABANDONED: &str = "abandoned";

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
        /// Told of each try.
        tried: Option<WhenTried>,
    },
    /// Take lines out of a file.
    Filter {
        /// The file; where there is none, there is nothing to do.
        path: PathBuf,
        /// Whether a line stays.
        keep: Keep,
        /// Told at the end.
        done: tokio::sync::oneshot::Sender<io::Result<()>>,
    },
    /// What is late of this folder is not written any more: the folder is removed.
    Forget(PathBuf),
    /// Answer once everything before it was tried.
    Barrier(tokio::sync::oneshot::Sender<()>),
}

/// The thread's life: ends when every sender is gone.
pub fn run(jobs: &Receiver<SyncJob>, clock: &dyn Clock, metrics: &Metrics, space: Arc<Space>) {
    let mut syncer = Syncer::new(space);
    loop {
        let first = match syncer.late.is_empty() {
            true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => jobs.recv_timeout(TRY_LATE_EVERY),
        };
        if matches!(first, Err(RecvTimeoutError::Disconnected)) {
            return syncer.try_late();
        }
        let batch: Vec<SyncJob> = first.into_iter().chain(jobs.try_iter().take(SYNC_JOBS_MAX)).collect();
        let start = clock.mono();
        syncer.try_late();
        syncer.work_off(batch);
        metrics.took(Stage::Sync, clock.mono() - start);
    }
}

/// What of a file could not be written yet.
enum Late {
    Lines(String),
    Whole(Vec<u8>, Option<WhenTried>),
}

/// Works jobs off, and keeps what the disk did not take until it does.
pub struct Syncer {
    space: Arc<Space>,
    late: BTreeMap<PathBuf, Late>,
    /// Folders whose names are durable: those of epochs, and those around them.
    lasting: BTreeSet<PathBuf>,
}

/// A segment on its way to its name.
struct Closing {
    file: File,
    synced: io::Result<()>,
    growing: PathBuf,
    closed: Closed,
    done: WhenClosed,
}

impl Syncer {
    /// Nothing is late yet.
    pub fn new(space: Arc<Space>) -> Syncer {
        Syncer { space, late: BTreeMap::new(), lasting: BTreeSet::new() }
    }

    /// Works a batch off: every segment is synced, then once for each epoch what tells of its segments, and only then do
    /// they get their names; then each folder is synced once, and at the end all are told.
    pub fn work_off(&mut self, batch: Vec<SyncJob>) {
        let mut segments = Vec::new();
        let mut barriers = Vec::new();
        for job in batch {
            match job {
                SyncJob::Segment { file, growing, closed, done } => {
                    segments.push(Closing { file, synced: Ok(()), growing, closed, done });
                }
                SyncJob::Lines { path, text } => self.append_lines(path, text),
                SyncJob::Whole { path, bytes, tried } => self.write_whole(path, bytes, tried),
                SyncJob::Filter { path, keep, done } => {
                    let _ = done.send(self.filter_lines(&path, &keep));
                }
                SyncJob::Forget(folder) => {
                    self.late.retain(|path, _| !path.starts_with(&folder));
                    self.lasting.retain(|path| !path.starts_with(&folder));
                }
                SyncJob::Barrier(done) => barriers.push(done),
            }
        }
        let files: Vec<&File> = segments.iter().map(|one| &one.file).collect();
        let synced = parallel::each(&files, SYNC_THREADS, |file| self.space.run(Op::SyncSegment, || file.sync_data()));
        segments.iter_mut().zip(synced).for_each(|(one, synced)| one.synced = synced);
        self.name(segments);
        for barrier in barriers {
            let _ = barrier.send(());
        }
    }

    /// Gives synced segments their names, and tells what became of them.
    fn name(&mut self, mut segments: Vec<Closing>) {
        let folders: BTreeMap<PathBuf, Arc<EpochFolder>> =
            segments.iter().map(|one| (one.closed.folder.dir.clone(), Arc::clone(&one.closed.folder))).collect();
        // A start that finds a name finds the lines that tell of it, whatever the machine died of.
        let epochs: Vec<&EpochFolder> = folders.values().map(|folder| &**folder).collect();
        let told = parallel::each(&epochs, SYNC_THREADS, |folder| self.sync_books(folder));
        let mut failed: BTreeMap<&Path, &str> = BTreeMap::new();
        for (folder, told) in epochs.iter().zip(told) {
            if told.and_then(|()| self.sync_surroundings(folder)).is_err() {
                failed.insert(&folder.dir, "cannot sync the journal");
            }
        }
        for one in segments.iter_mut().filter(|one| !failed.contains_key(&*one.closed.folder.dir)) {
            if one.synced.is_ok() {
                one.synced = self.space.run(Op::Name, || fs::rename(&one.growing, one.closed.path()));
            }
        }
        let named: Vec<&PathBuf> = folders.keys().filter(|dir| !failed.contains_key(&***dir)).collect();
        let synced = parallel::each(&named, SYNC_THREADS, |dir| self.sync_folder(dir));
        for (dir, _) in named.iter().zip(synced).filter(|(_, synced)| synced.is_err()) {
            failed.insert(dir, "cannot sync the folder");
        }
        for Closing { synced, growing, closed, done, .. } in segments {
            let result = match failed.get(&*closed.folder.dir) {
                Some(why) => synced.and_then(|()| Err(io::Error::other(*why))),
                None => synced,
            };
            if result.is_err() {
                self.abandon(&growing, &closed.path());
            }
            done(result.map(|()| closed));
        }
    }

    /// Syncs an epoch's journal and list.
    fn sync_books(&self, folder: &EpochFolder) -> io::Result<()> {
        self.space.run(Op::SyncJournal, || {
            sync_file(&folder.dir.join(JOURNAL))?;
            // A full disk may not have taken a line yet.
            let list = folder.dir.join(SEGMENTS);
            if list.exists() { sync_file(&list) } else { Ok(()) }
        })
    }

    /// With an epoch's first segments, syncs the init segment and the names of the folders around it.
    fn sync_surroundings(&mut self, folder: &EpochFolder) -> io::Result<()> {
        if self.lasting.contains(&folder.dir) {
            return Ok(());
        }
        self.space.run(Op::SyncJournal, || sync_file(&folder.dir.with_file_name(&folder.init)))?;
        let root = self.space.root().to_owned();
        let made = folder.dir.ancestors().take_while(|dir| **dir != *root).map(Path::to_owned);
        for dir in made.collect::<Vec<_>>() {
            if let Some(parent) = dir.parent().filter(|_| !self.lasting.contains(&dir)) {
                self.sync_folder(parent)?;
                self.lasting.insert(dir);
            }
        }
        Ok(())
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        self.space.run(Op::SyncFolder, || File::open(dir).and_then(|dir| dir.sync_all()))
    }

    /// Takes a segment's name away: after a failed sync nobody knows what of it the disk has, and a later sync that
    /// succeeds says nothing of it. No start takes it up, whatever the journal says.
    fn abandon(&self, growing: &Path, named: &Path) {
        let aside = named.with_extension(ABANDONED);
        if let Err(error) = fs::rename(growing, &aside).or_else(|_| fs::rename(named, &aside)) {
            tracing::debug!(%error, segment = %named.display(), "an abandoned segment keeps its name");
        }
    }

    /// Tries again what is late.
    fn try_late(&mut self) {
        for (path, late) in std::mem::take(&mut self.late) {
            match late {
                Late::Lines(text) => self.append_lines(path, text),
                Late::Whole(bytes, tried) => self.write_whole(path, bytes, tried),
            }
        }
    }

    fn append_lines(&mut self, path: PathBuf, text: String) {
        if let Some(Late::Lines(waiting)) = self.late.get_mut(&path) {
            if waiting.len() + text.len() > LATE_LINES_MAX {
                return tracing::error!(path = %path.display(), bytes = text.len(), "events are lost: the disk takes none");
            }
            return waiting.push_str(&text);
        }
        // Participants join before the first picture makes the folder.
        let appended = make_folder(&path).and_then(|()| {
            let mut file = append_to(&path)?;
            let size = file.metadata()?.len();
            self.space.append(Op::Lines, &mut file, size, text.as_bytes())
        });
        if let Err(error) = self.space.noted(appended) {
            tracing::debug!(path = %path.display(), %error, "cannot append events yet");
            self.late.insert(path, Late::Lines(text));
        }
    }

    fn filter_lines(&mut self, path: &Path, keep: &Keep) -> io::Result<()> {
        if let Some(Late::Lines(waiting)) = self.late.get_mut(path) {
            *waiting = keep_lines(waiting, keep);
        }
        let before = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            read => read?,
        };
        let after = keep_lines(&String::from_utf8_lossy(&before), keep);
        let written = self.space.run(Op::Whole, || super::spool::write_whole(path, after.as_bytes()));
        if written.is_ok() {
            self.space.resized(before.len() as u64, after.len() as u64);
        }
        written
    }

    fn write_whole(&mut self, path: PathBuf, bytes: Vec<u8>, tried: Option<WhenTried>) {
        self.late.remove(&path);
        let before = fs::metadata(&path).map_or(0, |meta| meta.len());
        let written =
            make_folder(&path).and_then(|()| self.space.run(Op::Whole, || super::spool::write_whole(&path, &bytes)));
        let written = self.space.noted(written);
        if let Some(tried) = &tried {
            tried(written.is_ok());
        }
        match written {
            Ok(()) => self.space.resized(before, bytes.len() as u64),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot write yet");
                self.late.insert(path, Late::Whole(bytes, tried));
            }
        }
    }
}

/// The lines that are to stay.
pub fn keep_lines(text: &str, keep: impl Fn(&str) -> bool) -> String {
    text.split_inclusive('\n').filter(|line| keep(line)).collect()
}

fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_data()
}

/// Makes the folder of a file, where it is not there.
fn make_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of an epoch's folder in `track`, to be synced.
    fn segment(track: &Path, epoch: &str, number: i64) -> (SyncJob, PathBuf) {
        let dir = track.join(epoch);
        fs::create_dir_all(&dir).unwrap();
        for name in ["e/journal.jsonl", "e/segments.jsonl", "init-0.mp4"] {
            append_to(&track.join(name.replace("e/", &format!("{epoch}/")))).unwrap();
        }
        let folder = Arc::new(EpochFolder { name: epoch.to_owned(), init: "init-0.mp4".to_owned(), dir });
        let closed = Closed { folder, number, first_tick: number * 4, ticks: 4 };
        let (path, growing) = (closed.path(), closed.path().with_extension("m4s.open"));
        let file = File::create(&growing).unwrap();
        (SyncJob::Segment { file, growing, closed, done: Box::new(|_| {}) }, path)
    }

    #[test]
    fn what_tells_of_a_segment_is_durable_before_its_name_is() {
        use Op::{Name, SyncFolder, SyncJournal, SyncSegment};
        let dir = tempfile::tempdir().unwrap();
        let space = Arc::new(Space::new(dir.path().to_owned(), None));
        let mut syncer = Syncer::new(Arc::clone(&space));
        let track = dir.path().join("r/100-webcam");
        let mut jobs: Vec<SyncJob> = (0..2).map(|n| segment(&track, "0000000-aaaaaa", n).0).collect();
        syncer.work_off(jobs);
        // Journal and list, the init segment, the folders of track, recording and spool.
        let first = [SyncSegment, SyncSegment, SyncJournal, SyncJournal, SyncFolder, SyncFolder, SyncFolder];
        assert_eq!(space.take_asked(), [&first[..], &[Name, Name, SyncFolder]].concat());
        jobs = vec![segment(&track, "0000000-aaaaaa", 2).0];
        syncer.work_off(jobs);
        assert_eq!(
            space.take_asked(),
            [SyncSegment, SyncJournal, Name, SyncFolder],
            "the folders around are made once"
        );
        jobs = vec![segment(&track, "0000012-aaaaaa", 3).0];
        syncer.work_off(jobs);
        let next = [SyncSegment, SyncJournal, SyncJournal, SyncFolder, Name, SyncFolder];
        assert_eq!(space.take_asked(), next, "a new epoch's name is made durable, the track's is");
    }

    #[test]
    fn a_segment_whose_journal_cannot_be_synced_is_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let space = Arc::new(Space::new(dir.path().to_owned(), None));
        let (job, path) = segment(&dir.path().join("r/100-webcam"), "0000000-aaaaaa", 0);
        space.fail(Op::SyncJournal, io::ErrorKind::Other, 0, 1);
        Syncer::new(Arc::clone(&space)).work_off(vec![job]);
        assert!(space.failed_all() && !path.exists() && path.with_extension(ABANDONED).exists());
    }

    #[test]
    fn what_the_disk_does_not_take_is_written_when_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let space = Arc::new(Space::new(dir.path().to_owned(), None));
        let mut syncer = Syncer::new(Arc::clone(&space));
        let (events, state) = (dir.path().join("r/events.jsonl"), dir.path().join("r/state.json"));
        let lines = |text: &str| SyncJob::Lines { path: events.clone(), text: text.to_owned() };
        let whole = |text: &str| SyncJob::Whole { path: state.clone(), bytes: text.as_bytes().to_vec(), tried: None };
        syncer.work_off(vec![lines("one\n"), whole("first")]);
        space.fail(Op::Lines, io::ErrorKind::StorageFull, 0, 2);
        space.fail(Op::Whole, io::ErrorKind::StorageFull, 0, 1);
        syncer.work_off(vec![lines("two\n"), lines("three\n"), whole("second"), whole("third")]);
        syncer.try_late();
        assert_eq!(fs::read_to_string(&events).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&state).unwrap(), "third");
        assert!(space.is_full());
        syncer.try_late();
        assert!(space.failed_all() && syncer.late.is_empty());
        assert_eq!(fs::read_to_string(&events).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(space.used(), 14 + 5);
        // A recording that is over is not begun again by what was late.
        space.fail(Op::Lines, io::ErrorKind::StorageFull, 0, 1);
        syncer.work_off(vec![lines("four\n")]);
        fs::remove_dir_all(dir.path().join("r")).unwrap();
        syncer.work_off(vec![SyncJob::Forget(dir.path().join("r"))]);
        syncer.try_late();
        assert!(!dir.path().join("r").exists());
    }
}
