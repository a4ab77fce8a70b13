//! Segment file -> the parts in it, by their headers: what [`super::segmenter`] wrote, and nothing else.
//!
//! The media bytes are passed over, never read, and nothing is believed: a torn or foreign file is an error that says
//! where, in memory that no file can make large.

use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

use mp4_atom::{Atom, Buf, DecodeMaybe, FourCC, Header, Mfhd, Tfdt, Tfhd, Trun, TrunSamples};

use super::boxes::{NOT_SYNC_BIT, TRACK_ID};
use crate::media::{TICK_UNITS, Tick};

const STYP: FourCC = FourCC::new(b"styp");
const MOOF: FourCC = FourCC::new(b"moof");
const MDAT: FourCC = FourCC::new(b"mdat");

/// More than the `moof` of an hour at 30 pictures a second; ours have a hundred bytes.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// Why a file cannot be read as a segment. Offsets are in bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file ends inside the part or box that begins at this offset.
    #[error("torn: it ends inside what begins at byte {at}")]
    Torn {
        /// Where the incomplete thing begins.
        at: u64,
    },
    /// Something that no segment of ours has.
    #[error("not one of our segments: {why}, at byte {at}")]
    Foreign {
        /// The offset of the box.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// One access unit of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its size.
    pub bytes: u32,
    /// Whether it is an IDR.
    pub idr: bool,
}

/// A complete part of a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedPart {
    /// The tick of its first access unit.
    pub first_tick: Tick,
    /// Its access units, one a tick, at least one.
    pub samples: Vec<Sample>,
    /// Bytes of all of them: what [`Scanner::read_media`] gives.
    pub media_bytes: u64,
}

/// Goes through a segment file part by part.
pub struct Scanner<R> {
    from: BufReader<R>,
    /// The offset that `from` stands at.
    at: u64,
    /// The end of the last complete part.
    end: u64,
    len: u64,
}

impl<R: Read + Seek> Scanner<R> {
    /// Starts at the front of `from`, reading `buffer` bytes at a time.
    pub fn new(mut from: R, buffer: usize) -> io::Result<Scanner<R>> {
        let len = from.seek(SeekFrom::End(0))?;
        from.seek(SeekFrom::Start(0))?;
        Ok(Scanner { from: BufReader::with_capacity(buffer, from), at: 0, end: 0, len })
    }

    /// Where the part that was given out last ends. After an error: where the file is good up to.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The next part; `None` at the end of the file. After an error there are no more.
    pub fn next_part(&mut self) -> Result<Option<ScannedPart>, ScanError> {
        self.skip_to(self.end)?;
        if self.at == self.len {
            return Ok(None);
        }
        let start = self.at;
        let mut header = self.header()?;
        if start == 0 && header.0 == STYP {
            self.skip_to(self.at + header.1)?;
            header = self.header()?;
        }
        let (kind, bytes) = header;
        let foreign = |why| ScanError::Foreign { at: start, why };
        match kind {
            MOOF if bytes > HEADER_BYTES_MAX => return Err(foreign("an oversized moof")),
            MOOF => {}
            _ => return Err(foreign("a box that is no moof")),
        }
        let mut moof = vec![0; bytes as usize];
        self.read(&mut moof)?;
        let before_mdat = self.at;
        let (kind, media_bytes) = self.header()?;
        if kind != MDAT {
            return Err(foreign("a moof without its mdat"));
        }
        // From the first byte of moof's own header (8 bytes) to the first one of the media.
        let data_offset = 8 + bytes + (self.at - before_mdat);
        let (first_tick, samples) = read_moof(&moof, data_offset).map_err(foreign)?;
        if samples.iter().map(|sample| u64::from(sample.bytes)).sum::<u64>() != media_bytes {
            return Err(foreign("sample sizes that are not the mdat's"));
        }
        self.end = self.at + media_bytes;
        Ok(Some(ScannedPart { first_tick, samples, media_bytes }))
    }

    /// Reads on in the media bytes of the part that was given out last: how many, 0 when there are no more.
    pub fn read_media(&mut self, into: &mut [u8]) -> Result<usize, ScanError> {
        let bytes = into.len().min((self.end - self.at) as usize);
        self.read(&mut into[..bytes])?;
        Ok(bytes)
    }

