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

#[cfg(test)]
mod tests {
    use super::super::testing::scene;
    use super::*;

    const MAX: Canvas = Canvas { width: 1920, height: 1080 };
    const WIDE: Canvas = Canvas { width: 640, height: 360 };

    #[test]
    fn canvases() {
        for ((width, height), wanted) in [
            ((640, 360), (640, 360)),
            ((480, 360), (480, 360)),
            ((641, 361), (642, 362)),
            ((1919, 1079), (1920, 1080)),
            ((1920, 1080), (1920, 1080)),
            ((3840, 2160), (1920, 1080)),
            ((2560, 1600), (1728, 1080)),
            ((1080, 1920), (608, 1080)),
            ((5000, 100), (1920, 64)),
            ((100_000, 1), (1920, 64)),
            ((1, 100_000), (64, 1080)),
            ((1, 1), (64, 64)),
            ((0, 0), (64, 64)),
            ((u32::MAX, u32::MAX), (1080, 1080)),
        ] {
            let canvas = choose(width, height, MAX);
            assert_eq!((canvas.width, canvas.height), wanted, "{width}x{height}");
        }
        assert_eq!(choose(640, 360, Canvas { width: 321, height: 1 }), Canvas { width: 114, height: 64 });
    }

    #[test]
    fn places() {
        for (size, columns, rows) in [
            ((1280, 720), 0..640, 0..360),
            ((320, 180), 0..640, 0..360),
            // Portrait into landscape.
            ((360, 640), 218..420, 0..360),
            // 4:3, bars left and right.
            ((640, 480), 80..560, 0..360),
            // 2.4:1, bars above and below, at even rows.
            ((1200, 500), 0..640, 46..312),
            // Too small by less than the bars: not scaled.
            ((640, 356), 0..640, 2..358),
            ((640, 358), 0..640, 0..358),
            ((639, 359), 0..640, 0..360),
            ((638, 360), 0..638, 0..360),
            // Extremes.
            ((1, 1), 140..500, 0..360),
            ((4000, 1), 0..640, 178..180),
            ((1, 4000), 318..320, 0..360),
        ] {
            assert_eq!(place(size, WIDE), (columns, rows), "{size:?}");
        }
    }

    /// Checks every sample: the colours of a flat picture inside its place, black outside.
    #[test]
    fn bars_are_black_and_the_picture_keeps_its_colours() {
        let mut fitter = Fitter::new();
        for (width, height) in [(360, 640), (640, 480), (1200, 500), (641, 357), (1, 1), (1, 500), (500, 1), (33, 17)] {
            let mut flat = Picture::black(width, height);
            for (plane, value) in flat.planes_mut().into_iter().zip([200, 90, 170]) {
                plane.fill(value);
            }
            let (columns, rows) = place((width, height), WIDE);
            let fitted = fitter.fit(&flat, WIDE).unwrap();
            assert_eq!((fitted.width(), fitted.height()), (640, 360));
            for (plane, (stride, step, inside, outside)) in
                fitted.planes().into_iter().zip([(640, 1, 200, 16), (320, 2, 90, 128), (320, 2, 170, 128)])
            {
                for (at, sample) in plane.iter().enumerate() {
                    let (x, y) = (at % stride * step, at / stride * step);
                    let wanted = if columns.contains(&x) && rows.contains(&y) { inside } else { outside };
                    assert_eq!(*sample, wanted, "{width}x{height}: column {x}, row {y}");
                }
            }
        }
    }

    #[test]
    fn a_picture_of_the_canvas_is_untouched() {
        let picture = scene(640, 360, 1);
        assert!(std::ptr::eq(Fitter::new().fit(&picture, WIDE).unwrap(), &raw const picture));
    }

    #[test]
    fn a_picture_that_only_lacks_bars_is_copied() {
        let picture = scene(637, 355, 1);
        let mut fitter = Fitter::new();
        let fitted = fitter.fit(&picture, Canvas { width: 638, height: 360 }).unwrap();
        for (plane, (from, to)) in picture.planes().into_iter().zip(fitted.planes()).enumerate() {
            let (from_width, to_width, first) = if plane == 0 { (637, 638, 2) } else { (319, 319, 1) };
            let rows = from.chunks(from_width).zip(to.chunks(to_width).skip(first));
            assert!(rows.map(|(from, to)| (from, &to[..from_width])).all(|(from, to)| from == to));
        }
        let luma = fitted.planes()[0];
        assert_eq!(luma[2 * 638 + 637], luma[2 * 638 + 636], "the last column is doubled");
        assert_eq!(luma[357 * 638..358 * 638], luma[356 * 638..357 * 638], "the last row is doubled");
        assert!(luma[358 * 638..].iter().all(|sample| *sample == 16));
    }

    /// A ramp of 8 for each chroma sample tells sitings apart by one: sited left, chroma sample j of a picture twice as
    /// large lies over sample j/2 - 1/8 of the original; sited in the middle over j/2 - 1/4.
    #[test]
    fn chroma_stays_sited_left() {
        let mut ramp = Picture::black(32, 64);
        let [_, u, _] = ramp.planes_mut();
        u.iter_mut().enumerate().for_each(|(at, sample)| *sample = (64 + 8 * (at % 16)) as u8);
        let mut fitter = Fitter::new();
        let fitted = fitter.fit(&ramp, Canvas { width: 64, height: 128 }).unwrap();
        for row in fitted.planes()[1].chunks(32) {
            for (j, sample) in row.iter().enumerate().take(28).skip(4) {
                assert_eq!(usize::from(*sample), 64 + 4 * j - 1, "chroma sample {j}");
            }
        }
    }

    #[test]
    fn sizes_may_change_from_picture_to_picture() {
        let mut fitter = Fitter::new();
        for (number, size) in [(320, 180), (360, 640), (640, 360), (16, 16), (4096, 16), (1280, 720)].iter().enumerate()
        {
            let picture = scene(size.0, size.1, number as u32);
            let fitted = fitter.fit(&picture, WIDE).unwrap().clone();
            assert_eq!(&fitted, Fitter::new().fit(&picture, WIDE).unwrap(), "nothing stays of the picture before");
        }
        let tall = Canvas { width: 64, height: 1080 };
        assert_eq!(fitter.fit(&scene(8192, 8, 0), tall).unwrap().height(), 1080);
    }
}
