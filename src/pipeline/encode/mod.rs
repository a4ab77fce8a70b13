//! Picture -> access unit: the encoder behind a trait, its settings, and prepared filler.

pub mod canvas;
pub mod filler;
pub mod nal;
pub mod skip;
#[cfg(test)]
mod testing;
pub mod x264;

use serde::{Deserialize, Serialize};

use crate::config::Config;
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
    /// CABAC, or else CAVLC: a field of the PPS, as no other of these is. Recordings of earlier versions have CAVLC.
    #[serde(default)]
    pub cabac: bool,
    /// Whether the pictures are screens, not cameras.
    #[serde(default)]
    pub screen: bool,
    /// Whether it is to save work where that costs little: what overload asks for. No choice of a recording.
    #[serde(skip)]
    pub cheaper: bool,
}

/// Why these: `benches/encoder.py` measures every preset and single options at 2 pictures a second (the last run is in
/// `benches/RESULTS.md`). Against superfast, at equal SSIM of 640x360 cameras, with CABAC as all of them but one:
///
/// | options | work | bytes |
/// |---|---|---|
/// | ultrafast | 0.76 | +67 % |
/// | superfast with CAVLC | 0.87 | +11 % |
/// | superfast with `partitions=i8x8`, which is picked | 0.88 | -2 % |
/// | superfast | 1 | |
/// | superfast as FFmpeg has it by default | 1.35 | +6 % |
/// | veryfast | 1.6 | -5 % |
/// | medium | 3.9 | -12 % |
///
/// CABAC takes a tenth more of the whole server's CPU than CAVLC and an eighth of the bytes off, which are stored and sent for
/// longer than they are encoded.
///
/// x264 aims lower quantisers the longer a picture is shown: with crf 23 nearly all is at `qpmin`. At 20 instead of 10
/// a picture takes a third fewer bytes, and text of 14 pixels stays sharp.
impl Default for EncoderSettings {
    fn default() -> EncoderSettings {
        let preset = "superfast".to_owned();
        EncoderSettings { preset, crf: 23, qpmin: 20, fps: 2, cabac: true, screen: false, cheaper: false }
    }
}

impl EncoderSettings {
    /// What the options say: for webcams, for screenshares.
    pub fn of(config: &Config) -> [EncoderSettings; 2] {
        let camera = EncoderSettings {
            preset: config.preset.clone(),
            crf: config.quality,
            qpmin: config.qpmin,
            fps: config.fps,
            cabac: !config.cavlc,
            screen: false,
            cheaper: false,
        };
        let screen =
            EncoderSettings { crf: config.screen_quality, qpmin: config.screen_qpmin, screen: true, ..camera.clone() };
        [camera, screen]
    }

    /// The same for less work. The parameter sets are those of every preset.
    pub fn cheaper(&self) -> EncoderSettings {
        EncoderSettings { cheaper: true, ..self.clone() }
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
