//! Access unit -> part, segment, playlist, MP4: bytes and text, without I/O but for [`assemble`].

pub mod assemble;
pub mod boxes;
pub mod headers;
#[cfg(test)]
mod playback;
pub mod playlist;
pub mod scan;
pub mod segmenter;
