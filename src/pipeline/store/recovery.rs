//! Takes up a track that an earlier process left in the spool: reads its journals, cuts what is torn, and says where the
//! track stands. Nothing that is complete is ever touched, and no segment that has its name.
//!
//! Not here: what becomes of it ([`crate::pipeline`] opens a lane that goes on).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use sha2::{Digest, Sha256};

use crate::media::{DiscardReason, GapReason, Tick};

use super::gaps::note_gap;
use super::journal::{EpochLine, KindRun, PartLine, RunKind, SPOOL_VERSION, SegmentLine};
use super::keys;
use super::lists::{line_of, list};
use super::manifest::{EpochManifest, Gap};
use super::mend::{Before, head, mend, named};
use super::spool::{Closed, EpochFolder, GROWING, JOURNAL, SEGMENTS, read_lines};

mod taken;
#[cfg(test)]
mod tests;

pub use taken::TakenUp;

/// Reads a track's folder. `None` when it holds no complete part. The books follow the segments that are there.
///
/// # Errors
/// Of the file system; `InvalidData` when an epoch is of another version of the spool.
pub fn take_up(dir: &Path) -> io::Result<Option<TakenUp>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let tick = path.file_name().and_then(|name| name.to_str()?.split('-').next()?.parse::<Tick>().ok());
        dirs.extend(tick.filter(|_| path.is_dir()).map(|tick| (tick, path)));
    }
    dirs.sort();
    let (mut epochs, mut before) = (Vec::new(), Before::default());
    for (_, dir) in dirs {
        if let Some(epoch) = read_epoch(&dir, &before)? {
            before = Before { ledger: epoch.last.ledger.clone(), last_at: epoch.last.last_at };
            epochs.push(epoch);
        }
    }
    epochs.sort_by_key(|epoch| (epoch.line.first_tick, epoch.end_tick()));
    let (Some(first), Some(last)) = (epochs.first(), epochs.last()) else { return Ok(None) };
    let mut track = TakenUp {
        participant_id: last.line.participant_id.clone(),
        kind: last.line.kind,
        canvas: last.line.canvas,
        codecs: last.line.codecs.clone(),
        epochs: Vec::new(),
        closed: Vec::with_capacity(epochs.iter().map(|epoch| epoch.closed.len()).sum()),
        ledger: last.last.ledger.clone(),
        first_tick: first.line.first_tick,
        next_tick: last.end_tick(),
        last_at: last.last.last_at,
        // Captures that only the segments tell of have no number.
        next_capture: epochs.iter().map(|epoch| epoch.next_capture).max().unwrap_or(0).max(last.last.ledger.received),
        gaps: Vec::new(),
        off: None,
        bytes_cut: epochs.iter().map(|epoch| epoch.bytes_cut).sum(),
    };
    // What was abandoned is in no output, whether or not a line of the journal still came to say so.
    let (encoded, held) = epochs.iter().fold((0, 0), |sum, epoch| (sum.0 + epoch.encoded, sum.1 + epoch.held));
    track.ledger.settle(DiscardReason::SpoolFull, encoded, held);
    let mut next = 0;
    for epoch in epochs {
        let unless_told = if track.epochs.is_empty() { GapReason::NotJoined } else { GapReason::Unknown };
        note_holes(&mut track.gaps, next, epoch.line.first_tick, &epoch.line.holes, unless_told);
        next = epoch.end_tick();
        for gap in epoch.gaps {
            note_gap(&mut track.gaps, gap.from_tick, gap.to_tick, gap.reason);
        }
        track.epochs.push(EpochManifest {
            epoch: epoch.name,
            first_tick: epoch.line.first_tick,
            init: epoch.line.init,
            encoder_options: epoch.line.encoder_options,
        });
        track.closed.extend(epoch.closed);
    }
    track.off = off_at(&track.gaps, track.next_tick);
    Ok(Some(track))
}

/// Adds the ticks `from..to`, which are in no segment: as the journal tells them, and what it does not tell as
/// `unless_told`.
fn note_holes(gaps: &mut Vec<Gap>, from: Tick, to: Tick, told: &[Gap], unless_told: GapReason) {
    let mut next = from;
    for hole in told {
        let (first, end) = (hole.from_tick.max(next), hole.to_tick.min(to));
        if first < end {
            note_gap(gaps, next, first, unless_told);
            note_gap(gaps, first, end, hole.reason);
            next = end;
        }
    }
    note_gap(gaps, next, to, unless_told);
}

/// Why the source was off at the end of the gaps, if they go up to `end`: restarts since then turned nothing on.
fn off_at(gaps: &[Gap], end: Tick) -> Option<GapReason> {
    let mut end = end;
    for gap in gaps.iter().rev() {
        match gap.reason {
            _ if gap.to_tick != end => return None,
            GapReason::ServerDown => end = gap.from_tick,
            GapReason::CameraOff | GapReason::NotJoined => return Some(gap.reason),
            _ => return None,
        }
    }
    None
}

