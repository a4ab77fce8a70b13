//! Segments -> one MP4 from time zero on, `moov` first, without encoding anything.
//!
//! Two passes over the segment files: the first reads their headers for the sample tables, the second copies the media.
//! Memory is the sample tables (about 5 bytes a picture) and one buffer, however long the meeting and large the pictures.
//! Which spans there are, and where the file goes, is the caller's business; a writer that fails stops the work.
//!
//! What comes out: pictures at exactly `fps` a second, picture number = tick, so presentation time = tick / fps, without
//! an edit list and with one sample entry.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mp4_atom::{
    Co64, FourCC, Ftyp, Header, Moov, Stbl, Stco, Stsc, StscEntry, Stss, Stsz, StszSamples, Stts, SttsEntry,
};
use sha2::{Digest, Sha256};

use super::boxes::{self, Contents, Track};
use super::scan::{ScanError, Scanner};
use crate::media::{AccessUnit, Micros, TICK_UNITS, Tick};

/// Reading headers only, most of a larger buffer would be filled in vain: a part has some 10 kB.
const HEADER_BUFFER: usize = 4 << 10;
const COPY_BUFFER: usize = 64 << 10;

/// From 1904-01-01, where MP4 counts from, to 1970-01-01.
const SECONDS_1904_TO_1970: i64 = 2_082_844_800;

/// What a tick range shows. Spans follow each other from tick 0 without a hole.
#[derive(Clone, Copy, Debug)]
pub enum Span<'a> {
    /// The pictures of a segment file, which begins at the tick where the span before it ends.
    Segment(&'a Path),
    /// A prepared GOP, over and over.
    Filler {
        /// How long.
        ticks: Tick,
        /// One cell of it, of which the first is an IDR. It starts anew with the span and at each tick that is a multiple
        /// of its length, so that filler has its IDRs where pictures have theirs.
        gop: &'a [AccessUnit],
    },
}

/// What an MP4 is made of beside its spans.
#[derive(Clone, Copy, Debug)]
pub struct Movie<'a> {
    /// Canvas, fps and parameter sets, the same in all segments.
    pub track: Track<'a>,
    /// The participant's name.
    pub title: Option<&'a str>,
    /// Absolute time of tick 0, since 1970: the creation time.
    pub origin_unix: Micros,
    /// The length, the same for all tracks of a recording. Spans that add up to anything else are an error.
    pub expected_ticks: Tick,
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// Its size.
    pub bytes: u64,
    /// Its pictures.
    pub ticks: Tick,
    /// SHA-256 of it, lowercase hex.
    pub sha256: String,
}

/// Why there is no MP4. What was written until then is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A segment file is missing, torn or not ours.
    #[error("segment {path}: {source}")]
    Segment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ScanError,
    },
    /// A part does not begin where what is before it ends.
    #[error("segment {path} goes on at tick {got}, where {expected} is next")]
    Tick {
        /// The file.
        path: PathBuf,
        /// The next tick.
        expected: Tick,
        /// The part's first tick.
        got: Tick,
    },
    /// A segment begins with no IDR, so what is shown would depend on what is before it.
    #[error("segment {path} begins with no IDR")]
    NotIdr {
        /// The file.
        path: PathBuf,
    },
    /// A segment file was another one when its media was copied.
    #[error("segment {path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The spans are not as long as the recording.
    #[error("the spans reach tick {got} of {expected}")]
    Length {
        /// Ticks of the recording.
        expected: Tick,
        /// Where the spans end, or where they passed the end.
        got: Tick,
    },
    /// More pictures than a sample table can count.
    #[error("{0} ticks do not fit into one file")]
    TooLong(Tick),
    /// The prepared GOP is empty or does not begin with an IDR.
    #[error("the filler is empty or begins with no IDR")]
    Filler,
    /// The file could not be written.
    #[error("cannot write the MP4: {0}")]
    Write(#[source] io::Error),
}

