//! Skip units: a P slice in which every macroblock is skipped, which shows the picture before it once more, bit by bit
//! (H.264, 7.3.3 and 8.4.1.1: without neighbours, and so without end, the motion of a skipped macroblock is zero).
//!
//! An encoder does not know of them, so the units that it makes afterwards are numbered on. Not here: when a picture
//! is shown again.

use super::nal::{Bits, number_bits};
use crate::media::{AccessUnit, Canvas, ParameterSets};

/// A P slice that others refer to, as x264 marks it.
const NAL_HEADER: u8 = 0x41;

/// The quantiser at which CABAC is surest from the start that a macroblock is skipped, over the usual 26 of the parameter
/// sets. Nothing is quantised here.
const QUANTISER_OVER_26: u32 = 25;

/// Rows of table 9-44, what is left to the unlikely by the range's quarter, from state 42 on, where that context begins
/// then (table 9-13, formula 9-5: (23 * 51 >> 4) + 33 - 64). It moves on by one with each block, to the last of them.
const UNLIKELY: [[u32; 4]; 21] = [
    [16, 20, 23, 27],
    [15, 19, 22, 25],
    [14, 18, 21, 24],
    [14, 17, 20, 23],
    [13, 16, 19, 22],
    [12, 15, 18, 21],
    [12, 14, 17, 20],
    [11, 14, 16, 19],
    [11, 13, 15, 18],
    [10, 12, 15, 17],
    [10, 12, 14, 16],
    [9, 11, 13, 15],
    [9, 11, 12, 14],
    [8, 10, 12, 14],
    [8, 9, 11, 13],
    [7, 9, 11, 12],
    [7, 9, 10, 12],
    [7, 8, 10, 11],
    [6, 8, 9, 11],
    [6, 7, 9, 10],
    [6, 7, 8, 9],
];

/// How the P slices of a stream begin, as its parameter sets say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skips {
    number_bits: u32,
    set_id: u32,
    cabac: bool,
    filter_control: bool,
    blocks: u32,
    /// Number of the last reference picture, an IDR being 0 (`frame_num`, 7.4.3).
    last: u32,
    /// Units since the last IDR that the encoder does not know of.
    unknown: u32,
}

impl Skips {
    /// For a stream of the canvas that no unit was written of yet. `None` for parameter sets that the pinned settings
    /// cannot make: weighted prediction, several slice groups or references.
    pub fn of(sets: &ParameterSets, canvas: Canvas) -> Option<Skips> {
        let number_bits = number_bits(&sets.sps)?;
        let mut pps = Bits::of(&sets.pps);
        let set_id = pps.exp_golomb()?;
        pps.exp_golomb()?;
        let cabac = pps.take(1)? == 1;
        // The order of fields; slice groups; references of either list.
        if pps.take(1)? != 0 || pps.exp_golomb()? != 0 || pps.exp_golomb()? != 0 {
            return None;
        }
        pps.exp_golomb()?;
        // Weights of either kind.
        if pps.take(3)? != 0 {
            return None;
        }
        // Initial quantisers, and the chroma's offset.
        for _ in 0..3 {
            pps.exp_golomb()?;
        }
        let flags = pps.take(3)?;
        let blocks = canvas.width.div_ceil(16) * canvas.height.div_ceil(16);
        let filter_control = flags & 0b100 != 0;
        // The last flag: redundant pictures.
        (flags & 1 == 0).then_some(Skips { number_bits, set_id, cabac, filter_control, blocks, last: 0, unknown: 0 })
    }

    /// The unit that shows the picture before it again.
    pub fn unit(&mut self) -> AccessUnit {
        self.unknown += 1;
        let mut bits = BitWriter::default();
        // first_mb_in_slice, slice_type (all slices of the picture are P), the picture parameter set
        bits.exp_golomb(0);
        bits.exp_golomb(5);
        bits.exp_golomb(self.set_id);
        let number = self.next();
        bits.put(number, self.number_bits);
        // References as ever: neither another count nor another order, nor marked by hand.
        bits.put(0, 3);
        if self.cabac {
            // cabac_init_idc
            bits.exp_golomb(0);
        }
        // slice_qp_delta, a positive one of n being the number 2n - 1
        bits.exp_golomb(if self.cabac { 2 * QUANTISER_OVER_26 - 1 } else { 0 });
        if self.filter_control {
            // No deblocking, of which there would be none: nothing is coded.
            bits.exp_golomb(1);
        }
        if self.cabac {
            bits.align_with_ones();
            self.skip_by_cabac(&mut bits);
        } else {
            bits.exp_golomb(self.blocks);
            bits.put(1, 1);
        }
        let mut unit = AccessUnit { data: vec![0; 4], idr: false };
        unit.data.push(NAL_HEADER);
        escape(&bits.bytes, &mut unit.data);
        write_length(&mut unit.data);
        unit
    }

