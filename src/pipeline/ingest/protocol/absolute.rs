//! `timestamp.absolute`, in the forms in which it comes.

use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};

use crate::media::Micros;

/// Reads ISO 8601 with `Z` or an offset, `T` or a space, as microseconds since 1970.
pub fn parse_absolute(text: &str) -> Option<Micros> {
    let text = text.trim();
    let mut text = text.to_owned();
    if text.as_bytes().get(10) == Some(&b' ') {
        text.replace_range(10..11, "T");
    }
    let read = |text: &str| {
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(text, &Iso8601::DEFAULT)).ok()
    };
    // Without an offset it is taken as UTC: Python's isoformat() of a naive time.
    let time = read(&text).or_else(|| read(&format!("{text}Z")))?;
    i64::try_from(time.unix_timestamp_nanos() / 1000).ok().map(Micros)
}
