//! Room in the spool: what its files take, how much they may take, and whether lanes may write.
//!
//! Every write to the spool passes here, so that a disk that is full is known the moment one write says so, and tests
//! can make any of them fail. Not here: what becomes of what cannot be written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::media::Micros;

/// Of the quota, kept for journals, playlists and what finishing writes; an eighth of it where that is less.
const RESERVE: u64 = 64 << 20;
/// Writing goes on when media takes less than so many percent of what it may take.
const GOES_ON_BELOW: u64 = 95;
/// Above so many percent of what media may take, what the store has leaves the spool, down to so many.
const TIGHT_ABOVE: u64 = 80;
const LEAVES_DOWN_TO: u64 = 60;
/// A disk that was full has room again at so many free bytes, or a twentieth of it where that is less.
const FREE_MIN: u64 = 64 << 20;
/// How long a full spool is left alone at least; doubled each time it is full again soon after, up to the last.
const WAIT_FIRST: Micros = Micros::SECOND;
const WAIT_LAST: Micros = Micros::from_secs(60);

/// What is about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// An epoch's folder and the files that it begins with.
    Epoch,
    /// A segment's file.
    Segment,
    /// A part.
    Part,
    /// A line of a journal.
    Journal,
    /// A line of a list of segments.
    List,
    /// A segment, to the disk itself.
    SyncSegment,
    /// A segment's name.
    Name,
    /// What tells of an epoch's segments, to the disk itself.
    SyncJournal,
    /// A folder, to the disk itself.
    SyncFolder,
    /// Event lines.
    Lines,
    /// A file that is written whole.
    Whole,
    /// A segment that left, read back.
    Back,
    /// What a finished track is assembled to.
    Assembly,
}

/// Why nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The quota is used up.
    Quota,
    /// The file system has no room.
    Disk,
}

impl Cause {
    /// The name in events and log lines.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Quota => "quota",
            Cause::Disk => "disk",
        }
    }
}

/// A change that is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing more is written.
    Full(Cause),
    /// Writing goes on.
    Room,
}

/// The room that the spool has.
#[derive(Debug)]
pub struct Space {
    root: PathBuf,
    quota: Option<u64>,
    used: AtomicI64,
    /// What was found at the start and is not counted yet.
    uncounted: Mutex<BTreeSet<PathBuf>>,
    full: AtomicBool,
    leaving: Mutex<()>,
    state: Mutex<State>,
    #[cfg(test)]
    faults: Mutex<Vec<Fault>>,
    /// What was asked for, in order.
    #[cfg(test)]
    asked: Mutex<Vec<Op>>,
}

#[derive(Debug, Default)]
struct State {
    cause: Option<Cause>,
    /// The last change that was told was that it is full.
    told_full: bool,
    /// When it is looked at again.
    again: Micros,
    wait: Micros,
    /// When it last had room again.
    room_at: Option<Micros>,
}

/// The next writes of a kind that fail.
#[cfg(test)]
#[derive(Debug)]
struct Fault {
    op: Op,
    kind: ErrorKind,
    after: usize,
    times: usize,
}

