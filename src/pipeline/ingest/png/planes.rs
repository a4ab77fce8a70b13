//! Rows of pixels -> I420 planes, BT.709 limited, transparency over black.

use std::io::{BufRead, Seek};

use png::{BitDepth, ColorType, Reader};
use yuv::{
    BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix, rgb_to_yuv420, rgba_to_yuv420,
};

use crate::media::Picture;

use super::PngError;

/// What a row holds once `png` has expanded palettes, small depths and tRNS: 8 bits a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pixels {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
}

impl Pixels {
    /// What the rows of this PNG hold.
    pub(super) fn of<R: BufRead + Seek>(reader: &Reader<R>) -> Result<Pixels, PngError> {
        match reader.output_color_type() {
            (ColorType::Grayscale, BitDepth::Eight) => Ok(Pixels::Gray),
            (ColorType::GrayscaleAlpha, BitDepth::Eight) => Ok(Pixels::GrayAlpha),
            (ColorType::Rgb, BitDepth::Eight) => Ok(Pixels::Rgb),
            (ColorType::Rgba, BitDepth::Eight) => Ok(Pixels::Rgba),
            (color, depth) => Err(PngError::Other(format!("{color:?} of {depth:?} bits"))),
        }
    }

    /// A picture to be converted into: black where the conversion leaves the chroma alone, else whatever costs least.
    pub(super) fn canvas(self, width: u32, height: u32) -> Picture {
        match self {
            Pixels::Gray | Pixels::GrayAlpha => Picture::black(width, height),
            Pixels::Rgb | Pixels::Rgba => Picture::new(width, height, vec![0; Picture::bytes(width, height)]),
        }
    }

    /// Bytes of a pixel.
    pub(super) fn bytes(self) -> usize {
        match self {
            Pixels::Gray => 1,
            Pixels::GrayAlpha => 2,
            Pixels::Rgb => 3,
            Pixels::Rgba => 4,
        }
    }
}

/// Converts whole rows, of which `first_row` is even and the count is odd only at the picture's end.
pub(super) fn convert(
    rows: &mut [u8],
    pixels: Pixels,
    picture: &mut Picture,
    first_row: usize,
) -> Result<(), PngError> {
    let width = picture.width() as usize;
    let count = rows.len() / (width * pixels.bytes());
    let chroma_width = picture.chroma_width() as usize;
    let luma = first_row * width..(first_row + count) * width;
    let chroma = first_row / 2 * chroma_width..(first_row + count).div_ceil(2) * chroma_width;
    let [y, u, v] = picture.planes_mut();
    match pixels {
        // The chroma of a black canvas is that of every grey.
        Pixels::Gray => y[luma].iter_mut().zip(&*rows).for_each(|(y, gray)| *y = luma_of_gray(*gray)),
        Pixels::GrayAlpha => y[luma]
            .iter_mut()
            .zip(rows.as_chunks::<2>().0)
            .for_each(|(y, [gray, alpha])| *y = luma_of_gray(over_black(*gray, *alpha))),
        Pixels::Rgb | Pixels::Rgba => {
            if pixels == Pixels::Rgba {
                composite_over_black(rows);
            }
            let mut planes = YuvPlanarImageMut {
                y_plane: BufferStoreMut::Borrowed(&mut y[luma]),
                y_stride: width as u32,
                u_plane: BufferStoreMut::Borrowed(&mut u[chroma.clone()]),
                u_stride: chroma_width as u32,
                v_plane: BufferStoreMut::Borrowed(&mut v[chroma]),
                v_stride: chroma_width as u32,
                width: width as u32,
                height: count as u32,
            };
            let to_planes = if pixels == Pixels::Rgba { rgba_to_yuv420 } else { rgb_to_yuv420 };
            let stride = (width * pixels.bytes()) as u32;
            let (range, matrix, mode) = (YuvRange::Limited, YuvStandardMatrix::Bt709, YuvConversionMode::Balanced);
            to_planes(&mut planes, rows, stride, range, matrix, mode).map_err(|e| PngError::Other(e.to_string()))?;
        }
    }
    Ok(())
}

/// Multiplies by alpha, where there is any: most RGBA pictures are opaque, and the check costs a tenth of the work.
fn composite_over_black(rgba: &mut [u8]) {
    let pixels = rgba.as_chunks_mut::<4>().0;
    if pixels.iter().fold(255, |all, pixel| all & pixel[3]) == 255 {
        return;
    }
    for [r, g, b, alpha] in pixels {
        (*r, *g, *b) = (over_black(*r, *alpha), over_black(*g, *alpha), over_black(*b, *alpha));
    }
}

fn over_black(sample: u8, alpha: u8) -> u8 {
    ((u32::from(sample) * u32::from(alpha) + 127) / 255) as u8
}

fn luma_of_gray(gray: u8) -> u8 {
    (16 + (u32::from(gray) * 219 + 127) / 255) as u8
}
