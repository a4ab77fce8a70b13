//! A journal of the spool, as it may lie there after any death of the process.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tilecast::pipeline::store::journal::{EpochLine, PartLine, SegmentLine};
use tilecast::pipeline::store::spool::read_lines;

fuzz_target!(|data: &[u8]| {
    let path = std::env::temp_dir().join(format!("tilecast-fuzz-{}", std::process::id()));
    std::fs::write(&path, data).expect("a place for temporary files");
    let _ = read_lines::<EpochLine>(&path, 0);
    let _ = read_lines::<SegmentLine>(&path, 0);
    let complete = data.iter().filter(|byte| **byte == b'\n').count();
    if let Ok(parts) = read_lines::<PartLine>(&path, 1) {
        // At most one more than there are line ends: the last line may lack its own.
        assert!(parts.len() <= complete);
    }
});
