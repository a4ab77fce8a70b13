//! PNG -> picture: base64, the header (size and memory before anything is inflated), and decoding to I420.
//!
//! Pure: bytes in, planes out. Strict about what can tell a damaged picture (every CRC, the Adler-32, the length of the
//! image data, IEND), indifferent to what does not touch pixels (gamma, profiles, texts, bytes after IEND).
//! Not here: JSON, the memory budget, threads.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use png::{DecodeOptions, Decoder, DecodingError, Reader, StreamingDecoder, Transformations, UnfilterRegion};

use crate::media::Picture;

pub use self::header::{HEADER_BYTES, Header, Limits, base64_prefix, decode_base64, header, header_within};
use self::header::{SIGNATURE, word};
use self::planes::{Pixels, convert};

mod header;
mod planes;

/// Rows that are converted at once: even, for the chroma, and few enough that they are still in the L2 cache when the
/// conversion reads them. A buffer for the whole picture takes as long (1.45 ms at 640x360), and 35 MB at the limit.
const STRIP_ROWS: usize = 16;

/// Words of `png` 0.18, whose kinds of format errors are private: the image data has fewer rows than IHDR says, and the
/// deflate stream or its Adler-32 has no end. Should they change, no picture passes the tests below.
const NO_MORE_DATA: &str = "does not have enough data for image";
const STREAM_CUT: &str = "InsufficientInput";

/// Why a capture is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PngError {
    /// Not standard base64.
    #[error("not standard base64")]
    BadBase64,
    /// Another signature, or another first chunk than IHDR.
    #[error("not a PNG")]
    NotPng,
    /// It ends before IEND, or its image data is too short for its size.
    #[error("truncated")]
    Truncated,
    /// Larger than the limits.
    #[error("{width}x{height} is too large")]
    TooLarge {
        /// From IHDR.
        width: u32,
        /// From IHDR.
        height: u32,
    },
    /// A width or height of zero.
    #[error("a width or height of zero")]
    ZeroSize,
    /// A wrong checksum, or anything else that a PNG must not be.
    #[error("corrupt: {0}")]
    Corrupt(String),
    /// An APNG, which holds several pictures.
    #[error("animated")]
    Animated,
    /// What none of the above is.
    #[error("cannot be decoded: {0}")]
    Other(String),
}

impl PngError {
    /// A short name for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            PngError::BadBase64 => "bad_base64",
            PngError::NotPng => "not_png",
            PngError::Truncated => "truncated",
            PngError::TooLarge { .. } => "too_large",
            PngError::ZeroSize => "zero_size",
            PngError::Corrupt(_) => "corrupt",
            PngError::Animated => "animated",
            PngError::Other(_) => "other",
        }
    }
}

impl From<DecodingError> for PngError {
    fn from(error: DecodingError) -> PngError {
        match error {
            DecodingError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => PngError::Truncated,
            DecodingError::Format(error) => {
                let text = error.to_string();
                let short = text.contains(NO_MORE_DATA) || text.contains(STREAM_CUT);
                if short { PngError::Truncated } else { PngError::Corrupt(text) }
            }
            error => PngError::Other(error.to_string()),
        }
    }
}

/// Decodes PNGs one after the other and keeps its buffers between them.
#[derive(Debug, Default)]
pub struct PngDecoder {
    limits: Limits,
    strip: Vec<u8>,
}

impl PngDecoder {
    /// A decoder that refuses what is larger than `limits`.
    pub fn new(limits: Limits) -> PngDecoder {
        PngDecoder { limits, strip: Vec::new() }
    }

    /// Decodes a PNG of any colour type, bit depth and interlacing. Transparency is composited over black, 16-bit
    /// samples lose their lower half, gamma and profiles are ignored.
    ///
    /// # Errors
    /// Any but `BadBase64`. No part of a broken picture is given.
    pub fn decode(&mut self, png: &[u8]) -> Result<Picture, PngError> {
        let header = header_within(png, &self.limits)?;
        check_chunks(png)?;
        if header.interlaced { self.decode_interlaced(png, &header) } else { self.decode_rows(png, &header) }
    }

