//! The spool: what is being written, on local disk. A part is appended as soon as it exists, and its journal line
//! after it; a closed segment is made durable by the sync thread and only then has its name.
//!
//! Not here: what the parts hold, uploading, taking up what an earlier process left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Sender;
use sha2::{Digest, Sha256};

use crate::ledger::Ledger;
use crate::media::{Micros, Tick};
use crate::pipeline::package::segmenter::Part;

use super::journal::{self, EpochLine, PartLine, Run, SegmentLine};
use super::keys;
use super::space::{Op, Space};
use super::sync::SyncJob;

/// The journal of an epoch, in its folder.
pub const JOURNAL: &str = "journal.jsonl";
/// The list of closed segments of an epoch, in its folder.
pub const SEGMENTS: &str = "segments.jsonl";
/// What a segment's name ends with while it grows.
pub const GROWING: &str = ".open";

/// Where an epoch is written, and who makes it durable.
#[derive(Clone, Debug)]
pub struct TrackSpool {
    /// The track's folder.
    pub dir: PathBuf,
    /// The random name of this process.
    pub writer: String,
    /// To the sync thread.
    pub sync: Sender<SyncJob>,
    /// The room there is.
    pub space: Arc<Space>,
}

/// The folder of an epoch, shared by all its segments.
#[derive(Debug, PartialEq, Eq)]
pub struct EpochFolder {
    /// The epoch's folder name.
    pub name: String,
    /// The file name of the init segment.
    pub init: String,
    /// Where it lies.
    pub dir: PathBuf,
}

/// A segment that is complete and durable. Every segment of every recording under way has one: 40 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Where it lies.
    pub folder: Arc<EpochFolder>,
    /// Its number on the recording's segment grid.
    pub number: i64,
    /// Its first tick.
    pub first_tick: Tick,
    /// Its ticks.
    pub ticks: Tick,
}

impl Closed {
    /// The segment that a line of the epoch's list tells of.
    pub fn new(folder: &Arc<EpochFolder>, line: &SegmentLine) -> Closed {
        let folder = Arc::clone(folder);
        Closed { folder, number: line.number, first_tick: line.first_tick, ticks: line.ticks }
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        self.folder.dir.join(keys::segment(self.number))
    }

    /// The tick after its last one.
    pub fn end_tick(&self) -> Tick {
        self.first_tick + self.ticks
    }
}

/// What is told when a segment became durable, or did not.
pub type WhenClosed = Box<dyn FnOnce(io::Result<Closed>) + Send>;

/// The books that go with a part.
pub struct PartBooks<'a> {
    /// Totals, this part included.
    pub ledger: &'a Ledger,
    /// The newest time placed.
    pub last_at: Micros,
    /// What its ticks show.
    pub runs: Vec<Run>,
}

/// An epoch being written.
#[derive(Debug)]
pub struct EpochWriter {
    spool: TrackSpool,
    folder: Arc<EpochFolder>,
    journal: File,
    journal_bytes: u64,
    open: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    number: i64,
    first_tick: Tick,
    ticks: Tick,
    bytes: u64,
    file: File,
    path: PathBuf,
    hash: Sha256,
    runs: Vec<Run>,
}

impl EpochWriter {
    /// Makes the folder of the epoch that `line` describes, its journal, and the track's init segment unless an equal one
    /// is there. `line.init` is filled in.
    ///
    /// # Errors
    /// Of the file system; nothing of the epoch is left then.
    pub fn create(spool: &TrackSpool, line: EpochLine, init: &[u8]) -> io::Result<EpochWriter> {
        let dir = spool.dir.join(keys::epoch(line.first_tick, &spool.writer));
        spool.space.run(Op::Epoch, || {
            fs::create_dir_all(&dir)?;
            EpochWriter::begin(spool, &dir, line, init).inspect_err(|_| drop(fs::remove_dir_all(&dir)))
        })
    }

    fn begin(spool: &TrackSpool, dir: &Path, mut line: EpochLine, init: &[u8]) -> io::Result<EpochWriter> {
        let name = keys::epoch(line.first_tick, &spool.writer);
        line.init = keys::init(init);
        let init_path = spool.dir.join(&line.init);
        // The sync thread makes it durable before the first segment is named; a machine that dies earlier may leave half.
        if !fs::read(&init_path).is_ok_and(|there| there == init) {
            let aside = spool.dir.join(format!("{}.{name}", line.init));
            let written = File::create(&aside).and_then(|mut file| file.write_all(init));
            let placed = written.and_then(|()| fs::rename(&aside, &init_path));
            placed.inspect_err(|_| drop(fs::remove_file(&aside)))?;
            spool.space.wrote(init.len() as u64);
        }
        let mut journal = append_to(&dir.join(JOURNAL))?;
        let head = line_bytes(&line)?;
        spool.space.append(Op::Journal, &mut journal, 0, &head)?;
        let folder = Arc::new(EpochFolder { name, init: line.init, dir: dir.to_owned() });
        let journal_bytes = head.len() as u64;
        Ok(EpochWriter { spool: spool.clone(), folder, journal, journal_bytes, open: None })
    }

