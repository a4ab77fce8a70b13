//! Test pictures that say which tick they are: a row of bits on top, colour bars of known RGB below.

use image::{Rgb, RgbImage};

/// The bars from left to right. Chromium without a GPU converts with 6-bit factors, and its factor for Cb stops at 2.0
/// where BT.709 has 2.112: blue of full bars is off by 12, of 75 % bars by 9. These are milder, so that 8 still tells
/// BT.709 from BT.601 and limited from full range.
pub const BARS: [[u8; 3]; 8] = [
    [235, 235, 235],
    [191, 191, 48],
    [48, 191, 191],
    [48, 191, 48],
    [191, 48, 191],
    [191, 48, 48],
    [48, 48, 191],
    [16, 16, 16],
];

/// Bits of the tick in a picture, the lowest at the left.
pub const BITS: u32 = 16;

/// The picture of a tick: the upper quarter holds the bits, black or white, the rest the bars.
pub fn draw(width: u32, height: u32, tick: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        if y < height / 4 {
            let bit = tick >> (x * BITS / width) & 1;
            Rgb([bit as u8 * 255; 3])
        } else {
            Rgb(BARS[(x * 8 / width) as usize])
        }
    })
}

/// JavaScript functions on the page: `tickOf(video)` reads the bits, `barsOf(video)` the bars' centres; `null` without a picture.
pub const READER: &str = "
    window.pixelsOf = (video, points) => {
      if (video.readyState < 2) return null;
      const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
      const context = canvas.getContext('2d', { willReadFrequently: true });
      context.drawImage(video, 0, 0);
      const at = ([x, y]) => [...context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data.slice(0, 3)];
      return points.map(at);
    };
    window.tickOf = (video) => pixelsOf(video, Array.from({ length: 16 }, (_, n) => [(n + 0.5) / 16, 0.125]))
      ?.reduce((tick, [red], n) => tick + (red > 127 ? 2 ** n : 0), 0) ?? null;
    window.barsOf = (video) => pixelsOf(video, Array.from({ length: 8 }, (_, n) => [(n + 0.5) / 8, 0.6]));
    true";

/// Asserts that every bar is within 8 of 255 of its true colour.
pub fn assert_bars(seen: &[[u8; 3]], what: &str) {
    assert_eq!(seen.len(), BARS.len(), "{what}");
    for (n, (seen, truth)) in seen.iter().zip(BARS).enumerate() {
        let off = seen.iter().zip(truth).map(|(a, b)| a.abs_diff(b)).max().expect("three channels");
        assert!(off <= 8, "{what}: bar {n} is {seen:?}, not {truth:?}");
    }
}
