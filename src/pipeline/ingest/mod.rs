//! PNG -> picture: the bot's messages, what a socket makes of them, and decoding.

pub mod png;
pub mod protocol;
