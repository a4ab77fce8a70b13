//! Takes up a track that an earlier process left in the spool: reads its journals, cuts what is torn, and says where the
//! track stands. Nothing that is complete is ever touched.
//!
//! Not here: what becomes of it ([`crate::pipeline`] opens a lane that goes on).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ledger::Ledger;
use crate::media::{Canvas, GapReason, Kind, Micros, Tick};

use super::journal::{self, EpochLine, PartLine, Run, SPOOL_VERSION, SegmentLine};
use super::keys;
use super::manifest::{EpochManifest, Gap, note_gap};
use super::spool::{Closed, GROWING, JOURNAL, SEGMENTS, append_to, read_lines, write_line};

/// Where a track stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenUp {
    /// Recall's participant id.
    pub participant_id: String,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// The size of its pictures.
    pub canvas: Canvas,
    /// RFC 6381.
    pub codecs: String,
    /// Runs of segments.
    pub epochs: Vec<EpochManifest>,
    /// Durable segments, in order.
    pub closed: Vec<Closed>,
    /// The books at the last complete part.
    pub ledger: Ledger,
    /// The first tick with a picture.
    pub first_tick: Tick,
    /// The tick after the last complete part.
    pub next_tick: Tick,
    /// The newest time placed.
    pub last_at: Micros,
    /// The number for the next capture.
    pub next_capture: u64,
    /// Ranges without pictures.
    pub gaps: Vec<Gap>,
    /// Why the source was off when the process died, if it was.
    pub off: Option<GapReason>,
    /// Bytes of unfinished parts that were cut off.
    pub bytes_cut: u64,
}

/// Reads a track's folder. `None` when it holds no complete part.
///
/// # Errors
/// Of the file system; `InvalidData` when an epoch is of another version of the spool.
pub fn take_up(dir: &Path) -> io::Result<Option<TakenUp>> {
    let mut epochs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.join(JOURNAL).exists()
            && let Some(epoch) = read_epoch(&path)?
        {
            epochs.push(epoch);
        }
    }
    epochs.sort_by_key(|epoch| (epoch.line.first_tick, epoch.end_tick));
    let (Some(first), Some(last)) = (epochs.first(), epochs.last()) else { return Ok(None) };
    let mut track = TakenUp {
        participant_id: last.line.participant_id.clone(),
        kind: last.line.kind,
        canvas: last.line.canvas,
        codecs: last.line.codecs.clone(),
        epochs: Vec::new(),
        closed: Vec::new(),
        ledger: last.ledger.clone(),
        first_tick: first.line.first_tick,
        next_tick: last.end_tick,
        last_at: last.last_at,
        next_capture: epochs.iter().map(|epoch| epoch.next_capture).max().unwrap_or(0),
        gaps: Vec::new(),
        off: None,
        bytes_cut: epochs.iter().map(|epoch| epoch.bytes_cut).sum(),
    };
    let mut next = 0;
    for epoch in epochs {
        let unless_told = if track.epochs.is_empty() { GapReason::NotJoined } else { GapReason::Unknown };
        note_holes(&mut track.gaps, next, epoch.line.first_tick, &epoch.line.holes, unless_told);
        for gap in epoch.gaps {
            note_gap(&mut track.gaps, gap.from_tick, gap.to_tick, gap.reason);
        }
        next = epoch.end_tick;
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
    ledger: Ledger,
    end_tick: Tick,
    last_at: Micros,
    next_capture: u64,
    gaps: Vec<Gap>,
    bytes_cut: u64,
}

