//! The boxes of the media files: init segment, part, and the `moov` that the MP4 shares with the init segment.
//!
//! Pure: parameter sets and access units in, bytes out. Where parts begin and end is the segmenter's business, where
//! samples lie in the MP4 that of [`super::assemble`].
//!
//! Every sample lasts [`TICK_UNITS`], PTS = DTS, and there is no edit list, so a time stamp in any file is the tick on
//! the recording's grid and nothing else.

use mp4_atom::{
    Any, Avc1, Avcc, AvccExt, Codec, Colr, Dinf, Dref, Encode, FourCC, Ftyp, Hdlr, Header, Mdhd, Mdia, Meta, Mfhd,
    Minf, Moof, Moov, Mvex, Mvhd, Pasp, Stbl, Stsd, Styp, Tfdt, Tfhd, Tkhd, Traf, Trak, Trex, Trun, TrunEntry, Udta,
    Url, Visual, Vmhd,
};

use crate::media::{AccessUnit, Canvas, ParameterSets, TICK_UNITS, Tick};

/// The id of the only track of every file.
pub(super) const TRACK_ID: u32 = 1;

/// Sample flags of an IDR: it depends on no other sample (ISO/IEC 14496-12, 8.8.3.1).
const SYNC: u32 = 0x0200_0000;
/// Sample flags of any other access unit: it depends on others and is no sync sample.
const NOT_SYNC: u32 = 0x0101_0000;
/// The bit that tells the two apart.
pub(super) const NOT_SYNC_BIT: u32 = 0x0001_0000;

/// What the files of a track have in common.
#[derive(Clone, Copy, Debug)]
pub struct Track<'a> {
    /// Size of the pictures, at most 65535 either way.
    pub canvas: Canvas,
    /// Pictures a second.
    pub fps: u32,
    /// The pinned parameter sets.
    pub sets: &'a ParameterSets,
}

impl Track<'_> {
    fn timescale(&self) -> u32 {
        TICK_UNITS as u32 * self.fps
    }
}

/// The CMAF header: `ftyp` and `moov` with `mvex`.
///
/// The bytes depend on `track` alone (all times are 0), so equal settings give equal bytes, and the file's name can
/// carry their hash.
pub fn init_segment(track: &Track) -> Vec<u8> {
    // `iso6` brings tfdt and default-base-is-moof, `cmfc` the CMAF structure: one track, one sample entry, one traf
    // per chunk, a tfdt in each (ISO/IEC 23000-19, 7.2 and 7.3). Not `cfhd`: that media profile stops at level 4.0
    // and a canvas may be larger.
    let ftyp = Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: vec![FourCC::new(b"iso6"), FourCC::new(b"cmfc")],
    };
    let mvex = Mvex {
        mehd: None,
        // Everything else is said in each part's own tfhd, so that a part can be read without its init segment.
        trex: vec![Trex { track_id: TRACK_ID, default_sample_description_index: 1, ..Trex::default() }],
    };
    let mut out = bytes_of(&ftyp);
    out.extend(bytes_of(&moov(track, Contents { mvex: Some(mvex), ..Contents::default() })));
    out
}

/// What a segment file begins with. CMAF allows a segment to go without it; it is written because it costs 24 bytes,
/// lets a file say what it is, and is the sign by which a torn or foreign file is told from a segment.
pub fn segment_type() -> Vec<u8> {
    bytes_of(&Styp {
        major_brand: FourCC::new(b"cmfs"),
        minor_version: 0,
        compatible_brands: vec![FourCC::new(b"cmfs"), FourCC::new(b"iso6")],
    })
}

/// A CMAF chunk: `moof` and `mdat` with `units` on consecutive ticks from `first_tick`.
///
/// `sequence` must grow from part to part within whatever a player strings together (ISO/IEC 14496-12, 8.8.5).
///
/// # Panics
/// When `first_tick` is negative: a recording starts at tick 0.
pub fn part(sequence: u32, first_tick: Tick, units: &[AccessUnit]) -> Vec<u8> {
    let start = u64::try_from(first_tick * TICK_UNITS).expect("a recording starts at tick 0");
    // The header's default is "no sync sample", so only an IDR needs flags. One at the front is the common case and has
    // a field of its own; a later one (around filler) makes them all explicit.
    let explicit = units.iter().skip(1).any(|unit| unit.idr);
    let entries: Vec<_> = units
        .iter()
        .map(|unit| TrunEntry {
            size: Some(unit.data.len() as u32),
            flags: match unit.idr {
                true => Some(SYNC),
                false => explicit.then_some(NOT_SYNC),
            },
            ..TrunEntry::default()
        })
        .collect();
    let mut moof = Moof {
        mfhd: Mfhd { sequence_number: sequence },
        traf: vec![Traf {
            tfhd: Tfhd {
                track_id: TRACK_ID,
                default_sample_duration: Some(TICK_UNITS as u32),
                default_sample_flags: Some(NOT_SYNC),
                default_base_is_moof: true,
                ..Tfhd::default()
            },
            tfdt: Some(Tfdt { base_media_decode_time: start }),
            trun: vec![Trun { data_offset: Some(0), samples: entries.into() }],
            ..Traf::default()
        }],
    };
    let payload: usize = units.iter().map(|unit| unit.data.len()).sum();
    let mdat = bytes_of(&Header { kind: FourCC::new(b"mdat"), size: Some(payload) });
    let offset = bytes_of(&moof).len() + mdat.len();
    moof.traf[0].trun[0].data_offset = Some(offset as i32);

    let mut out = Vec::with_capacity(offset + payload);
    moof.encode(&mut out).expect(OWN_BOXES);
    out.extend(mdat);
    for unit in units {
        out.extend_from_slice(&unit.data);
    }
    out
}

