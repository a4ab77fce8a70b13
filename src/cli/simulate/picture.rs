//! Drawn pictures that are as hard to compress as a camera's, with a label that survives scaling and H.264.
//!
//! The label is a band at the top, three cells high and 40 cells wide: a white row and a black row, by which a reader
//! finds the picture inside letterboxing, and a row of 40 bits. It is read from the luma plane alone.

use image::{Rgb, RgbImage};

use crate::media::Kind;

use super::plan::Dice;

/// Cells in a row of the label.
pub const CELLS: u32 = 40;

/// Pictures after which a drawn scene repeats.
pub const SCENE_PICTURES: u32 = 12;

/// What a label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// Index of the participant, under 512.
    pub participant: u32,
    /// Webcam or screenshare.
    pub kind: Kind,
    /// The capture's number, under 2^20: six days at 2 fps.
    pub number: u32,
}

impl Label {
    /// 30 bits of content and 10 of checksum, the first cell in the highest bit. Larger numbers wrap.
    pub fn bits(&self) -> u64 {
        let kind = u64::from(self.kind == Kind::Screenshare);
        let content = u64::from(self.participant & 0x1ff) << 21 | kind << 20 | u64::from(self.number & 0xf_ffff);
        content << 10 | checksum(content)
    }

    /// `None` when the checksum is wrong.
    pub fn from_bits(bits: u64) -> Option<Label> {
        let content = bits >> 10;
        let kind = if content >> 20 & 1 == 1 { Kind::Screenshare } else { Kind::Webcam };
        let label = Label { participant: (content >> 21) as u32, kind, number: content as u32 & 0xf_ffff };
        (checksum(content) == bits & 0x3ff && content >> 30 == 0).then_some(label)
    }

    /// Whether the cell is white.
    pub fn is_white(&self, cell: u32) -> bool {
        self.bits() >> (CELLS - 1 - cell) & 1 == 1
    }
}