impl Space {
    /// The room of this folder, of which `quota` bytes may be used. Nothing is counted yet.
    pub fn new(root: PathBuf, quota: Option<u64>) -> Space {
        Space {
            root,
            quota,
            used: AtomicI64::new(0),
            uncounted: Mutex::default(),
            full: AtomicBool::new(false),
            leaving: Mutex::default(),
            state: Mutex::default(),
            #[cfg(test)]
            faults: Mutex::default(),
            #[cfg(test)]
            asked: Mutex::default(),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What lies there already: to be asked before anything is written.
    pub fn found(&self) -> Vec<PathBuf> {
        let found: Vec<_> =
            fs::read_dir(&self.root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        self.uncounted.lock().unwrap_or_else(PoisonError::into_inner).extend(found.iter().cloned());
        found
    }

    /// Counts what was found; meanwhile others may be written, and what was found may be removed.
    pub fn count(&self, found: &[PathBuf]) {
        found.iter().for_each(|path| self.count_once(path));
    }

    /// Counts what was found, unless it is counted already.
    fn count_once(&self, found: &Path) {
        // Held until it is counted: nobody removes half of it before.
        let mut uncounted = self.uncounted.lock().unwrap_or_else(PoisonError::into_inner);
        if uncounted.remove(found) {
            self.wrote(bytes_below(found));
        }
    }

    /// Bytes of the spool's files.
    pub fn used(&self) -> u64 {
        self.used.load(SeqCst).max(0).cast_unsigned()
    }

    /// Bytes that they may have.
    pub fn quota(&self) -> Option<u64> {
        self.quota
    }

    /// What media may take of the quota.
    fn limit(&self) -> Option<u64> {
        self.quota.map(|quota| quota - RESERVE.min(quota / 8))
    }

    /// Whether nothing is written for want of room.
    pub fn is_full(&self) -> bool {
        self.full.load(SeqCst)
    }

    /// Whether not even small files find room.
    pub fn is_disk_full(&self) -> bool {
        self.is_full() && self.lock().cause == Some(Cause::Disk)
    }

    /// Whether there is so little room that what need not be here is to leave.
    pub fn is_tight(&self) -> bool {
        self.is_full() || self.limit().is_some_and(|limit| self.used() > limit / 100 * TIGHT_ABOVE)
    }

    /// Whether more is to leave, once it is tight.
    pub fn wants_room(&self) -> bool {
        self.is_disk_full() || self.limit().is_some_and(|limit| self.used() > limit / 100 * LEAVES_DOWN_TO)
    }

    /// Held while segments leave.
    pub fn leaving(&self) -> MutexGuard<'_, ()> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties a file, which stays.
    ///
    /// # Errors
    /// Of the file system.
    pub fn empty(&self, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).open(path)?;
        let meta = file.metadata()?;
        match meta.nlink() {
            1 => file.set_len(0)?,
            // A folder that was the store before has the same file.
            _ => {
                let aside = path.with_extension("emptied");
                File::create(&aside)?;
                fs::rename(&aside, path)?;
            }
        }
        self.resized(meta.len(), 0);
        Ok(())
    }

    /// Whether so many bytes of media would find room.
    pub fn has_place_for(&self, bytes: u64) -> bool {
        !self.is_full() && self.limit().is_none_or(|limit| self.used() + bytes <= limit)
    }

    /// Whether so many bytes of media may be written.
    ///
    /// # Errors
    /// `StorageFull` when they may not; from then on nothing may until there is room again.
    pub fn admit(&self, bytes: u64) -> io::Result<()> {
        if !self.is_full() && !self.has_place_for(bytes) {
            self.fill(Cause::Quota);
        }
        if self.is_full() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// So many bytes were written.
    pub fn wrote(&self, bytes: u64) {
        self.used.fetch_add(bytes.cast_signed(), SeqCst);
    }

    /// A file grew, or shrank, from one size to the other.
    pub fn resized(&self, from: u64, to: u64) {
        self.used.fetch_add(to.cast_signed() - from.cast_signed(), SeqCst);
    }

    /// Removes a file or a folder with all it holds. One that is not there is removed.
    ///
    /// # Errors
    /// Of the file system; what is gone by then is no longer counted.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        // What was never counted cannot be taken off.
        if let Some(first) = path.strip_prefix(&self.root).ok().and_then(|below| below.components().next()) {
            self.count_once(&self.root.join(first));
        }
        let before = bytes_below(path);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        self.resized(before, if removed.is_ok() { 0 } else { bytes_below(path) });
        removed.or_else(if_there)
    }

    /// Passes a result on, and notes where it says that the disk is full.
    pub fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.note(error))
    }

    /// Notes where an error says that the disk is full.
    pub fn note(&self, error: &io::Error) {
        if is_full_error(error) && !self.is_full() {
            self.fill(Cause::Disk);
        }
    }

    /// Does what changes the spool, unless a test wants it to fail.
    pub fn run<T>(&self, op: Op, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.noted(self.fault(op).and_then(|()| work()))
    }

