//! The canvas of a track, and pictures of other sizes fitted into it.
//!
//! Pure but for swscale. Which picture fixes the canvas is the lane's business.

use std::ops::Range;

use ffmpeg_next as ff;

use super::EncodeError;
use crate::ffmpeg::{self, Scaler, Source, Surface};
use crate::media::{Canvas, Picture};

/// Neither side of a canvas is shorter.
pub const SIDE_MIN: u32 = 64;

/// The canvas for a track whose first picture has this size: the picture's own size where it fits into `max`, scaled
/// down with its aspect kept where it does not; even, and [`SIDE_MIN`] at least. An odd side grows by one sample, so
/// that the picture need not be scaled.
pub fn choose(width: u32, height: u32, max: Canvas) -> Canvas {
    let most = |side: u32| (side & !1).max(SIDE_MIN);
    let (width_max, height_max) = (most(max.width), most(max.height));
    let (width, height) = (width.max(1), height.max(1));
    let (width, height) = if width <= width_max && height <= height_max {
        (width.next_multiple_of(2), height.next_multiple_of(2))
    } else {
        inscribe((width, height), (width_max, height_max))
    };
    Canvas { width: width.max(SIDE_MIN), height: height.max(SIDE_MIN) }
}

/// The largest even size of the aspect `size` inside the even `bounds`, 2 at least.
fn inscribe(size: (u32, u32), bounds: (u32, u32)) -> (u32, u32) {
    let (w, h) = (u64::from(size.0), u64::from(size.1));
    let (width, height) = (u64::from(bounds.0), u64::from(bounds.1));
    // The nearest even number to `side * over / under`.
    let scaled = |side: u64, over: u64, under: u64, most: u64| ((side * over + under) / (2 * under) * 2).clamp(2, most);
    let (width, height) = if w * height >= h * width {
        (width, scaled(h, width, w, height))
    } else {
        (scaled(w, height, h, width), height)
    };
    let narrow = |side: u64| u32::try_from(side).expect("within the bounds, which are u32");
    (narrow(width), narrow(height))
}

/// Where a picture of `size` lies on a canvas: columns and rows, with even edges, in the middle but for rounding. A
/// picture that lacks at most one sample on each side to the canvas, or on one side only, keeps its size, made even.
fn place(size: (u32, u32), canvas: Canvas) -> (Range<usize>, Range<usize>) {
    let even = (size.0.next_multiple_of(2), size.1.next_multiple_of(2));
    let touches = even.0 == canvas.width || even.1 == canvas.height;
    let inside = even.0 <= canvas.width && even.1 <= canvas.height;
    let (width, height) = if touches && inside { even } else { inscribe(size, (canvas.width, canvas.height)) };
    let centred = |side: u32, whole: u32| {
        let from = ((whole - side) / 4 * 2) as usize;
        from..from + side as usize
    };
    (centred(width, canvas.width), centred(height, canvas.height))
}

/// Fits pictures into canvases. Holds buffers of the last sizes it had to scale, nothing before that.
#[derive(Default)]
pub struct Fitter {
    scaling: Option<Scaling>,
    fitted: Option<Picture>,
}

struct Scaling {
    input: Surface,
    scaler: Scaler,
}

impl Fitter {
    /// A fitter without buffers.
    pub fn new() -> Fitter {
        Fitter::default()
    }

    /// Gives the picture on the canvas: itself when the sizes match; else scaled (bicubic, chroma sited left) with its
    /// aspect kept, in the middle, black around it. An odd last column or row is doubled.
    ///
    /// Fails when swscale refuses the sizes or memory is short.
    pub fn fit<'a>(&'a mut self, picture: &'a Picture, canvas: Canvas) -> Result<&'a Picture, EncodeError> {
        if (picture.width(), picture.height()) == (canvas.width, canvas.height) {
            return Ok(picture);
        }
        let (columns, rows) = place((picture.width(), picture.height()), canvas);
        let size = (columns.len() as u32, rows.len() as u32);
        let mut fitted = match self.fitted.take() {
            Some(old) if (old.width(), old.height()) == (canvas.width, canvas.height) => old,
            _ => Picture::black(canvas.width, canvas.height),
        };
        blacken(&mut fitted);
        let own = (picture.width().next_multiple_of(2), picture.height().next_multiple_of(2));
        if own == size {
            let widths = [picture.width(), picture.chroma_width(), picture.chroma_width()];
            for (plane, samples) in picture.planes().into_iter().enumerate() {
                let from = samples.chunks_exact(widths[plane] as usize);
                copy(from, &mut fitted, plane, &columns, &rows);
            }
        } else {
            let scaled = self.scale(picture, size).map_err(|error| EncodeError::Failed(format!("swscale: {error}")))?;
            for plane in 0..3 {
                copy(ffmpeg::rows(scaled, plane), &mut fitted, plane, &columns, &rows);
            }
        }
        Ok(self.fitted.insert(fitted))
    }

    fn scale(&mut self, picture: &Picture, (width, height): (u32, u32)) -> Result<&ff::frame::Video, ff::Error> {
        let source = Source {
            format: ff::format::Pixel::YUV420P,
            width: picture.width(),
            height: picture.height(),
            full_range: false,
        };
        let scaling = match self.scaling.take() {
            Some(scaling) if scaling.scaler.definition() == (source, width, height) => scaling,
            _ => Scaling {
                input: Surface::new(source.width, source.height)?,
                scaler: Scaler::new(source, width, height)?,
            },
        };
        let scaling = self.scaling.insert(scaling);
        scaling.input.write(picture.planes())?;
        scaling.scaler.scale(scaling.input.get_mut())
    }
}

fn blacken(picture: &mut Picture) {
    let [y, u, v] = picture.planes_mut();
    y.fill(16);
    u.fill(128);
    v.fill(128);
}

/// Copies rows into the place (in luma samples) on a plane; where they are one short, the last sample and the last row
/// are doubled.
fn copy<'a>(
    from: impl Iterator<Item = &'a [u8]>,
    to: &mut Picture,
    plane: usize,
    columns: &Range<usize>,
    rows: &Range<usize>,
) {
    let (stride, step) = if plane == 0 { (to.width(), 1) } else { (to.chroma_width(), 2) };
    let stride = stride as usize;
    let columns = columns.start / step..columns.end / step;
    let rows = rows.start / step..rows.end / step;
    let samples = &mut *to.planes_mut()[plane];
    let mut next = rows.start;
    for row in from.take(rows.len()) {
        let target = &mut samples[next * stride..][columns.clone()];
        target[..row.len()].copy_from_slice(row);
        target[row.len()..].fill(row[row.len() - 1]);
        next += 1;
    }
    if next < rows.end {
        let last = (next - 1) * stride;
        samples.copy_within(last + columns.start..last + columns.end, next * stride + columns.start);
    }
}
