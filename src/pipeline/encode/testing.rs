//! What the tests of this stage share: pictures that look a little like life, and a decoder for access units.

use ffmpeg_next as ff;

use crate::ffmpeg;
use crate::media::{AccessUnit, ParameterSets, Picture};

/// A picture with slopes, texture, a hard-edged bar that moves with `number`, and colour.
pub fn scene(width: u32, height: u32, number: u32) -> Picture {
    let mut picture = Picture::black(width, height);
    let chroma_width = picture.chroma_width();
    let [y, u, v] = picture.planes_mut();
    let mut noise = 0x2545_f491_u32.wrapping_add(number);
    for (at, sample) in y.iter_mut().enumerate() {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (x, row) = (at as u32 % width, at as u32 / width);
        let bar = (x + number * 8) % width < width / 8;
        let slope = 40 + (x + row) * 120 / (width + height);
        *sample = if bar { 220 } else { (slope + (noise >> 29)) as u8 };
    }
    for (at, (u, v)) in u.iter_mut().zip(v).enumerate() {
        let x = at as u32 % chroma_width;
        *u = (100 + x * 60 / chroma_width) as u8;
        *v = 150 - (number % 10) as u8;
    }
    picture
}

/// Decodes access units that refer to one set of parameter sets; whatever FFmpeg would conceal is an error.
/// Gives one frame of FFmpeg for each.
pub fn decode(sets: &ParameterSets, units: &[AccessUnit]) -> Result<Vec<ff::frame::Video>, ff::Error> {
    ffmpeg::quiet();
    let codec = ff::decoder::find(ff::codec::Id::H264).unwrap();
    let mut decoder = ff::codec::Context::new_with_codec(codec).decoder();
    decoder.check(ff::decoder::Check::EXPLODE | ff::decoder::Check::BITSTREAM | ff::decoder::Check::BUFFER);
    let mut decoder = decoder.open_as(codec)?.video()?;
    let mut shown = Vec::new();
    let mut drain = |decoder: &mut ff::decoder::Video| {
        let mut next = ff::frame::Video::empty();
        while decoder.receive_frame(&mut next).is_ok() {
            assert!(!next.is_corrupt() && !next.has_decode_errors());
            shown.push(std::mem::replace(&mut next, ff::frame::Video::empty()));
        }
    };
    for (number, unit) in units.iter().enumerate() {
        let mut stream = Vec::new();
        if number == 0 {
            stream = [&[0, 0, 0, 1], sets.sps.as_slice(), &[0, 0, 0, 1], &sets.pps].concat();
        }
        let mut rest = unit.data.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (nal, tail) = tail.split_at(u32::from_be_bytes(*length) as usize);
            stream.extend([&[0, 0, 0, 1], nal].concat());
            rest = tail;
        }
        let mut packet = ff::Packet::copy(&stream);
        packet.set_pts(Some(number as i64));
        packet.set_dts(Some(number as i64));
        decoder.send_packet(&packet)?;
        drain(&mut decoder);
    }
    decoder.send_eof()?;
    drain(&mut decoder);
    Ok(shown)
}

/// Peak signal to noise ratio of the luma, in dB.
pub fn psnr(picture: &Picture, shown: &ff::frame::Video) -> f64 {
    assert_eq!((shown.width(), shown.height()), (picture.width(), picture.height()));
    let width = picture.width() as usize;
    let rows = picture.planes()[0].chunks(width).zip(shown.data(0).chunks(shown.stride(0)));
    let squares: f64 =
        rows.flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mean = squares / (picture.planes()[0].len() as f64);
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}
