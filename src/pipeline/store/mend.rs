//! An epoch whose named segments the journal or the list does not tell of, because the machine died with them in its
//! memory: both are made again, from the segments.
//!
//! Only books are written here: no segment is changed. Not here: reading sound books ([`super::recovery`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::ledger::Ledger;
use crate::media::{GapReason, Kind, Micros, Tick};
use crate::pipeline::package::headers::{MovieFacts, read_headers};
use crate::pipeline::package::scan::Scanner;

use super::journal::{EpochLine, KindRun, PartLine, Run, RunKind, SPOOL_VERSION, SegmentLine, kinds};
use super::keys;
use super::lists::{line_of, write_list};
use super::spool::{JOURNAL, SEGMENTS, read_lines, write_line};

/// Where the track stood before an epoch.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Its books.
    pub ledger: Ledger,
    /// The newest time placed.
    pub last_at: Micros,
}

/// The numbers of an epoch's named segments. One look at the folder instead of one at each file.
///
/// # Errors
/// Of the file system.
pub fn named(dir: &Path) -> io::Result<BTreeSet<i64>> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(keys::segment_number);
        numbers.extend(number.filter(|number| *name == *keys::segment(*number)));
    }
    Ok(numbers)
}

/// The first line of an epoch's journal, where it reads.
pub fn head(dir: &Path) -> Option<EpochLine> {
    let mut text = Vec::new();
    BufReader::new(File::open(dir.join(JOURNAL)).ok()?).read_until(b'\n', &mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Makes journal and list tell of every named segment that can be read. Returns whether they say more now.
///
/// # Errors
/// Of the file system.
pub fn mend(dir: &Path, before: &Before) -> io::Result<bool> {
    let named = named(dir)?;
    let known = head(dir);
    let [journal, list] = [JOURNAL, SEGMENTS].map(|name| dir.join(name));
    let told: Vec<PartLine> = if known.is_some() { read_lines(&journal, 1)? } else { Vec::new() };
    let listed: Vec<SegmentLine> = if list.exists() { read_lines(&list, 0)? } else { Vec::new() };
    let mut parts: BTreeMap<i64, Vec<PartLine>> = BTreeMap::new();
    told.into_iter().for_each(|part| parts.entry(part.segment).or_default().push(part));
    let mut lines: BTreeMap<i64, SegmentLine> =
        listed.into_iter().filter(|line| named.contains(&line.number)).map(|line| (line.number, line)).collect();
    let listed = lines.len();
    for number in named.iter().filter(|number| !lines.contains_key(number)).copied().collect::<Vec<_>>() {
        let mine = parts.get(&number).map_or(&[][..], Vec::as_slice);
        if let Some(line) = line_from(&dir.join(keys::segment(number)), number, mine)? {
            lines.insert(number, line);
        }
    }
    let head = if lines.is_empty() { None } else { known.clone().or_else(|| made_up(dir)) };
    let Some(head) = head else { return Ok(false) };
    let fps = facts(&dir.with_file_name(&head.init)).map(|facts| facts.fps);
    let (mut before, mut added) = (before.clone(), known.is_none() || lines.len() > listed);
    let numbers: BTreeSet<i64> = parts.keys().chain(lines.keys()).copied().collect();
    for number in numbers {
        let mine = parts.entry(number).or_default();
        if let Some(line) = lines.get(&number) {
            mine.retain(|part| part.offset + part.bytes <= line.bytes && within(line, part));
        }
        if let Some(last) = mine.last() {
            before = Before { ledger: last.ledger.clone(), last_at: last.last_at };
        }
        if let Some(rest) = lines.get(&number).and_then(|line| rest(line, mine, &before, fps)) {
            before = Before { ledger: rest.ledger.clone(), last_at: rest.last_at };
            mine.push(rest);
            added = true;
        }
    }
    if added {
        tracing::warn!(epoch = %dir.display(), segments = lines.len(), "made the journal again from the segments");
        let aside = journal.with_extension("jsonl.new");
        let mut file = File::create(&aside)?;
        write_line(&mut file, &head)?;
        parts.values().flatten().try_for_each(|part| write_line(&mut file, part))?;
        file.sync_all()?;
        fs::rename(&aside, &journal)?;
        write_list(&list, &lines.into_values().collect::<Vec<_>>())?;
        File::open(dir)?.sync_all()?;
    }
    Ok(added)
}

fn within(line: &SegmentLine, part: &PartLine) -> bool {
    line.first_tick <= part.first_tick && part.first_tick + part.ticks <= line.first_tick + line.ticks
}

/// What the list should say of a named segment: by the journal where it tells of all of it, else by the segment itself.
fn line_from(path: &Path, number: i64, parts: &[PartLine]) -> io::Result<Option<SegmentLine>> {
    let bytes = fs::read(path)?;
    let sha256 = keys::hex(&Sha256::digest(&bytes));
    if let Some(last) = parts.last()
        && last.offset + last.bytes == bytes.len() as u64
        && last.sha256 == sha256
    {
        return Ok(Some(line_of(parts)));
    }
    let Some((first_tick, ticks)) = scan(path, &bytes) else { return Ok(None) };
    let bytes = bytes.len() as u64;
    let mut line = SegmentLine { number, first_tick, ticks, bytes, sha256, runs: Vec::new() };
    let told: Vec<Run> = parts.iter().filter(|part| within(&line, part)).flat_map(|part| part.runs.clone()).collect();
    let n = ticks - told.iter().map(|run| run.n).sum::<Tick>();
    line.runs = kinds(&told);
    // For all anybody knows there was a picture.
    line.runs.extend((n > 0).then_some(KindRun { kind: RunKind::Picture, n }));
    Ok(Some(line))
}

/// First tick and ticks of a segment. `None` where it is none of ours: it is kept, and in no output.
fn scan(path: &Path, bytes: &[u8]) -> Option<(Tick, Tick)> {
    let mut scanner = Scanner::new(Cursor::new(bytes), 4 << 10).ok()?;
    let (mut first, mut ticks) = (None, 0);
    loop {
        match scanner.next_part() {
            Ok(None) => return Some((first?, ticks)),
            Ok(Some(part)) if part.first_tick == *first.get_or_insert(part.first_tick) + ticks => {
                ticks += part.samples.len() as Tick;
            }
            other => {
                let error = other.err().map_or_else(|| "ticks are missing in it".to_owned(), |error| error.to_string());
                tracing::error!(segment = %path.display(), error, "left alone: a named segment cannot be read");
                return None;
            }
        }
    }
}

/// One part for all of a segment that the journal's `parts` do not tell of.
fn rest(line: &SegmentLine, parts: &[PartLine], before: &Before, fps: Option<u32>) -> Option<PartLine> {
    let offset = parts.last().map_or(0, |last| last.offset + last.bytes);
    let first_tick = parts.last().map_or(line.first_tick, |last| last.first_tick + last.ticks);
    let end = line.first_tick + line.ticks;
    if first_tick >= end {
        return None;
    }
    let (mut ledger, mut runs) = (before.ledger.clone(), Vec::new());
    let mut tick = line.first_tick;
    for run in &line.runs {
        let (from, to) = (tick.max(first_tick), (tick + run.n).min(end));
        tick += run.n;
        let n = (to - from).max(0);
        match run.kind {
            _ if n == 0 => {}
            RunKind::Picture => {
                ledger.encode(n.unsigned_abs());
                runs.extend((from..to).map(|tick| Run::without_picture(tick, 1, run.kind, None)));
            }
            RunKind::Held => {
                ledger.held += n.unsigned_abs();
                runs.push(Run::without_picture(from, n, run.kind, None));
            }
            RunKind::Filled => runs.push(Run::without_picture(from, n, run.kind, Some(GapReason::Unknown))),
        }
    }
    // The MP4 begins at tick 0: whatever is nothing else is filled.
    ledger.filled = end.unsigned_abs().saturating_sub(ledger.encoded + ledger.held);
    let at = fps.map_or(Micros(0), |fps| Micros((end - 1).saturating_mul(1_000_000) / i64::from(fps)));
    Some(PartLine {
        segment: line.number,
        offset,
        bytes: line.bytes.saturating_sub(offset),
        first_tick,
        ticks: end - first_tick,
        closes: true,
        sha256: line.sha256.clone(),
        ledger,
        last_at: before.last_at.max(at),
        runs,
    })
}

/// The first line of an epoch that has none: as another epoch of the track has it, else from the names and the init
/// segment.
fn made_up(dir: &Path) -> Option<EpochLine> {
    let first_tick = dir.file_name()?.to_str()?.split('-').next()?.parse().ok()?;
    let track = dir.parent()?;
    let beside: Vec<_> = fs::read_dir(track).ok()?.flatten().map(|entry| entry.path()).collect();
    let other = beside.iter().filter_map(|path| head(path)).max_by_key(|line| line.first_tick);
    if let Some(other) = other {
        return Some(EpochLine { first_tick, holes: Vec::new(), ..other });
    }
    let (component, kind) = track.file_name()?.to_str()?.rsplit_once('-')?;
    let kind: Kind = serde_json::from_value(kind.into()).ok()?;
    let inits = beside.iter().filter(|path| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with("init-") && fs::read(path).is_ok_and(|bytes| keys::init(&bytes) == name)
    });
    let init = inits.max_by_key(|path| fs::metadata(path).and_then(|meta| meta.modified()).ok())?;
    let facts = facts(init)?;
    Some(EpochLine {
        spool: SPOOL_VERSION,
        participant_id: participant(track.parent()?, component).unwrap_or_else(|| component.to_owned()),
        kind,
        canvas: facts.canvas,
        codecs: facts.sets.codecs(),
        first_tick,
        init: init.file_name()?.to_str()?.to_owned(),
        encoder_options: String::new(),
        holes: Vec::new(),
    })
}

/// What an init segment says.
fn facts(init: &Path) -> Option<MovieFacts> {
    read_headers(&mut File::open(init).ok()?).ok()
}

/// The participant whose id makes this name of a folder, where the recording's state knows one.
fn participant(recording: &Path, component: &str) -> Option<String> {
    let state: serde_json::Value = serde_json::from_slice(&fs::read(recording.join("state.json")).ok()?).ok()?;
    let ids = state["participants"].as_array()?.iter().filter_map(|known| match &known["id"] {
        serde_json::Value::String(id) => Some(id.clone()),
        serde_json::Value::Number(id) => Some(id.to_string()),
        _ => None,
    });
    ids.into_iter().find(|id| keys::component(id) == component)
}