/// Never 0 for a band that is all black, nor all ones for one that is all white.
fn checksum(content: u64) -> u64 {
    (content + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54
}

/// Rows of a cell in a picture of this width: cells are about square.
pub fn cell_rows(width: u32) -> u32 {
    (width / CELLS).max(4)
}

/// The first column of a cell; that of cell 40 is the width.
pub fn cell_left(width: u32, cell: u32) -> u32 {
    cell * width / CELLS
}

/// Draws picture `number` of a participant's scene, with its label. The scene comes back after [`SCENE_PICTURES`].
pub fn draw(size: (u32, u32), participant: u32, kind: Kind, number: u32, seed: u64) -> RgbImage {
    let mut picture = match kind {
        Kind::Webcam => draw_camera(size, participant, number % SCENE_PICTURES, seed),
        Kind::Screenshare => draw_slide(size, participant, number % SCENE_PICTURES, seed),
    };
    draw_label(&mut picture, &Label { participant, kind, number });
    picture
}

/// Puts the label's band over the top of a picture.
pub fn draw_label(picture: &mut RgbImage, label: &Label) {
    let width = picture.width();
    let rows = cell_rows(width);
    for y in 0..(3 * rows).min(picture.height()) {
        for cell in 0..CELLS {
            let white = match y / rows {
                0 => true,
                1 => false,
                _ => label.is_white(cell),
            };
            for x in cell_left(width, cell)..cell_left(width, cell + 1) {
                picture.put_pixel(x, y, Rgb([if white { 255 } else { 0 }; 3]));
            }
        }
    }
}

struct Wave {
    strength: f32,
    columns: Vec<(f32, f32)>,
    rows: Vec<(f32, f32)>,
}

/// Gradients, a few soft blobs on closed orbits, drifting waves as texture, and the noise of a sensor: 7 kB an access
/// unit at 640x360 and crf 23, where cameras take 8 to 19.
fn draw_camera((width, height): (u32, u32), participant: u32, step: u32, seed: u64) -> RgbImage {
    let mut look = Dice::new(seed, u64::from(participant));
    let mut unit = || (look.next() >> 40) as f32 / (1 << 24) as f32;
    let base: [f32; 3] = std::array::from_fn(|_| 60.0 + 80.0 * unit());
    let slope: [(f32, f32); 3] = std::array::from_fn(|_| (70.0 * unit() - 35.0, 70.0 * unit() - 35.0));
    let turn = step as f32 / SCENE_PICTURES as f32 * std::f32::consts::TAU;
    // x, y, 1 / radius^2 in parts of the height, and a colour to add.
    let blobs: [(f32, f32, f32, [f32; 3]); 5] = std::array::from_fn(|_| {
        let (x, y, orbit, phase, radius) =
            (unit() * 1.8, unit(), 0.05 + 0.1 * unit(), 6.3 * unit(), 0.1 + 0.2 * unit());
        let color = std::array::from_fn(|_| 160.0 * unit() - 80.0);
        (x + orbit * (turn + phase).cos(), y + orbit * (turn + phase).sin(), radius.powi(-2), color)
    });
    // Waves of 8 to 24 pixels at 360 rows, as (sine, cosine) by column and by row: sin(a + b) needs no sine a pixel.
    let waves: [Wave; 3] = std::array::from_fn(|_| {
        let (angle, length) = (std::f32::consts::PI * unit(), 0.022 + 0.045 * unit());
        let (across, down) = (angle.cos() / length, angle.sin() / length);
        let drift = turn * (1.0 + 3.0 * unit()).floor();
        let table = |count: u32, frequency: f32, phase: f32| {
            let step = frequency * std::f32::consts::TAU / height as f32;
            (0..count).map(|n| (n as f32 * step + phase).sin_cos()).collect()
        };
        Wave { strength: 8.0 + 8.0 * unit(), columns: table(width, across, drift), rows: table(height, down, 0.0) }
    });
    let mut noise = Dice::new(seed ^ 0x5eed, u64::from(participant * SCENE_PICTURES + step));
    RgbImage::from_fn(width, height, |px, py| {
        let (x, y) = (px as f32 / height as f32, py as f32 / height as f32);
        let mut color: [f32; 3] = std::array::from_fn(|i| base[i] + slope[i].0 * x + slope[i].1 * y);
        for (bx, by, sharpness, add) in &blobs {
            let near = 1.0 - ((x - bx).powi(2) + (y - by).powi(2)) * sharpness;
            if near > 0.0 {
                (0..3).for_each(|i| color[i] += add[i] * near * near);
            }
        }
        for wave in &waves {
            let ((sin_a, cos_a), (sin_b, cos_b)) = (wave.columns[px as usize], wave.rows[py as usize]);
            let height = wave.strength * (sin_a * cos_b + cos_a * sin_b);
            (0..3).for_each(|i| color[i] += height);
        }
        let bits = noise.next();
        // -1.5 to 1.5 on all channels alike, and a little on each.
        let common = (bits & 3) as f32 - 1.5;
        Rgb(std::array::from_fn(|i| (color[i] + common + (bits >> (8 * i + 8) & 3) as f32 / 2.0 - 0.75) as u8))
    })
}

/// Lines of something like text on a light ground, another page after half the scene.
fn draw_slide((width, height): (u32, u32), participant: u32, step: u32, seed: u64) -> RgbImage {
    let mut page = Dice::new(seed ^ 0x511de, u64::from(participant) * 2 + u64::from(step >= SCENE_PICTURES / 2));
    let tint = [(page.next() & 15) as u8, (page.next() & 15) as u8, (page.next() & 15) as u8];
    let mut picture = RgbImage::from_pixel(width, height, Rgb(tint.map(|t| 255 - t)));
    let line = (height / 24).max(6);
    for top in (4 * line..height.saturating_sub(line)).step_by(line as usize) {
        let end = width * (50 + (page.next() % 40) as u32) / 100;
        let mut x = width / 16;
        while x < end {
            let stroke = 1 + (page.next() % 3) as u32;
            let ink = Rgb([30 + (page.next() & 31) as u8; 3]);
            let (from, to) = (top + (page.next() % 3) as u32, top + line * 2 / 3);
            for (px, py) in (x..(x + stroke).min(width)).flat_map(|px| (from..to).map(move |py| (px, py))) {
                picture.put_pixel(px, py, ink);
            }
            x += stroke + 2 + if page.next().is_multiple_of(6) { line / 2 } else { 0 };
        }
    }
    picture
}

/// Reads the label of a picture that may have been scaled, letterboxed and compressed. Rows of `luma` lie one after the
/// other, `width` bytes each. `None` when there is no band, or its checksum is wrong.
pub fn read_number(luma: &[u8], width: u32, height: u32) -> Option<Label> {
    let (width, height) = (width as usize, height as usize);
    let row = |y: usize| luma.get(y * width..(y + 1) * width);
    // The white row: the first one with a bright run over a quarter of the width. Its own edge may be blurred, so the
    // run is measured a row further in.
    let top = (0..height).find(|&y| row(y).is_some_and(|row| bright_run(row).len() * 4 >= width))?;
    let run = bright_run(row(top + 1)?);
    let bottom = (top..height).find(|&y| row(y).is_some_and(|row| mean(&row[run.clone()]) < 128))?;
    let cell = run.len() as f32 / CELLS as f32;
    // Two measures of a cell's height: the white row, and the width of a square cell. The checksum tells which is right.
    [(bottom - top) as f32, cell, cell.floor()].into_iter().find_map(|rows| {
        let middle = top as f32 + 2.5 * rows;
        let reach = (rows / 4.0).max(0.5);
        let mut bits = 0;
        for number in 0..CELLS {
            let center = run.start as f32 + (number as f32 + 0.5) * cell;
            let columns = (center - cell / 4.0).round() as usize..((center + cell / 4.0).round() as usize).max(1);
            let columns = columns.start..columns.end.max(columns.start + 1);
            let (mut sum, mut count) = (0, 0);
            for y in (middle - reach).floor() as usize..((middle + reach).ceil() as usize).min(height) {
                sum += row(y)?.get(columns.clone())?.iter().map(|&y| usize::from(y)).sum::<usize>();
                count += columns.len();
            }
            bits = bits << 1 | u64::from(sum > 125 * count.max(1));
        }
        Label::from_bits(bits)
    })
}

/// The longest run of bright samples.
fn bright_run(row: &[u8]) -> std::ops::Range<usize> {
    let mut best = 0..0;
    let mut start = 0;
    for at in 0..=row.len() {
        if row.get(at).is_none_or(|&y| y < 128) {
            if at - start > best.len() {
                best = start..at;
            }
            start = at + 1;
        }
    }
    best
}

fn mean(samples: &[u8]) -> usize {
    samples.iter().map(|&y| usize::from(y)).sum::<usize>() / samples.len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::imageops::{self, FilterType};

    fn luma(picture: &RgbImage) -> Vec<u8> {
        let luma = |p: &Rgb<u8>| {
            16 + ((2126 * u32::from(p[0]) + 7152 * u32::from(p[1]) + 722 * u32::from(p[2])) * 219 / 2_550_000) as u8
        };
        picture.pixels().map(luma).collect()
    }

    fn read(picture: &RgbImage) -> Option<Label> {
        read_number(&luma(picture), picture.width(), picture.height())
    }

    /// Fits it into the canvas with its aspect kept, black around it.
    fn letterbox(picture: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
        let scale =
            (f64::from(width) / f64::from(picture.width())).min(f64::from(height) / f64::from(picture.height()));
        let fit = |side: u32| ((f64::from(side) * scale / 2.0).round() as u32 * 2).max(2);
        let inner = imageops::resize(picture, fit(picture.width()), fit(picture.height()), FilterType::Triangle);
        let mut canvas = RgbImage::new(width, height);
        let (left, top) = ((width - inner.width()) / 4 * 2, (height - inner.height()) / 4 * 2);
        imageops::replace(&mut canvas, &inner, left.into(), top.into());
        canvas
    }

    fn as_jpeg(picture: &RgbImage, quality: u8) -> RgbImage {
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(picture).unwrap();
        image::load_from_memory(&jpeg).unwrap().to_rgb8()
    }

    const LABELS: [Label; 5] = [
        Label { participant: 0, kind: Kind::Webcam, number: 0 },
        Label { participant: 1, kind: Kind::Screenshare, number: 1 },
        Label { participant: 7, kind: Kind::Webcam, number: 0x5_5555 },
        Label { participant: 511, kind: Kind::Screenshare, number: 0xf_ffff },
        Label { participant: 300, kind: Kind::Webcam, number: 119 },
    ];

    #[test]
    fn labels_survive_scaling_letterboxing_and_compression() {
        let sizes = [(640, 360), (480, 360), (1280, 720), (360, 640), (320, 180), (176, 144)];
        for size in sizes {
            for label in LABELS {
                let picture = draw(size, label.participant, label.kind, label.number, 3);
                assert_eq!(read(&picture), Some(label), "{size:?}");
                let tiny = size.0 < 300;
                for canvas in [size, (640, 360), (480, 360), (1280, 720), (320, 180)] {
                    // Cells under 4 samples are beyond what is promised.
                    let scale = (f64::from(canvas.0) / f64::from(size.0)).min(f64::from(canvas.1) / f64::from(size.1));
                    if f64::from(cell_rows(size.0)) * scale < 4.0 {
                        continue;
                    }
                    let fitted = letterbox(&picture, canvas);
                    assert_eq!(read(&fitted), Some(label), "{size:?} in {canvas:?}");
                    let quality = if tiny { 40 } else { 12 };
                    assert_eq!(read(&as_jpeg(&fitted, quality)), Some(label), "{size:?} in {canvas:?} as JPEG");
                }
            }
        }
    }

    #[test]
    fn what_has_no_label_reads_as_none() {
        let mut plain = draw((640, 360), 0, Kind::Webcam, 5, 3);
        for (_, y, pixel) in plain.enumerate_pixels_mut() {
            if y < 48 {
                *pixel = Rgb([90; 3]);
            }
        }
        assert_eq!(read(&plain), None);
        assert_eq!(read(&RgbImage::from_pixel(640, 360, Rgb([255; 3]))), None);
        assert_eq!(read(&RgbImage::new(640, 360)), None);
        assert_eq!(read_number(&[], 640, 360), None);
        assert_eq!(read_number(&[200; 16], 4, 4), None);
        for wrong in 0..40 {
            assert_eq!(Label::from_bits(LABELS[2].bits() ^ 1 << wrong), None);
        }
    }

    #[test]
    fn scenes_move_and_repeat() {
        let below = |number| draw((64, 36), 1, Kind::Webcam, number, 3).into_raw().split_off(64 * 12 * 3);
        assert_ne!(below(0), below(1));
        assert_eq!(below(0), below(SCENE_PICTURES));
    }
}
