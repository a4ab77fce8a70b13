//! PNGs that differ in their label only, made without compressing anything: a picture is compressed once, and each
//! number is spliced into it.
//!
//! Of the label's band only one row carries the number as pixels (the rows below repeat it by filter Up), so a PNG is
//!
//! ```text
//! signature IHDR skIP IDAT[zlib header, rows above]  constant, filled up to a multiple of 3 bytes for base64
//! IDAT[stored block: the one row]                    written anew
//! IDAT[rows below] IDAT[last block, Adler-32] IEND   constant (kept as base64), but for the Adler-32
//! ```
//!
//! Each part of the deflate stream is compressed on its own and ends on a byte (a sync flush, RFC 1951 and zlib's
//! manual), and the Adler-32 of the whole is combined from those of the parts (RFC 1950, 9).

use std::ops::Range;

use flate2::{Compress, Compression, FlushCompress, Status};
use image::RgbImage;

use super::picture::{CELLS, Label, cell_left, cell_rows, draw_label};

/// A compressed picture that waits for a label. About 400 kB of memory at 640x360.
#[derive(Clone, Debug)]
pub struct Template {
    width: u32,
    /// Signature to the end of the row's IDAT, whose pixels and CRC are filled in.
    head: Vec<u8>,
    /// The row with its filter byte, in `head`.
    row: Range<usize>,
    /// What follows the row, as base64: whole groups of three bytes.
    tail_base64: String,
    /// What of it was left over.
    tail_rest: Vec<u8>,
    /// Of the rows above and below.
    sums: [Sum; 2],
}

impl Template {
    /// Compresses an RGB picture; its top is covered by the label's band.
    ///
    /// # Panics
    /// When the picture is lower than the band (three cells of `width / 40` rows) and one row more, or wider than 16383.
    pub fn new(mut picture: RgbImage) -> Template {
        let (width, height) = picture.dimensions();
        let cell = cell_rows(width) as usize;
        assert!(height as usize > 3 * cell && width < 16_384, "{width}x{height} has no room for a label");
        draw_label(&mut picture, &Label { participant: 0, kind: crate::media::Kind::Webcam, number: 0 });
        let bytes = width as usize * 3;
        let rows: Vec<&[u8]> = picture.as_raw().chunks_exact(bytes).collect();
        // The first row below the band must not refer to it: what it would refer to changes.
        let above = filter(&[], &rows[..2 * cell], bytes);
        let mut below = vec![0; (cell - 1) * (bytes + 1)];
        below.chunks_exact_mut(bytes + 1).for_each(|row| row[0] = 2);
        below.extend(filter(&[], &rows[3 * cell..=3 * cell], bytes));
        below.extend(filter(rows[3 * cell], &rows[3 * cell + 1..], bytes));

        let mut head = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut ihdr = Vec::new();
        ihdr.extend(width.to_be_bytes());
        ihdr.extend(height.to_be_bytes());
        ihdr.extend([8, 2, 0, 0, 0]);
        chunk(&mut head, b"IHDR", &ihdr);
        let first = [&[0x78, 0x01][..], &deflate(&above)].concat();
        // Four chunks of 12 bytes around their data, and 5 bytes in front of the stored block.
        let length = head.len() + 12 + 12 + first.len() + 12 + 5 + 1 + bytes;
        chunk(&mut head, b"skIP", &[0; 2][..(3 - length % 3) % 3]);
        chunk(&mut head, b"IDAT", &first);
        let stored = (1 + bytes) as u16;
        let block = [&[0][..], &stored.to_le_bytes(), &(!stored).to_le_bytes(), &vec![0; 1 + bytes]].concat();
        chunk(&mut head, b"IDAT", &block);
        let row = head.len() - 4 - 1 - bytes..head.len() - 4;
        let mut tail = Vec::new();
        chunk(&mut tail, b"IDAT", &deflate(&below));
        let tail_rest = tail.split_off(tail.len() / 3 * 3);
        let tail_base64 = base64_simd::STANDARD.encode_to_string(&tail);
        Template { width, head, row, tail_base64, tail_rest, sums: [Sum::of(&above), Sum::of(&below)] }
    }

