//! A capture: base64, the header, the decoder. The CRCs are mended first, else nothing but CRCs would be tested.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tilecast::pipeline::ingest::png::{HEADER_BYTES, Limits, PngDecoder, base64_prefix, decode_base64, header_within};

const LIMITS: Limits = Limits { side_max: 400, pixels_max: 40_000 };

fn mend(png: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = at + 8 + length;
        let Some(covered) = png.get(at + 4..end) else { return };
        let crc = crc32fast::hash(covered);
        let Some(stored) = png.get_mut(end..end + 4) else { return };
        stored.copy_from_slice(&crc.to_be_bytes());
        at = end + 4;
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Vec::new();
    let whole = decode_base64(data, &mut bytes).is_ok();
    if let Ok(text) = std::str::from_utf8(data) {
        let prefix = base64_prefix(text, HEADER_BYTES);
        assert!(!whole || prefix.is_ok_and(|prefix| bytes.starts_with(&prefix)));
    }
    let mut png = data.to_vec();
    mend(&mut png);
    let header = header_within(&png, &LIMITS);
    let mut decoder = PngDecoder::new(LIMITS);
    let picture = decoder.decode(&png);
    match (&header, &picture) {
        (Ok(header), Ok(picture)) => {
            assert_eq!((header.width, header.height), (picture.width(), picture.height()));
        }
        (Err(header), Err(error)) => assert_eq!(header, error),
        (Ok(_), Err(_)) => {}
        (Err(_), Ok(_)) => unreachable!("a picture without a header"),
    }
    // What a decoder read before changes nothing.
    assert_eq!(picture, decoder.decode(&png));
});
