//! H.264 byte streams: start codes off, lengths on, and the few header fields that joining streams needs.
//!
//! ITU-T H.264 annex B and 7.3. No parser of pictures: what a slice shows stays closed.

use crate::media::{AccessUnit, ParameterSets};

const SLICE: u8 = 1;
const IDR_SLICE: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;

fn kind(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 0x1f)
}

/// The NAL units of an Annex B stream, without start codes. None ends in a zero (7.4.1), so zeros before one are its.
pub fn split(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        let nals = rest?;
        let end = nals.windows(3).position(|three| three[0] == 0 && three[1] == 0 && three[2] <= 1);
        let nal = &nals[..end.unwrap_or(nals.len())];
        rest = end.and_then(|end| after_start_code(&nals[end..]));
        Some(nal)
    })
    .filter(|nal| !nal.is_empty())
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    let at = stream.windows(3).position(|three| three == [0, 0, 1])?;
    Some(&stream[at + 3..])
}

/// The parameter sets in the headers of an encoder (Annex B). `None` unless there is exactly one of each.
pub fn parameter_sets(headers: &[u8]) -> Option<ParameterSets> {
    let only = |wanted| {
        let mut found = split(headers).filter(|nal| kind(nal) == wanted);
        found.next().filter(|_| found.next().is_none())
    };
    let (sps, pps) = (only(SPS)?, only(PPS)?);
    (sps.len() >= 4).then(|| ParameterSets { sps: sps.to_vec(), pps: pps.to_vec() })
}

/// The slices of an Annex B packet with 4-byte lengths; everything else is left out.
pub fn access_unit(packet: &[u8]) -> AccessUnit {
    let mut unit = AccessUnit { data: Vec::with_capacity(packet.len() + 4), idr: false };
    for nal in split(packet).filter(|nal| matches!(kind(nal), SLICE | IDR_SLICE)) {
        unit.idr |= kind(nal) == IDR_SLICE;
        let length = u32::try_from(nal.len()).expect("a packet is shorter than 4 GB");
        unit.data.extend_from_slice(&length.to_be_bytes());
        unit.data.extend_from_slice(nal);
    }
    unit
}

/// The text that x264 puts into its first packet, with the options it runs on: ` - options: cabac=1 ref=1 ...`.
pub fn x264_options(packet: &[u8]) -> Option<String> {
    split(packet).filter(|nal| kind(nal) == SEI).find_map(|nal| {
        let text = String::from_utf8_lossy(nal);
        let (_, options) = text.split_once("options: ")?;
        Some(options.trim_end_matches(|c: char| !c.is_ascii_graphic()).to_owned())
    })
}

/// The `codecs` parameter for playlists and MIME types: `avc1.` and profile, constraints and level in hex
/// (RFC 6381, 3.3).
pub fn codecs(sets: &ParameterSets) -> String {
    sets.codecs()
}

/// The `idr_pic_id` of an IDR (7.3.3). `None` for other units, and for streams that the pinned settings cannot make:
/// interlaced, with scaling lists, or not 4:2:0.
///
/// Two IDRs that follow one another directly must differ in it (7.4.3). Where they would not, the second is encoded again
/// (`repeat(true)`: x264 alternates its ids), or comes from another GOP of the filler.
pub fn idr_pic_id(unit: &AccessUnit, sets: &ParameterSets) -> Option<u32> {
    let length = u32::from_be_bytes(*unit.data.first_chunk()?) as usize;
    let nal = unit.data.get(4..)?.get(..length)?;
    if kind(nal) != IDR_SLICE {
        return None;
    }
    let number_bits = number_bits(&sets.sps)?;
    let mut header = Bits::of(nal);
    // first_mb_in_slice, slice_type, pic_parameter_set_id
    for _ in 0..3 {
        header.exp_golomb()?;
    }
    header.take(number_bits)?;
    header.exp_golomb()
}