/// Writes the MP4 of `spans` to `out`, from front to back. Buffered inside; flushed at the end, not synced.
pub fn assemble(out: &mut impl Write, movie: &Movie, spans: &[Span]) -> Result<Assembled, AssembleError> {
    let mut tables = Tables::read(movie, spans)?;
    let (ticks, media_bytes) = (tables.ticks(), tables.media_bytes);
    let [chunks, span_ends] = [&mut tables.chunk_starts, &mut tables.span_ends].map(std::mem::take);
    let ftyp = boxes::bytes_of(&Ftyp {
        major_brand: FourCC::new(b"isom"),
        minor_version: 0x200,
        compatible_brands: [b"isom", b"avc1", b"mp42"].map(FourCC::from).to_vec(),
    });
    let mdat = boxes::bytes_of(&Header { kind: FourCC::new(b"mdat"), size: Some(media_bytes as usize) });
    let moov = place(moov(movie, tables), &chunks, media_bytes, ftyp.len() + mdat.len());

    let mut to = Output { out, sha: Sha256::new(), bytes: 0, pending: Vec::with_capacity(2 * COPY_BUFFER) };
    for bytes in [&ftyp, &moov, &mdat] {
        to.write(bytes)?;
    }
    copy(&mut to, spans, &span_ends)?;
    to.flush()?;
    to.out.flush().map_err(AssembleError::Write)?;
    let sha256 = to.sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Assembled { bytes: to.bytes, ticks, sha256 })
}

/// What the first pass gathers.
#[derive(Default)]
struct Tables {
    sizes: Vec<u32>,
    /// Sample numbers of the IDRs, from 1.
    sync: Vec<u32>,
    /// Where each chunk starts, from the first media byte on. A chunk is a segment, or one round of filler.
    chunk_starts: Vec<u64>,
    /// Runs of chunks with as many samples.
    chunk_runs: Vec<StscEntry>,
    /// Where each span ends, counted likewise: the second pass must come to the same.
    span_ends: Vec<u64>,
    media_bytes: u64,
}

impl Tables {
    fn read(movie: &Movie, spans: &[Span]) -> Result<Tables, AssembleError> {
        let expected = movie.expected_ticks;
        u32::try_from(expected).map_err(|_| AssembleError::TooLong(expected))?;
        let mut tables = Tables::default();
        for span in spans {
            match *span {
                Span::Segment(path) => tables.segment(path)?,
                Span::Filler { ticks, gop } => {
                    // Before anything is made as long as that.
                    let end = tables.ticks().saturating_add(ticks);
                    if end > expected {
                        return Err(AssembleError::Length { expected, got: end });
                    }
                    rounds(gop, tables.ticks(), ticks)?.for_each(|round| tables.filler(round));
                }
            }
            // Checked as it grows, so that no list of files makes the tables larger than the recording is.
            if tables.ticks() > expected {
                return Err(AssembleError::Length { expected, got: tables.ticks() });
            }
            tables.span_ends.push(tables.media_bytes);
        }
        match tables.ticks() {
            got if got == expected => Ok(tables),
            got => Err(AssembleError::Length { expected, got }),
        }
    }

    fn ticks(&self) -> Tick {
        self.sizes.len() as Tick
    }

    fn segment(&mut self, path: &Path) -> Result<(), AssembleError> {
        let (first, start) = (self.sizes.len(), self.media_bytes);
        let mut scanner = open(path, HEADER_BUFFER)?;
        while let Some(part) = scanner.next_part().map_err(segment_error(path))? {
            let expected = self.ticks();
            if part.first_tick != expected {
                return Err(AssembleError::Tick { path: path.into(), expected, got: part.first_tick });
            }
            if expected == first as Tick && !part.samples[0].idr {
                return Err(AssembleError::NotIdr { path: path.into() });
            }
            part.samples.iter().for_each(|sample| self.sample(sample.bytes, sample.idr));
        }
        if self.sizes.len() == first {
            return Err(segment_error(path)(ScanError::Torn { at: 0 }));
        }
        self.chunk(first, start);
        Ok(())
    }