    fn decode_rows(&mut self, png: &[u8], header: &Header) -> Result<Picture, PngError> {
        let mut reader = open(OneRowMore::new(png, header.height + 1))?;
        let pixels = Pixels::of(&reader)?;
        let row_bytes = pixels.bytes() * header.width as usize;
        self.strip.resize(STRIP_ROWS * row_bytes, 0);
        let mut picture = pixels.canvas(header.width, header.height);
        for first_row in (0..header.height as usize).step_by(STRIP_ROWS) {
            let rows = STRIP_ROWS.min(header.height as usize - first_row);
            let strip = &mut self.strip[..rows * row_bytes];
            for row in strip.chunks_exact_mut(row_bytes) {
                reader.read_row(row)?;
            }
            convert(strip, pixels, &mut picture, first_row)?;
        }
        // The row too many: `png` reads on for it, and so meets the end of the stream and its Adler-32, which it leaves
        // unread when the last row fills its buffer. What must come is "no more data".
        match reader.read_row(&mut self.strip) {
            Err(DecodingError::Format(error)) if error.to_string().contains(NO_MORE_DATA) => reader.finish()?,
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(PngError::Corrupt("more image data than rows".into())),
        }
        Ok(picture)
    }

    fn decode_interlaced(&mut self, png: &[u8], header: &Header) -> Result<Picture, PngError> {
        // A row more would change every pass, so the stream is checked in a turn of its own. Bots send no such PNGs.
        check_stream(png)?;
        let mut reader = open(io::Cursor::new(png))?;
        let pixels = Pixels::of(&reader)?;
        let mut rows = vec![0; pixels.bytes() * header.width as usize * header.height as usize];
        reader.next_frame(&mut rows)?;
        reader.finish()?;
        let mut picture = pixels.canvas(header.width, header.height);
        let strips = rows.chunks_mut(STRIP_ROWS * pixels.bytes() * header.width as usize);
        for (strip, first_row) in strips.zip((0..).step_by(STRIP_ROWS)) {
            convert(strip, pixels, &mut picture, first_row)?;
        }
        Ok(picture)
    }
}

/// `png` 0.18 has no switch for speed that is safe: `unstable` needs a nightly compiler, `zlib-rs` is for writing only.
/// Its inflater (fdeflate) is the fast one already. It takes the Adler-32 on trust unless told otherwise.
fn options() -> DecodeOptions {
    let mut options = DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_skip_ancillary_crc_failures(false);
    // These two may be compressed: a bomb of 16 MB of zeros costs nothing when it is never inflated.
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    options
}

fn open<R: BufRead + Seek>(source: R) -> Result<Reader<R>, PngError> {
    let mut decoder = Decoder::new_with_options(source, options());
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    Ok(decoder.read_info()?)
}

/// Walks over the chunks: complete up to IEND, with image data, not animated. Bytes after IEND are nobody's.
fn check_chunks(png: &[u8]) -> Result<(), PngError> {
    let (mut at, mut has_data) = (SIGNATURE.len(), false);
    loop {
        let Some(start) = png.get(at..at + 8) else { return Err(PngError::Truncated) };
        let length = word(start, 0);
        if length > i32::MAX as u32 {
            return Err(PngError::Corrupt("a chunk of more than 2^31 - 1 bytes".into()));
        }
        at += 12 + length as usize;
        if at > png.len() {
            return Err(PngError::Truncated);
        }
        match &start[4..] {
            b"acTL" if !has_data => return Err(PngError::Animated),
            // `png` 0.18.1 panics on it (image-png issue 694).
            b"PLTE" if !length.is_multiple_of(3) => return Err(PngError::Corrupt("a torn palette".into())),
            b"IDAT" => has_data = true,
            b"IEND" if has_data => return Ok(()),
            b"IEND" => return Err(PngError::Corrupt("no image data".into())),
            _ => {}
        }
    }
}

/// Inflates the image data into a ring, for its checksums and its end alone.
fn check_stream(png: &[u8]) -> Result<(), PngError> {
    const RING_BYTES: usize = 128 * 1024;
    let mut decoder = StreamingDecoder::new_with_options(options());
    let (mut ring, mut region, mut at) = (vec![0; RING_BYTES], UnfilterRegion::default(), 0);
    loop {
        // `png` takes a full buffer for the end of the data: never let it see one.
        if RING_BYTES - region.filled < RING_BYTES / 4 {
            ring.copy_within(region.available..region.filled, 0);
            region.filled -= region.available;
            region.available = 0;
        }
        let (consumed, event) = decoder.update(&png[at..], Some(&mut region.as_buf(&mut ring)))?;
        at += consumed;
        match event {
            png::Decoded::ImageDataFlushed => return Ok(()),
            _ if at == png.len() => return Err(PngError::Truncated),
            _ => {}
        }
    }
}

