//! A message of a bot: any text is a message or an error, and the shortcut for pictures reads what the long way reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tilecast::pipeline::ingest::protocol::{parse, parse_absolute};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = |text: &str| match parse(text) {
        Ok(message) => format!("{message:?}"),
        Err(error) => error.name().to_owned(),
    };
    // White space in front says the same, and hides the event's name from what looks for it near the start.
    let far = format!("{}{text}", " ".repeat(600));
    assert_eq!(read(text), read(&far));
    parse_absolute(text);
});
