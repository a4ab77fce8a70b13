//! Captures -> ticks: placing, holds, gaps and the recording's clock. Pure: integer time, no clock, no I/O.

pub mod clock;
pub mod place;
