//! The segments of a track: which there are by `segments.jsonl`, and whether each file is what the list says.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::ffmpeg::PictureReader;
use crate::media::{Grid, Tick};
use crate::pipeline::package::scan::{ScanError, Scanner};
use crate::pipeline::store::journal::SegmentLine;
use crate::pipeline::store::keys;
use crate::pipeline::store::spool::SEGMENTS;

use super::lines::each_line;
use super::{is_name, names};

/// More than the largest pictures fill in the longest segment; it is read whole.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;
/// Ticks of a thousand years: above it arithmetic is not safe, below it a recording is.
pub(super) const TICKS_MAX: Tick = 1 << 40;

/// A segment as some list names it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    /// Its epoch's folder.
    pub(super) epoch: String,
    /// What the list says of it.
    pub(super) line: SegmentLine,
}

impl Segment {
    /// Its file, in the track's folder.
    pub(super) fn file(&self) -> String {
        format!("{}/{}", self.epoch, keys::segment(self.line.number))
    }

    /// The tick after its last one.
    pub(super) fn end(&self) -> Tick {
        self.line.first_tick + self.line.ticks
    }
}

/// What the lists of all epochs say.
#[derive(Default)]
pub(super) struct Listed {
    /// In the order of time.
    pub(super) segments: Vec<Segment>,
    /// What is wrong with the lists: path in the track's folder, and words.
    pub(super) wrong: Vec<(String, String)>,
}

/// Reads the lists of all epochs in a track's folder.
pub(super) fn listed(folder: &Path) -> io::Result<Listed> {
    let Listed { mut segments, mut wrong } = Listed::default();
    for epoch in names(folder, true)? {
        let list = format!("{epoch}/{SEGMENTS}");
        let read = each_line::<SegmentLine>(&folder.join(&list), |number, line| {
            match line.and_then(|line| sane(&line).then_some(line).ok_or("numbers out of range".to_owned())) {
                Ok(line) => segments.push(Segment { epoch: epoch.clone(), line }),
                Err(error) => wrong.push((list.clone(), format!("line {number}: {error}"))),
            }
            true
        });
        if let Err(error) = read {
            wrong.push((list, error.to_string()));
        }
        let files = names(&folder.join(&epoch), false)?;
        let media = files.into_iter().filter(|name| name.ends_with(".m4s"));
        for name in media {
            let path = format!("{epoch}/{name}");
            if !segments.iter().rev().any(|segment| segment.epoch == epoch && segment.file() == path) {
                wrong.push((path, format!("not in {SEGMENTS}")));
            }
        }
    }
    segments.sort_by_key(|segment| segment.line.first_tick);
    Ok(Listed { segments, wrong })
}

/// Whether the numbers of a line can be reckoned with.
pub(super) fn sane(line: &SegmentLine) -> bool {
    let ticks = 1..=TICKS_MAX;
    (0..=TICKS_MAX).contains(&line.first_tick)
        && (0..=TICKS_MAX).contains(&line.number)
        && ticks.contains(&line.ticks)
        && line.runs.iter().all(|run| ticks.contains(&run.n))
}

/// A segment's file as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Its first tick.
    pub(super) first_tick: Tick,
    /// Its ticks.
    pub(super) ticks: Tick,
    /// Its size.
    pub(super) bytes: u64,
    /// SHA-256, hex.
    pub(super) sha256: String,
}

/// Why a file is no segment.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    #[error("missing")]
    Missing,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0} bytes, too large to be a segment")]
    Large(u64),
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("goes on at tick {got} where {expected} is next")]
    NotConsecutive { expected: Tick, got: Tick },
    #[error("begins with no IDR")]
    NotIdr,
    #[error("holds no part")]
    Empty,
}

/// The bytes of a segment or init segment.
pub(super) fn read_whole(path: &Path) -> Result<Vec<u8>, SegmentError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => SegmentError::Missing,
        _ => SegmentError::Io(error),
    })?;
    let bytes = file.metadata()?.len();
    if bytes > SEGMENT_BYTES_MAX {
        return Err(SegmentError::Large(bytes));
    }
    let mut whole = Vec::with_capacity(bytes as usize);
    file.take(SEGMENT_BYTES_MAX).read_to_end(&mut whole)?;
    Ok(whole)
}

/// Reads the parts of a segment.
pub(super) fn scan(bytes: &[u8]) -> Result<Scanned, SegmentError> {
    let mut scanner = Scanner::new(Cursor::new(bytes), 4096)?;
    let mut span: Option<(Tick, Tick)> = None;
    while let Some(part) = scanner.next_part()? {
        let ticks = part.samples.len() as Tick;
        span = Some(match span {
            None if !part.samples[0].idr => return Err(SegmentError::NotIdr),
            None => (part.first_tick, ticks),
            Some((first, so_far)) if part.first_tick == first + so_far => (first, so_far + ticks),
            Some((first, so_far)) => {
                return Err(SegmentError::NotConsecutive { expected: first + so_far, got: part.first_tick });
            }
        });
    }
    let (first_tick, ticks) = span.ok_or(SegmentError::Empty)?;
    Ok(Scanned { first_tick, ticks, bytes: bytes.len() as u64, sha256: keys::hex(&Sha256::digest(bytes)) })
}

/// Decodes a segment behind its init segment: the pictures that come out.
pub(super) fn decode(name: &str, init: &[u8], segment: &[u8]) -> Result<Tick, String> {
    let reader =
        PictureReader::open_bytes_strict(name, &[init, segment].concat()).map_err(|error| error.to_string())?;
    reader.map(|picture| picture.map(|_| 1)).sum::<Result<Tick, _>>().map_err(|error| error.to_string())
}

/// What is wrong with where a segment lies.
pub(super) fn misplaced(grid: Grid, number: i64, first_tick: Tick, ticks: Tick) -> Option<String> {
    let last = first_tick + ticks - 1;
    let cells = [first_tick, last].map(|tick| grid.segment_of(tick));
    (cells != [number; 2]).then(|| format!("its ticks {first_tick} to {last} do not lie in its cell"))
}

/// An init segment, whose name says the hash of its bytes.
pub(super) fn read_init(folder: &Path, name: &str) -> Result<Vec<u8>, String> {
    if !is_name(name) {
        return Err("no name of an init segment".to_owned());
    }
    let bytes = read_whole(&folder.join(name)).map_err(|error| error.to_string())?;
    match keys::init(&bytes) {
        hashed if hashed == name => Ok(bytes),
        hashed => Err(format!("its bytes are those of {hashed}")),
    }
}

/// The path of a segment in a track's folder; `None` where its epoch leads elsewhere.
pub(super) fn path_of(folder: &Path, segment: &Segment) -> Option<PathBuf> {
    is_name(&segment.epoch).then(|| folder.join(segment.file()))
}