    fn filler(&mut self, round: &[AccessUnit]) {
        let (first, start) = (self.sizes.len(), self.media_bytes);
        round.iter().for_each(|unit| self.sample(unit.data.len() as u32, unit.idr));
        self.chunk(first, start);
    }

    fn sample(&mut self, bytes: u32, idr: bool) {
        self.sizes.push(bytes);
        self.media_bytes += u64::from(bytes);
        if idr {
            self.sync.push(self.sizes.len() as u32);
        }
    }

    /// Ends the chunk of the samples from `first` on.
    fn chunk(&mut self, first: usize, start: u64) {
        let samples_per_chunk = (self.sizes.len() - first) as u32;
        if samples_per_chunk == 0 {
            return;
        }
        self.chunk_starts.push(start);
        if self.chunk_runs.last().is_none_or(|run| run.samples_per_chunk != samples_per_chunk) {
            let first_chunk = self.chunk_starts.len() as u32;
            self.chunk_runs.push(StscEntry { first_chunk, samples_per_chunk, sample_description_index: 1 });
        }
    }
}

/// The filler of a span, cut where the GOP starts anew.
fn rounds(gop: &[AccessUnit], from: Tick, ticks: Tick) -> Result<impl Iterator<Item = &[AccessUnit]>, AssembleError> {
    if gop.first().is_none_or(|unit| !unit.idr) {
        return Err(AssembleError::Filler);
    }
    let (len, end) = (gop.len() as Tick, from.saturating_add(ticks));
    let mut at = from;
    Ok(std::iter::from_fn(move || {
        let stop = end.min((at.div_euclid(len) + 1) * len);
        let round = gop.get(..usize::try_from(stop - at).ok()?).filter(|round| !round.is_empty())?;
        at = stop;
        Some(round)
    }))
}

/// The `moov`, still without the places of the chunks.
fn moov(movie: &Movie, tables: Tables) -> Moov {
    let duration = tables.ticks() * TICK_UNITS;
    let stts = SttsEntry { sample_count: tables.sizes.len() as u32, sample_delta: TICK_UNITS as u32 };
    let stbl = Stbl {
        stts: Stts { entries: vec![stts] },
        stss: Some(Stss { entries: tables.sync }),
        stsc: Stsc { entries: tables.chunk_runs },
        stsz: Stsz { samples: StszSamples::Different { sizes: tables.sizes } },
        ..Stbl::default()
    };
    let creation_time = movie.origin_unix.0.div_euclid(1_000_000).saturating_add(SECONDS_1904_TO_1970);
    let contents = Contents {
        creation_time: creation_time.try_into().unwrap_or(0),
        duration: duration as u64,
        stbl,
        mvex: None,
        title: movie.title,
    };
    boxes::moov(&movie.track, contents)
}

/// The bytes of `moov`, with the places that the chunks have in a file with `other_headers` bytes beside `moov` before
/// the media. With 64-bit places only where 32 bits are too few, as many players know `stco` better.
fn place(mut moov: Moov, chunks: &[u64], media_bytes: u64, other_headers: usize) -> Vec<u8> {
    let stbl = |moov: &mut Moov, stco: Option<Vec<u32>>, co64: Option<Vec<u64>>| {
        let stbl = &mut moov.trak.first_mut().expect("a movie has its one track").mdia.minf.stbl;
        stbl.stco = stco.map(|entries| Stco { entries });
        stbl.co64 = co64.map(|entries| Co64 { entries });
    };
    // The size does not depend on the values, so the values can be filled in after measuring.
    stbl(&mut moov, Some(vec![0; chunks.len()]), None);
    let media_from = (boxes::bytes_of(&moov).len() + other_headers) as u64;
    if media_from + media_bytes <= u64::from(u32::MAX) {
        stbl(&mut moov, Some(chunks.iter().map(|start| (media_from + start) as u32).collect()), None);
    } else {
        let media_from = media_from + 4 * chunks.len() as u64;
        stbl(&mut moov, None, Some(chunks.iter().map(|start| media_from + start).collect()));
    }
    boxes::bytes_of(&moov)
}

