//! A segment file, as it may lie in the spool after any death of the process.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tilecast::pipeline::package::scan::Scanner;

fuzz_target!(|data: &[u8]| {
    let mut scanner = Scanner::new(Cursor::new(data), 512).expect("memory can be read");
    let mut media = [0; 700];
    while let Ok(Some(part)) = scanner.next_part() {
        assert_eq!(part.samples.iter().map(|sample| u64::from(sample.bytes)).sum::<u64>(), part.media_bytes);
        assert!(scanner.end() <= data.len() as u64);
        // Every second part is passed over.
        let mut read = 0;
        while part.first_tick % 2 == 0 {
            match scanner.read_media(&mut media).expect("a part that was given out is complete") {
                0 => break,
                bytes => read += bytes as u64,
            }
        }
        assert!(read == 0 || read == part.media_bytes);
    }
    assert!(scanner.end() <= data.len() as u64);
});