    /// Appends the base64 of the PNG with this label: microseconds of work, and a copy.
    pub fn write_base64(&self, label: &Label, into: &mut String) {
        let (head, end) = self.ends(label);
        base64_simd::STANDARD.encode_append(head, into);
        into.push_str(&self.tail_base64);
        base64_simd::STANDARD.encode_append(end, into);
    }

    /// Characters that [`Template::write_base64`] appends.
    pub fn base64_len(&self) -> usize {
        self.head.len() / 3 * 4 + self.tail_base64.len() + (self.tail_rest.len() + 18 + 12).div_ceil(3) * 4
    }

    /// What stands before and after the constant base64.
    fn ends(&self, label: &Label) -> (Vec<u8>, Vec<u8>) {
        let mut head = self.head.clone();
        let row = &mut head[self.row.clone()];
        for cell in (0..CELLS).filter(|&cell| label.is_white(cell)) {
            let at = |cell| 1 + 3 * cell_left(self.width, cell) as usize;
            row[at(cell)..at(cell + 1)].fill(255);
        }
        let sum = self.sums[0].and(Sum::of(row)).and(self.sums[1]);
        // The CRC of a chunk covers its type and its data: here those, and the five bytes of the stored block.
        let crc = crc32fast::hash(&head[self.row.start - 9..self.row.end]);
        head[self.row.end..].copy_from_slice(&crc.to_be_bytes());
        let mut end = self.tail_rest.clone();
        // An empty last block of fixed codes.
        chunk(&mut end, b"IDAT", &[&[0x03, 0x00][..], &sum.adler32.to_be_bytes()].concat());
        chunk(&mut end, b"IEND", &[]);
        (head, end)
    }
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend((data.len() as u32).to_be_bytes());
    let start = png.len();
    png.extend(kind);
    png.extend(data);
    let crc = crc32fast::hash(&png[start..]);
    png.extend(crc.to_be_bytes());
}

/// Deflate blocks that end on a byte and are not the last.
fn deflate(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + data.len() / 100 + 64);
    let mut compress = Compress::new(Compression::new(4), false);
    loop {
        let taken = compress.total_in() as usize;
        let status = compress.compress_vec(&data[taken..], &mut out, FlushCompress::Sync);
        assert!(matches!(status, Ok(Status::Ok | Status::BufError)), "deflate of bytes in memory");
        if compress.total_in() as usize == data.len() && out.len() < out.capacity() {
            return out;
        }
        out.reserve(out.len() / 2 + 64);
    }
}

/// An Adler-32 and the count of bytes that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    adler32: u32,
    bytes: u64,
}

impl Sum {
    const MODULUS: u64 = 65_521;

    fn of(data: &[u8]) -> Sum {
        let (mut a, mut b) = (1_u64, 0);
        // 64 bits hold the sums of 2^24 bytes and more without a remainder taken.
        for part in data.chunks(1 << 24) {
            for byte in part {
                a += u64::from(*byte);
                b += a;
            }
            (a, b) = (a % Sum::MODULUS, b % Sum::MODULUS);
        }
        Sum { adler32: (b << 16 | a) as u32, bytes: data.len() as u64 }
    }

    /// The sum of these bytes with those of `next` behind them: each of them adds our `a` to `b` once more.
    fn and(self, next: Sum) -> Sum {
        let split = |sum: Sum| (u64::from(sum.adler32 & 0xffff), u64::from(sum.adler32 >> 16));
        let ((a, b), (next_a, next_b)) = (split(self), split(next));
        let a_sum = (a + next_a + Sum::MODULUS - 1) % Sum::MODULUS;
        let b_sum = (b + next_b + next.bytes % Sum::MODULUS * (a + Sum::MODULUS - 1)) % Sum::MODULUS;
        Sum { adler32: (b_sum << 16 | a_sum) as u32, bytes: self.bytes + next.bytes }
    }
}

