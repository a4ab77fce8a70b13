//! Tests of the whole program from outside, one file per scenario.

mod bot;
mod browser;
mod fake;
mod harness;
mod page;
mod pattern;
mod playback;

mod bad_messages;
mod meetings;
mod closes;