/// A PNG whose IHDR promises other rows than the bytes that it stands on, without copying them.
struct OneRowMore<'a> {
    start: [u8; HEADER_BYTES],
    png: &'a [u8],
    at: usize,
}

impl<'a> OneRowMore<'a> {
    /// `png` must have passed [`header()`].
    fn new(png: &'a [u8], rows: u32) -> OneRowMore<'a> {
        let mut start = *png.first_chunk::<HEADER_BYTES>().expect("a PNG with a header");
        start[20..24].copy_from_slice(&rows.to_be_bytes());
        let crc = crc32fast::hash(&start[12..29]);
        start[29..].copy_from_slice(&crc.to_be_bytes());
        OneRowMore { start, png, at: 0 }
    }
}

impl BufRead for OneRowMore<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(if self.at < HEADER_BYTES { &self.start[self.at..] } else { &self.png[self.at..] })
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for OneRowMore<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// `png` asks for it and never seeks.
impl Seek for OneRowMore<'_> {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;

    use super::header::INFLATER_BYTES;
    use super::*;

    const GRAY: u8 = 0;
    const RGB: u8 = 2;
    const PALETTE: u8 = 3;
    const GRAY_ALPHA: u8 = 4;
    const RGBA: u8 = 6;

    /// A kind of PNG, with how to write it.
    #[derive(Clone, Copy, Debug)]
    struct Shape {
        color: u8,
        depth: u8,
        transparent: bool,
        interlaced: bool,
        size: (u32, u32),
    }

    impl Shape {
        fn channels(self) -> usize {
            match self.color {
                GRAY | PALETTE => 1,
                GRAY_ALPHA => 2,
                RGB => 3,
                _ => 4,
            }
        }
    }

    /// A sequence that looks like noise.
    fn noise(n: u64) -> u64 {
        let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^ (x >> 29)
    }

    /// Sample `channel` of the pixel at x, y: every value of its depth occurs.
    fn sample(shape: Shape, x: u32, y: u32, channel: usize) -> u16 {
        let seed = u64::from(y) * 10_007 + u64::from(x) * 31 + channel as u64;
        (noise(seed) >> 40) as u16 & (((1_u32 << shape.depth) - 1) as u16)
    }

    fn palette(entry: u16) -> [u8; 4] {
        let n = noise(u64::from(entry) + 77).to_le_bytes();
        [n[0], n[1], n[2], n[3]]
    }

    /// The colour that tRNS names, for the types that have no alpha: that of the pixel at 3, 1.
    fn transparent_color(shape: Shape) -> Vec<u16> {
        (0..shape.channels()).map(|channel| sample(shape, 3 % shape.size.0, 1 % shape.size.1, channel)).collect()
    }