const OWN_BOXES: &str = "boxes of our own making can be written";
const SHORT_SPS: &str = "an SPS carries profile and level";

/// The bytes of a box.
pub(super) fn bytes_of(atom: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    atom.encode(&mut out).expect(OWN_BOXES);
    out
}

/// What tells the `moov` of an MP4 from that of an init segment.
#[derive(Default)]
pub(super) struct Contents<'a> {
    /// Seconds since the start of 1904, UTC.
    pub creation_time: u64,
    /// In media units; 0 where fragments follow.
    pub duration: u64,
    /// Sample tables, without `stsd`, which is filled in here.
    pub stbl: Stbl,
    pub mvex: Option<Mvex>,
    pub title: Option<&'a str>,
}

/// The `moov` of one video track with one sample entry. Chromium stops at a second one.
pub(super) fn moov(track: &Track, contents: Contents) -> Moov {
    let Contents { creation_time, duration, stbl, mvex, title } = contents;
    let (timescale, modification_time) = (track.timescale(), creation_time);
    let [width, height] = [track.canvas.width, track.canvas.height]
        .map(|side| u16::try_from(side).expect("a canvas is at most 65535 samples wide and high"));
    Moov {
        // The movie's clock is the media's, so that both count ticks and no duration is rounded.
        mvhd: Mvhd {
            creation_time,
            modification_time,
            timescale,
            duration,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: TRACK_ID + 1,
            ..Mvhd::default()
        },
        mvex,
        trak: vec![Trak {
            tkhd: Tkhd {
                creation_time,
                modification_time,
                track_id: TRACK_ID,
                duration,
                enabled: true,
                in_movie: true,
                width: width.into(),
                height: height.into(),
                ..Tkhd::default()
            },
            mdia: Mdia {
                mdhd: Mdhd { creation_time, modification_time, timescale, duration, language: "und".into() },
                hdlr: Hdlr { handler: FourCC::new(b"vide"), name: "VideoHandler".into() },
                minf: Minf {
                    vmhd: Some(Vmhd::default()),
                    dinf: Dinf { dref: Dref { entries: vec![Url::default().into()] } },
                    stbl: Stbl { stsd: Stsd { codecs: vec![sample_entry(track.sets, width, height)] }, ..stbl },
                    ..Minf::default()
                },
            },
            ..Trak::default()
        }],
        udta: title.map(|title| Udta { meta: Some(title_meta(title)), ..Udta::default() }),
        ..Moov::default()
    }
}

/// `avc1` with `avcC`, BT.709 limited range and square samples.
fn sample_entry(sets: &ParameterSets, width: u16, height: u16) -> Codec {
    let mut avcc = Avcc::new(&sets.sps, &sets.pps).expect(SHORT_SPS);
    // From High on, avcC says chroma format and bit depth again (ISO/IEC 14496-15, 5.3.3.1.2); pictures are always
    // 8-bit 4:2:0, which is what the crate's default says.
    if avcc.avc_profile_indication >= 100 {
        avcc.ext = Some(AvccExt::default());
    }
    let visual = Visual { data_reference_index: 1, width, height, ..Visual::default() };
    let colr =
        Colr::Nclx { colour_primaries: 1, transfer_characteristics: 1, matrix_coefficients: 1, full_range_flag: false };
    Codec::Avc1(Avc1 {
        visual,
        avcc,
        colr: Some(colr),
        pasp: Some(Pasp { h_spacing: 1, v_spacing: 1 }),
        ..Avc1::default()
    })
}

