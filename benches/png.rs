//! How long a capture takes from base64 to planes: 640x360, natural content, about 290 kB of PNG.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use image::{DynamicImage, ImageFormat, RgbaImage};
use tilecast::pipeline::ingest::png::{Limits, PngDecoder, decode_base64, header};

/// Gradients, waves and sensor noise: as hard to compress as a camera's picture.
fn natural(alpha: u8) -> RgbaImage {
    let mut state = 7_u32;
    RgbaImage::from_fn(640, 360, |x, y| {
        let (x, y) = (x as f32, y as f32);
        let wave = 30.0 * (x / 37.0).sin() + 25.0 * (y / 23.0 + x / 91.0).cos();
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 29) % 3) as f32 - 1.0
        };
        let mut channel = |base: f32| (base + wave + noise()).clamp(0.0, 255.0) as u8;
        image::Rgba([channel(60.0 + x / 6.0), channel(90.0 + y / 4.0), channel(110.0), alpha])
    })
}

fn png(picture: DynamicImage) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).expect("writing to memory");
    png.into_inner()
}

fn bench(c: &mut Criterion) {
    let rgba = DynamicImage::from(natural(255));
    let kinds = [
        ("rgb", png(rgba.to_rgb8().into())),
        ("rgba", png(rgba)),
        ("rgba_transparent", png(natural(200).into())),
        ("gray", png(DynamicImage::from(natural(255)).to_luma8().into())),
    ];
    let mut decoder = PngDecoder::new(Limits::default());
    for (name, png) in &kinds {
        c.bench_function(&format!("png/{name}/{}kB", png.len() / 1000), |b| {
            b.iter(|| decoder.decode(black_box(png)).expect("a good PNG"));
        });
    }
    let png = &kinds[0].1;
    c.bench_function("png/header", |b| b.iter(|| header(black_box(png))));
    let text = base64_simd::STANDARD.encode_to_string(png);
    let mut bytes = Vec::new();
    c.bench_function("base64", |b| b.iter(|| decode_base64(black_box(text.as_bytes()), &mut bytes)));
}

criterion_group!(benches, bench);
criterion_main!(benches);