/// Filters RGB rows, each by the filter with the least sum of differences (PNG, 12.8). `previous` is the row above the
/// first; without one the first row uses None or Sub, which do not look up.
fn filter<'a>(mut previous: &'a [u8], rows: &[&'a [u8]], bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * (bytes + 1));
    let mut attempt = vec![0; bytes];
    for &row in rows {
        let best = out.len();
        let mut least = u64::MAX;
        let filters = if previous.is_empty() { 0..2 } else { 0..5 };
        for number in filters {
            for (i, residue) in attempt.iter_mut().enumerate() {
                let left = if i >= 3 { row[i - 3] } else { 0 };
                let up = previous.get(i).copied().unwrap_or(0);
                let corner = if i >= 3 { previous.get(i - 3).copied().unwrap_or(0) } else { 0 };
                *residue = row[i].wrapping_sub(predict(number, left, up, corner));
            }
            let sum = attempt.iter().map(|&residue| u64::from((residue as i8).unsigned_abs())).sum();
            if sum < least {
                least = sum;
                out.truncate(best);
                out.push(number);
                out.extend(&attempt);
            }
        }
        previous = row;
    }
    out
}

/// PNG, 9.2.
fn predict(filter: u8, left: u8, up: u8, corner: u8) -> u8 {
    let (a, b, c) = (i16::from(left), i16::from(up), i16::from(corner));
    match filter {
        0 => 0,
        1 => left,
        2 => up,
        3 => ((a + b) / 2) as u8,
        _ => {
            let distance = |of: i16| (a + b - c - of).abs();
            if distance(a) <= distance(b) && distance(a) <= distance(c) {
                left
            } else if distance(b) <= distance(c) {
                up
            } else {
                corner
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::simulate::picture::{draw, read_number};
    use crate::media::Kind;
    use crate::pipeline::ingest::png::{Limits, PngDecoder, decode_base64};

    fn png(template: &Template, label: &Label) -> Vec<u8> {
        let mut text = String::new();
        template.write_base64(label, &mut text);
        assert_eq!(text.len(), template.base64_len());
        let mut png = Vec::new();
        decode_base64(text.as_bytes(), &mut png).unwrap();
        png
    }

    #[test]
    fn a_spliced_png_is_the_drawn_picture() {
        for size in [(640, 360), (642, 362), (176, 144), (161, 90), (1280, 720)] {
            let template = Template::new(draw(size, 3, Kind::Webcam, 7, 9));
            for number in [0, 7, 0xf_ffff] {
                let label = Label { participant: 3, kind: Kind::Webcam, number };
                let mut expected = draw(size, 3, Kind::Webcam, 7, 9);
                draw_label(&mut expected, &label);
                let bytes = png(&template, &label);
                let mut reader = ::png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
                let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
                reader.next_frame(&mut pixels).unwrap();
                assert!(pixels == *expected.as_raw(), "{size:?} {number}");
                // The server's own decoder checks every CRC and the Adler-32.
                let picture = PngDecoder::new(Limits::default()).decode(&bytes).unwrap();
                assert_eq!(read_number(picture.planes()[0], size.0, size.1), Some(label));
            }
        }
    }

    #[test]
    fn the_png_of_a_camera_weighs_what_a_real_one_does() {
        let label = |kind| Label { participant: 0, kind, number: 1 };
        let camera = png(&Template::new(draw((640, 360), 0, Kind::Webcam, 1, 1)), &label(Kind::Webcam));
        assert!((200_000..400_000).contains(&camera.len()), "{}", camera.len());
        let slide = png(&Template::new(draw((640, 360), 0, Kind::Screenshare, 1, 1)), &label(Kind::Screenshare));
        assert!((5_000..200_000).contains(&slide.len()), "{}", slide.len());
    }

    #[test]
    fn sums_add_up() {
        let data: Vec<u8> = (0..70_000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
        assert_eq!(Sum::of(b"Wikipedia").adler32, 0x11e6_0398);
        for at in [0, 1, 5_552, 65_521, 70_000] {
            assert_eq!(Sum::of(&data[..at]).and(Sum::of(&data[at..])), Sum::of(&data), "{at}");
        }
    }
}