    /// The epoch's folder name.
    pub fn name(&self) -> &str {
        &self.folder.name
    }

    /// The name of its init segment.
    pub fn init(&self) -> &str {
        &self.folder.init
    }

    /// Appends a part, then its journal line. A part that closes its segment hands the segment to the sync thread,
    /// which calls `when_closed`.
    ///
    /// # Errors
    /// Of the file system; the part is then not part of the epoch, and the epoch must not be written any further.
    pub fn append(
        &mut self,
        part: &Part,
        books: PartBooks<'_>,
        when_closed: impl FnOnce() -> WhenClosed,
    ) -> io::Result<()> {
        self.spool.space.admit(part.bytes.len() as u64)?;
        if part.opens || self.open.is_none() {
            self.open = Some(self.create_segment(part)?);
        }
        let open = self.open.as_mut().expect("opened above");
        let offset = open.bytes;
        let mut hash = open.hash.clone();
        hash.update(&part.bytes);
        let line = PartLine {
            segment: part.segment,
            offset,
            bytes: part.bytes.len() as u64,
            first_tick: part.first_tick,
            ticks: Tick::from(part.ticks),
            closes: part.closes,
            sha256: keys::hex(&hash.clone().finalize()),
            ledger: books.ledger.clone(),
            last_at: books.last_at,
            runs: books.runs,
        };
        let space = &self.spool.space;
        space.append(Op::Part, &mut open.file, offset, &part.bytes)?;
        let text = line_bytes(&line)?;
        if let Err(error) = space.append(Op::Journal, &mut self.journal, self.journal_bytes, &text) {
            // A part without its line is none: the segment ends where the last whole part does.
            open.file.set_len(offset)?;
            open.file.seek(io::SeekFrom::Start(offset))?;
            space.resized(line.bytes, 0);
            return Err(error);
        }
        self.journal_bytes += text.len() as u64;
        open.hash = hash;
        open.bytes += part.bytes.len() as u64;
        open.ticks += Tick::from(part.ticks);
        line.runs.into_iter().for_each(|run| journal::push_run(&mut open.runs, run));
        if part.closes {
            self.end(when_closed)?;
        }
        Ok(())
    }

    /// Closes the segment that is open, if one is: at its cell's end, or early with the epoch. `when_closed` is asked
    /// for only when the segment is handed on.
    ///
    /// # Errors
    /// When it could not be handed on; the segment then keeps its growing name.
    pub fn end(&mut self, when_closed: impl FnOnce() -> WhenClosed) -> io::Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let line = SegmentLine {
            number: open.number,
            first_tick: open.first_tick,
            ticks: open.ticks,
            bytes: open.bytes,
            sha256: keys::hex(&open.hash.finalize()),
            runs: journal::kinds(&open.runs),
        };
        if open.ticks == 0 {
            // No part of it found room.
            return fs::remove_file(&open.path);
        }
        // A full disk may not take the line; the journal has all of it, and the list is settled before it leaves.
        if let Err(error) = self.list(&line) {
            tracing::debug!(%error, segment = line.number, "a closed segment is not listed yet");
        }
        let closed = Closed::new(&self.folder, &line);
        let job = SyncJob::Segment { file: open.file, growing: open.path, closed, done: when_closed() };
        // Waits when the disk is behind: the encoder then waits, and the lane's queues after it.
        self.spool.sync.send(job).map_err(|_| io::Error::other("the sync thread has ended"))
    }

    fn list(&self, line: &SegmentLine) -> io::Result<()> {
        let mut list = append_to(&self.folder.dir.join(SEGMENTS))?;
        let size = list.metadata()?.len();
        self.spool.space.append(Op::List, &mut list, size, &line_bytes(line)?)
    }

    fn create_segment(&self, part: &Part) -> io::Result<OpenSegment> {
        let path = self.folder.dir.join(format!("{}{GROWING}", keys::segment(part.segment)));
        Ok(OpenSegment {
            number: part.segment,
            first_tick: part.first_tick,
            ticks: 0,
            bytes: 0,
            file: self.spool.space.run(Op::Segment, || OpenOptions::new().write(true).create_new(true).open(&path))?,
            path,
            hash: Sha256::new(),
            runs: Vec::new(),
        })
    }
}

