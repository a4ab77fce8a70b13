//! Skip units: a P slice in which every macroblock is skipped, which shows the picture before it once more, bit by bit
//! (H.264, 7.3.3 and 8.4.1.1: without neighbours, and so without end, the motion of a skipped macroblock is zero).
//!
//! An encoder does not know of them, so the units that it makes afterwards are numbered on. Not here: when a picture
//! is shown again.

use super::nal::{Bits, number_bits};
use crate::media::{AccessUnit, Canvas, ParameterSets};

/// A P slice that others refer to, as x264 marks it.
const NAL_HEADER: u8 = 0x41;

/// How the P slices of a stream begin, as its parameter sets say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skips {
    number_bits: u32,
    set_id: u32,
    filter_control: bool,
    blocks: u32,
    /// Number of the last reference picture, an IDR being 0 (`frame_num`, 7.4.3).
    last: u32,
    /// Units since the last IDR that the encoder does not know of.
    unknown: u32,
}

impl Skips {
    /// For a stream of the canvas that no unit was written of yet. `None` for parameter sets that the pinned settings
    /// cannot make: CABAC, weighted prediction, several slice groups or references.
    pub fn of(sets: &ParameterSets, canvas: Canvas) -> Option<Skips> {
        let number_bits = number_bits(&sets.sps)?;
        let mut pps = Bits::of(&sets.pps);
        let set_id = pps.exp_golomb()?;
        pps.exp_golomb()?;
        // CABAC and the order of fields; slice groups; references of either list.
        if pps.take(2)? != 0 || pps.exp_golomb()? != 0 || pps.exp_golomb()? != 0 {
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
        (flags & 1 == 0).then_some(Skips { number_bits, set_id, filter_control, blocks, last: 0, unknown: 0 })
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
        // slice_qp_delta
        bits.exp_golomb(0);
        if self.filter_control {
            // No deblocking, of which there would be none: nothing is coded.
            bits.exp_golomb(1);
        }
        bits.exp_golomb(self.blocks);
        bits.put(1, 1);
        let mut unit = AccessUnit { data: vec![0; 4], idr: false };
        unit.data.push(NAL_HEADER);
        escape(&bits.bytes, &mut unit.data);
        write_length(&mut unit.data);
        unit
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
        for (preset, (width, height)) in PRESETS.into_iter().zip([(640, 360), (64, 64), (642, 358), (1280, 720)]) {
            let settings = EncoderSettings { preset: preset.to_owned(), ..EncoderSettings::default() };
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
                    assert!(units[at + 1].data.len() <= 16, "{} bytes", units[at + 1].data.len());
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
        // The bit behind two numbers of one bit each says CABAC.
        let mut cabac = sets.clone();
        cabac.pps[1] |= 0b0010_0000;
        assert_eq!(Skips::of(&cabac, canvas), None);
        assert_eq!(Skips::of(&ParameterSets { sps: sets.sps, pps: vec![0x68] }, canvas), None);
    }
}