    /// Appends bytes to a file that has `size` bytes: all of them, or none.
    ///
    /// # Errors
    /// Of the file system.
    pub fn append(&self, op: Op, file: &mut File, size: u64, bytes: &[u8]) -> io::Result<()> {
        let written = match self.fault(op) {
            // A disk that is full takes half of it.
            Err(error) => file.write_all(&bytes[..bytes.len() / 2]).and(Err(error)),
            Ok(()) => file.write_all(bytes),
        };
        if written.is_err() {
            use std::io::Seek;
            file.set_len(size)?;
            file.seek(io::SeekFrom::Start(size))?;
        } else {
            self.wrote(bytes.len() as u64);
        }
        self.noted(written)
    }

    fn fill(&self, cause: Cause) {
        self.lock().cause = Some(cause);
        self.full.store(true, SeqCst);
    }

    /// Looks whether there is room again; asked about once a second, and does file work only while it is full. Gives what
    /// has changed since the last time.
    pub fn look(&self, now: Micros) -> Option<Change> {
        if !self.is_full() {
            return None;
        }
        let (told, cause, again) = {
            let state = self.lock();
            (state.told_full, state.cause.unwrap_or(Cause::Disk), state.again)
        };
        if !told {
            let mut state = self.lock();
            let relapsed = state.room_at.is_some_and(|room| now - room < WAIT_LAST);
            state.wait = if relapsed { Micros((state.wait.0 * 2).min(WAIT_LAST.0)) } else { WAIT_FIRST };
            (state.told_full, state.again) = (true, now + state.wait);
            return Some(Change::Full(cause));
        }
        if now < again {
            return None;
        }
        if !self.has_room() {
            // The look may have walked the whole spool.
            let mut state = self.lock();
            state.again = now + state.wait;
            return None;
        }
        let mut state = self.lock();
        (state.told_full, state.room_at) = (false, Some(now));
        self.full.store(false, SeqCst);
        Some(Change::Room)
    }

