//! tilecast turns the PNG streams of Recall.ai meeting bots into aligned 2 fps MP4s and live HLS.

pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod ffmpeg;
pub mod http;
pub mod ledger;
pub mod machine;
pub mod media;
pub mod metrics;
pub mod pipeline;
pub mod shutdown;
