//! Tests of the whole program from outside, one file per scenario.

#![allow(clippy::disallowed_methods, reason = "the whole program runs on the machine's own clock and threads")]

mod browser;
mod fake;
mod page;
mod pattern;