fn read_epoch(dir: &Path) -> io::Result<Option<Epoch>> {
    let mut journal = BufReader::new(File::open(dir.join(JOURNAL))?);
    let mut text = String::new();
    journal.read_line(&mut text)?;
    // A first line that is torn belongs to an epoch without parts.
    let Ok(line) = serde_json::from_str::<EpochLine>(&text) else { return Ok(None) };
    if line.spool != SPOOL_VERSION {
        let why = format!("{}: spool version {}, this program writes {SPOOL_VERSION}", dir.display(), line.spool);
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut segments = Segments::new(dir, &name, &line.init)?;
    let mut last = None;
    let (mut gaps, mut next_capture) = (Vec::new(), 0);
    // The parts of the segment that grew when the process died, kept until its file was looked at.
    let mut growing: Vec<PartLine> = Vec::new();
    let mut settle = |part: PartLine, last: &mut Option<PartLine>| {
        for run in &part.runs {
            next_capture = next_capture.max(run.capture.map_or(0, |capture| capture + 1));
            if let Some(reason) = run.reason {
                note_gap(&mut gaps, run.tick, run.tick + run.n, reason);
            }
        }
        *last = Some(part);
    };
    loop {
        text.clear();
        if journal.read_line(&mut text)? == 0 {
            break;
        }
        // The journal is appended line by line: what does not read is its torn end.
        let Ok(part) = serde_json::from_str::<PartLine>(&text) else { break };
        if segments.is_closed(part.segment) {
            settle(part, &mut last);
        } else {
            growing.push(part);
        }
    }
    let mut bytes_cut = 0;
    if let Some((whole, cut)) = segments.close_growing(dir, growing)? {
        bytes_cut = cut;
        whole.into_iter().for_each(|part| settle(part, &mut last));
    }
    let Some(last) = last else { return Ok(None) };
    Ok(Some(Epoch {
        name,
        line,
        closed: segments.closed,
        ledger: last.ledger,
        end_tick: last.first_tick + last.ticks,
        last_at: last.last_at,
        next_capture,
        gaps,
        bytes_cut,
    }))
}

/// The segments of an epoch.
struct Segments {
    epoch: String,
    init: String,
    closed: Vec<Closed>,
    numbers: BTreeSet<i64>,
}

impl Segments {
    fn new(dir: &Path, epoch: &str, init: &str) -> io::Result<Segments> {
        let list = dir.join(SEGMENTS);
        let lines: Vec<SegmentLine> = if list.exists() { read_lines(&list, 0)? } else { Vec::new() };
        let mut segments =
            Segments { epoch: epoch.to_owned(), init: init.to_owned(), closed: Vec::new(), numbers: BTreeSet::new() };
        for line in lines {
            let path = dir.join(keys::segment(line.number));
            // A line is written before its segment has its name: without the name, the segment still grows.
            if path.exists() && segments.numbers.insert(line.number) {
                segments.closed.push(Closed { epoch: epoch.to_owned(), init: init.to_owned(), path, line });
            }
        }
        Ok(segments)
    }

    fn is_closed(&self, number: i64) -> bool {
        self.numbers.contains(&number)
    }

    /// Closes the segments that had not got their names: whole as far as the journal and the bytes agree. Gives the parts
    /// that are in, and how many bytes were cut.
    fn close_growing(&mut self, dir: &Path, parts: Vec<PartLine>) -> io::Result<Option<(Vec<PartLine>, u64)>> {
        let mut whole = Vec::new();
        let mut cut = 0;
        let mut numbers: Vec<i64> = parts.iter().map(|part| part.segment).collect();
        numbers.dedup();
        for number in numbers {
            let path = dir.join(keys::segment(number));
            let growing = dir.join(format!("{}{GROWING}", keys::segment(number)));
            // Renamed, but its line in the list did not survive.
            let from = if path.exists() { &path } else { &growing };
            let mut mine: Vec<PartLine> = parts.iter().filter(|part| part.segment == number).cloned().collect();
            let Ok(mut file) = File::options().read(true).write(true).open(from) else { break };
            let size = file.metadata()?.len();
            while let Some(last) = mine.last() {
                let end = last.offset + last.bytes;
                if end <= size && hash_of(&mut file, end)? == last.sha256 {
                    break;
                }
                mine.pop();
            }
            let Some(last) = mine.last() else {
                cut += size;
                break;
            };
            let end = last.offset + last.bytes;
            cut += size - end;
            file.set_len(end)?;
            file.sync_all()?;
            let mut runs: Vec<Run> = Vec::new();
            mine.iter().flat_map(|part| part.runs.clone()).for_each(|run| journal::push_run(&mut runs, run));
            let line = SegmentLine {
                number,
                first_tick: mine[0].first_tick,
                ticks: mine.iter().map(|part| part.ticks).sum(),
                bytes: end,
                sha256: last.sha256.clone(),
                runs: journal::kinds(&runs),
            };
            if from != &path {
                fs::rename(&growing, &path)?;
            }
            self.list(dir, &line)?;
            File::open(dir)?.sync_all()?;
            self.numbers.insert(number);
            let (epoch, init) = (self.epoch.clone(), self.init.clone());
            let complete = mine.len() == parts.iter().filter(|part| part.segment == number).count();
            self.closed.push(Closed { epoch, init, path, line });
            whole.extend(mine);
            // What follows a torn segment hangs in the air.
            if !complete {
                break;
            }
        }
        Ok((!whole.is_empty() || cut > 0).then_some((whole, cut)))
    }

    /// Writes the segment's line, unless it stands there already.
    fn list(&self, dir: &Path, line: &SegmentLine) -> io::Result<()> {
        let list = dir.join(SEGMENTS);
        let mut lines: Vec<SegmentLine> = if list.exists() { read_lines(&list, 0)? } else { Vec::new() };
        if lines.iter().any(|known| known == line) {
            return Ok(());
        }
        // A line of a segment that is shorter now, or a torn one, is replaced: the list is written anew.
        lines.retain(|known| known.number != line.number);
        lines.push(line.clone());
        let aside = dir.join(format!("{SEGMENTS}.new"));
        let _ = fs::remove_file(&aside);
        let mut file = append_to(&aside)?;
        lines.iter().try_for_each(|line| write_line(&mut file, line))?;
        file.sync_all()?;
        fs::rename(&aside, &list)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::GapReason::*;
    use crate::pipeline::package::segmenter::Part;
    use crate::pipeline::store::journal::RunKind;
    use crate::pipeline::store::spool::{EpochWriter, PartBooks, TrackSpool};

    fn gap(from_tick: Tick, to_tick: Tick, reason: GapReason) -> Gap {
        Gap { from_tick, to_tick, reason }
    }

    /// Writes an epoch of one part: a picture, then filler for `reason` up to the end of a part of 4 ticks.
    fn write_epoch(dir: &Path, writer: &str, first_tick: Tick, holes: &[Gap], reason: GapReason) {
        let (sync, _jobs) = crossbeam_channel::bounded(4);
        let spool = TrackSpool { dir: dir.to_owned(), writer: writer.to_owned(), sync };
        let line = EpochLine {
            spool: SPOOL_VERSION,
            participant_id: "100".into(),
            kind: Kind::Webcam,
            canvas: Canvas { width: 64, height: 64 },
            codecs: "avc1".into(),
            first_tick,
            init: String::new(),
            encoder_options: String::new(),
            holes: holes.to_vec(),
        };
        let mut epoch = EpochWriter::create(&spool, line, b"init").unwrap();
        let segment = first_tick / 4;
        let part = Part {
            segment,
            opens: true,
            first_tick,
            ticks: 4,
            bytes: b"part".to_vec(),
            closes: false,
            independent: true,
        };
        let runs = vec![
            Run::without_picture(first_tick, 1, RunKind::Picture, None),
            Run::without_picture(first_tick + 1, 3, RunKind::Filled, Some(reason)),
        ];
        let books = PartBooks { ledger: &Ledger::default(), last_at: Micros(first_tick * 500_000), runs };
        epoch.append(&part, books, || unreachable!("the segment stays open")).unwrap();
    }

    #[test]
    fn gaps_have_their_reasons_again_written_or_not() {
        let dir = tempfile::tempdir().unwrap();
        write_epoch(dir.path(), "aaaaaa", 4, &[gap(0, 4, NotJoined)], CameraOff);
        // 18..20 is in no journal. What a line tells of ticks that are written is left out.
        let told = [gap(7, 12, CameraOff), gap(12, 18, ServerDown), gap(20, 22, SpoolFull)];
        write_epoch(dir.path(), "bbbbbb", 20, &told, Disconnected);
        write_epoch(dir.path(), "cccccc", 24, &[], CameraOff);
        let track = take_up(dir.path()).unwrap().unwrap();
        let expected = [
            gap(0, 4, NotJoined),
            gap(5, 12, CameraOff),
            gap(12, 18, ServerDown),
            gap(18, 20, Unknown),
            gap(21, 24, Disconnected),
            gap(25, 28, CameraOff),
        ];
        assert_eq!(track.gaps, expected);
        assert_eq!((track.first_tick, track.next_tick, track.off), (4, 28, Some(CameraOff)));
    }

    #[test]
    fn a_spool_of_before_holes_were_told_is_read_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        write_epoch(dir.path(), "aaaaaa", 4, &[], Unknown);
        let track = take_up(dir.path()).unwrap().unwrap();
        assert_eq!(track.gaps, [gap(0, 4, NotJoined), gap(5, 8, Unknown)]);
        let journal = std::fs::read_to_string(dir.path().join("0000004-aaaaaa").join(JOURNAL)).unwrap();
        assert!(!journal.contains("holes"), "{journal}");
    }

    #[test]
    fn a_source_is_off_through_restarts_until_something_else_happens() {
        let off = |gaps: &[Gap]| off_at(gaps, 30);
        assert_eq!(off(&[]), None);
        assert_eq!(off(&[gap(0, 30, NotJoined)]), Some(NotJoined));
        assert_eq!(off(&[gap(0, 10, CameraOff), gap(10, 30, ServerDown)]), Some(CameraOff));
        assert_eq!(off(&[gap(0, 9, CameraOff), gap(10, 30, ServerDown)]), None, "a picture lies between");
        assert_eq!(off(&[gap(0, 10, CameraOff), gap(10, 20, Disconnected), gap(20, 30, ServerDown)]), None);
        assert_eq!(off(&[gap(0, 29, CameraOff)]), None);
    }
}
