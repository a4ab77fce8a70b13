//! The five stages and what joins them.

pub mod encode;
pub mod ingest;
pub mod package;
pub mod store;
pub mod timeline;
