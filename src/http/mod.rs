//! Everything that speaks HTTP: the media, errors as JSON.

pub mod error;
pub mod media;
