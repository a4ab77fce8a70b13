//! libx264 through FFmpeg: one thread, no delay, and the same parameter sets whatever the preset.
//!
//! Which options are pinned and why is here; what FFmpeg needs `unsafe` for is in `ffmpeg.rs`.

use ffmpeg_next as ff;

use super::nal;
use super::skip::Skips;
use super::{EncodeError, Encoder, EncoderSettings};
use crate::config::Config;
use crate::ffmpeg::{self, Surface};
use crate::media::{AccessUnit, Canvas, ParameterSets, Picture};

/// The presets on offer, cheapest first. The slower ones cost more than a server has.
pub const PRESETS: [&str; 6] = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"];

/// Those of [`PRESETS`] with subme >= 6. There x264's psychovisual optimisation lowers the chroma offset by 2, which
/// is a field of the PPS; 2 more in the option keeps the PPS as the other presets have it.
const LOWER_CHROMA_OFFSET: [&str; 2] = ["fast", "medium"];

/// The preset that the choices below are made for.
const USUAL: &str = "superfast";

/// For cameras: two per cent fewer bytes for a little less work (`benches/encoder.py`). Blocks of 8 are enough for them where
/// CABAC codes; splitting motion among them costs more bits than it saves.
const FOR_CAMERAS: &[(&str, &str)] = &[("partitions", "i8x8")];

/// For screens, 0.73 of the work of [`USUAL`] and a tenth fewer bytes (`benches/encoder.py`): they move by whole samples,
/// so a search between those finds nothing; letters are smaller than blocks of 8; and their edges are sharp.
const FOR_SCREENS: &[(&str, &str)] = &[("subme", "0"), ("partitions", "i4x4"), ("no-deblock", "1")];

/// For cameras under overload: with what is taken of the quality 0.8 of the work (`benches/encoder.py`), for a fifth more bytes
/// at equal quality (ultrafast: 70 % more). Nothing saves work for less.
const TO_SAVE: &[(&str, &str)] = &[("subme", "0"), ("partitions", "i8x8")];

/// What overload takes of the quality: a tenth of the bytes for each step, so that none are added.
const STEPS_TO_SAVE: u8 = 2;

/// An open libx264 for one canvas.
pub struct X264 {
    encoder: ff::encoder::video::Encoder,
    surface: Surface,
    canvas: Canvas,
    sets: ParameterSets,
    skips: Skips,
    options: String,
    /// Pictures sent, and so the time of the next one.
    sent: i64,
}

impl X264 {
    /// Opens an encoder for pictures of the canvas's size, with its first picture an IDR.
    ///
    /// Fails when the settings are out of range, when FFmpeg has no libx264 or refuses, and when an option was not
    /// consumed.
    pub fn open(settings: &EncoderSettings, canvas: Canvas) -> Result<X264, EncodeError> {
        validate(settings, canvas)?;
        ffmpeg::quiet();
        let refused = |why: String| EncodeError::Open { width: canvas.width, height: canvas.height, why };
        let codec = ff::encoder::find_by_name("libx264")
            .ok_or_else(|| refused("this FFmpeg was built without it".to_owned()))?;

        let options = [
            ("preset", chosen(settings).0.to_owned()),
            ("tune", "zerolatency".to_owned()),
            ("crf", quantiser(settings.crf, settings).to_string()),
            ("level", level(canvas).to_owned()),
            ("forced-idr", "1".to_owned()),
            ("x264-params", join(&pinned(settings), ":")),
        ];
        let dictionary = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let context = context(codec, settings, canvas).map_err(|error| refused(error.to_string()))?;
        let (encoder, left) =
            ffmpeg::open_encoder(context, codec, dictionary).map_err(|error| refused(error.to_string()))?;
        if !left.is_empty() {
            return Err(EncodeError::UnknownOptions(left.join(" ")));
        }
        let sets = nal::parameter_sets(ffmpeg::extradata(&encoder))
            .ok_or(EncodeError::ParameterSets("not one SPS and one PPS"))?;
        let skips = Skips::of(&sets, canvas).ok_or(EncodeError::ParameterSets("not those of the pinned options"))?;
        let surface = Surface::new(canvas.width, canvas.height).map_err(failed)?;
        let options = format!("libx264 {}", join(&options, " "));
        Ok(X264 { encoder, surface, canvas, sets, skips, options, sent: 0 })
    }