/// What an epoch's journal and files say.
struct Epoch {
    name: String,
    line: EpochLine,
    closed: Vec<Closed>,
    /// The last complete part.
    last: PartLine,
    next_capture: u64,
    gaps: Vec<Gap>,
    bytes_cut: u64,
    /// Ticks of its segments with a picture of their own.
    encoded: u64,
    /// Those that show the one before them.
    held: u64,
}

impl Epoch {
    fn end_tick(&self) -> Tick {
        self.last.first_tick + self.last.ticks
    }
}

/// What the start wants to know of a part in a closed segment.
#[derive(Deserialize)]
struct Seen {
    runs: Vec<SeenRun>,
}

#[derive(Deserialize)]
struct SeenRun {
    tick: Tick,
    n: Tick,
    #[serde(default)]
    reason: Option<GapReason>,
    #[serde(default)]
    capture: Option<u64>,
}

/// What a journal's lines say beside the segments.
#[derive(Default)]
struct Told {
    /// The newest line of a part that is there.
    last: String,
    next_capture: u64,
    /// Tick ranges with their reason, in the order of the lines.
    reasons: Vec<Gap>,
}

impl Told {
    fn run(&mut self, tick: Tick, n: Tick, reason: Option<GapReason>, capture: Option<u64>) {
        self.next_capture = self.next_capture.max(capture.map_or(0, |capture| capture + 1));
        if let Some(reason) = reason {
            note_gap(&mut self.reasons, tick, tick + n, reason);
        }
    }
}

/// Reads an epoch, whose books are made whole before where they do not tell of all that has its name.
fn read_epoch(dir: &Path, before: &Before) -> io::Result<Option<Epoch>> {
    let (epoch, whole) = read_books(dir)?;
    if whole || !mend(dir, before)? { Ok(epoch) } else { Ok(read_books(dir)?.0) }
}