/// The second pass: the media of all spans, which must end where the tables say.
fn copy(to: &mut Output<impl Write>, spans: &[Span], span_ends: &[u64]) -> Result<(), AssembleError> {
    let mut buffer = vec![0; COPY_BUFFER];
    let media_from = to.bytes;
    let mut tick = 0;
    for (span, end) in spans.iter().zip(span_ends) {
        match *span {
            Span::Filler { ticks, gop } => {
                let mut units = rounds(gop, tick, ticks)?.flatten();
                units.try_for_each(|unit| to.write(&unit.data))?;
                tick += ticks;
            }
            Span::Segment(path) => {
                let mut scanner = open(path, COPY_BUFFER)?;
                while let Some(part) = scanner.next_part().map_err(segment_error(path))? {
                    if part.first_tick != tick || to.bytes - media_from + part.media_bytes > *end {
                        return Err(AssembleError::Changed { path: path.into() });
                    }
                    tick += part.samples.len() as Tick;
                    loop {
                        match scanner.read_media(&mut buffer).map_err(segment_error(path))? {
                            0 => break,
                            read => to.write(&buffer[..read])?,
                        }
                    }
                }
                if to.bytes - media_from != *end {
                    return Err(AssembleError::Changed { path: path.into() });
                }
            }
        }
    }
    Ok(())
}

fn open(path: &Path, buffer: usize) -> Result<Scanner<File>, AssembleError> {
    let scanner = File::open(path).and_then(|file| Scanner::new(file, buffer));
    scanner.map_err(|error| segment_error(path)(error.into()))
}

fn segment_error(path: &Path) -> impl Fn(ScanError) -> AssembleError {
    move |source| AssembleError::Segment { path: path.into(), source }
}

/// Counts and hashes what it passes on in large pieces: a held picture has 50 bytes.
struct Output<'a, W> {
    out: &'a mut W,
    sha: Sha256,
    bytes: u64,
    pending: Vec<u8>,
}