    /// The slice's data by CABAC (9.3.4): of each block that it is skipped, and whether it is the last. All but the very
    /// end is what is likely, which narrows the range from above, so the interval's lower end stays 0 until then, and
    /// what is written are zeros, one whenever the range is doubled. The last bit ends the slice's data too (7.3.2.8).
    fn skip_by_cabac(&self, bits: &mut BitWriter) {
        let (mut range, mut zeros) = (510, 0);
        let mut narrow = |range: u32| {
            let doubled = u32::from(range < 256);
            zeros += doubled;
            range << doubled
        };
        for block in 0..self.blocks as usize {
            range = narrow(range - UNLIKELY[block.min(UNLIKELY.len() - 1)][range as usize >> 6 & 3]) - 2;
            if block + 1 < self.blocks as usize {
                range = narrow(range);
            }
        }
        // The lower end is the range by now, 10 bits of which the first, a 0, is not written if nothing was before it.
        (0..zeros).for_each(|_| bits.put(0, 1));
        bits.put(range | 1, 9);
    }

    /// Gives a unit of the encoder its number in the stream.
    pub fn renumber(&mut self, unit: AccessUnit) -> AccessUnit {
        if unit.idr {
            (self.last, self.unknown) = (0, 0);
            return unit;
        }
        let number = self.next();
        if self.unknown == 0 {
            return unit;
        }
        let mut renumbered = AccessUnit { data: Vec::with_capacity(unit.data.len() + 8), idr: false };
        let mut rest = unit.data.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (nal, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            let mut payload = unescape(&nal[1..]);
            self.write_number(&mut payload, number);
            let mut slice = vec![0; 4];
            slice.push(nal[0]);
            escape(&payload, &mut slice);
            write_length(&mut slice);
            renumbered.data.extend_from_slice(&slice);
            rest = tail;
        }
        renumbered
    }

    fn next(&mut self) -> u32 {
        self.last = (self.last + 1) & ((1 << self.number_bits) - 1);
        self.last
    }

    /// Writes over the number behind the first three fields of a slice.
    fn write_number(&self, payload: &mut [u8], number: u32) {
        let mut at = 0;
        let mut bit = |payload: &[u8]| {
            at += 1;
            payload.get((at - 1) / 8).is_some_and(|byte| byte >> (7 - (at - 1) % 8) & 1 == 1)
        };
        for _ in 0..3 {
            let zeros = (0..16).take_while(|_| !bit(payload)).count();
            (0..zeros).for_each(|_| {
                bit(payload);
            });
        }
        for left in (0..self.number_bits).rev() {
            if let Some(byte) = payload.get_mut(at / 8) {
                let mask = 0x80 >> (at % 8);
                *byte = if number >> left & 1 == 1 { *byte | mask } else { *byte & !mask };
            }
            at += 1;
        }
    }
}

/// Writes bits, the first one highest.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    free: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for left in (0..count).rev() {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            let last = self.bytes.last_mut().expect("pushed above");
            *last |= ((value >> left & 1) as u8) << self.free;
        }
    }

    fn align_with_ones(&mut self) {
        self.put(u32::MAX, self.free);
    }

    /// An unsigned Exp-Golomb number (9.1).
    fn exp_golomb(&mut self, value: u32) {
        let bits = (value + 1).ilog2();
        self.put(0, bits);
        self.put(value + 1, bits + 1);
    }
}

