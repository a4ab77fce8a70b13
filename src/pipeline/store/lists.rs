//! The lists of closed segments, put right: by a start, and before they leave the spool.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::journal::{self, PartLine, Run, SegmentLine};
use super::spool::{JOURNAL, SEGMENTS, read_lines, write_line};

/// Writes the segment's line, unless it stands there already.
///
/// # Errors
/// Of the file system.
pub fn list(dir: &Path, line: &SegmentLine) -> io::Result<()> {
    let list = dir.join(SEGMENTS);
    let mut lines: Vec<SegmentLine> = if list.exists() { read_lines(&list, 0)? } else { Vec::new() };
    if lines.iter().any(|known| known == line) {
        return Ok(());
    }
    // A line of a segment that is shorter now, or a torn one, is replaced: the list is written anew.
    lines.retain(|known| known.number != line.number);
    lines.push(line.clone());
    write_list(&list, &lines)
}

/// Writes a list whole.
///
/// # Errors
/// Of the file system.
pub fn write_list(list: &Path, lines: &[SegmentLine]) -> io::Result<()> {
    let aside = list.with_extension("jsonl.new");
    let mut file = File::create(&aside)?;
    lines.iter().try_for_each(|line| write_line(&mut file, line))?;
    file.sync_all()?;
    fs::rename(&aside, list)
}

/// Makes the list of an epoch's segments say what is closed, and nothing else: lines of abandoned segments go, lines
/// that a full disk did not take come from the journal.
///
/// # Errors
/// Of the file system.
pub fn settle_list(dir: &Path, closed: &BTreeSet<i64>) -> io::Result<()> {
    let list = dir.join(SEGMENTS);
    let mut lines: Vec<SegmentLine> = if list.exists() { read_lines(&list, 0)? } else { Vec::new() };
    if lines.iter().map(|line| line.number).eq(closed.iter().copied()) {
        return Ok(());
    }
    lines.retain(|line| closed.contains(&line.number));
    let listed: BTreeSet<i64> = lines.iter().map(|line| line.number).collect();
    let mut parts: Vec<PartLine> = read_lines(&dir.join(JOURNAL), 1)?;
    parts.retain(|part| closed.contains(&part.segment) && !listed.contains(&part.segment));
    lines.extend(parts.chunk_by(|a, b| a.segment == b.segment).map(line_of));
    lines.sort_by_key(|line| line.number);
    write_list(&list, &lines)
}

/// What the list says of a segment of these parts, of which there is one at least.
pub fn line_of(parts: &[PartLine]) -> SegmentLine {
    let mut runs: Vec<Run> = Vec::new();
    parts.iter().flat_map(|part| part.runs.clone()).for_each(|run| journal::push_run(&mut runs, run));
    let last = &parts[parts.len() - 1];
    SegmentLine {
        number: last.segment,
        first_tick: parts[0].first_tick,
        ticks: parts.iter().map(|part| part.ticks).sum(),
        bytes: last.offset + last.bytes,
        sha256: last.sha256.clone(),
        runs: journal::kinds(&runs),
    }
}
