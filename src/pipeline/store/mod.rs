//! Spool on disk -> object: keys, journal, upload.

pub mod keys;
pub mod manifest;
