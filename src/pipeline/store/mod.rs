//! Spool on disk -> object: keys, journal, durability, upload.

pub mod gaps;
pub mod journal;
pub mod keys;
pub mod lists;
pub mod manifest;
pub mod mend;
pub mod objects;
pub mod prefix;
pub mod recovery;
pub mod retell;
pub mod space;
pub mod spool;
pub mod sync;
