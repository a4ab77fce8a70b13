//! PNG -> picture: the bot's messages, what a capture is, and decoding. Pure.

pub mod decode;
pub mod png;
pub mod protocol;

use bytes::Bytes;

use crate::media::Micros;

/// One PNG as received.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Its number in the lane, from 0.
    pub number: u64,
    /// When it was taken, on the recording's time line.
    pub at: Micros,
    /// `timestamp.relative` as sent.
    pub relative: Micros,
    /// `timestamp.absolute` as sent, where it was valid.
    pub absolute: Option<Micros>,
    /// The recording's clock when it was read from its socket.
    pub clock: Micros,
    /// When its message was read whole (monotonic).
    pub read_at: Micros,
    /// Base64 of the PNG: a slice of the message it came in.
    pub base64: Bytes,
}