    /// What the pixel looks like over black, 0..=255 a channel.
    fn color_over_black(shape: Shape, x: u32, y: u32) -> [f64; 3] {
        let raw: Vec<u16> = (0..shape.channels()).map(|channel| sample(shape, x, y, channel)).collect();
        let unit = |n: u16| f64::from(n) / f64::from((1_u32 << shape.depth) - 1) * 255.0;
        let visible = if shape.transparent && raw == transparent_color(shape) { 0.0 } else { 1.0 };
        match shape.color {
            GRAY => [unit(raw[0]) * visible; 3],
            GRAY_ALPHA => [unit(raw[0]) * unit(raw[1]) / 255.0; 3],
            RGB => [unit(raw[0]) * visible, unit(raw[1]) * visible, unit(raw[2]) * visible],
            RGBA => [0, 1, 2].map(|i| unit(raw[i]) * unit(raw[3]) / 255.0),
            _ => {
                let [r, g, b, alpha] = palette(raw[0]);
                let alpha = if shape.transparent { f64::from(alpha) / 255.0 } else { 1.0 };
                [r, g, b].map(|channel| f64::from(channel) * alpha)
            }
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

    fn ihdr(shape: Shape) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend(shape.size.0.to_be_bytes());
        data.extend(shape.size.1.to_be_bytes());
        data.extend([shape.depth, shape.color, 0, 0, u8::from(shape.interlaced)]);
        let mut png = SIGNATURE.to_vec();
        chunk(&mut png, b"IHDR", &data);
        png
    }

    /// Rows of the passes (one, or Adam7's seven), each behind its filter byte, which is 0 (none).
    fn rows(shape: Shape) -> Vec<u8> {
        const ADAM7: [(u32, u32, u32, u32); 7] =
            [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
        let passes: &[_] = if shape.interlaced { &ADAM7 } else { &[(0, 0, 1, 1)] };
        let mut rows = Vec::new();
        for &(left, top, across, down) in passes.iter().filter(|pass| pass.0 < shape.size.0) {
            for y in (top..shape.size.1).step_by(down as usize) {
                rows.push(0);
                let (mut bits, mut count) = (0_u32, 0);
                for x in (left..shape.size.0).step_by(across as usize) {
                    for channel in 0..shape.channels() {
                        bits = bits << shape.depth | u32::from(sample(shape, x, y, channel));
                        count += shape.depth;
                        while count >= 8 {
                            count -= 8;
                            rows.push((bits >> count) as u8);
                        }
                    }
                }
                if count > 0 {
                    rows.push((bits << (8 - count)) as u8);
                }
            }
        }
        rows
    }

    fn deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// A PNG with chunks of the caller's before the image data.
    fn write_with(shape: Shape, before: &[(&[u8; 4], &[u8])], stream: &[u8]) -> Vec<u8> {
        let mut png = ihdr(shape);
        if shape.color == PALETTE {
            let entries = (0..1 << shape.depth).map(palette);
            chunk(&mut png, b"PLTE", &entries.clone().flat_map(|[r, g, b, _]| [r, g, b]).collect::<Vec<_>>());
            if shape.transparent {
                chunk(&mut png, b"tRNS", &entries.map(|entry| entry[3]).collect::<Vec<_>>());
            }
        } else if shape.transparent {
            let color: Vec<u8> = transparent_color(shape).iter().flat_map(|sample| sample.to_be_bytes()).collect();
            chunk(&mut png, b"tRNS", &color);
        }
        before.iter().for_each(|(kind, data)| chunk(&mut png, kind, data));
        // Several IDATs, the last one so short that the Adler-32 stands alone in it.
        let (most, last) = stream.split_at(stream.len().saturating_sub(4));
        most.chunks(1000).chain([last]).for_each(|part| chunk(&mut png, b"IDAT", part));
        chunk(&mut png, b"IEND", &[]);
        png
    }

    fn write(shape: Shape) -> Vec<u8> {
        write_with(shape, &[], &deflate(&rows(shape)))
    }

    fn decode(png: &[u8]) -> Result<Picture, PngError> {
        PngDecoder::new(Limits::default()).decode(png)
    }

    fn name(png: &[u8]) -> &'static str {
        match decode(png) {
            Ok(_) => "ok",
            Err(error) => error.name(),
        }
    }

    const RGB8: Shape = Shape { color: RGB, depth: 8, transparent: false, interlaced: false, size: (37, 29) };

    /// BT.709 limited (ITU-R BT.709-6, 3.2 to 3.5) in floats, chroma of 2x2 pixels averaged.
    fn expect_picture(picture: &Picture, size: (u32, u32), color: impl Fn(u32, u32) -> [f64; 3], what: &str) {
        let luma = |[r, g, b]: [f64; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b;
        let close = |got: u8, want: f64, plane: &str, x: u32, y: u32| {
            assert!((f64::from(got) - want).abs() <= 2.0, "{what}: {plane} at {x},{y} is {got}, not {want:.1}");
        };
        assert_eq!((picture.width(), picture.height()), size, "{what}");
        let [y_plane, u_plane, v_plane] = picture.planes();
        for y in 0..size.1 {
            for x in 0..size.0 {
                let want = 16.0 + luma(color(x, y)) * 219.0 / 255.0;
                close(y_plane[(y * size.0 + x) as usize], want, "Y", x, y);
            }
        }
        for y in 0..picture.chroma_height() {
            for x in 0..picture.chroma_width() {
                let mut mean = [0.0; 3];
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let rgb = color((2 * x + dx).min(size.0 - 1), (2 * y + dy).min(size.1 - 1));
                    (0..3).for_each(|i| mean[i] += rgb[i] / 4.0);
                }
                let at = (y * picture.chroma_width() + x) as usize;
                let scale = 224.0 / 255.0;
                close(u_plane[at], 128.0 + (mean[2] - luma(mean)) / 1.8556 * scale, "U", x, y);
                close(v_plane[at], 128.0 + (mean[0] - luma(mean)) / 1.5748 * scale, "V", x, y);
            }
        }
    }

    #[test]
    fn every_kind_of_png_gives_bt709() {
        let kinds: &[(u8, &[u8])] = &[
            (GRAY, &[1, 2, 4, 8, 16]),
            (RGB, &[8, 16]),
            (PALETTE, &[1, 2, 4, 8]),
            (GRAY_ALPHA, &[8, 16]),
            (RGBA, &[8, 16]),
        ];
        let mut decoder = PngDecoder::new(Limits::default());
        for &(color, depths) in kinds {
            for &depth in depths {
                for transparent in [false, true] {
                    if transparent && matches!(color, GRAY_ALPHA | RGBA) {
                        continue;
                    }
                    for interlaced in [false, true] {
                        for size in [(1, 1), (2, 2), (1, 7), (7, 1), (37, 29), (64, 48), (131, 17)] {
                            let shape = Shape { color, depth, transparent, interlaced, size };
                            let picture = decoder.decode(&write(shape)).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
                            expect_picture(&picture, size, |x, y| color_over_black(shape, x, y), &format!("{shape:?}"));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_other_encoders_write_is_read() {
        let size = (640, 360);
        let pixel = |x: u32, y: u32| [(x / 3) as u8, (y / 2) as u8, (noise(u64::from(x * y)) & 31) as u8, 255];
        let rgba = image::RgbaImage::from_fn(size.0, size.1, |x, y| image::Rgba(pixel(x, y)));
        let rgb = image::DynamicImage::from(rgba.clone()).to_rgb8();
        let rgb16 = image::DynamicImage::from(rgba.clone()).to_rgb16();
        for source in [image::DynamicImage::from(rgba), rgb.into(), rgb16.into()] {
            let mut png = io::Cursor::new(Vec::new());
            source.write_to(&mut png, image::ImageFormat::Png).unwrap();
            let color = |x, y| [0, 1, 2].map(|i: usize| f64::from(pixel(x, y)[i]));
            expect_picture(&decode(png.get_ref()).unwrap(), size, color, "image");
        }
    }

    #[test]
    fn every_bad_kind_has_its_name() {
        let good = write(RGB8);
        let stream = deflate(&rows(RGB8));
        let spoiled = |at: usize, bit: u8| {
            let mut png = good.clone();
            png[at] ^= bit;
            png
        };
        let size = |width, height| ihdr(Shape { size: (width, height), ..RGB8 });
        let mut bad_adler = stream.clone();
        *bad_adler.last_mut().unwrap() ^= 1;
        let fewer_rows = deflate(&rows(Shape { size: (37, 28), ..RGB8 }));
        let more_rows = deflate(&rows(Shape { size: (37, 30), ..RGB8 }));
        let animation: (&[u8; 4], &[u8]) = (b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]);
        let critical: (&[u8; 4], &[u8]) = (b"ABCD", &[1]);
        let second_header: (&[u8; 4], &[u8]) = (b"IHDR", &good[16..29]);
        let mut no_data = ihdr(RGB8);
        chunk(&mut no_data, b"IEND", &[]);
        let no_palette = write_with(Shape { color: PALETTE, ..RGB8 }, &[], &stream);
        let no_palette = [&no_palette[..HEADER_BYTES], &no_palette[HEADER_BYTES + 12 + 768..]].concat();
        for (png, expected) in [
            (b"GIF89a".to_vec(), "not_png"),
            (spoiled(0, 1), "not_png"),
            (spoiled(13, 1), "not_png"),
            (Vec::new(), "truncated"),
            (good[..20].to_vec(), "truncated"),
            (good[..HEADER_BYTES].to_vec(), "truncated"),
            (good[..good.len() / 2].to_vec(), "truncated"),
            (good[..good.len() - 1].to_vec(), "truncated"),
            (good[..good.len() - 12].to_vec(), "truncated"),
            (size(0, 5), "zero_size"),
            (size(5, 0), "zero_size"),
            (size(4097, 1), "too_large"),
            (size(1, 4097), "too_large"),
            (size(4096, 2161), "too_large"),
            (size(u32::MAX, u32::MAX), "too_large"),
            (spoiled(29, 1), "corrupt"),
            (spoiled(HEADER_BYTES + 8 + 500, 1), "corrupt"),
            (spoiled(HEADER_BYTES + 8 + 1000, 1), "corrupt"),
            (spoiled(good.len() - 1, 1), "corrupt"),
            (write_with(RGB8, &[], &bad_adler), "corrupt"),
            (write_with(RGB8, &[], &stream[..stream.len() - 4]), "truncated"),
            (write_with(RGB8, &[], &stream[..stream.len() / 2]), "truncated"),
            (write_with(RGB8, &[], &fewer_rows), "truncated"),
            (write_with(RGB8, &[], &more_rows), "corrupt"),
            (write_with(RGB8, &[], &[]), "truncated"),
            (write_with(RGB8, &[animation], &stream), "animated"),
            (write_with(RGB8, &[critical], &stream), "corrupt"),
            (write_with(RGB8, &[second_header], &stream), "corrupt"),
            (no_data, "corrupt"),
            (no_palette, "corrupt"),
            (write(Shape { depth: 4, ..RGB8 }), "corrupt"),
            ([&good[..], b"bytes of nobody"].concat(), "ok"),
            (good.clone(), "ok"),
        ] {
            assert_eq!(name(&png), expected, "{} bytes: {:?}", png.len(), decode(&png));
        }
    }

    #[test]
    fn a_palette_of_a_third_of_an_entry_never_panics() {
        for (entry_bytes, interlaced) in (1..=10).flat_map(|bytes| [(bytes, false), (bytes, true)]) {
            let shape = Shape { color: PALETTE, depth: 1, interlaced, ..RGB8 };
            let mut png = ihdr(shape);
            chunk(&mut png, b"PLTE", &vec![9; entry_bytes]);
            chunk(&mut png, b"IDAT", &deflate(&rows(shape)));
            chunk(&mut png, b"IEND", &[]);
            assert_eq!(name(&png), if entry_bytes % 3 == 0 { "ok" } else { "corrupt" }, "{entry_bytes} bytes");
        }
    }

    #[test]
    fn a_wrong_adler_is_found_whatever_the_size_and_the_interlacing() {
        for (width, height) in (1..40).map(|n| (n * 7, n * 5 % 23 + 1)) {
            for interlaced in [false, true] {
                let shape = Shape { size: (width, height), interlaced, ..RGB8 };
                let mut stream = deflate(&rows(shape));
                assert_eq!(name(&write_with(shape, &[], &stream)), "ok", "{shape:?}");
                assert_eq!(name(&write_with(shape, &[], &stream[..stream.len() - 1])), "truncated", "{shape:?}");
                *stream.last_mut().unwrap() ^= 0x80;
                assert_eq!(name(&write_with(shape, &[], &stream)), "corrupt", "{shape:?}");
            }
        }
    }

    #[test]
    fn a_bomb_in_a_chunk_that_is_not_ours_is_never_inflated() {
        let bomb = deflate(&vec![0; 8 << 20]);
        for (kind, start) in [(b"iCCP", &b"x\0\0"[..]), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\x01\0\0\0")] {
            let data = [start, &bomb].concat();
            let png = write_with(RGB8, &[(kind, &data)], &deflate(&rows(RGB8)));
            assert_eq!(decode(&png), decode(&write(RGB8)), "{kind:?}");
            // What `png` has not even kept, it cannot inflate.
            let reader = open(io::Cursor::new(&png)).unwrap();
            let (profile, info) = (&reader.info().icc_profile, reader.info());
            assert!(profile.is_none() && info.compressed_latin1_text.is_empty() && info.utf8_text.is_empty());
        }
    }

    #[test]
    fn chunks_that_do_not_touch_pixels_are_ignored() {
        let gamma: (&[u8; 4], &[u8]) = (b"gAMA", &1_000_u32.to_be_bytes());
        let broken: (&[u8; 4], &[u8]) = (b"pHYs", &[1, 2, 3]);
        let unknown: (&[u8; 4], &[u8]) = (b"abCd", &[7; 5000]);
        let stream = deflate(&rows(RGB8));
        assert_eq!(decode(&write_with(RGB8, &[gamma, broken, unknown], &stream)), decode(&write(RGB8)));
    }

    #[test]
    fn the_header_says_what_decoding_will_cost() {
        let png = ihdr(Shape { size: (640, 360), ..RGB8 });
        let read = header(&png[..HEADER_BYTES]).unwrap();
        assert_eq!((read.width, read.height, read.interlaced), (640, 360, false));
        assert_eq!(read.bytes_when_decoded, 345_600 + 16 * 640 * 4 + INFLATER_BYTES);
        let interlaced = header(&ihdr(Shape { size: (640, 360), interlaced: true, ..RGB8 })).unwrap();
        assert_eq!(interlaced.bytes_when_decoded, 345_600 + 640 * 360 * 4 + INFLATER_BYTES);
        assert_eq!(header(&ihdr(Shape { size: (4096, 2160), ..RGB8 })).unwrap().width, 4096);
        let tight = Limits { side_max: 639, ..Limits::default() };
        assert_eq!(header_within(&png, &tight), Err(PngError::TooLarge { width: 640, height: 360 }));
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, expected) in [
            ("", Ok(&b""[..])),
            ("aGVsbG8=", Ok(b"hello")),
            ("aGVsbG8", Ok(b"hello")),
            ("aGVsbA==", Ok(b"hell")),
            ("aGVsbA", Ok(b"hell")),
            ("+/+/", Ok(&[0xfb, 0xff, 0xbf])),
            ("aGVsbA=", Err(PngError::BadBase64)),
            ("aGVsbG8==", Err(PngError::BadBase64)),
            ("aGVs=G8=", Err(PngError::BadBase64)),
            ("-_-_", Err(PngError::BadBase64)),
            ("aGVs bG8=", Err(PngError::BadBase64)),
            ("aGVsé===", Err(PngError::BadBase64)),
            ("a", Err(PngError::BadBase64)),
        ] {
            let mut bytes = b"left over".to_vec();
            assert_eq!(decode_base64(text.as_bytes(), &mut bytes).map(|()| &bytes[..]), expected, "{text}");
        }
        assert_eq!(base64_prefix("aGVsbG8=", 3).unwrap(), b"hel");
        assert_eq!(base64_prefix("aGVsbG8=", 4).unwrap(), b"hello");
        assert_eq!(base64_prefix("aGVsbG8=", 33).unwrap(), b"hello");
        assert_eq!(base64_prefix("aGVéé", 3), Err(PngError::BadBase64));
    }

    fn any_shape() -> impl Strategy<Value = Shape> {
        let kinds = prop_oneof![
            (Just(GRAY), prop_oneof![Just(1_u8), Just(2), Just(4), Just(8), Just(16)]),
            (Just(PALETTE), prop_oneof![Just(1_u8), Just(2), Just(4), Just(8)]),
            (prop_oneof![Just(RGB), Just(GRAY_ALPHA), Just(RGBA)], prop_oneof![Just(8_u8), Just(16)]),
        ];
        (kinds, any::<bool>(), any::<bool>(), (1_u32..50, 1_u32..50)).prop_map(
            |((color, depth), transparent, interlaced, size)| {
                let transparent = transparent && matches!(color, GRAY | RGB | PALETTE);
                Shape { color, depth, transparent, interlaced, size }
            },
        )
    }

    /// Makes every CRC right again, so that damage reaches what lies behind it.
    fn mend_checksums(png: &mut [u8]) {
        let mut at = SIGNATURE.len();
        while let Some(start) = png.get(at..at + 8) {
            let end = at + 8 + word(start, 0) as usize;
            if end + 4 > png.len() {
                return;
            }
            let crc = crc32fast::hash(&png[at + 4..end]);
            png[end..end + 4].copy_from_slice(&crc.to_be_bytes());
            at = end + 4;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..Default::default() })]

        #[test]
        fn damage_never_panics(
            shape in any_shape(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
            mend in any::<bool>(),
        ) {
            let mut png = write(shape);
            let whole = png.clone();
            for (at, bits) in flips {
                let at = at.index(png.len());
                png[at] ^= bits;
            }
            if mend {
                mend_checksums(&mut png);
            }
            if let Some(cut) = cut {
                png.truncate(cut.index(png.len()));
            }
            if let Ok(picture) = decode(&png) {
                let header = header(&png).unwrap();
                prop_assert_eq!((picture.width(), picture.height()), (header.width, header.height));
                prop_assert!(mend || png == whole, "damage without mended checksums was not seen");
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), with_header in any::<bool>()) {
            let png = if with_header { [ihdr(RGB8), bytes].concat() } else { bytes };
            let _ = header(&png);
            prop_assert!(decode(&png).is_err());
        }
    }
}