    /// Bytes of memory that an open encoder of this canvas takes, by any preset: 6.1 MB measured at 640x360, 21 MB at
    /// 1280x720, 44 MB at 1920x1080 (x264 164). What lanes are charged.
    pub fn bytes(canvas: Canvas) -> u64 {
        1_300_000 + u64::from(canvas.width) * u64::from(canvas.height) * 43 / 2
    }

    /// What it was opened with, in one line.
    pub fn options(&self) -> &str {
        &self.options
    }

    /// Sends the surface and takes the packet that it becomes, as FFmpeg gives it.
    fn send(&mut self, idr: bool) -> Result<ff::Packet, EncodeError> {
        let input = self.surface.get_mut();
        input.set_pts(Some(self.sent));
        input.set_kind(if idr { ff::picture::Type::I } else { ff::picture::Type::None });
        self.encoder.send_frame(input).map_err(failed)?;
        let time = self.sent;
        self.sent += 1;

        let mut packet = ff::Packet::empty();
        let mut count = 0;
        loop {
            let mut next = ff::Packet::empty();
            match self.encoder.receive_packet(&mut next) {
                Ok(()) => {
                    count += 1;
                    packet = next;
                }
                Err(ff::Error::Other { errno: ff::error::EAGAIN }) => break,
                Err(error) => return Err(failed(error)),
            }
        }
        if count != 1 || packet.pts() != Some(time) || packet.dts() != Some(time) {
            return Err(EncodeError::Delayed(count));
        }
        Ok(packet)
    }

    fn unit(&mut self, idr: bool) -> Result<AccessUnit, EncodeError> {
        let packet = self.send(idr)?;
        let unit = nal::access_unit(packet.data().unwrap_or_default());
        if unit.data.is_empty() || (idr && !unit.idr) {
            return Err(EncodeError::Failed(format!(
                "a packet of {} bytes without the slice asked for",
                packet.size()
            )));
        }
        Ok(self.skips.renumber(unit))
    }

    fn load(&mut self, picture: &Picture) -> Result<(), EncodeError> {
        let Canvas { width, height } = self.canvas;
        let (got_width, got_height) = (picture.width(), picture.height());
        if (got_width, got_height) != (width, height) {
            return Err(EncodeError::Size { got_width, got_height, width, height });
        }
        self.surface.write(picture.planes()).map_err(failed)
    }
}

impl Encoder for X264 {
    fn encode(&mut self, picture: &Picture, idr: bool) -> Result<AccessUnit, EncodeError> {
        self.load(picture)?;
        self.unit(idr)
    }

    fn repeat(&mut self, idr: bool) -> Result<AccessUnit, EncodeError> {
        if self.sent == 0 {
            return Err(EncodeError::Failed("nothing to repeat before the first picture".to_owned()));
        }
        // x264 takes 0.7 ms to find out that nothing changed, at 640x360, and 3 ms at 1280x720.
        if idr { self.unit(true) } else { Ok(self.skips.unit()) }
    }

    fn parameter_sets(&self) -> &ParameterSets {
        &self.sets
    }
}