/// Bits of `frame_num`, `log2_max_frame_num_minus4 + 4`, of a progressive 4:2:0 SPS of the High profile (7.3.2.1.1) whose
/// pictures come in the order of their numbers.
pub(super) fn number_bits(sps: &[u8]) -> Option<u32> {
    const HIGH: u32 = 100;
    let mut bits = Bits::of(sps);
    let profile = bits.take(8)?;
    bits.take(16)?;
    bits.exp_golomb()?;
    if profile != HIGH || bits.exp_golomb()? != 1 {
        return None;
    }
    // Bit depths, then the transform bypass and the scaling lists.
    bits.exp_golomb()?;
    bits.exp_golomb()?;
    if bits.take(2)? & 1 == 1 {
        return None;
    }
    let count = bits.exp_golomb()? + 4;
    // The picture order type: others stand in every slice.
    if bits.exp_golomb()? != 2 {
        return None;
    }
    // References, gaps allowed, width, height, and whether pictures are always whole.
    bits.exp_golomb()?;
    bits.take(1)?;
    bits.exp_golomb()?;
    bits.exp_golomb()?;
    (bits.take(1)? == 1 && count <= 16).then_some(count)
}

/// Reads bits of a NAL unit behind its first byte, without the bytes that prevent start codes (7.4.1).
pub(super) struct Bits<'a> {
    bytes: std::slice::Iter<'a, u8>,
    zeros: u32,
    byte: u8,
    left: u32,
}

impl<'a> Bits<'a> {
    /// Reads the payload of `nal`.
    pub(super) fn of(nal: &'a [u8]) -> Bits<'a> {
        Bits { bytes: nal.get(1..).unwrap_or_default().iter(), zeros: 0, byte: 0, left: 0 }
    }

    fn bit(&mut self) -> Option<u32> {
        if self.left == 0 {
            self.byte = *self.bytes.next()?;
            if self.zeros >= 2 && self.byte == 3 {
                self.byte = *self.bytes.next()?;
                self.zeros = 0;
            }
            self.zeros = if self.byte == 0 { self.zeros + 1 } else { 0 };
            self.left = 8;
        }
        self.left -= 1;
        Some(u32::from(self.byte >> self.left) & 1)
    }

    /// Up to 32 bits.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    /// An unsigned Exp-Golomb number (9.1), below 2^16.
    pub(super) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 15 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.take(zeros)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_of_either_length_split() {
        let stream = [0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 0, 3, 0, 0];
        let nals: Vec<&[u8]> = split(&stream).collect();
        assert_eq!(nals, [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3, 0, 0]]);
        assert_eq!(split(&[]).count() + split(&[0, 0, 1]).count() + split(&[9, 9]).count(), 0);
    }

    #[test]
    fn only_slices_stay() {
        let packet = [0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 0, 0, 1, 6, 5, 0, 0, 1, 0x65, 7, 7, 0, 0, 1, 0x65, 8];
        let unit = access_unit(&packet);
        assert_eq!(unit, AccessUnit { data: vec![0, 0, 0, 3, 0x65, 7, 7, 0, 0, 0, 2, 0x65, 8], idr: true });
        assert!(!access_unit(&[0, 0, 1, 0x41, 1]).idr);
    }

    #[test]
    fn headers_need_one_of_each() {
        let (sps, pps) = ([0, 0, 1, 0x67, 0x64, 0, 0x1e], [0, 0, 1, 0x68, 0xce]);
        let sets = parameter_sets(&[&sps[..], &pps].concat()).unwrap();
        assert_eq!(codecs(&sets), "avc1.64001E");
        assert_eq!((sets.sps, sets.pps), (sps[3..].to_vec(), pps[3..].to_vec()));
        assert_eq!(parameter_sets(&sps), None);
        assert_eq!(parameter_sets(&[&sps[..], &pps, &pps].concat()), None);
        assert_eq!(parameter_sets(&[&[0, 0, 1, 0x67][..], &pps].concat()), None);
    }

    #[test]
    fn bits_skip_the_bytes_that_prevent_start_codes() {
        let mut bits = Bits::of(&[0x65, 0, 0, 3, 1, 0b1010_0110]);
        assert_eq!((bits.take(24), bits.exp_golomb(), bits.exp_golomb()), (Some(1), Some(0), Some(1)));
        // 00110 is 5; then the bits are over.
        assert_eq!((bits.take(4), bits.bit()), (Some(6), None));
    }

    #[test]
    fn nothing_is_read_from_rubbish() {
        let sets = ParameterSets { sps: vec![0x67, 100, 0, 30], pps: vec![0x68] };
        for data in [vec![], vec![0, 0, 0, 9, 0x65], vec![0, 0, 0, 1, 0x65], vec![0, 0, 0, 2, 0x41, 9]] {
            assert_eq!(idr_pic_id(&AccessUnit { data, idr: true }, &sets), None);
        }
    }
}