/// Opens a file to append lines.
pub fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Appends one JSON line with one write, so that a reader never sees half of two.
pub fn write_line(file: &mut File, line: &impl serde::Serialize) -> io::Result<()> {
    file.write_all(&line_bytes(line)?)
}

fn line_bytes(line: &impl serde::Serialize) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes a whole file aside, makes it durable and renames it: no reader sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    if written.is_err() {
        // Half of it would take the room that it did not find.
        let _ = fs::remove_file(&aside);
    }
    written
}

/// The lines of a JSON lines file that are complete and of the right shape; a torn last line ends it.
pub fn read_lines<T: serde::de::DeserializeOwned>(path: &Path, skip: usize) -> io::Result<Vec<T>> {
    let bytes = fs::read(path)?;
    // What a machine left that died in between need not be text.
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().skip(skip).map_while(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::sync::Syncer;
    use super::*;

    fn part(segment: i64, first_tick: Tick, bytes: &[u8], opens: bool, closes: bool) -> Part {
        Part { segment, opens, first_tick, ticks: 2, bytes: bytes.to_vec(), closes, independent: opens }
    }

    fn books(ledger: &Ledger, tick: Tick) -> PartBooks<'_> {
        let runs = vec![Run::without_picture(tick, 2, journal::RunKind::Held, None)];
        PartBooks { ledger, last_at: Micros(7), runs }
    }

    #[test]
    fn a_segment_has_its_name_only_when_it_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let (sync, jobs) = crossbeam_channel::bounded(4);
        let spool = TrackSpool {
            dir: dir.path().to_owned(),
            writer: "abc234".into(),
            sync,
            space: Arc::new(Space::new(dir.path().to_owned(), None)),
        };
        let line = EpochLine {
            spool: journal::SPOOL_VERSION,
            participant_id: "100".into(),
            kind: crate::media::Kind::Webcam,
            canvas: crate::media::Canvas { width: 64, height: 64 },
            codecs: "avc1".into(),
            first_tick: 2,
            init: String::new(),
            encoder_options: String::new(),
            holes: Vec::new(),
        };
        let mut epoch = EpochWriter::create(&spool, line, b"init").unwrap();
        let ledger = Ledger { received: 2, encoded: 2, ..Ledger::default() };
        epoch.append(&part(0, 2, b"one", true, false), books(&ledger, 2), || unreachable!()).unwrap();
        let (told, hears) = crossbeam_channel::bounded(1);
        let done: WhenClosed = Box::new(move |closed| told.send(closed).unwrap());
        epoch.append(&part(0, 4, b"two", false, true), books(&ledger, 4), || done).unwrap();
        let segment = dir.path().join("0000002-abc234/000000.m4s");
        assert!(!segment.exists());
        Syncer::new(Arc::clone(&spool.space)).work_off(jobs.try_iter().collect());
        let closed = hears.recv().unwrap().unwrap();
        assert_eq!(closed.path(), segment);
        assert_eq!(fs::read(&segment).unwrap(), b"onetwo");
        let listed: Vec<SegmentLine> = read_lines(&dir.path().join("0000002-abc234").join(SEGMENTS), 0).unwrap();
        assert_eq!(Closed::new(&closed.folder, &listed[0]), closed);
        assert_eq!(listed[0].sha256, keys::hex(&Sha256::digest(b"onetwo")));
        assert_eq!((listed[0].first_tick, listed[0].ticks, listed[0].bytes), (2, 4, 6));
        assert_eq!(listed[0].runs, [journal::KindRun { kind: journal::RunKind::Held, n: 4 }]);
        let parts: Vec<PartLine> = read_lines(&dir.path().join("0000002-abc234").join(JOURNAL), 1).unwrap();
        assert_eq!(
            parts.iter().map(|p| (p.offset, p.bytes, p.closes)).collect::<Vec<_>>(),
            [(0, 3, false), (3, 3, true)]
        );
        assert_eq!(parts[1].sha256, listed[0].sha256);
        assert_eq!(parts[1].ledger, ledger);
        assert_eq!(fs::read(dir.path().join(keys::init(b"init"))).unwrap(), b"init");
    }

    #[test]
    fn a_torn_last_line_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        fs::write(&path, "1\n2\n[").unwrap();
        assert_eq!(read_lines::<u32>(&path, 0).unwrap(), [1, 2]);
    }
}
