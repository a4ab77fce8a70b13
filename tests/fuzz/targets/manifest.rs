//! `recording.json`, as an earlier version or an operator may have left it: what is read is written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tilecast::pipeline::store::manifest::Manifest;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(data) {
        let text = serde_json::to_vec(&manifest).expect("every manifest can be written");
        assert_eq!(serde_json::from_slice::<Manifest>(&text).expect("our own manifest"), manifest);
    }
});
