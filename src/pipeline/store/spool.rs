//! The spool: what is being written, on local disk. A part is appended as soon as it exists, and its journal line
//! after it; a closed segment is made durable by the sync thread and only then has its name.
//!
//! Not here: what the parts hold, uploading, taking up what an earlier process left.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use crossbeam_channel::Sender;
use sha2::{Digest, Sha256};

use crate::ledger::Ledger;
use crate::media::{Micros, Tick};
use crate::pipeline::package::segmenter::Part;

use super::journal::{self, EpochLine, PartLine, Run, SegmentLine};
use super::keys;
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
}

/// A segment that is complete and durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// The epoch's folder name.
    pub epoch: String,
    /// The file name of the init segment.
    pub init: String,
    /// Where the segment lies.
    pub path: PathBuf,
    /// Its line in `segments.jsonl`.
    pub line: SegmentLine,
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
    dir: PathBuf,
    name: String,
    init: String,
    journal: File,
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
    /// Of the file system.
    pub fn create(spool: &TrackSpool, mut line: EpochLine, init: &[u8]) -> io::Result<EpochWriter> {
        let name = keys::epoch(line.first_tick, &spool.writer);
        let dir = spool.dir.join(&name);
        fs::create_dir_all(&dir)?;
        line.init = keys::init(init);
        let init_path = spool.dir.join(&line.init);
        if !init_path.exists() {
            let aside = spool.dir.join(format!("{}.{name}", line.init));
            let mut file = File::create(&aside)?;
            file.write_all(init)?;
            file.sync_all()?;
            fs::rename(&aside, &init_path)?;
        }
        let mut journal = append_to(&dir.join(JOURNAL))?;
        write_line(&mut journal, &line)?;
        Ok(EpochWriter { spool: spool.clone(), dir, name, init: line.init, journal, open: None })
    }

    /// The epoch's folder name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its init segment.
    pub fn init(&self) -> &str {
        &self.init
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
        if let Err(error) = open.file.write_all(&part.bytes).and_then(|()| write_line(&mut self.journal, &line)) {
            // A disk that is full takes half of it: the segment ends where its last whole part does.
            open.file.set_len(offset)?;
            open.file.seek(io::SeekFrom::Start(offset))?;
            return Err(error);
        }
        open.hash = hash;
        open.bytes += part.bytes.len() as u64;
        open.ticks += Tick::from(part.ticks);
        line.runs.into_iter().for_each(|run| journal::push_run(&mut open.runs, run));
        if part.closes {
            self.end(when_closed)?;
        }
        Ok(())
    }

    /// Closes the segment that is open, if one is: at its cell's end, or early with the epoch.
    ///
    /// # Errors
    /// Of the file system; the segment then keeps its growing name.
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
        write_line(&mut append_to(&self.dir.join(SEGMENTS))?, &line)?;
        let path = self.dir.join(keys::segment(open.number));
        let closed = Closed { epoch: self.name.clone(), init: self.init.clone(), path, line };
        let job = SyncJob::Segment { file: open.file, growing: open.path, closed, done: when_closed() };
        // Waits when the disk is behind: the encoder then waits, and the lane's queues after it.
        self.spool.sync.send(job).map_err(|_| io::Error::other("the sync thread has ended"))
    }

    fn create_segment(&self, part: &Part) -> io::Result<OpenSegment> {
        let path = self.dir.join(format!("{}{GROWING}", keys::segment(part.segment)));
        Ok(OpenSegment {
            number: part.segment,
            first_tick: part.first_tick,
            ticks: 0,
            bytes: 0,
            file: OpenOptions::new().write(true).create_new(true).open(&path)?,
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
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}

/// Writes a whole file aside, makes it durable and renames it: no reader sees half of it.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)
}

/// The lines of a JSON lines file that are complete and of the right shape; a torn last line ends it.
pub fn read_lines<T: serde::de::DeserializeOwned>(path: &Path, skip: usize) -> io::Result<Vec<T>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().skip(skip).map_while(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
mod tests {
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
        let spool = TrackSpool { dir: dir.path().to_owned(), writer: "abc234".into(), sync };
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
        super::super::sync::make_durable(&mut jobs.try_iter().collect());
        let closed = hears.recv().unwrap().unwrap();
        assert_eq!(closed.path, segment);
        assert_eq!(fs::read(&segment).unwrap(), b"onetwo");
        assert_eq!(closed.line.sha256, keys::hex(&Sha256::digest(b"onetwo")));
        assert_eq!((closed.line.first_tick, closed.line.ticks, closed.line.bytes), (2, 4, 6));
        assert_eq!(closed.line.runs, [journal::KindRun { kind: journal::RunKind::Held, n: 4 }]);
        let parts: Vec<PartLine> = read_lines(&dir.path().join("0000002-abc234").join(JOURNAL), 1).unwrap();
        assert_eq!(
            parts.iter().map(|p| (p.offset, p.bytes, p.closes)).collect::<Vec<_>>(),
            [(0, 3, false), (3, 3, true)]
        );
        assert_eq!(parts[1].sha256, closed.line.sha256);
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
