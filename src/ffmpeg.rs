//! What tilecast needs of FFmpeg beyond the safe calls of `ffmpeg-next`, and a reader of video files.
//!
//! The only file with `unsafe`. It knows nothing of the pipeline: which options an encoder gets is decided in
//! `pipeline/encode`.

#![expect(
    unsafe_code,
    reason = "leftover options, extradata, writable buffers and colours are reached through FFmpeg's C API only"
)]

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

/// Opens an encoder and gives back what FFmpeg left of the options: an option that no one consumed has no effect,
/// and is still in the dictionary afterwards.
///
/// Errors are FFmpeg's own, with the options that were left at that point lost.
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