/// What the books of an epoch say, and whether that is all of its named segments.
fn read_books(dir: &Path) -> io::Result<(Option<Epoch>, bool)> {
    // A first line that is torn belongs to an epoch without parts, or the machine died.
    let Some(line) = head(dir) else { return Ok((None, named(dir)?.is_empty())) };
    if line.spool != SPOOL_VERSION {
        let why = format!("{}: spool version {}, this program writes {SPOOL_VERSION}", dir.display(), line.spool);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut journal = BufReader::with_capacity(64 * 1024, File::open(dir.join(JOURNAL))?);
    journal.skip_until(b'\n')?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = EpochFolder { name: name.clone(), init: line.init.clone(), dir: dir.to_owned() };
    let mut segments = Segments::new(folder)?;
    let (mut told, growing) = read_parts(&mut journal, &segments)?;
    let (parts, bytes_cut) = segments.close_growing(growing)?;
    let last = serde_json::from_str::<PartLine>(&told.last).ok();
    let last = parts.last().cloned().into_iter().chain(last).max_by_key(|part| part.first_tick);
    for run in parts.iter().flat_map(|part| &part.runs) {
        told.run(run.tick, run.n, run.reason, run.capture);
    }
    let Some(last) = last else { return Ok((None, segments.closed.is_empty() && !segments.unlisted)) };
    let mut closed = segments.closed;
    closed.sort_unstable_by_key(|segment| segment.first_tick);
    let told_to = last.first_tick + last.ticks;
    let whole = !segments.unlisted && closed.iter().all(|segment| segment.end_tick() <= told_to);
    let mut gaps = told.reasons;
    // An epoch is written without a break: what is missing in it was abandoned.
    let mut next = line.first_tick;
    for segment in &closed {
        note_gap(&mut gaps, next, segment.first_tick, GapReason::SpoolFull);
        next = segment.end_tick();
    }
    gaps.sort_by_key(|gap| gap.from_tick);
    let next_capture = told.next_capture;
    let (encoded, held) = (segments.encoded, segments.held);
    Ok((Some(Epoch { name, line, closed, last, next_capture, gaps, bytes_cut, encoded, held }), whole))
}

/// Reads the parts of a journal: what those in closed segments tell, and those of segments that are not closed.
fn read_parts(journal: &mut impl BufRead, segments: &Segments) -> io::Result<(Told, Vec<PartLine>)> {
    let (mut told, mut growing) = (Told::default(), Vec::new());
    let mut text = String::new();
    loop {
        text.clear();
        // The journal is appended line by line: what does not read is its torn end.
        match journal.read_line(&mut text) {
            Ok(_) if text.ends_with('\n') => {}
            Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
            _ => break,
        }
        let Some(number) = segment_of(&text) else { break };
        match segments.tells.get(&number) {
            // Most lines by far, in an hour of pictures a gigabyte for some hundred tracks.
            Some(false) => {}
            Some(true) => {
                let Ok(seen) = serde_json::from_str::<Seen>(&text) else { break };
                seen.runs.iter().for_each(|run| told.run(run.tick, run.n, run.reason, run.capture));
            }
            None => {
                let Ok(part) = serde_json::from_str::<PartLine>(&text) else { break };
                growing.push(part);
                continue;
            }
        }
        std::mem::swap(&mut told.last, &mut text);
    }
    Ok((told, growing))
}

/// The segment that a part's line names.
fn segment_of(line: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Named {
        segment: i64,
    }
    // As it is written; in any other order it costs a parse.
    let digits = line.strip_prefix("{\"segment\":").and_then(|rest| rest.split(',').next());
    digits.and_then(|digits| digits.parse().ok()).or_else(|| Some(serde_json::from_str::<Named>(line).ok()?.segment))
}

/// The newest closed segments of an epoch, whose captures are the newest.
const NEWEST: usize = 2;

/// The segments of an epoch.
struct Segments {
    folder: Arc<EpochFolder>,
    closed: Vec<Closed>,
    /// Whether their parts tell more than their list does: reasons, and the newest captures.
    tells: BTreeMap<i64, bool>,
    encoded: u64,
    held: u64,
    /// There are named segments that the list does not tell of.
    unlisted: bool,
}

impl Segments {
    fn new(folder: EpochFolder) -> io::Result<Segments> {
        let list = folder.dir.join(SEGMENTS);
        let lines: Vec<SegmentLine> = if list.exists() { read_lines(&list, 0)? } else { Vec::new() };
        let named = named(&folder.dir)?;
        let folder = Arc::new(folder);
        let closed = Vec::with_capacity(lines.len() + 1);
        let mut segments = Segments { folder, closed, tells: BTreeMap::new(), encoded: 0, held: 0, unlisted: false };
        for line in lines {
            // A line is written before its segment has its name: without the name, the segment still grows.
            if named.contains(&line.number) && !segments.tells.contains_key(&line.number) {
                segments.add(&line);
            }
        }
        segments.unlisted = segments.closed.len() < named.len();
        for number in segments.closed.iter().rev().take(NEWEST).map(|closed| closed.number) {
            segments.tells.insert(number, true);
        }
        Ok(segments)
    }

    fn add(&mut self, line: &SegmentLine) {
        let count = |kind| line.runs.iter().filter(|run| run.kind == kind).map(|run| run.n as u64).sum::<u64>();
        self.encoded += count(RunKind::Picture);
        self.held += count(RunKind::Held);
        let all_pictures = matches!(&line.runs[..], [KindRun { kind: RunKind::Picture, .. }]);
        self.tells.insert(line.number, !all_pictures);
        self.closed.push(Closed::new(&self.folder, line));
    }

    /// Closes the segments that had not got their names: whole as far as the journal and the bytes agree. Gives the parts
    /// that are in, and how many bytes were cut.
    fn close_growing(&mut self, parts: Vec<PartLine>) -> io::Result<(Vec<PartLine>, u64)> {
        let mut whole = Vec::new();
        let mut cut = 0;
        for parts in parts.chunk_by(|a, b| a.segment == b.segment) {
            let number = parts[0].segment;
            let path = self.folder.dir.join(keys::segment(number));
            let growing = self.folder.dir.join(format!("{}{GROWING}", keys::segment(number)));
            // Abandoned: in no output. What has its name already is never cut.
            let opened = if path.exists() { None } else { File::options().read(true).write(true).open(&growing).ok() };
            let Some(mut file) = opened else { continue };
            let size = file.metadata()?.len();
            let mut mine = parts;
            while let Some((last, before)) = mine.split_last() {
                let end = last.offset + last.bytes;
                if end <= size && hash_of(&mut file, end)? == last.sha256 {
                    break;
                }
                mine = before;
            }
            let Some(last) = mine.last() else {
                cut += size;
                break;
            };
            let end = last.offset + last.bytes;
            cut += size - end;
            file.set_len(end)?;
            file.sync_all()?;
            let line = line_of(mine);
            fs::rename(&growing, &path)?;
            list(&self.folder.dir, &line)?;
            File::open(&self.folder.dir)?.sync_all()?;
            self.add(&line);
            whole.extend_from_slice(mine);
            // What follows a torn segment hangs in the air.
            if mine.len() < parts.len() {
                break;
            }
        }
        Ok((whole, cut))
    }
}

/// SHA-256 of the first `bytes` of a file, hex.
fn hash_of(file: &mut File, bytes: u64) -> io::Result<String> {
    use std::io::Seek;
    file.rewind()?;
    let mut hash = Sha256::new();
    let mut from = file.take(bytes);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(keys::hex(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}