/// Tries the settings on a small canvas: opens, encodes two pictures, and compares what x264 says it runs on with
/// what was asked. To be called once at start, so that no lane is the first to find out.
///
/// Fails like [`X264::open`], with [`EncodeError::Delayed`] when a picture does not come out at once, and with
/// [`EncodeError::UnknownOptions`] when x264 dropped an option (FFmpeg only warns about those in `x264-params`).
pub fn check(settings: &EncoderSettings) -> Result<(), EncodeError> {
    let mut encoder = X264::open(settings, Canvas { width: 64, height: 64 })?;
    encoder.load(&Picture::black(64, 64))?;
    let first = encoder.send(true)?;
    encoder.unit(false)?;
    let running = nal::x264_options(first.data().unwrap_or_default());
    let dropped = running.map(|running| dropped(&pinned(settings), &running)).unwrap_or_default();
    if dropped.is_empty() { Ok(()) } else { Err(EncodeError::UnknownOptions(dropped.join(" "))) }
}

/// [`check`] for every encoder that these options may open, at ease and under load.
///
/// # Errors
/// The first one's.
pub fn check_all(config: &Config) -> Result<(), EncodeError> {
    EncoderSettings::of(config)
        .iter()
        .try_for_each(|settings| check(settings).and_then(|()| check(&settings.cheaper())))
}

/// The options of x264 that have no name in FFmpeg, or must win over the preset. What they pin: the parameter sets
/// are the same for every preset and quality (but for CABAC's field), no picture waits for another, and an encoder has no thread of its own.
fn pinned(settings: &EncoderSettings) -> Vec<(&'static str, String)> {
    let (preset, single) = chosen(settings);
    let offset = if LOWER_CHROMA_OFFSET.contains(&preset) { "2" } else { "0" };
    let fixed = [
        // Writes headers that do not depend on the options of the moment (initial QP 26).
        ("stitchable", "1"),
        // Fields of the SPS: the profile, the number of references, the order of pictures.
        ("8x8dct", "1"),
        ("ref", "1"),
        ("bframes", "0"),
        // Fields of the PPS.
        ("cabac", if settings.cabac { "1" } else { "0" }),
        ("weightp", "0"),
        ("chroma-qp-offset", offset),
        // IDRs only where they are asked for.
        ("keyint", "infinite"),
        ("scenecut", "0"),
        // One thread and no look ahead.
        ("threads", "1"),
        ("lookahead-threads", "1"),
        ("sliced-threads", "0"),
        ("rc-lookahead", "0"),
        ("sync-lookahead", "0"),
        ("mbtree", "0"),
    ];
    let mut pinned: Vec<_> = fixed.into_iter().map(|(key, value)| (key, value.to_owned())).collect();
    pinned.push(("qpmin", quantiser(settings.qpmin, settings).to_string()));
    pinned.extend(single.iter().map(|(key, value)| (*key, (*value).to_owned())));
    pinned
}

/// A quantiser of the settings, coarser where they are to save work.
fn quantiser(asked: u8, settings: &EncoderSettings) -> u8 {
    if settings.cheaper { (asked + STEPS_TO_SAVE).min(51) } else { asked }
}

/// The preset that the settings come to, and the single options on top of it. Nothing is cheaper than `ultrafast`, and
/// who asks for another preset than the usual one gets it as it is.
fn chosen(settings: &EncoderSettings) -> (&str, &'static [(&'static str, &'static str)]) {
    match (settings.preset.as_str(), settings.screen, settings.cheaper) {
        (fastest, ..) if fastest == PRESETS[0] => (fastest, &[]),
        (USUAL, false, false) => (USUAL, FOR_CAMERAS),
        (USUAL, true, false) | (_, true, true) => (USUAL, FOR_SCREENS),
        (_, false, true) => (USUAL, TO_SAVE),
        (preset, _, false) => (preset, &[]),
    }
}

