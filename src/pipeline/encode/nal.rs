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

/// The NAL units of an Annex B stream, without start codes and trailing zeros.
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
    match sets.sps.get(1..4) {
        Some([profile, constraints, level]) => format!("avc1.{profile:02X}{constraints:02X}{level:02X}"),
        _ => "avc1".to_owned(),
    }
}