    fn has_room(&self) -> bool {
        if let Some(limit) = self.limit() {
            // Counted anew: others may have made the room.
            self.used.store(bytes_below(&self.root).cast_signed(), SeqCst);
            if self.used() >= limit / 100 * GOES_ON_BELOW {
                return false;
            }
        }
        // Where the system does not say, the next write does.
        rustix::fs::statvfs(&self.root).is_ok_and(|disk| {
            let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
            free >= FREE_MIN.min(all / 20)
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests make it fail")]
    fn fault(&self, _: Op) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn fault(&self, op: Op) -> io::Result<()> {
        self.asked.lock().unwrap().push(op);
        let mut faults = self.faults.lock().unwrap();
        let Some(fault) = faults.iter_mut().find(|fault| fault.op == op && fault.times > 0) else { return Ok(()) };
        if fault.after > 0 {
            fault.after -= 1;
            return Ok(());
        }
        fault.times -= 1;
        Err(fault.kind.into())
    }

    /// After so many writes of a kind, so many fail.
    #[cfg(test)]
    pub(crate) fn fail(&self, op: Op, kind: ErrorKind, after: usize, times: usize) {
        self.faults.lock().unwrap().push(Fault { op, kind, after, times });
    }

    /// What was asked for since the last time, in order.
    #[cfg(test)]
    pub(crate) fn take_asked(&self) -> Vec<Op> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Whether every failure that was asked for has come.
    #[cfg(test)]
    pub(crate) fn failed_all(&self) -> bool {
        self.faults.lock().unwrap().iter().all(|fault| fault.times == 0)
    }
}

/// For what is to be gone: no error where it was not there.
///
/// # Errors
/// Any other.
pub fn if_there(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Whether an error says that there is no room: on the disk, or in what the user may have of it.
pub fn is_full_error(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Bytes of all files below; 0 where nothing can be read.
fn bytes_below(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                paths.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
            }
            Ok(meta) => bytes += meta.len(),
            // Removed meanwhile.
            Err(_) => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn what_the_store_has_leaves_before_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().to_owned(), Some(80 * MB));
        // An eighth is kept: media may take 70 MB.
        let segments: Vec<_> = (0..6).map(|n| dir.path().join(format!("{n}.m4s"))).collect();
        for segment in &segments {
            assert!(!space.is_tight());
            File::create(segment).unwrap().set_len(10 * MB).unwrap();
            space.wrote(10 * MB);
        }
        assert!(space.is_tight() && !space.is_full());
        let left =
            segments.iter().take_while(|_| space.wants_room()).inspect(|path| space.empty(path).unwrap()).count();
        assert_eq!((left, space.used(), space.is_tight()), (2, 40 * MB, false));
        space.empty(&segments[0]).unwrap();
        assert_eq!(space.used(), 40 * MB, "what is empty takes nothing off");
        assert!(segments[0].exists() && !Space::new(dir.path().to_owned(), None).is_tight());
    }

    #[test]
    fn media_stops_before_the_quota_and_goes_on_well_below() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = dir.path().join("folder/ballast");
        fs::create_dir(dir.path().join("folder")).unwrap();
        File::create(&ballast).unwrap().set_len(60 * MB).unwrap();
        let space = Space::new(dir.path().to_owned(), Some(80 * MB));
        space.count(&space.found());
        assert_eq!(space.used(), 60 * MB);
        // 70 are for media, 10 are kept.
        space.admit(10 * MB).unwrap();
        space.wrote(10 * MB);
        assert_eq!(space.look(Micros(0)), None);
        assert_eq!(space.admit(1).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(space.look(Micros(0)), Some(Change::Full(Cause::Quota)));
        // What is written all the same still counts; and 67 of 70 is not below 95 %.
        File::create(&ballast).unwrap().set_len(67 * MB).unwrap();
        assert_eq!(space.look(Micros::from_secs(9)), None);
        File::create(&ballast).unwrap().set_len(66 * MB).unwrap();
        assert!(space.is_full() && !space.is_disk_full());
        assert_eq!(space.look(Micros::from_secs(10)), Some(Change::Room));
        assert_eq!(space.used(), 66 * MB);
        space.admit(4 * MB).unwrap();
        space.remove(&dir.path().join("folder")).unwrap();
        assert_eq!(space.used(), 0);
    }

    #[test]
    fn what_is_removed_before_it_was_counted_leaves_the_count_right() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), b"1234").unwrap();
            fs::write(dir.path().join(name).join("other"), b"123").unwrap();
        }
        let space = Space::new(dir.path().to_owned(), None);
        let found = space.found();
        space.remove(&dir.path().join("one")).unwrap();
        space.remove(&dir.path().join("two/file")).unwrap();
        space.count(&found);
        assert_eq!(space.used(), 3);
    }

    #[test]
    fn a_full_spool_is_walked_once_a_wait() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().to_owned(), Some(80 * MB));
        File::create(dir.path().join("file")).unwrap().set_len(70 * MB).unwrap();
        space.count(&space.found());
        space.admit(1).unwrap_err();
        assert!(matches!(space.look(Micros(0)), Some(Change::Full(_))));
        assert_eq!(space.look(Micros::from_secs(1)), None);
        // Looked at a moment ago: what has changed since is seen at the next look.
        fs::remove_file(dir.path().join("file")).unwrap();
        assert_eq!(space.look(Micros(1_500_000)), None);
        assert_eq!(space.look(Micros::from_secs(2)), Some(Change::Room));
    }

    #[test]
    fn a_disk_that_is_full_again_and_again_is_told_ever_more_rarely() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().to_owned(), None);
        let mut told = 0;
        for second in 0..600 {
            let failed: io::Result<()> = Err(io::Error::from_raw_os_error(28));
            if space.admit(1).is_ok() {
                assert!(space.noted(failed).is_err());
                assert!(space.is_disk_full());
            }
            told += u32::from(matches!(space.look(Micros::from_secs(second)), Some(Change::Full(Cause::Disk))));
        }
        assert!((10..20).contains(&told), "{told}");
    }

    #[test]
    fn what_is_appended_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path().to_owned(), None);
        let path = dir.path().join("file");
        let mut file = File::create(&path).unwrap();
        space.fail(Op::Part, ErrorKind::StorageFull, 1, 1);
        space.append(Op::Part, &mut file, 0, b"one ").unwrap();
        space.append(Op::Part, &mut file, 4, b"two ").unwrap_err();
        space.append(Op::Part, &mut file, 4, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one three");
        assert!(space.is_full() && space.failed_all());
        assert_eq!(space.used(), 9);
    }
}