/// Those of the pinned options that x264's own list of what it runs on contradicts or lacks. Its list writes keys with
/// underscores, shows the chroma offset after its own correction, and leaves out what is off or derived.
fn dropped(pinned: &[(&str, String)], running: &str) -> Vec<String> {
    let shown = |key: &str| {
        running.split_whitespace().filter_map(|option| option.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v)
    };
    let holds = |key: &str, value: &str| match key {
        "chroma-qp-offset" => shown("chroma_qp_offset") == Some("0"),
        // 0 is not shown without look ahead.
        "rc-lookahead" => shown("rc_lookahead").is_none_or(|shown| shown == value),
        // Never shown; a delay of any kind is found by encoding.
        "sync-lookahead" => true,
        // Shown as flags, of intra blocks and of those among others.
        "partitions" => {
            let flags = if value == "i4x4" { ":0x1" } else { ":0x2" };
            shown("analyse").is_some_and(|shown| shown.ends_with(flags))
        }
        "no-deblock" => shown("deblock").is_some_and(|shown| shown.starts_with('0')),
        _ => shown(&key.replace('-', "_")) == Some(value),
    };
    pinned.iter().filter(|(key, value)| !holds(key, value)).map(|(key, value)| format!("{key}={value}")).collect()
}

fn join<K: AsRef<str>>(options: &[(K, String)], between: &str) -> String {
    let pairs: Vec<String> = options.iter().map(|(key, value)| format!("{}={value}", key.as_ref())).collect();
    pairs.join(between)
}

fn failed(error: ff::Error) -> EncodeError {
    EncodeError::Failed(error.to_string())
}

fn context(
    codec: ff::Codec,
    settings: &EncoderSettings,
    canvas: Canvas,
) -> Result<ff::encoder::video::Video, ff::Error> {
    let mut context = ff::codec::Context::new_with_codec(codec).encoder().video()?;
    context.set_width(canvas.width);
    context.set_height(canvas.height);
    context.set_format(ff::format::Pixel::YUV420P);
    context.set_time_base((1, settings.fps as i32));
    context.set_frame_rate(Some((settings.fps as i32, 1)));
    context.set_aspect_ratio((1, 1));
    context.set_color_primaries(ff::color::Primaries::BT709);
    context.set_color_transfer_characteristic(ff::color::TransferCharacteristic::BT709);
    context.set_colorspace(ff::color::Space::BT709);
    context.set_color_range(ff::color::Range::MPEG);
    ffmpeg::set_chroma_left(&mut context);
    context.set_flags(ff::codec::Flags::GLOBAL_HEADER);
    Ok(context)
}

fn validate(settings: &EncoderSettings, canvas: Canvas) -> Result<(), EncodeError> {
    let refuse = |why: String| Err(EncodeError::Settings(why));
    if !PRESETS.contains(&settings.preset.as_str()) {
        return refuse(format!("preset {:?} is none of {}", settings.preset, PRESETS.join(", ")));
    }
    // crf 0 is lossless: another profile.
    if !(1..=51).contains(&settings.crf) {
        return refuse(format!("crf {} is not within 1 and 51", settings.crf));
    }
    if settings.qpmin > 51 {
        return refuse(format!("qpmin {} is above 51", settings.qpmin));
    }
    if !(1..=30).contains(&settings.fps) {
        return refuse(format!("fps {} is not within 1 and 30", settings.fps));
    }
    let Canvas { width, height } = canvas;
    if width < 16 || height < 16 || width > 4096 || height > 4096 || width % 2 + height % 2 > 0 {
        return refuse(format!("a canvas of {width}x{height}: even, and within 16 and 4096"));
    }
    Ok(())
}

