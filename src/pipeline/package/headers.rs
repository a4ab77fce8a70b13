//! What the headers of an init segment or an MP4 say: the way back from [`super::boxes`]. No media bytes are read.

use std::io::{self, Read, Seek, SeekFrom};

use mp4_atom::{Buf, Codec, DecodeAtom, FourCC, Header, Moov, StszSamples};

use crate::media::{Canvas, ParameterSets, TICK_UNITS, Tick};

/// More than the sample tables of a day at 30 pictures a second.
const MOOV_BYTES_MAX: u64 = 64 << 20;

/// The facts of a `moov` with one video track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovieFacts {
    /// Size of the pictures.
    pub canvas: Canvas,
    /// Pictures a second.
    pub fps: u32,
    /// The parameter sets of its only sample entry.
    pub sets: ParameterSets,
    /// Samples in its tables, each one tick long from tick 0 on; 0 in an init segment.
    pub ticks: Tick,
}

/// Why headers are not what this program writes.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The file system failed, or the file ends too early.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something that no file of ours has.
    #[error("not one of our files: {0}")]
    Foreign(&'static str),
}

/// Reads the `moov` of a file that begins at the front of `from`.
pub fn read_headers(from: &mut (impl Read + Seek)) -> Result<MovieFacts, HeaderError> {
    loop {
        let mut header = [0; 16];
        from.read_exact(&mut header[..8])?;
        if header[..4] == [0, 0, 0, 1] {
            from.read_exact(&mut header[8..])?;
        }
        let found = <Header as mp4_atom::DecodeMaybe>::decode_maybe(&mut &header[..]).ok().flatten();
        let found = found.ok_or(HeaderError::Foreign("a broken box"))?;
        let size = found.size.ok_or(HeaderError::Foreign("a box without a size"))? as u64;
        if found.kind == FourCC::new(b"moov") {
            if size > MOOV_BYTES_MAX {
                return Err(HeaderError::Foreign("an oversized moov"));
            }
            let mut body = Vec::new();
            from.take(size).read_to_end(&mut body)?;
            let mut rest = &body[..];
            let moov = Moov::decode_atom(&found, &mut rest).map_err(|_| HeaderError::Foreign("a moov nobody can read"));
            return facts(moov?).map_err(HeaderError::Foreign).and_then(|facts| match rest.has_remaining() {
                true => Err(HeaderError::Foreign("a moov longer than what is in it")),
                false => Ok(facts),
            });
        }
        let size = i64::try_from(size).map_err(|_| HeaderError::Foreign("a box without an end"))?;
        from.seek(SeekFrom::Current(size))?;
    }
}

fn facts(mut moov: Moov) -> Result<MovieFacts, &'static str> {
    let trak = moov.trak.pop().filter(|_| moov.trak.is_empty()).ok_or("not one track")?;
    if trak.edts.is_some() {
        return Err("an edit list");
    }
    let mut stbl = trak.mdia.minf.stbl;
    let Some(Codec::Avc1(avc1)) = stbl.stsd.codecs.pop().filter(|_| stbl.stsd.codecs.is_empty()) else {
        return Err("not one sample entry of H.264");
    };
    let first = |sets: Vec<Vec<u8>>| sets.into_iter().next().ok_or("no parameter sets");
    let sets =
        ParameterSets { sps: first(avc1.avcc.sequence_parameter_sets)?, pps: first(avc1.avcc.picture_parameter_sets)? };
    if stbl.ctts.is_some() {
        return Err("pictures out of order");
    }
    let ticks = match stbl.stsz.samples {
        StszSamples::Different { sizes } => sizes.len() as Tick,
        StszSamples::Identical { count, .. } => Tick::from(count),
    };
    let unit = TICK_UNITS as u32;
    let timed: Tick = stbl.stts.entries.iter().map(|entry| Tick::from(entry.sample_count)).sum();
    if stbl.stts.entries.iter().any(|entry| entry.sample_delta != unit) || timed != ticks {
        return Err("pictures that are not one tick long");
    }
    let timescale = trak.mdia.mdhd.timescale;
    if timescale == 0 || timescale % unit != 0 {
        return Err("a time scale of no whole rate");
    }
    let canvas = Canvas { width: avc1.visual.width.into(), height: avc1.visual.height.into() };
    Ok(MovieFacts { canvas, fps: timescale / unit, sets, ticks })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::pipeline::package::boxes::{Track, init_segment};

    #[test]
    fn an_init_segment_tells_what_it_was_made_of() {
        let sets = ParameterSets { sps: vec![0x67, 0x64, 0x00, 0x15, 0xac], pps: vec![0x68, 0xeb, 0xe3] };
        let canvas = Canvas { width: 640, height: 360 };
        let bytes = init_segment(&Track { canvas, fps: 3, sets: &sets });
        let read = |bytes: &[u8]| read_headers(&mut Cursor::new(bytes));
        assert_eq!(read(&bytes).unwrap(), MovieFacts { canvas, fps: 3, sets, ticks: 0 });
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut after {cut} bytes");
        }
        assert!(read(b"<html>not found</html>").is_err());
    }
}
