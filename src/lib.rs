//! tilecast turns the PNG streams of Recall.ai meeting bots into aligned 2 fps MP4s and live HLS.

pub mod cli;
pub mod config;
pub mod ledger;
pub mod media;
pub mod pipeline;