/// The lowest level, 3 at least, that allows the canvas at 30 pictures a second (H.264 table A-1). It depends on
/// nothing else, so that a recording's rate and quality never show in it. Below 3 the limit on the bit rate would bind.
fn level(canvas: Canvas) -> &'static str {
    const LEVELS: [(&str, u32, u32); 5] = [
        ("3.0", 1_620, 40_500),
        ("3.1", 3_600, 108_000),
        ("3.2", 5_120, 216_000),
        ("4.0", 8_192, 245_760),
        ("5.1", 36_864, 983_040),
    ];
    let (columns, rows) = (canvas.width.div_ceil(16), canvas.height.div_ceil(16));
    let (blocks, longer) = (columns * rows, columns.max(rows));
    let fits =
        |&&(_, size, rate): &&(&str, u32, u32)| blocks <= size && blocks * 30 <= rate && longer * longer <= 8 * size;
    LEVELS.iter().find(fits).map_or("5.2", |(name, ..)| name)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{decode, psnr, scene};
    use super::*;

    fn settings(preset: &str, crf: u8, qpmin: u8, fps: u32) -> EncoderSettings {
        EncoderSettings { preset: preset.to_owned(), crf, qpmin, fps, ..EncoderSettings::default() }
    }

    /// Each of the one with each of the other.
    fn pairs<A: Copy, B: Copy, const N: usize>(
        ones: impl IntoIterator<Item = A>,
        others: [B; N],
    ) -> impl Iterator<Item = (A, B)> {
        ones.into_iter().flat_map(move |one| others.map(|other| (one, other)))
    }

    fn open(preset: &str, canvas: Canvas) -> X264 {
        X264::open(&settings(preset, 23, 20, 2), canvas).unwrap()
    }

    const CANVASES: [Canvas; 5] = [
        Canvas { width: 64, height: 64 },
        Canvas { width: 640, height: 360 },
        Canvas { width: 642, height: 358 },
        Canvas { width: 1080, height: 1920 },
        Canvas { width: 1920, height: 1080 },
    ];

    #[test]
    fn parameter_sets_are_the_same_for_every_preset_and_quality() {
        for canvas in CANVASES {
            for fps in [1, 2, 30] {
                let sets = X264::open(&settings("ultrafast", 23, 20, fps), canvas).unwrap().sets;
                for preset in PRESETS {
                    for (crf, qpmin) in [(1, 0), (23, 20), (51, 51)] {
                        let other = X264::open(&settings(preset, crf, qpmin, fps), canvas).unwrap().sets;
                        assert_eq!(other, sets, "{preset} crf {crf} qpmin {qpmin} fps {fps} {canvas:?}");
                    }
                }
            }
            let sets = open("ultrafast", canvas).sets;
            for (preset, (screen, cheaper)) in pairs(PRESETS, [(true, false), (false, true), (true, true)]) {
                let other = EncoderSettings { screen, cheaper, ..settings(preset, 23, 20, 2) };
                assert_eq!(X264::open(&other, canvas).unwrap().sets, sets, "{other:?} {canvas:?}");
            }
        }
    }

    #[test]
    fn the_coder_shows_in_the_pps_alone_and_does_not_follow_the_preset() {
        let canvas = Canvas { width: 640, height: 360 };
        let cabac = open("superfast", canvas).sets;
        let cavlc = PRESETS.map(|preset| {
            X264::open(&EncoderSettings { cabac: false, ..settings(preset, 23, 20, 2) }, canvas).unwrap().sets
        });
        assert!(cavlc.iter().all(|sets| *sets == cavlc[0]));
        assert_eq!(cavlc[0].sps, cabac.sps);
        assert_ne!(cavlc[0].pps, cabac.pps);
    }

    #[test]
    fn x264_runs_on_what_was_asked() {
        for preset in PRESETS {
            check(&settings(preset, 23, 20, 2)).unwrap();
            check(&EncoderSettings { cabac: false, ..settings(preset, 23, 20, 2) }).unwrap();
            check(&settings(preset, 1, 0, 30)).unwrap();
            for (screen, cheaper) in [(true, false), (false, true), (true, true)] {
                check(&EncoderSettings { screen, cheaper, ..settings(preset, 23, 20, 2) }).unwrap();
            }
        }
    }

    #[test]
    fn options_that_x264_dropped_are_named() {
        let asked = [("ref", "1".to_owned()), ("no-such", "1".to_owned()), ("chroma-qp-offset", "2".to_owned())];
        assert_eq!(dropped(&asked, "ref=1 chroma_qp_offset=-2"), ["no-such=1", "chroma-qp-offset=2"]);
        assert_eq!(dropped(&asked[..1], "ref=10"), ["ref=1"]);
    }

    #[test]
    fn profile_is_high_and_the_level_follows_the_canvas() {
        let codecs: Vec<_> =
            CANVASES.iter().map(|canvas| nal::codecs(open("superfast", *canvas).parameter_sets())).collect();
        assert_eq!(codecs, ["avc1.64001E", "avc1.64001E", "avc1.64001E", "avc1.640028", "avc1.640028"]);
    }

    #[test]
    fn every_picture_comes_out_at_once_and_looks_right() {
        let canvas = Canvas { width: 642, height: 358 };
        for preset in PRESETS {
            let mut encoder = open(preset, canvas);
            let scenes: Vec<_> = (0..6).map(|number| scene(642, 358, number)).collect();
            let units: Vec<_> =
                scenes.iter().enumerate().map(|(number, scene)| encoder.encode(scene, number == 4).unwrap()).collect();
            assert_eq!(units.iter().map(|unit| unit.idr).collect::<Vec<_>>(), [true, false, false, false, true, false]);

            let shown = decode(encoder.parameter_sets(), &units).unwrap();
            assert_eq!(shown.len(), scenes.len());
            for (scene, shown) in scenes.iter().zip(&shown) {
                let psnr = psnr(scene, shown);
                assert!(psnr > 38.0, "{preset}: {psnr} dB");
                assert_eq!(shown.color_primaries(), ff::color::Primaries::BT709);
                assert_eq!(shown.color_transfer_characteristic(), ff::color::TransferCharacteristic::BT709);
                assert_eq!(shown.color_space(), ff::color::Space::BT709);
                assert_eq!(shown.color_range(), ff::color::Range::MPEG);
                assert_eq!(shown.chroma_location(), ff::chroma::Location::Left);
                assert_eq!(shown.aspect_ratio(), ff::Rational(1, 1));
            }
        }
    }

    /// Letters with strokes one sample wide, one picture for each page.
    fn text(width: u32, height: u32, page: u32) -> Picture {
        let mut picture = Picture::black(width, height);
        let [y, u, v] = picture.planes_mut();
        u.fill(128);
        v.fill(128);
        for (at, sample) in y.iter_mut().enumerate() {
            let (x, row) = (at as u32 % width, at as u32 / width);
            let (letter, line, column, stroke) = (x / 7, row / 12, x % 7, row % 12);
            // A word of six letters, then a space; two rows between the lines.
            let paper = column > 4 || stroke > 8 || letter % 7 == 6;
            let drawn = (letter * 31 + line * 57 + page * 101).wrapping_mul(0x9e37_79b9) >> 7;
            let ink = match drawn % 4 {
                0 => column == 0 || stroke == 4,
                1 => column == stroke / 2,
                2 => column == 4 || stroke == 0 || stroke == 8,
                _ => column == 2 || stroke == 8,
            };
            *sample = if ink && !paper { 30 } else { 235 };
        }
        picture
    }

    /// Small print survives, on the first picture of a cell as on a page that comes in the middle of one.
    #[test]
    fn small_text_of_screens_is_readable() {
        let (width, height) = (640, 360);
        for cheaper in [false, true] {
            let settings = EncoderSettings { screen: true, cheaper, ..EncoderSettings::default() };
            let mut encoder = X264::open(&settings, Canvas { width, height }).unwrap();
            let pages: Vec<_> = (0..4).map(|page| text(width, height, page)).collect();
            let units: Vec<_> = pages.iter().map(|page| encoder.encode(page, false).unwrap()).collect();
            let shown = decode(encoder.parameter_sets(), &units).unwrap();
            for (number, (page, shown)) in pages.iter().zip(&shown).enumerate() {
                let samples = page.planes()[0].iter().zip(ffmpeg::rows(shown, 0).flatten());
                let wrong = samples.filter(|(drawn, shown)| (**drawn < 132) != (**shown < 132)).count();
                assert_eq!(wrong, 0, "samples on the wrong side of grey, page {number}, cheaper {cheaper}");
            }
        }
    }

    #[test]
    fn no_idr_comes_unasked_even_where_scenes_change() {
        let mut encoder = open("medium", Canvas { width: 64, height: 64 });
        for number in 0..600_u32 {
            let mut picture = Picture::black(64, 64);
            picture.planes_mut()[0].fill(if number % 50 < 25 { 20 } else { 230 });
            assert_eq!(encoder.encode(&picture, false).unwrap().idr, number == 0, "picture {number}");
        }
    }

    #[test]
    fn a_repeated_picture_is_the_picture_again() {
        let scene = scene(64, 64, 3);
        let mut encoder = open("superfast", Canvas { width: 64, height: 64 });
        assert!(matches!(encoder.repeat(false), Err(EncodeError::Failed(_))));
        let units = [encoder.encode(&scene, true), encoder.repeat(false), encoder.repeat(true)].map(Result::unwrap);
        assert_eq!(units.each_ref().map(|unit| unit.idr), [true, false, true]);
        let shown = decode(encoder.parameter_sets(), &units).unwrap();
        assert!(shown.iter().all(|shown| psnr(&scene, shown) > 38.0));
        let alone = decode(encoder.parameter_sets(), &units[1..2]);
        assert!(alone.is_ok_and(|shown| shown.is_empty()), "the second refers to the first");
    }

    #[test]
    fn ids_of_idrs_alternate() {
        let scene = scene(64, 64, 3);
        let mut encoder = open("superfast", Canvas { width: 64, height: 64 });
        let first = encoder.encode(&scene, true).unwrap();
        let between = encoder.repeat(false).unwrap();
        let second = encoder.repeat(true).unwrap();
        let other = open("medium", Canvas { width: 64, height: 64 }).encode(&scene, true).unwrap();
        let sets = encoder.parameter_sets();
        let ids = [&first, &between, &second, &other].map(|unit| nal::idr_pic_id(unit, sets));
        assert_eq!(ids, [Some(0), None, Some(1), Some(0)]);
    }

    #[test]
    fn access_units_hold_slices_only() {
        let mut encoder = open("superfast", Canvas { width: 64, height: 64 });
        let unit = encoder.encode(&scene(64, 64, 0), true).unwrap();
        let length = u32::from_be_bytes(*unit.data.first_chunk().unwrap()) as usize;
        assert_eq!((unit.data[4] & 0x1f, unit.data.len()), (5, length + 4));
    }

    #[test]
    fn pictures_of_another_size_are_refused() {
        let mut encoder = open("superfast", Canvas { width: 64, height: 64 });
        let error = encoder.encode(&Picture::black(64, 66), false).unwrap_err();
        assert_eq!(error.to_string(), "a picture of 64x66 for a canvas of 64x64");
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let canvas = Canvas { width: 64, height: 64 };
        for (bad, named) in [
            (settings("placebo", 23, 20, 2), "preset \"placebo\""),
            (settings("superfast", 0, 20, 2), "crf 0"),
            (settings("superfast", 52, 20, 2), "crf 52"),
            (settings("superfast", 23, 52, 2), "qpmin 52"),
            (settings("superfast", 23, 20, 0), "fps 0"),
            (settings("superfast", 23, 20, 31), "fps 31"),
        ] {
            let error = X264::open(&bad, canvas).err().unwrap().to_string();
            assert!(error.contains(named), "{error}");
        }
        let odd = X264::open(&EncoderSettings::default(), Canvas { width: 65, height: 64 }).err().unwrap();
        assert!(odd.to_string().contains("65x64"));
    }
}