impl<W: Write> Output<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), AssembleError> {
        self.bytes += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= COPY_BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), AssembleError> {
        self.sha.update(&self.pending);
        self.out.write_all(&self.pending).map_err(AssembleError::Write)?;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mp4_atom::Decode;

    use super::*;
    use crate::media::{Canvas, Grid, ParameterSets};
    use crate::pipeline::package::segmenter::Segmenter;

    const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 6 };

    fn unit(byte: u8, bytes: usize, idr: bool) -> AccessUnit {
        AccessUnit { data: vec![byte; bytes], idr }
    }

    /// Six access units of 40 and 4 bytes `f`.
    fn filler() -> Vec<AccessUnit> {
        (0..6).map(|at| unit(b'f', if at == 0 { 40 } else { 4 }, at == 0)).collect()
    }

    /// Writes the segment files of one epoch; the access unit of tick n is n + 100 times the byte n.
    fn epoch(dir: &Path, from: Tick, to: Tick) -> Vec<PathBuf> {
        let mut segmenter = Segmenter::new(GRID);
        let mut parts = Vec::new();
        for tick in from..to {
            let unit = unit(tick as u8, tick as usize + 100, segmenter.needs_idr(tick));
            parts.extend(segmenter.push(tick, unit).unwrap());
        }
        parts.extend(segmenter.flush());
        let mut paths: Vec<PathBuf> = Vec::new();
        for part in parts {
            let path = dir.join(format!("{from}-{}.m4s", part.segment));
            if part.opens {
                std::fs::write(&path, "").unwrap();
                paths.push(path.clone());
            }
            File::options().append(true).open(path).unwrap().write_all(&part.bytes).unwrap();
        }
        paths
    }

    fn run(spans: &[Span], expected_ticks: Tick) -> Result<(Vec<u8>, Assembled), AssembleError> {
        let sets = ParameterSets { sps: vec![0x67, 0x64, 0x00, 0x15, 0xac], pps: vec![0x68, 0xeb] };
        let track = Track { canvas: Canvas { width: 640, height: 360 }, fps: 2, sets: &sets };
        let origin_unix = Micros(1_767_261_600_503_000);
        let movie = Movie { track, title: Some("Zoë"), origin_unix, expected_ticks };
        let mut out = Vec::new();
        assemble(&mut out, &movie, spans).map(|done| (out, done))
    }

    /// The access units of an MP4 as its tables give them: first byte, size, IDR.
    fn units(mp4: &[u8]) -> Vec<(u8, usize, bool)> {
        let mut rest = mp4;
        Ftyp::decode(&mut rest).unwrap();
        let moov = Moov::decode(&mut rest).unwrap();
        let stbl = &moov.trak[0].mdia.minf.stbl;
        let StszSamples::Different { sizes } = &stbl.stsz.samples else { panic!("sizes") };
        assert_eq!(stbl.stts.entries, [SttsEntry { sample_count: sizes.len() as u32, sample_delta: 1000 }]);
        let (mut units, mut number) = (Vec::new(), 0);
        for (chunk, start) in stbl.stco.as_ref().unwrap().entries.iter().enumerate() {
            let run = stbl.stsc.entries.iter().rfind(|run| run.first_chunk as usize <= chunk + 1).unwrap();
            let mut at = *start as usize;
            for _ in 0..run.samples_per_chunk {
                let size = sizes[number] as usize;
                number += 1;
                assert!(mp4[at..at + size].iter().all(|byte| *byte == mp4[at]), "sample {number}");
                units.push((mp4[at], size, stbl.stss.as_ref().unwrap().entries.contains(&(number as u32))));
                at += size;
            }
        }
        assert_eq!(number, sizes.len());
        units
    }

    #[test]
    fn every_tick_is_where_it_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (epoch(dir.path(), 8, 21), epoch(dir.path(), 31, 33));
        let filler = filler();
        let gop = &filler[..];
        let mut spans = vec![Span::Filler { ticks: 8, gop }];
        spans.extend(first.iter().map(|path| Span::Segment(path)));
        spans.push(Span::Filler { ticks: 10, gop });
        spans.extend(second.iter().map(|path| Span::Segment(path)));
        spans.push(Span::Filler { ticks: 3, gop });
        let (mp4, done) = run(&spans, 36).unwrap();

        let mut expected = Vec::new();
        for tick in 0..36 {
            // Filler starts anew where a span begins, and with each cell.
            let idr = tick % 6 == 0 || [8, 21, 31, 33].contains(&tick);
            let size = if idr { 40 } else { 4 };
            expected.push(match tick {
                8..21 | 31..33 => (tick as u8, tick as usize + 100, idr),
                _ => (b'f', size, idr),
            });
        }
        assert_eq!(units(&mp4), expected);
        assert_eq!((done.bytes, done.ticks), (mp4.len() as u64, 36));
        let sha256: String = Sha256::digest(&mp4).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(done.sha256, sha256);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let paths = epoch(dir.path(), 0, 12);
        let [first, second] = [&paths[0], &paths[1]];
        let filler = filler();
        let gop = &filler[..];
        let error = |spans: &[Span], ticks| run(spans, ticks).unwrap_err().to_string();
        let named = |path: &Path| path.display().to_string();

        let text = error(&[Span::Segment(second)], 6);
        assert!(text.contains(&named(second)) && text.contains("at tick 6, where 0 is next"), "{text}");
        let text = error(&[Span::Segment(first), Span::Segment(first)], 12);
        assert!(text.contains("at tick 0, where 6 is next"), "{text}");
        assert!(error(&[Span::Segment(first)], 7).contains("tick 6 of 7"));
        assert!(error(&[Span::Segment(first)], 5).contains("tick 6 of 5"));
        assert!(error(&[Span::Filler { ticks: i64::MAX, gop }], 5).contains("of 5"));
        assert!(error(&[], i64::MAX).contains("do not fit"));
        assert!(error(&[Span::Filler { ticks: -1, gop }], 5).contains("tick 0 of 5"));
        assert!(error(&[Span::Filler { ticks: 5, gop: &gop[1..] }], 5).contains("no IDR"));

        let missing = dir.path().join("none.m4s");
        assert!(error(&[Span::Segment(&missing)], 6).contains(&named(&missing)));
        for bytes in [&b""[..], b"<html>", &std::fs::read(first).unwrap()[..400]] {
            let torn = dir.path().join("torn.m4s");
            std::fs::write(&torn, bytes).unwrap();
            assert!(error(&[Span::Segment(&torn)], 6).contains(&named(&torn)));
        }
        let no_idr = dir.path().join("no-idr.m4s");
        std::fs::write(&no_idr, boxes::part(1, 0, &[unit(0, 9, false)])).unwrap();
        assert!(error(&[Span::Segment(&no_idr)], 1).contains("no IDR"));
    }

    #[test]
    fn a_segment_that_changes_between_the_passes_is_noticed() {
        /// Replaces a file when it is first written to, which is after the first pass.
        struct Meddler<'a>(Option<(&'a Path, Vec<u8>)>);
        impl Write for Meddler<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if let Some((path, text)) = self.0.take() {
                    std::fs::write(path, text)?;
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        // More than the write buffer before it, so that the meddler is called in time.
        let big = dir.path().join("big.m4s");
        std::fs::write(&big, boxes::part(1, 0, &[unit(1, 3 * COPY_BUFFER, true)])).unwrap();
        let last = dir.path().join("last.m4s");
        let sets = ParameterSets { sps: vec![0x67, 0x64, 0x00, 0x15, 0xac], pps: vec![0x68, 0xeb] };
        let track = Track { canvas: Canvas { width: 640, height: 360 }, fps: 2, sets: &sets };
        let movie = Movie { track, title: None, origin_unix: Micros(0), expected_ticks: 2 };
        let part = |tick, bytes| boxes::part(1, tick, &[unit(2, bytes, true)]);
        for (change, refused) in
            [(part(1, 50), false), (part(1, 49), true), (part(1, 51), true), (part(2, 50), true), (vec![], true)]
        {
            std::fs::write(&last, part(1, 50)).unwrap();
            let spans = [Span::Segment(&big), Span::Segment(&last)];
            let done = assemble(&mut Meddler(Some((&last, change))), &movie, &spans);
            assert_eq!(matches!(done, Err(AssembleError::Changed { path }) if path == last), refused);
        }
    }

    #[test]
    fn places_beyond_4_gib_have_64_bits() {
        let sets = ParameterSets { sps: vec![0x67, 0x64, 0x00, 0x15, 0xac], pps: vec![0x68, 0xeb] };
        let track = Track { canvas: Canvas { width: 640, height: 360 }, fps: 2, sets: &sets };
        let chunks = [0, 3 << 30, 5 << 30];
        for (media_bytes, wide) in [((3 << 30) + 9, false), ((5 << 30) + 9, true)] {
            let chunks = if wide { &chunks[..] } else { &chunks[..2] };
            let bytes = place(boxes::moov(&track, Contents::default()), chunks, media_bytes, 100);
            let stbl = Moov::decode(&mut &bytes[..]).unwrap().trak.remove(0).mdia.minf.stbl;
            let places: Vec<u64> = match wide {
                true => stbl.co64.unwrap().entries,
                false => stbl.stco.unwrap().entries.into_iter().map(u64::from).collect(),
            };
            let expected: Vec<_> = chunks.iter().map(|start| start + bytes.len() as u64 + 100).collect();
            assert_eq!(places, expected);
        }
    }
}
