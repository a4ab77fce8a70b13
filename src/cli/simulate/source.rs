//! Where the pictures come from: drawn, a folder of PNGs, or a video. All are labelled, compressed once, and shared by
//! all bots.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ffmpeg_next as ffmpeg;
use ffmpeg_next::software::scaling;
use image::RgbImage;
use image::imageops::FilterType;

use crate::media::Kind;

use super::SimulateError;
use super::args::SimulateArgs;
use super::picture::{Label, SCENE_PICTURES, draw};
use super::template::Template;

/// Scenes that are drawn: later participants show those of earlier ones. Eight cameras are 40 MB at 640x360.
const SCENES_MAX: u32 = 8;

/// Pictures that are taken from a folder or a video: a minute, and about 50 MB at 640x360.
const PICTURES_MAX: usize = 120;

/// Compressed pictures that wait for their labels.
#[derive(Debug)]
pub struct Pictures {
    webcams: Vec<Vec<Template>>,
    screenshares: Vec<Vec<Template>>,
}

impl Pictures {
    /// Draws or reads the pictures, and compresses them on all cores.
    ///
    /// # Errors
    /// When the folder or the video cannot be read, or holds no picture.
    pub fn prepare(args: &SimulateArgs) -> Result<Pictures, SimulateError> {
        let drawn = |kind, participants: u32| -> Vec<Vec<Template>> {
            let scenes = participants.min(SCENES_MAX);
            let all = in_parallel((scenes * SCENE_PICTURES) as usize, |n| {
                let n = n as u32;
                Template::new(draw(args.size, n / SCENE_PICTURES, kind, n % SCENE_PICTURES, args.seed))
            });
            let mut all = all.into_iter();
            (0..scenes).map(|_| all.by_ref().take(SCENE_PICTURES as usize).collect()).collect()
        };
        let path = PathBuf::from(&args.source);
        let webcams = if args.source == "synthetic" {
            drawn(Kind::Webcam, args.participants)
        } else {
            let pictures = if path.is_dir() { read_folder(&path, args.size)? } else { read_video(&path, args.size)? };
            if pictures.is_empty() {
                return Err(SimulateError::NoPictures(path));
            }
            vec![in_parallel(pictures.len(), |n| Template::new(pictures[n].clone()))]
        };
        Ok(Pictures { webcams, screenshares: drawn(Kind::Screenshare, args.screenshares) })
    }

    /// The picture that a capture shows. Participants who share a scene are some pictures apart.
    pub fn template(&self, label: &Label) -> &Template {
        let scenes = if label.kind == Kind::Webcam { &self.webcams } else { &self.screenshares };
        let participant = label.participant as usize;
        let scene = &scenes[participant % scenes.len()];
        &scene[(label.number as usize + participant / scenes.len() * 5) % scene.len()]
    }
}

/// Does `work` for 0..count on all cores; results in order.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from).min(count) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let result = work(n);
                    done.lock().expect("a worker panicked").push((n, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("a worker panicked");
    done.sort_unstable_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The PNGs of a folder in the order of their names, scaled to `size`.
fn read_folder(folder: &Path, size: (u32, u32)) -> Result<Vec<RgbImage>, SimulateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: &dyn std::fmt::Display| SimulateError::Source { path, why: error.to_string() }
    };
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder)(&error))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| failed(folder)(&error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")));
    paths.sort();
    let scaled = |path: &PathBuf| {
        let picture = image::open(path).map_err(|error| failed(path)(&error))?;
        Ok(picture.resize_exact(size.0, size.1, FilterType::Triangle).to_rgb8())
    };
    paths.iter().take(PICTURES_MAX).map(scaled).collect()
}

/// Two pictures a second of a video, scaled to `size`.
fn read_video(path: &Path, size: (u32, u32)) -> Result<Vec<RgbImage>, SimulateError> {
    let failed = |error: ffmpeg::Error| SimulateError::Source { path: path.to_owned(), why: error.to_string() };
    ffmpeg::init().map_err(failed)?;
    let mut input = ffmpeg::format::input(path).map_err(failed)?;
    let stream = input.streams().best(ffmpeg::media::Type::Video).ok_or(ffmpeg::Error::StreamNotFound);
    let stream = stream.map_err(failed)?;
    let (index, time_base) = (stream.index(), f64::from(stream.time_base()));
    let context = ffmpeg::codec::context::Context::from_parameters(stream.parameters()).map_err(failed)?;
    let mut decoder = context.decoder().video().map_err(failed)?;
    let mut picker = Picker { size, time_base, first: None, scaler: None, pictures: Vec::new() };
    for (stream, packet) in input.packets() {
        if stream.index() == index {
            decoder.send_packet(&packet).map_err(failed)?;
            picker.drain(&mut decoder).map_err(failed)?;
        }
        if picker.pictures.len() >= PICTURES_MAX {
            return Ok(picker.pictures);
        }
    }
    decoder.send_eof().map_err(failed)?;
    picker.drain(&mut decoder).map_err(failed)?;
    Ok(picker.pictures)
}

/// Takes the first decoded picture at or after each half second.
struct Picker {
    size: (u32, u32),
    time_base: f64,
    first: Option<i64>,
    scaler: Option<scaling::Context>,
    pictures: Vec<RgbImage>,
}

impl Picker {
    fn drain(&mut self, decoder: &mut ffmpeg::decoder::Video) -> Result<(), ffmpeg::Error> {
        let mut decoded = ffmpeg::frame::Video::empty();
        while decoder.receive_frame(&mut decoded).is_ok() {
            let pts = decoded.timestamp().unwrap_or(0);
            let since_first = (pts - *self.first.get_or_insert(pts)) as f64 * self.time_base;
            // A tenth of a millisecond off: time bases of video are no halves of seconds.
            if since_first + 1e-4 >= self.pictures.len() as f64 / 2.0 {
                self.take(&decoded)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, decoded: &ffmpeg::frame::Video) -> Result<(), ffmpeg::Error> {
        let (width, height) = self.size;
        let scaler = match &mut self.scaler {
            Some(scaler) => scaler,
            none => none.insert(scaling::Context::get(
                decoded.format(),
                decoded.width(),
                decoded.height(),
                ffmpeg::format::Pixel::RGB24,
                width,
                height,
                scaling::Flags::BILINEAR,
            )?),
        };
        let mut scaled = ffmpeg::frame::Video::empty();
        scaler.run(decoded, &mut scaled)?;
        let bytes = width as usize * 3;
        let rows = scaled.data(0).chunks(scaled.stride(0)).take(height as usize);
        let pixels = rows.flat_map(|row| &row[..bytes]).copied().collect();
        self.pictures.push(RgbImage::from_raw(width, height, pixels).expect("rows of a scaled picture"));
        Ok(())
    }
}
