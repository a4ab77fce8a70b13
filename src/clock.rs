//! The only place that reads a clock. Everything else takes time as an argument or through [`Clock`].

#![expect(clippy::disallowed_methods, reason = "somebody has to read the clock")]

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::media::Micros;

/// Two clocks: one that only goes forward, one that says what time it is.
pub trait Clock: Send + Sync + 'static {
    /// Since an arbitrary start; never goes back.
    fn mono(&self) -> Micros;

    /// Since 1970 (UTC); may jump.
    fn unix(&self) -> Micros;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl SystemClock {
    /// Starts at zero.
    pub fn new() -> SystemClock {
        SystemClock(Instant::now())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn mono(&self) -> Micros {
        self.0.elapsed().into()
    }

    fn unix(&self) -> Micros {
        // A clock before 1970 is a machine that was never set; its time is as good as zero.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().into()
    }
}

/// A clock that tests move by hand. Both clocks go together, from 2026-01-01T00:00:00Z.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Moves both clocks on.
    pub fn advance(&self, by: Micros) {
        self.0.fetch_add(by.0, Relaxed);
    }
}

impl Clock for ManualClock {
    fn mono(&self) -> Micros {
        Micros(self.0.load(Relaxed))
    }

    fn unix(&self) -> Micros {
        Micros(1_767_225_600_000_000 + self.0.load(Relaxed))
    }
}

/// Microseconds since 1970 as RFC 3339 in UTC, with milliseconds: `2026-01-01T10:00:12.503Z`.
pub fn rfc3339(unix: Micros) -> String {
    let format =
        time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix.0) * 1000)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00.000Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_milliseconds_in_utc() {
        assert_eq!(rfc3339(Micros(1_767_261_612_503_000)), "2026-01-01T10:00:12.503Z");
        assert_eq!(rfc3339(Micros(i64::MAX)), "1970-01-01T00:00:00.000Z");
    }
}