    /// Kind and body length of the next box, which lies wholly in the file.
    fn header(&mut self) -> Result<(FourCC, u64), ScanError> {
        let start = self.at;
        let mut header = [0; 16];
        self.read(&mut header[..8])?;
        if header[..4] == [0, 0, 0, 1] {
            self.read(&mut header[8..])?;
        }
        let found = Header::decode_maybe(&mut &header[..]).ok().flatten();
        let size = found.and_then(|found| found.size).map(|size| size as u64);
        let (Some(found), Some(size)) = (found, size) else {
            return Err(ScanError::Foreign { at: start, why: "a box without a size" });
        };
        match self.len - self.at < size {
            true => Err(ScanError::Torn { at: self.end }),
            false => Ok((found.kind, size)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), ScanError> {
        self.from.read_exact(into).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => ScanError::Torn { at: self.end },
            _ => ScanError::Io(error),
        })?;
        self.at += into.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, at: u64) -> io::Result<()> {
        self.from.seek_relative(at as i64 - self.at as i64)?;
        self.at = at;
        Ok(())
    }
}

/// First tick and samples from the body of a `moof`.
///
/// Box by box, not by the crate's `Moof`, which would run its decoder of any box that somebody put inside.
fn read_moof(mut body: &[u8], data_offset: u64) -> Result<(Tick, Vec<Sample>), &'static str> {
    child::<Mfhd>(&mut body)?;
    let mut traf = child_body(&mut body, FourCC::new(b"traf"))?;
    let tfhd = child::<Tfhd>(&mut traf)?;
    let tfdt = child::<Tfdt>(&mut traf)?;
    let trun = child::<Trun>(&mut traf)?;
    if !body.is_empty() || !traf.is_empty() {
        return Err("more boxes in a moof than ours have");
    }
    let unit = TICK_UNITS as u64;
    if tfhd.track_id != TRACK_ID || tfhd.sample_description_index.is_some_and(|index| index != 1) {
        return Err("another track");
    }
    if tfhd.default_sample_duration != Some(unit as u32) || tfdt.base_media_decode_time % unit != 0 {
        return Err("samples that do not lie on ticks");
    }
    let by_moof = tfhd.default_base_is_moof && tfhd.base_data_offset.is_none();
    if !by_moof || trun.data_offset.map(i64::from) != Some(data_offset as i64) {
        return Err("samples that do not follow their moof");
    }
    let TrunSamples::Explicit(entries) = trun.samples else { return Err("samples without sizes") };
    let sample = |entry: mp4_atom::TrunEntry| {
        let flags = entry.flags.or(tfhd.default_sample_flags).ok_or("samples without flags")?;
        match (entry.size, entry.duration, entry.cts) {
            (Some(bytes), None, None) => Ok(Sample { bytes, idr: flags & NOT_SYNC_BIT == 0 }),
            _ => Err("samples that are not one tick long, or reordered"),
        }
    };
    let samples = entries.into_iter().map(sample).collect::<Result<Vec<_>, _>>()?;
    let first_tick = (tfdt.base_media_decode_time / unit) as Tick;
    (!samples.is_empty()).then_some((first_tick, samples)).ok_or("a part without samples")
}

/// The next box, which must be a `T`.
fn child<T: Atom>(rest: &mut &[u8]) -> Result<T, &'static str> {
    let mut body = child_body(rest, T::KIND)?;
    let atom = T::decode_body(&mut body).map_err(|_| "a box that cannot be read")?;
    (!body.has_remaining()).then_some(atom).ok_or("a box longer than what is in it")
}

