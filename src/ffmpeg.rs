//! What tilecast needs of FFmpeg beyond the safe calls of `ffmpeg-next`, and a reader of video files.
//!
//! The only file with `unsafe`. It knows nothing of the pipeline: which options an encoder gets is decided in
//! `pipeline/encode`.

#![expect(
    unsafe_code,
    reason = "leftover options, extradata, writable buffers and colours are reached through FFmpeg's C API only"
)]

use std::ffi::CStr;
use std::sync::Once;

use ffmpeg_next as ff;
use ffmpeg_next::ffi;

use crate::media::{Micros, Picture};

/// Makes FFmpeg print nothing. FFmpeg logs to stderr by itself; here every failure is a value instead.
/// Cheap and idempotent: whoever touches FFmpeg calls it first.
pub fn quiet() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        ff::util::error::register_all();
        ff::log::set_level(ff::log::Level::Quiet);
    });
}

/// Opens an encoder and gives back what FFmpeg left of the options: those have no effect. Errors are FFmpeg's own.
pub fn open_encoder(
    mut context: ff::encoder::video::Video,
    codec: ff::Codec,
    options: ff::Dictionary<'_>,
) -> Result<(ff::encoder::video::Encoder, Vec<String>), ff::Error> {
    // SAFETY: the context is allocated and unopened, the codec is static. The dictionary is given away before the call
    // and taken back after it, as FFmpeg replaces it with the options left over.
    let (code, left) = unsafe {
        let mut left = options.disown();
        let code = ffi::avcodec_open2(context.as_mut_ptr(), codec.as_ptr(), &mut left);
        (code, ff::Dictionary::own(left))
    };
    if code < 0 {
        return Err(ff::Error::from(code));
    }
    let left = left.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok((ff::encoder::video::Encoder(context), left))
}

/// The headers that an encoder with `GLOBAL_HEADER` made when it was opened; empty without.
pub fn extradata(context: &ff::codec::Context) -> &[u8] {
    // SAFETY: FFmpeg keeps `extradata_size` readable bytes there until the context is freed, which the borrow outlives.
    unsafe {
        let context = &*context.as_ptr();
        match usize::try_from(context.extradata_size) {
            Ok(size) if !context.extradata.is_null() => std::slice::from_raw_parts(context.extradata, size),
            _ => &[],
        }
    }
}

/// Says where the chroma samples lie: left, as MPEG-2 has them and H.264 assumes.
pub fn set_chroma_left(context: &mut ff::codec::Context) {
    // SAFETY: a plain field of an allocated context.
    unsafe { (*context.as_mut_ptr()).chroma_sample_location = ffi::AVChromaLocation::AVCHROMA_LOC_LEFT }
}

/// A buffer for a picture, to be written again and again.
pub struct Surface(ff::frame::Video);

impl Surface {
    /// Allocates an I420 buffer. Fails when memory is short.
    pub fn new(width: u32, height: u32) -> Result<Surface, ff::Error> {
        let buffer = ff::frame::Video::new(ff::format::Pixel::YUV420P, width, height);
        // SAFETY: `new` gives an allocated AVFrame, whose data pointer is null when its buffer could not be had.
        if unsafe { buffer.is_empty() } {
            return Err(ff::Error::Other { errno: ff::error::ENOMEM });
        }
        Ok(Surface(buffer))
    }

