//! What is known of a PNG before anything is inflated: base64, the size, and the memory that decoding takes.

use crate::media::Picture;

use super::{PngError, STRIP_ROWS};

/// Signature, and the IHDR chunk with its length, type and CRC: all that [`header`] needs.
pub const HEADER_BYTES: usize = 33;

pub(super) const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// What `png` holds while it inflates: the window, rows, Huffman tables.
pub(super) const INFLATER_BYTES: u64 = 320 * 1024;

/// How large a picture may be, judged before anything is inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of the longer side.
    pub side_max: u32,
    /// Pixels of the whole picture.
    pub pixels_max: u64,
}

impl Default for Limits {
    /// 4096 a side, and 4096x2160 in all.
    fn default() -> Limits {
        Limits { side_max: 4096, pixels_max: 8_847_360 }
    }
}

/// What IHDR says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Whether the rows come in seven passes (Adam7).
    pub interlaced: bool,
    /// Memory of the picture (I420) and of the decoder while it works on it. The PNG itself is not counted.
    pub bytes_when_decoded: u64,
}

/// Reads IHDR from the first [`HEADER_BYTES`] or more of a PNG, within the default limits. Inflates nothing.
///
/// # Errors
/// `NotPng`, `Truncated`, `ZeroSize`, `TooLarge`; `Corrupt` when the CRC of IHDR is wrong.
pub fn header(first_bytes: &[u8]) -> Result<Header, PngError> {
    header_within(first_bytes, &Limits::default())
}

/// [`header`] within limits of the caller.
///
/// # Errors
/// As [`header`].
pub fn header_within(first_bytes: &[u8], limits: &Limits) -> Result<Header, PngError> {
    let seen = first_bytes.len().min(SIGNATURE.len());
    if first_bytes[..seen] != SIGNATURE[..seen] {
        return Err(PngError::NotPng);
    }
    let Some(start) = first_bytes.first_chunk::<HEADER_BYTES>() else { return Err(PngError::Truncated) };
    if start[8..16] != *b"\0\0\0\x0dIHDR" {
        return Err(PngError::NotPng);
    }
    if crc32fast::hash(&start[12..29]) != word(start, 29) {
        return Err(PngError::Corrupt("wrong CRC of IHDR".into()));
    }
    let (width, height, interlaced) = (word(start, 16), word(start, 20), start[28] != 0);
    if width == 0 || height == 0 {
        return Err(PngError::ZeroSize);
    }
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > limits.side_max || pixels > limits.pixels_max {
        return Err(PngError::TooLarge { width, height });
    }
    // Up to four bytes a pixel: tRNS, which adds alpha, comes later than IHDR.
    let rows = if interlaced { u64::from(height) } else { STRIP_ROWS as u64 };
    let scratch = rows * u64::from(width) * 4 + INFLATER_BYTES;
    Ok(Header { width, height, interlaced, bytes_when_decoded: Picture::bytes(width, height) as u64 + scratch })
}

/// Decodes standard base64, padded or not, into a buffer that is emptied first.
///
/// # Errors
/// `BadBase64`; the buffer's content is then of no meaning.
pub fn decode_base64(text: &[u8], into: &mut Vec<u8>) -> Result<(), PngError> {
    let bare = match text {
        [bare @ .., b'=', b'='] | [bare @ .., b'='] if text.len().is_multiple_of(4) => bare,
        bare => bare,
    };
    into.clear();
    base64_simd::STANDARD_NO_PAD.decode_append(bare, into).map_err(|_| PngError::BadBase64)
}

/// The first `bytes` bytes that `text` stands for, or a little more; fewer when the text is shorter.
///
/// # Errors
/// `BadBase64`, judged by the decoded part alone.
pub fn base64_prefix(text: &str, bytes: usize) -> Result<Vec<u8>, PngError> {
    let whole = bytes.div_ceil(3) * 4;
    let mut prefix = Vec::new();
    decode_base64(&text.as_bytes()[..whole.min(text.len())], &mut prefix)?;
    Ok(prefix)
}

/// The big-endian word at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..].first_chunk().expect("callers have checked the length");
    u32::from_be_bytes(*word)
}
