//! What tilecast needs of FFmpeg beyond the safe calls of `ffmpeg-next`, and a reader of video files ([`PictureReader`]).
//!
//! All `unsafe` of FFmpeg's stands here. It knows nothing of the pipeline: which options an encoder gets is decided in
//! `pipeline/encode`.

#![expect(
    unsafe_code,
    reason = "leftover options, extradata, writable buffers and colours are reached through FFmpeg's C API only"
)]

mod reader;

pub use reader::{PictureReader, ReadError};

use std::ffi::CStr;
use std::sync::Once;

use ffmpeg_next as ff;
use ffmpeg_next::ffi;

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
