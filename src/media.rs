//! What flows through the pipeline: times, ticks, tracks, pictures, access units, and the words for what was lost.
//!
//! Plain data and integer arithmetic. No I/O, no clock, no codec.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Microseconds on a recording's time line; 0 is the recording's start (`timestamp.relative == 0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// One second.
    pub const SECOND: Micros = Micros(1_000_000);

    /// Whole seconds.
    pub const fn from_secs(secs: i64) -> Micros {
        Micros(secs * 1_000_000)
    }

    /// A float of seconds, as JSON carries it, rounded to a microsecond. `None` when it is not finite or farther
    /// than 100 years from zero.
    pub fn from_secs_f64(secs: f64) -> Option<Micros> {
        (secs.is_finite() && secs.abs() < 3.2e9).then(|| Micros((secs * 1e6).round() as i64))
    }

    /// Seconds as a float, for display and JSON only.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

impl From<Duration> for Micros {
    /// Whole microseconds; what is longer than 290,000 years is that long.
    fn from(time: Duration) -> Micros {
        Micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
    }
}

impl std::ops::Add for Micros {
    type Output = Micros;
    fn add(self, other: Micros) -> Micros {
        Micros(self.0 + other.0)
    }
}

impl std::ops::Sub for Micros {
    type Output = Micros;
    fn sub(self, other: Micros) -> Micros {
        Micros(self.0 - other.0)
    }
}

/// Index on the recording's grid: tick n starts n / fps seconds after the recording's start.
pub type Tick = i64;

/// Media units of one tick: every sample lasts this long on a timescale of `1000 * fps`.
pub const TICK_UNITS: i64 = 1000;

/// The recording's grid: every track of a recording cuts its parts and segments at the same ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    /// Pictures a second, 1..=30.
    pub fps: u32,
    /// Ticks of a part.
    pub part_ticks: u32,
    /// Ticks of a segment cell, a multiple of `part_ticks`.
    pub segment_ticks: u32,
}

impl Grid {
    /// The time at which `tick` starts.
    pub fn time_of(&self, tick: Tick) -> Micros {
        Micros(tick * 1_000_000 / i64::from(self.fps))
    }

    /// The tick in whose span `at` lies (floor).
    pub fn tick_at(&self, at: Micros) -> Tick {
        (at.0 * i64::from(self.fps)).div_euclid(1_000_000)
    }

    /// The first tick that starts at or after `at` (ceiling).
    pub fn tick_from(&self, at: Micros) -> Tick {
        -(-at.0 * i64::from(self.fps)).div_euclid(1_000_000)
    }

    /// How many whole ticks fit into `span`.
    pub fn ticks_in(&self, span: Micros) -> Tick {
        self.tick_at(span)
    }

    /// The number of the segment cell that holds `tick`.
    pub fn segment_of(&self, tick: Tick) -> i64 {
        tick.div_euclid(i64::from(self.segment_ticks))
    }

    /// The tick after the last one of the segment cell that holds `tick`.
    pub fn segment_end(&self, tick: Tick) -> Tick {
        (self.segment_of(tick) + 1) * i64::from(self.segment_ticks)
    }

    /// The tick after the last one of the part cell that holds `tick`.
    pub fn part_end(&self, tick: Tick) -> Tick {
        let part = i64::from(self.part_ticks);
        (tick.div_euclid(part) + 1) * part
    }

    /// Units of a second in the media files.
    pub fn timescale(&self) -> u32 {
        1000 * self.fps
    }
}

/// What a track shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A participant's camera.
    Webcam,
    /// A participant's shared screen.
    Screenshare,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 2] = [Kind::Webcam, Kind::Screenshare];

    /// The name in keys, labels and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Webcam => "webcam",
            Kind::Screenshare => "screenshare",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The size of a track's pictures: even in both directions, fixed by its first picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Canvas {
    /// Luma samples in a row.
    pub width: u32,
    /// Luma rows.
    pub height: u32,
}

/// A decoded capture: I420, BT.709 limited range, planes one after the other without padding.
///
/// Luma is `width * height` bytes, each chroma plane `ceil(width / 2) * ceil(height / 2)`, sited left (MPEG-2).
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl Picture {
    /// Takes planes Y, U, V in one buffer of exactly [`Picture::bytes`] bytes.
    ///
    /// # Panics
    /// When the buffer has another length: a bug of the caller.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Picture {
        assert_eq!(data.len(), Picture::bytes(width, height), "planes of a {width}x{height} picture");
        Picture { width, height, data }
    }

    /// A black picture.
    pub fn black(width: u32, height: u32) -> Picture {
        let luma = width as usize * height as usize;
        let mut data = vec![128; Picture::bytes(width, height)];
        data[..luma].fill(16);
        Picture { width, height, data }
    }

    /// Bytes of the three planes of a picture of that size.
    pub fn bytes(width: u32, height: u32) -> usize {
        let (w, h) = (width as usize, height as usize);
        w * h + 2 * w.div_ceil(2) * h.div_ceil(2)
    }

    /// Luma samples in a row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Luma rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Chroma samples in a row.
    pub fn chroma_width(&self) -> u32 {
        self.width.div_ceil(2)
    }

    /// Chroma rows.
    pub fn chroma_height(&self) -> u32 {
        self.height.div_ceil(2)
    }

    /// The planes Y, U, V.
    pub fn planes(&self) -> [&[u8]; 3] {
        let (y, uv) = self.data.split_at(self.width as usize * self.height as usize);
        let (u, v) = uv.split_at(uv.len() / 2);
        [y, u, v]
    }

    /// The planes Y, U, V, to be written.
    pub fn planes_mut(&mut self) -> [&mut [u8]; 3] {
        let (y, uv) = self.data.split_at_mut(self.width as usize * self.height as usize);
        let half = uv.len() / 2;
        let (u, v) = uv.split_at_mut(half);
        [y, u, v]
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// One encoded picture: H.264 NAL units with 4-byte lengths in front (ISO/IEC 14496-15, 5.3), slices only:
/// parameter sets, SEI and delimiters are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// The NAL units with their lengths.
    pub data: Vec<u8>,
    /// Whether it is an IDR, after which nothing refers to what came before.
    pub idr: bool,
}

