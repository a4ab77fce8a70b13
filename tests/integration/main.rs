//! Tests of the whole program from outside, one file per scenario.

mod browser;
mod fake;
mod page;
mod pattern;