/// Takes out the bytes that prevent start codes (7.4.1).
fn unescape(escaped: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(escaped.len());
    let mut zeros = 0;
    for &byte in escaped {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

/// Puts them in.
fn escape(payload: &[u8], into: &mut Vec<u8>) {
    let mut zeros = 0;
    for &byte in payload {
        if zeros >= 2 && byte <= 3 {
            into.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        into.push(byte);
    }
}

/// Writes the length of the one slice behind the first four bytes into them.
fn write_length(data: &mut [u8]) {
    let length = u32::try_from(data.len() - 4).expect("a unit is shorter than 4 GB");
    data[..4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use ffmpeg_next as ff;

    use super::super::testing::{decode, psnr, scene};
    use super::super::x264::{PRESETS, X264};
    use super::super::{Encoder, EncoderSettings};
    use super::*;

    fn planes(shown: &ff::frame::Video) -> Vec<&[u8]> {
        (0..3).flat_map(|plane| crate::ffmpeg::rows(shown, plane)).collect()
    }

    /// A still, then another picture, again and again: more units between two IDRs than numbers, so that they wrap.
    #[test]
    fn a_still_is_the_picture_before_bit_by_bit() {
        let sizes = [(640, 360), (64, 64), (16, 16), (642, 358), (1280, 720), (16, 1920)];
        for (cabac, (preset, (width, height))) in
            [true, false].into_iter().flat_map(|cabac| PRESETS.into_iter().zip(sizes).map(move |one| (cabac, one)))
        {
            let settings =
                EncoderSettings { preset: preset.to_owned(), crf: 15, qpmin: 10, cabac, ..EncoderSettings::default() };
            let mut encoder = X264::open(&settings, Canvas { width, height }).unwrap();
            let (mut units, mut wanted) = (Vec::new(), Vec::new());
            let stills = [1, 0, 3, 2, 9, 1, 17, 4];
            for (number, still) in stills.into_iter().enumerate() {
                let picture = scene(width, height, number as u32);
                units.push(encoder.encode(&picture, number == 4).unwrap());
                units.extend((0..still).map(|_| encoder.repeat(false).unwrap()));
                wanted.extend(std::iter::repeat_n((number, picture), still + 1));
            }
            let shown = decode(encoder.parameter_sets(), &units).unwrap();
            assert_eq!(shown.len(), wanted.len());
            for (at, ((number, picture), pair)) in wanted.iter().skip(1).zip(shown.windows(2)).enumerate() {
                assert!(psnr(picture, &pair[1]) > 38.0, "{preset}, unit {}: {} dB", at + 1, psnr(picture, &pair[1]));
                if *number == wanted[at].0 {
                    assert_eq!(planes(&pair[0]), planes(&pair[1]), "{preset}, unit {}", at + 1);
                    let blocks = (width.div_ceil(16) * height.div_ceil(16)) as usize;
                    let most = if cabac { 11 + blocks / 150 } else { 16 };
                    assert!(units[at + 1].data.len() <= most, "{} bytes", units[at + 1].data.len());
                }
            }
        }
    }

    /// A unit is the same picture whatever number it was given.
    #[test]
    fn numbers_change_nothing_else() {
        let canvas = Canvas { width: 320, height: 180 };
        let open = || X264::open(&EncoderSettings::default(), canvas).unwrap();
        let (mut plain, mut stilled) = (open(), open());
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for number in 0..40 {
            let picture = scene(320, 180, number);
            without.push(plain.encode(&picture, false).unwrap());
            with.push(stilled.encode(&picture, false).unwrap());
            with.push(stilled.repeat(false).unwrap());
        }
        let without = decode(plain.parameter_sets(), &without).unwrap();
        let with = decode(stilled.parameter_sets(), &with).unwrap();
        assert!(without.iter().zip(with.iter().step_by(2)).all(|(a, b)| planes(a) == planes(b)));
    }

    #[test]
    fn escaping_is_undone() {
        for payload in [&[0, 0, 0, 0, 0, 1, 0, 0, 3, 0, 0, 4][..], &[0, 0], &[0, 0, 2], &[9], &[]] {
            let mut escaped = Vec::new();
            escape(payload, &mut escaped);
            assert!(!escaped.windows(3).any(|three| three[..2] == [0, 0] && three[2] < 3));
            assert_eq!(unescape(&escaped), payload);
        }
    }

    #[test]
    fn other_streams_have_none() {
        let canvas = Canvas { width: 64, height: 64 };
        let encoder = X264::open(&EncoderSettings::default(), canvas).unwrap();
        let sets = encoder.parameter_sets().clone();
        assert!(Skips::of(&sets, canvas).is_some());
        // The bit behind two numbers of one bit each and that of CABAC: fields.
        let mut fields = sets.clone();
        fields.pps[1] |= 0b0001_0000;
        assert_eq!(Skips::of(&fields, canvas), None);
        assert_eq!(Skips::of(&ParameterSets { sps: sets.sps, pps: vec![0x68] }, canvas), None);
    }
}