/// The body of the next box, which must be of that kind.
fn child_body<'a>(rest: &mut &'a [u8], kind: FourCC) -> Result<&'a [u8], &'static str> {
    let header = Header::decode_maybe(rest).ok().flatten().ok_or("a broken box")?;
    let size = header.size.filter(|_| header.kind == kind).ok_or("other boxes in a moof than ours have")?;
    let (body, after) = rest.split_at_checked(size).ok_or("a box longer than the one around it")?;
    *rest = after;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use crate::media::AccessUnit;
    use crate::pipeline::package::boxes;

    fn unit(bytes: usize, idr: bool) -> AccessUnit {
        AccessUnit { data: vec![bytes as u8; bytes], idr }
    }

    /// A segment of the ticks 12 to 16 in three parts.
    fn segment() -> (Vec<u8>, [usize; 3]) {
        let mut bytes = boxes::segment_type();
        let ends =
            [(12, vec![unit(700, true), unit(30, false)]), (14, vec![unit(11, true)]), (15, vec![unit(5, false)])].map(
                |(tick, units)| {
                    bytes.extend(boxes::part(tick as u32, tick, &units));
                    bytes.len()
                },
            );
        (bytes, ends)
    }

    /// First tick, samples and media of a part.
    type Found = (Tick, Vec<Sample>, Vec<u8>);

    /// The parts of a file, how far it is good, and what is wrong after that.
    fn scan(bytes: &[u8]) -> (Vec<Found>, u64, Option<ScanError>) {
        let mut scanner = Scanner::new(Cursor::new(bytes), 64).unwrap();
        let mut parts = Vec::new();
        let error = loop {
            match scanner.next_part() {
                Ok(Some(part)) => {
                    let mut media = vec![0; part.media_bytes as usize + 9];
                    // The second part's media is left unread: the next part is found all the same.
                    let wanted = if parts.len() == 1 { 0 } else { media.len() };
                    let read = scanner.read_media(&mut media[..wanted]).unwrap();
                    media.truncate(read);
                    parts.push((part.first_tick, part.samples, media));
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        (parts, scanner.end(), error)
    }

    #[test]
    fn what_was_written_is_found() {
        let (bytes, ends) = segment();
        let (parts, end, error) = scan(&bytes);
        assert!(error.is_none(), "{error:?}");
        let sample = |bytes, idr| Sample { bytes, idr };
        assert_eq!(parts[0].1, [sample(700, true), sample(30, false)]);
        assert_eq!(parts[0].2, [vec![188; 700], vec![30; 30]].concat());
        assert_eq!((parts[1].0, &parts[1].1[..]), (14, &[sample(11, true)][..]));
        assert_eq!((parts[2].0, &parts[2].2[..]), (15, &[5; 5][..]));
        assert_eq!((parts.len(), end), (3, ends[2] as u64));
    }

    #[test]
    fn a_torn_file_is_good_up_to_its_last_complete_part() {
        let (bytes, ends) = segment();
        let type_bytes = boxes::segment_type().len();
        for cut in 0..=bytes.len() {
            let (parts, end, error) = scan(&bytes[..cut]);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(parts.len(), whole, "cut after {cut} bytes");
            assert_eq!(end, whole.checked_sub(1).map_or(0, |last| ends[last] as u64));
            match error {
                None => assert!(cut == 0 || ends.contains(&cut), "cut after {cut} bytes"),
                Some(ScanError::Torn { at }) => assert_eq!(at, end),
                Some(other) => panic!("cut after {cut} of {type_bytes}: {other}"),
            }
        }
    }

    #[test]
    fn foreign_files_are_refused() {
        let set = boxes::bytes_of(&Header { kind: FourCC::new(b"free"), size: Some(0) });
        for bytes in [b"<html>not found</html>".to_vec(), vec![0; 100], set.clone(), [segment().0, set].concat()] {
            let (.., error) = scan(&bytes);
            assert!(error.is_some());
        }
        // A moof that claims a gigabyte is refused before it is read.
        let (mut bytes, _) = segment();
        bytes.truncate(24);
        bytes.extend(boxes::bytes_of(&Header { kind: MOOF, size: Some(1 << 30) }));
        let (.., error) = scan(&bytes);
        assert!(matches!(error, Some(ScanError::Torn { at: 0 })), "{error:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4096,
            rng_seed: prop::test_runner::RngSeed::Fixed(1),
            ..Default::default()
        })]

        #[test]
        fn no_change_of_bytes_panics(changes in prop::collection::vec((0..1000_usize, any::<u8>()), 1..8), cut in 0..2000_usize) {
            let (mut bytes, _) = segment();
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut);
            let (parts, end, _) = scan(&bytes);
            prop_assert!(end <= bytes.len() as u64);
            prop_assert!(parts.len() <= 3);
        }
    }
}
