//! Everything that speaks HTTP: the page, the media, errors as JSON.

pub mod error;
pub mod media;
pub mod web;