/// `meta` with the title as players look for it: `ilst` / `©nam` / `data`. The crate's own `ilst` knows no `©nam`.
fn title_meta(title: &str) -> Meta {
    // Type 1 is UTF-8, then country and language 0.
    let data = [&[0, 0, 0, 1, 0, 0, 0, 0], title.as_bytes()].concat();
    let name = bytes_of(&Any::Unknown(FourCC::new(b"data"), data));
    let list = bytes_of(&Any::Unknown(FourCC::new(b"\xa9nam"), name));
    Meta {
        hdlr: Hdlr { handler: FourCC::new(b"mdir"), name: String::new() },
        items: vec![Any::Unknown(FourCC::new(b"ilst"), list)],
    }
}

#[cfg(test)]
mod tests {
    use mp4_atom::{Decode, TrunSamples};

    use super::*;

    fn sets() -> ParameterSets {
        ParameterSets { sps: vec![0x67, 0x64, 0x00, 0x15, 0xac], pps: vec![0x68, 0xeb, 0xe3] }
    }

    fn unit(bytes: usize, idr: bool) -> AccessUnit {
        AccessUnit { data: vec![bytes as u8; bytes], idr }
    }

    /// Reads the boxes of `part` and gives its moof, its media bytes, and where these begin.
    fn read(bytes: &[u8]) -> (Moof, Vec<u8>, usize) {
        let mut rest = bytes;
        let moof = Moof::decode(&mut rest).unwrap();
        let header = Header::decode(&mut rest).unwrap();
        assert_eq!((header.kind, header.size), (FourCC::new(b"mdat"), Some(rest.len())));
        (moof, rest.to_vec(), bytes.len() - rest.len())
    }

    #[test]
    fn an_init_segment_depends_on_the_track_alone() {
        let sets = sets();
        let track = Track { canvas: Canvas { width: 640, height: 360 }, fps: 2, sets: &sets };
        let bytes = init_segment(&track);
        assert_eq!(bytes, init_segment(&track));

        let mut rest = &bytes[..];
        let ftyp = Ftyp::decode(&mut rest).unwrap();
        let moov = Moov::decode(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert!(ftyp.compatible_brands.contains(&FourCC::new(b"cmfc")));
        assert_eq!((moov.mvhd.timescale, moov.trak.len(), moov.mvhd.creation_time), (2000, 1, 0));
        assert_eq!(moov.mvex.unwrap().trex[0].default_sample_description_index, 1);
        let trak = &moov.trak[0];
        assert!(trak.edts.is_none() && trak.tkhd.enabled);
        let [Codec::Avc1(avc1)] = &trak.mdia.minf.stbl.stsd.codecs[..] else { panic!("one sample entry") };
        assert_eq!(avc1.avcc.sequence_parameter_sets, std::slice::from_ref(&sets.sps));
        assert_eq!(avc1.avcc.ext, Some(AvccExt::default()));
        assert_eq!(avc1.pasp, Some(Pasp { h_spacing: 1, v_spacing: 1 }));
        assert!(matches!(
            avc1.colr,
            Some(Colr::Nclx {
                colour_primaries: 1,
                transfer_characteristics: 1,
                matrix_coefficients: 1,
                full_range_flag: false
            })
        ));
    }

    #[test]
    fn a_part_says_where_its_samples_lie_and_when() {
        let units = [unit(5, true), unit(3, false)];
        let (moof, media, at) = read(&part(7, 24, &units));
        assert_eq!(media, [&units[0].data[..], &units[1].data].concat());
        let traf = &moof.traf[0];
        assert_eq!(moof.mfhd.sequence_number, 7);
        assert_eq!(traf.tfdt.as_ref().unwrap().base_media_decode_time, 24_000);
        assert!(traf.tfhd.default_base_is_moof);
        assert_eq!(traf.tfhd.default_sample_duration, Some(1000));
        assert_eq!(traf.trun[0].data_offset, Some(at as i32));
        let sizes: Vec<_> = traf.trun[0].samples.iter().map(|sample| sample.size.unwrap()).collect();
        assert_eq!(sizes, [5, 3]);
        assert!(traf.trun[0].samples.iter().all(|sample| sample.cts.is_none() && sample.duration.is_none()));
    }

    #[test]
    fn sync_flags_are_right_wherever_the_idr_is() {
        for idrs in [[true, false, false], [false, false, false], [false, true, false], [true, false, true]] {
            let units = idrs.map(|idr| unit(4, idr));
            let (moof, ..) = read(&part(1, 0, &units));
            let (tfhd, samples) = (&moof.traf[0].tfhd, &moof.traf[0].trun[0].samples);
            assert!(matches!(samples, TrunSamples::Explicit(_)));
            let seen: Vec<_> = samples
                .iter()
                .map(|sample| sample.flags.or(tfhd.default_sample_flags).unwrap() & NOT_SYNC_BIT == 0)
                .collect();
            assert_eq!(seen, idrs);
        }
    }
}
