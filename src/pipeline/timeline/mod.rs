//! Captures -> ticks: placing, holds, gaps and the recording's clock. Pure: integer time, no clock, no I/O.
//!
//! [`place`] decides which tick a capture takes, [`drift`] when a lane has to move by a tick, [`holes`] what the ticks
//! without a picture show, [`clock`] how far the recording has come. Nothing here decodes, encodes or counts.

pub mod clock;
mod drift;
mod holes;
mod place;
#[cfg(test)]
mod tests;

use crate::media::{DiscardReason, GapReason, Grid, Micros, Tick};

pub use place::Timeline;

/// One tick in micro-ticks: `Micros * fps` is a time in this unit, exactly.
const TICK: i64 = 1_000_000;

/// The figures a lane's timeline goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The recording's grid.
    pub grid: Grid,
    /// A tick without a picture is given up this long after its start, by the recording's clock.
    pub settle: Micros,
    /// The longest time a picture is shown again while its source is on.
    pub hold: Micros,
    /// How long a picture is shown again after the socket was lost.
    pub hold_after_loss: Micros,
    /// How much of a gap is filled live; beyond that the epoch ends.
    pub live_fill: Micros,
}

/// When a capture was taken, and its number in the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The capture's sequence number in the lane.
    pub capture: u64,
    /// Its time on the recording's time line.
    pub at: Micros,
}

/// What the source did at a time on the recording's time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It was turned on.
    On,
    /// It was turned off, or left, for that reason.
    Off(GapReason),
    /// The socket that carried it closed.
    SocketLost,
    /// A socket carries it again.
    SocketBack,
    /// A capture was shed under load.
    Shed,
    /// A capture could not be decoded.
    Undecodable,
    /// A capture was a placeholder: the source is off, unless that is known for a better reason.
    Placeholder,
}

/// What becomes of a run of ticks, or of a capture.
///
/// `Picture`, `Held` and `Gap` come in tick order without a break from the first tick on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<P> {
    /// Encode this picture at this tick.
    Picture {
        /// The tick it takes.
        tick: Tick,
        /// The capture it was.
        stamp: Stamp,
        /// What came with the capture.
        payload: P,
    },
    /// Show the last picture again.
    Held {
        /// The first tick of the run.
        first: Tick,
        /// Its length.
        ticks: Tick,
        /// Why, when captures came and are not shown; `None` when nothing came.
        reason: Option<GapReason>,
    },
    /// Show the fill picture.
    Gap {
        /// The first tick of the run.
        first: Tick,
        /// Its length.
        ticks: Tick,
        /// Why there is no picture.
        reason: GapReason,
        /// Filled in HLS as well; `false` beyond `live_fill`, where the epoch ends.
        live: bool,
    },
    /// This capture is not in the output.
    Discard {
        /// The capture it was.
        stamp: Stamp,
        /// Why not.
        reason: DiscardReason,
        /// What came with the capture.
        payload: P,
    },
}
