//! Picture -> access unit: the encoder behind a trait, its settings, and prepared filler.

pub mod canvas;
pub mod filler;
pub mod nal;
pub mod skip;
#[cfg(test)]
mod testing;
pub mod x264;

use serde::{Deserialize, Serialize};

use crate::media::{AccessUnit, ParameterSets, Picture};

/// What an encoder of the server may be asked for. Fixed for a recording by its first writer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EncoderSettings {
    /// x264 preset, `ultrafast` to `medium`; none of them changes the parameter sets.
    pub preset: String,
    /// Constant rate factor, 1 (best) to 51.
    pub crf: u8,
    /// The quantiser never falls below this: at 2 fps stills would otherwise fall to QP 1.
    pub qpmin: u8,
    /// Pictures a second.
    pub fps: u32,
}

/// Measured with x264 164 on one core, two natural scenes at 640x360 and slides of small text at 1280x720, at 2 fps and
/// an IDR every 12 pictures. Of the 6 ms that a picture may cost the whole server, encoding takes 1.8:
///
/// | preset | ms, natural | kB a picture | luma PSNR | ms, slides |
/// |---|---|---|---|---|
/// | ultrafast | 1.1-1.4 | 33, 18 | 41.6, 45.8 | |
/// | superfast | 1.7-2.0 | 19, 11 | 40.9, 45.4 | 3.2 |
/// | veryfast | 3.3-3.4 | 19, 11 | 41.0, 45.5 | |
/// | faster | 6-8 | 19, 11 | 41.2, 45.8 | |
/// | fast, medium | 8-12 | 19, 11 | 41.3, 45.9 | 17 |
///
/// x264 aims lower quantisers the longer a picture is shown: with crf 23 nearly all is at `qpmin`. At 20 instead of 10
/// a picture takes a third fewer bytes and a still one 12 to 45 bytes instead of 600 to 4,000, and text of 14 pixels
/// stays sharp. From crf 26 on the first picture of a still scene is coarser and is then refined picture by picture,
/// which saves nothing on slides.
impl Default for EncoderSettings {
    fn default() -> EncoderSettings {
        EncoderSettings { preset: "superfast".to_owned(), crf: 23, qpmin: 20, fps: 2 }
    }
}

impl EncoderSettings {
    /// The same with the preset that costs least. The parameter sets are those of every preset.
    pub fn cheapest(&self) -> EncoderSettings {
        EncoderSettings { preset: x264::PRESETS[0].to_owned(), ..self.clone() }
    }
}

/// Turns pictures of one canvas into access units, one for one and in order.
pub trait Encoder: Send {
    /// Encodes a picture, which must be of the canvas's size. The first is an IDR, asked for or not.
    fn encode(&mut self, picture: &Picture, idr: bool) -> Result<AccessUnit, EncodeError>;

    /// Shows the last picture again: bit by bit the same, unless an IDR is asked for. An error before the first picture.
    fn repeat(&mut self, idr: bool) -> Result<AccessUnit, EncodeError>;

    /// The parameter sets that every access unit refers to.
    fn parameter_sets(&self) -> &ParameterSets;
}

/// Why there is no access unit. Every kind is fatal to the encoder, none to the process.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No encoder of that name, or it refused the settings.
    #[error("cannot open libx264 for {width}x{height}: {why}")]
    Open {
        /// Luma samples in a row.
        width: u32,
        /// Luma rows.
        height: u32,
        /// FFmpeg's words.
        why: String,
    },
    /// A setting out of its range.
    #[error("encoder settings: {0}")]
    Settings(String),
    /// FFmpeg did not consume an option, so the option has no effect.
    #[error("libx264 does not know these options: {0}")]
    UnknownOptions(String),
    /// The encoder's headers are not what the stream needs.
    #[error("unusable parameter sets: {0}")]
    ParameterSets(&'static str),
    /// A picture of another size than the canvas.
    #[error("a picture of {got_width}x{got_height} for a canvas of {width}x{height}")]
    Size {
        /// The picture's.
        got_width: u32,
        /// The picture's.
        got_height: u32,
        /// The canvas's.
        width: u32,
        /// The canvas's.
        height: u32,
    },
    /// An encoder that delays or reorders, or gave no access unit for a picture.
    #[error("the encoder gave {0} access units for one picture")]
    Delayed(usize),
    /// FFmpeg failed.
    #[error("libx264 failed: {0}")]
    Failed(String),
}