/// The parameter sets of an encoder: NAL units without start code or length.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ParameterSets {
    /// Sequence parameter set.
    pub sps: Vec<u8>,
    /// Picture parameter set.
    pub pps: Vec<u8>,
}

impl ParameterSets {
    /// The name of the codec for playlists and players (RFC 6381), `avc1.640015`.
    pub fn codecs(&self) -> String {
        match self.sps.get(1..4) {
            Some([profile, constraints, level]) => format!("avc1.{profile:02X}{constraints:02X}{level:02X}"),
            _ => "avc1".to_owned(),
        }
    }
}

/// Why a tick range of a track has no pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Before the track's first picture, or after the participant left.
    NotJoined,
    /// The participant turned the camera or the share off.
    CameraOff,
    /// The recording was paused.
    Paused,
    /// No socket of the recording was connected.
    Disconnected,
    /// The server was not running.
    ServerDown,
    /// Captures were shed under load.
    Overloaded,
    /// The disk spool was full.
    SpoolFull,
    /// Captures came, and none could be decoded.
    Undecodable,
    /// The source was on, and sent nothing; also any reason that only another version of the program knows.
    #[serde(other)]
    Unknown,
}

/// Why a capture that was received is not in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiscardReason {
    /// Sent again: the same moment was placed already.
    Duplicate,
    /// A second picture for one tick: the source ran faster than the grid.
    Merged,
    /// Its tick was written before it came.
    Late,
    /// Its time lies before the recording's start.
    BeforeStart,
    /// Its time is not believable.
    BadTimestamp,
    /// Base64 or PNG was broken.
    Undecodable,
    /// Dropped on purpose under load.
    Shed,
    /// The disk spool was full.
    SpoolFull,
    /// Its recording or track was deleted.
    Deleted,
    /// Under 64 on a side, too small to be a picture: what a source sends while it is off.
    Placeholder,
    /// The encoder failed.
    EncoderFailed,
}

impl GapReason {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            GapReason::NotJoined => "not_joined",
            GapReason::CameraOff => "camera_off",
            GapReason::Paused => "paused",
            GapReason::Disconnected => "disconnected",
            GapReason::ServerDown => "server_down",
            GapReason::Overloaded => "overloaded",
            GapReason::SpoolFull => "spool_full",
            GapReason::Undecodable => "undecodable",
            GapReason::Unknown => "unknown",
        }
    }
}

impl DiscardReason {
    /// Every reason, for metrics that show zeros.
    pub const ALL: [DiscardReason; 11] = [
        DiscardReason::Duplicate,
        DiscardReason::Merged,
        DiscardReason::Late,
        DiscardReason::BeforeStart,
        DiscardReason::BadTimestamp,
        DiscardReason::Undecodable,
        DiscardReason::Shed,
        DiscardReason::SpoolFull,
        DiscardReason::Deleted,
        DiscardReason::Placeholder,
        DiscardReason::EncoderFailed,
    ];

    /// The name in JSON and labels.
    pub fn name(self) -> &'static str {
        match self {
            DiscardReason::Duplicate => "duplicate",
            DiscardReason::Merged => "merged",
            DiscardReason::Late => "late",
            DiscardReason::BeforeStart => "before_start",
            DiscardReason::BadTimestamp => "bad_timestamp",
            DiscardReason::Undecodable => "undecodable",
            DiscardReason::Shed => "shed",
            DiscardReason::SpoolFull => "spool_full",
            DiscardReason::Deleted => "deleted",
            DiscardReason::Placeholder => "placeholder",
            DiscardReason::EncoderFailed => "encoder_failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_cuts_at_whole_cells() {
        let grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 12 };
        assert_eq!(grid.time_of(3), Micros(1_500_000));
        assert_eq!(grid.tick_at(Micros(1_499_999)), 2);
        assert_eq!(grid.tick_from(Micros(1_499_999)), 3);
        assert_eq!(grid.tick_from(Micros(1_500_000)), 3);
        assert_eq!((grid.segment_of(11), grid.segment_of(12)), (0, 1));
        assert_eq!((grid.segment_end(0), grid.segment_end(12)), (12, 24));
        assert_eq!((grid.part_end(0), grid.part_end(1), grid.part_end(2)), (2, 2, 4));
    }

    #[test]
    fn reasons_have_the_names_of_their_json() {
        for reason in DiscardReason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.name()));
        }
    }
}