    /// Copies planes without padding (Y, U, V) into the buffer, after making sure that FFmpeg no longer reads it.
    ///
    /// # Panics
    /// When the planes are shorter than the buffer's rows need: a bug of the caller.
    pub fn write(&mut self, planes: [&[u8]; 3]) -> Result<(), ff::Error> {
        // SAFETY: an allocated AVFrame with buffers of its own.
        let code = unsafe { ffi::av_frame_make_writable(self.0.as_mut_ptr()) };
        if code < 0 {
            return Err(ff::Error::from(code));
        }
        for (index, plane) in planes.into_iter().enumerate() {
            let width = self.0.plane_width(index) as usize;
            let height = self.0.plane_height(index) as usize;
            let stride = self.0.stride(index);
            assert_eq!(plane.len(), width * height, "plane {index} of the picture");
            let rows = self.0.data_mut(index).chunks_mut(stride);
            for (to, from) in rows.zip(plane.chunks_exact(width)) {
                to[..width].copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// The buffer as FFmpeg takes it; time and kind are set on it.
    pub fn get_mut(&mut self) -> &mut ff::frame::Video {
        &mut self.0
    }
}

/// The rows of one plane of an I420 buffer of FFmpeg, without padding.
pub fn rows(buffer: &ff::frame::Video, plane: usize) -> impl Iterator<Item = &[u8]> {
    let width = buffer.plane_width(plane) as usize;
    buffer.data(plane).chunks(buffer.stride(plane)).map(move |row| &row[..width])
}

/// What a [`Scaler`] takes.
#[derive(Clone, Copy, PartialEq)]
pub struct Source {
    /// How samples are stored.
    pub format: ff::format::Pixel,
    /// Luma samples in a row.
    pub width: u32,
    /// Luma rows.
    pub height: u32,
    /// Whether luma runs from 0 to 255 instead of 16 to 235.
    pub full_range: bool,
}

/// swscale for one pair of sizes: bicubic, into I420 of limited range with chroma sited left. The colour matrix stays.
pub struct Scaler {
    context: *mut ffi::SwsContext,
    source: Source,
    output: ff::frame::Video,
}

// SAFETY: the context is owned, used through `&mut` only, and not bound to the thread that made it.
unsafe impl Send for Scaler {}

impl Scaler {
    /// Prepares scaling to `width` x `height`. Fails for sizes and formats that swscale does not take.
    pub fn new(source: Source, width: u32, height: u32) -> Result<Scaler, ff::Error> {
        quiet();
        let output = Surface::new(width, height)?.0;
        // SAFETY: plain allocation; null is checked below.
        let context = unsafe { ffi::sws_alloc_context() };
        if context.is_null() {
            return Err(ff::Error::Other { errno: ff::error::ENOMEM });
        }
        // From here on dropped, and so freed, on every path.
        let scaler = Scaler { context, source, output };
        let options: [(&CStr, i64); 11] = [
            (c"srcw", source.width.into()),
            (c"srch", source.height.into()),
            (c"src_format", ffi::AVPixelFormat::from(source.format) as i64),
            (c"src_range", source.full_range.into()),
            (c"src_h_chr_pos", 0),
            (c"dstw", width.into()),
            (c"dsth", height.into()),
            (c"dst_format", ffi::AVPixelFormat::from(ff::format::Pixel::YUV420P) as i64),
            (c"dst_range", 0),
            (c"dst_h_chr_pos", 0),
            (c"sws_flags", (ffi::SWS_BICUBIC | ffi::SWS_ACCURATE_RND).into()),
        ];
        for (name, value) in options {
            // SAFETY: the context starts with its AVClass, as av_opt_set_int wants; the name ends with a zero byte.
            let code = unsafe { ffi::av_opt_set_int(context.cast(), name.as_ptr(), value, 0) };
            if code < 0 {
                return Err(ff::Error::from(code));
            }
        }
        // SAFETY: allocated, its options set, not yet initialised; filters may be null.
        let code = unsafe { ffi::sws_init_context(context, std::ptr::null_mut(), std::ptr::null_mut()) };
        if code < 0 { Err(ff::Error::from(code)) } else { Ok(scaler) }
    }

    /// What it takes, and the size that it makes of it.
    pub fn definition(&self) -> (Source, u32, u32) {
        (self.source, self.output.width(), self.output.height())
    }

    /// Scales one picture, which must be as the scaler's source says. The result stays until the next call.
    pub fn scale(&mut self, input: &ff::frame::Video) -> Result<&ff::frame::Video, ff::Error> {
        let Source { format, width, height, .. } = self.source;
        if (input.format(), input.width(), input.height()) != (format, width, height) {
            return Err(ff::Error::InputChanged);
        }
        // SAFETY: an allocated AVFrame; data is null when it holds no picture.
        if unsafe { input.is_empty() } {
            return Err(ff::Error::InvalidData);
        }
        // SAFETY: both buffers are FFmpeg's own, padded as swscale wants, of the sizes and formats of the context.
        let code = unsafe {
            let (from, to) = (&*input.as_ptr(), &*self.output.as_mut_ptr());
            ffi::sws_scale(
                self.context,
                from.data.as_ptr().cast(),
                from.linesize.as_ptr(),
                0,
                from.height,
                to.data.as_ptr(),
                to.linesize.as_ptr(),
            )
        };
        if code < 0 { Err(ff::Error::from(code)) } else { Ok(&self.output) }
    }
}

impl Drop for Scaler {
    fn drop(&mut self) {
        // SAFETY: from sws_alloc_context, freed once.
        unsafe { ffi::sws_freeContext(self.context) }
    }
}

/// Why a video cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// That path or URL cannot be opened, or is no video that FFmpeg knows; in FFmpeg's words.
    #[error("cannot open {0} as a video: {1}")]
    Open(String, ff::Error),
    /// That path or URL holds no video stream.
    #[error("{0} holds no video stream")]
    NoVideo(String),
    /// A picture in it is broken.
    #[error("{source_name}: after picture {pictures}: {why}")]
    Decode {
        /// Path or URL.
        source_name: String,
        /// How many pictures came before.
        pictures: u64,
        /// FFmpeg's words.
        why: ff::Error,
    },
}

/// Reads the pictures of a video file or HLS playlist, one by one, in the order they are shown.
pub struct PictureReader {
    source_name: String,
    input: ff::format::context::Input,
    stream: usize,
    time_base: ff::Rational,
    decoder: ff::decoder::Video,
    scaler: Option<Scaler>,
    pictures: u64,
    drained: bool,
    ended: bool,
    strict: bool,
}

impl PictureReader {
    /// Opens a path or URL (MP4, m3u8, whatever FFmpeg reads) at its best video stream. A playlist is read from its
    /// first segment, live or not. What FFmpeg can conceal is concealed.
    pub fn open(source: &str) -> Result<PictureReader, ReadError> {
        PictureReader::open_with(source, ff::decoder::Check::empty(), false)
    }

    /// As [`PictureReader::open`], but what FFmpeg would conceal is an error: for reading back one's own output. Pictures
    /// in front of the first IDR never come, so their number is the caller's to check.
    pub fn open_strict(source: &str) -> Result<PictureReader, ReadError> {
        use ff::decoder::Check;
        PictureReader::open_with(source, Check::EXPLODE | Check::BITSTREAM | Check::BUFFER, true)
    }

    fn open_with(source: &str, check: ff::decoder::Check, strict: bool) -> Result<PictureReader, ReadError> {
        quiet();
        let refused = |why| ReadError::Open(source.to_owned(), why);
        // A zero byte in a path would be a panic inside ffmpeg-next.
        if source.contains('\0') {
            return Err(refused(ff::Error::Other { errno: ff::error::EINVAL }));
        }
        // Other demuxers leave this option alone.
        let options = [("live_start_index", "0")].iter().collect();
        let input = ff::format::input_with_dictionary(source, options).map_err(refused)?;
        let Some(best) = input.streams().best(ff::media::Type::Video) else {
            return Err(ReadError::NoVideo(source.to_owned()));
        };
        let (stream, time_base) = (best.index(), best.time_base());
        let mut decoder = ff::codec::Context::from_parameters(best.parameters()).map_err(refused)?.decoder();
        decoder.check(check);
        decoder.set_packet_time_base(time_base);
        let decoder = decoder.video().map_err(refused)?;
        Ok(PictureReader {
            source_name: source.to_owned(),
            input,
            stream,
            time_base,
            decoder,
            scaler: None,
            pictures: 0,
            drained: false,
            ended: false,
            strict,
        })
    }

    /// Luma samples in a row, by the stream's header; a picture may differ.
    pub fn width(&self) -> u32 {
        self.decoder.width()
    }

    /// Luma rows, by the stream's header; a picture may differ.
    pub fn height(&self) -> u32 {
        self.decoder.height()
    }

    fn read(&mut self) -> Result<Option<(Micros, Picture)>, ff::Error> {
        let mut shown = ff::frame::Video::empty();
        loop {
            match self.decoder.receive_frame(&mut shown) {
                Ok(()) => return self.take(&shown).map(Some),
                Err(ff::Error::Eof) => return Ok(None),
                Err(ff::Error::Other { errno: ff::error::EAGAIN }) if !self.drained => self.feed()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the decoder one packet, or the end.
    fn feed(&mut self) -> Result<(), ff::Error> {
        let mut packet = ff::Packet::empty();
        match packet.read(&mut self.input) {
            Ok(()) if packet.stream() != self.stream => Ok(()),
            Ok(()) => match self.decoder.send_packet(&packet) {
                Err(ff::Error::InvalidData) if !self.strict => Ok(()),
                sent => sent,
            },
            Err(ff::Error::Eof) => {
                self.drained = true;
                self.decoder.send_eof()
            }
            Err(error) => Err(error),
        }
    }

    fn take(&mut self, shown: &ff::frame::Video) -> Result<(Micros, Picture), ff::Error> {
        if self.strict && (shown.is_corrupt() || shown.has_decode_errors()) {
            return Err(ff::Error::InvalidData);
        }
        let pts = shown.timestamp().ok_or(ff::Error::InvalidData)?;
        let micros = i128::from(pts) * i128::from(self.time_base.numerator()) * 1_000_000
            / i128::from(self.time_base.denominator().max(1));
        let at = Micros(i64::try_from(micros).map_err(|_| ff::Error::InvalidData)?);
        let source = Source {
            format: shown.format(),
            width: shown.width(),
            height: shown.height(),
            full_range: shown.color_range() == ff::color::Range::JPEG,
        };
        // Some decoders give rows from the bottom up, with negative strides: swscale turns them.
        let upright = (0..shown.planes()).all(|plane| i32::try_from(shown.stride(plane)).is_ok());
        if source.format == ff::format::Pixel::YUV420P && !source.full_range && upright {
            return Ok((at, picture(shown)));
        }
        let wanted = (source, source.width, source.height);
        let scaler = match self.scaler.take() {
            Some(scaler) if scaler.definition() == wanted => scaler,
            _ => Scaler::new(source, source.width, source.height)?,
        };
        let scaler = self.scaler.insert(scaler);
        Ok((at, picture(scaler.scale(shown)?)))
    }
}

impl Iterator for PictureReader {
    /// When a picture is shown on the container's time line, and the picture as stored: no rotation, no square pixels
    /// made. Nothing comes after an error.
    type Item = Result<(Micros, Picture), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.read() {
            Ok(Some(next)) => {
                self.pictures += 1;
                Some(Ok(next))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(why) => {
                self.ended = true;
                Some(Err(ReadError::Decode { source_name: self.source_name.clone(), pictures: self.pictures, why }))
            }
        }
    }
}

/// Copies an I420 buffer of FFmpeg.
fn picture(shown: &ff::frame::Video) -> Picture {
    let mut data = Vec::with_capacity(Picture::bytes(shown.width(), shown.height()));
    for plane in 0..3 {
        rows(shown, plane).for_each(|row| data.extend_from_slice(row));
    }
    Picture::new(shown.width(), shown.height(), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURES: i64 = 7;

    /// Writes a video of 5 grey pictures a second that get brighter by 20, reordered (B pictures), starting at 2 s.
    fn write(path: &str, format: ff::format::Pixel, range: ff::color::Range) {
        quiet();
        let codec = ff::encoder::find_by_name("libx264").unwrap();
        let mut context = ff::codec::Context::new_with_codec(codec).encoder().video().unwrap();
        context.set_width(66);
        context.set_height(50);
        context.set_format(format);
        context.set_color_range(range);
        context.set_time_base((1, 5));
        context.set_flags(ff::codec::Flags::GLOBAL_HEADER);
        let options = [("bf", "2"), ("crf", "1"), ("x264-params", "b-adapt=0")].iter().collect();
        let (mut encoder, left) = open_encoder(context, codec, options).unwrap();
        assert!(left.is_empty() && !extradata(&encoder).is_empty());

        let mut output = ff::format::output(path).unwrap();
        let mut stream = output.add_stream(codec).unwrap();
        stream.set_parameters(&encoder);
        stream.set_time_base((1, 5));
        output.write_header().unwrap();
        let time_base = output.stream(0).unwrap().time_base();
        let mut drain = |encoder: &mut ff::encoder::video::Encoder| {
            let mut packet = ff::Packet::empty();
            while encoder.receive_packet(&mut packet).is_ok() {
                packet.set_stream(0);
                packet.set_duration(1);
                packet.rescale_ts((1, 5), time_base);
                packet.write_interleaved(&mut output).unwrap();
            }
        };
        for number in 0..PICTURES {
            let mut input = ff::frame::Video::new(format, 66, 50);
            (0..3).for_each(|plane| input.data_mut(plane).fill(if plane == 0 { 40 + 20 * number as u8 } else { 128 }));
            input.set_pts(Some(10 + number));
            encoder.send_frame(&input).unwrap();
            drain(&mut encoder);
        }
        encoder.send_eof().unwrap();
        drain(&mut encoder);
        output.write_trailer().unwrap();
    }

    #[test]
    fn pictures_come_in_order_with_their_times() {
        use ff::color::Range::{JPEG, MPEG};
        use ff::format::Pixel::{YUV420P, YUV444P};
        let dir = tempfile::tempdir().unwrap();
        for (name, format, range) in [
            ("plain.mp4", YUV420P, MPEG),
            ("list.m3u8", YUV420P, MPEG),
            ("444.mp4", YUV444P, MPEG),
            ("full.mp4", YUV420P, JPEG),
        ] {
            let path = dir.path().join(name).into_os_string().into_string().unwrap();
            write(&path, format, range);
            let reader = PictureReader::open_strict(&path).unwrap();
            assert_eq!((reader.width(), reader.height()), (66, 50));
            let shown: Vec<_> = reader.map(Result::unwrap).collect();
            let times: Vec<i64> = shown.iter().map(|(at, _)| at.0 - shown[0].0.0).collect();
            assert_eq!(times, (0..PICTURES).map(|number| number * 200_000).collect::<Vec<_>>(), "{name}");
            if name == "plain.mp4" {
                assert_eq!(shown[0].0, Micros(2_000_000));
            }
            for (number, (_, picture)) in shown.iter().enumerate() {
                assert_eq!((picture.width(), picture.height()), (66, 50));
                let [y, u, v] = picture.planes();
                let stored = 40 + 20 * number as i32;
                let wanted = if range == JPEG { 16 + stored * 219 / 255 } else { stored };
                assert!(y.iter().all(|sample| (i32::from(*sample) - wanted).abs() <= 2), "{name}: picture {number}");
                assert!([u, v].into_iter().flatten().all(|sample| sample.abs_diff(128) <= 1), "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).into_os_string().into_string().unwrap();
        let error = |path: &str| PictureReader::open(path).err().unwrap().to_string();
        assert!(error(&path("none.mp4")).ends_with("none.mp4 as a video: No such file or directory"));
        std::fs::write(path("text.mp4"), "no video at all\n".repeat(100)).unwrap();
        assert!(error(&path("text.mp4")).contains("text.mp4 as a video: "));
        assert!(error("zero\0byte").contains("as a video: "));
    }

    #[test]
    fn a_damaged_picture_is_an_error_when_strict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.mp4").into_os_string().into_string().unwrap();
        write(&path, ff::format::Pixel::YUV420P, ff::color::Range::MPEG);
        let mut bytes = std::fs::read(&path).unwrap();
        let media = bytes.windows(4).position(|four| four == b"mdat").unwrap() + 4;
        // Past x264's text and the header of the first slice.
        let slice = bytes[media..]
            .windows(3)
            .position(|three| three[0] == 0 && three[2] == 0x65)
            .map_or(media + 720, |at| media + at);
        bytes[slice + 8..slice + 60].fill(0x5a);
        std::fs::write(&path, bytes).unwrap();
        let outcome: Result<Vec<_>, _> = PictureReader::open_strict(&path).unwrap().collect();
        let error = outcome.err().unwrap().to_string();
        assert!(error.contains("damaged.mp4: after picture "), "{error}");
        assert!(PictureReader::open(&path).unwrap().all(|picture| picture.is_ok()), "concealed when not strict");
    }
}
