//! Capture -> picture, with the two short cuts there are: a PNG that is the same, byte by byte, as the lane's last one
//! is not decoded again, and one that shows the same pixels is not encoded again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use crate::media::Picture;

use super::Capture;
use super::png::{PngDecoder, PngError, decode_base64};

/// What a lane remembers of its last capture.
#[derive(Debug, Default)]
pub struct Last(Option<(u128, Arc<Picture>)>);

/// A picture and where it came from.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The picture; the same allocation as the last one where it shows the same.
    pub picture: Arc<Picture>,
    /// Size of the PNG.
    pub png_bytes: u64,
    /// Whether the PNG was the same as the one before.
    pub same: bool,
}

/// A worker's means of decoding.
#[derive(Debug, Default)]
pub struct Ingest {
    decoder: PngDecoder,
    png: Vec<u8>,
}

/// What `work` does with the decoder. A panic of it is one picture's, and not that of everybody whom this thread serves; what
/// it leaves is not used again.
fn caught<T>(
    decoder: &mut PngDecoder,
    work: impl FnOnce(&mut PngDecoder) -> Result<T, PngError>,
) -> Result<T, PngError> {
    catch_unwind(AssertUnwindSafe(|| work(decoder))).unwrap_or_else(|_| {
        *decoder = PngDecoder::default();
        Err(PngError::Other("the decoder panicked: this is a bug".to_owned()))
    })
}

impl Ingest {
    /// Decodes a capture of the lane whose last one is `last`.
    pub fn decode(&mut self, capture: &Capture, last: &mut Last) -> Result<Decoded, PngError> {
        // 128 bits: an accidental match is as likely as a flipped bit in memory, and a made one shows the forger's
        // own earlier picture.
        let hash = xxh3_128(&capture.base64);
        if let Some((seen, picture)) = &last.0
            && *seen == hash
        {
            let png_bytes = capture.base64.len() as u64 / 4 * 3;
            return Ok(Decoded { picture: Arc::clone(picture), png_bytes, same: true });
        }
        decode_base64(&capture.base64, &mut self.png)?;
        let picture = caught(&mut self.decoder, |decoder| decoder.decode(&self.png))?;
        let picture = match &last.0 {
            Some((_, seen)) if **seen == picture => Arc::clone(seen),
            _ => Arc::new(picture),
        };
        last.0 = Some((hash, Arc::clone(&picture)));
        Ok(Decoded { picture, png_bytes: self.png.len() as u64, same: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_decoder_costs_one_picture() {
        let mut decoder = PngDecoder::default();
        let error = caught(&mut decoder, |_| -> Result<(), PngError> { panic!("a picture that nobody thought of") });
        assert_eq!(error.unwrap_err().name(), "other");
        assert_eq!(caught(&mut decoder, |decoder| decoder.decode(b"no PNG")), Err(PngError::NotPng));
    }
}
