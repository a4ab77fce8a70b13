//! Tests with real pictures: what this stage writes, as FFmpeg's command line tools play it.
//!
//! Each picture carries its tick as 16 black or white bars, and every one is read back. The encoder is FFmpeg's own
//! program with the settings that the server uses, so that nothing but the boxes and the playlist is under test.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::assemble::{Movie, Span, assemble};
use super::boxes::{Track, init_segment};
use super::playlist::{Entry, Playlist};
use super::segmenter::Segmenter;
use crate::media::{AccessUnit, Canvas, Grid, Micros, ParameterSets, Tick};

const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 12 };
const CANVAS: Canvas = Canvas { width: 256, height: 144 };
const PICTURE_BYTES: usize = 256 * 144 * 3 / 2;
/// 2026-01-01T10:00:00.503Z.
const ORIGIN: Micros = Micros(1_767_261_600_503_000);
/// What a filler picture's bars say.
const FILL: Tick = 0;

/// Runs a program to its end; it must succeed. Gives what it wrote to standard output and to standard error.
fn run(program: &str, arguments: &[&str], input: Vec<u8>) -> (Vec<u8>, String) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    // A program that has seen enough closes its input; whether that was right, its status says.
    let _ = feeder.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    (output.stdout, errors)
}

/// A picture whose bars are the bits of `tick`, from the left.
fn picture(tick: Tick) -> Vec<u8> {
    let mut data = vec![128; PICTURE_BYTES];
    for (at, luma) in data[..256 * 144].iter_mut().enumerate() {
        *luma = if tick >> (at % 256 / 16) & 1 == 1 { 235 } else { 16 };
    }
    data
}

/// The ticks that the bars of decoded pictures say.
fn ticks_of(pictures: &[u8]) -> Vec<Tick> {
    assert_eq!(pictures.len() % PICTURE_BYTES, 0);
    let bar = |picture: &[u8], bar: usize| Tick::from(picture[72 * 256 + bar * 16 + 8] > 125);
    pictures.chunks(PICTURE_BYTES).map(|one| (0..16).map(|at| bar(one, at) << at).sum()).collect()
}

/// Encodes pictures, the ones at `idrs` (indices) as IDRs.
fn encode(ticks: &[Tick], idrs: &[usize]) -> (ParameterSets, Vec<AccessUnit>) {
    let keys: Vec<_> = idrs.iter().map(|at| format!("{:.3}", *at as f64 / 2.0)).collect();
    let arguments = format!(
        "-v error -f rawvideo -pix_fmt yuv420p -s 256x144 -r 2 -i - -c:v libx264 -preset superfast -tune zerolatency \
         -threads 1 -forced-idr 1 -force_key_frames {} -color_primaries bt709 -color_trc bt709 -colorspace bt709 \
         -color_range tv -x264-params keyint=infinite:scenecut=0:bframes=0:ref=1:weightp=0:stitchable=1 -f h264 -",
        keys.join(",")
    );
    let input = ticks.iter().flat_map(|tick| picture(*tick)).collect();
    let (stream, _) = run("ffmpeg", &arguments.split_whitespace().collect::<Vec<_>>(), input);
    let (mut sets, mut units) = (ParameterSets { sps: vec![], pps: vec![] }, Vec::new());
    for nal in nal_units(&stream) {
        match nal[0] & 31 {
            7 => sets.sps = nal.to_vec(),
            8 => sets.pps = nal.to_vec(),
            // One slice a picture: one thread.
            kind @ (1 | 5) => {
                units.push(AccessUnit { data: [&(nal.len() as u32).to_be_bytes(), nal].concat(), idr: kind == 5 });
            }
            _ => {}
        }
    }
    let found: Vec<_> = (0..units.len()).filter(|at| units[*at].idr).collect();
    assert_eq!((units.len(), &found[..]), (ticks.len(), idrs));
    (sets, units)
}

/// The NAL units of an Annex B stream.
fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts: Vec<_> =
        stream.windows(3).enumerate().filter(|(_, code)| code == b"\0\0\x01").map(|(at, _)| at).collect();
    let ends: Vec<_> = starts.iter().skip(1).copied().chain([stream.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| {
        let nal = &stream[start + 3..end];
        &nal[..nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
    })
}

/// A track on disk as the server would leave it.
struct Stored {
    dir: tempfile::TempDir,
    sets: ParameterSets,
    filler: Vec<AccessUnit>,
    playlist: Playlist,
    /// First tick, ticks, path.
    segments: Vec<(Tick, Tick, PathBuf)>,
}

impl Stored {
    fn new() -> Stored {
        let (sets, filler) = encode(&[FILL; 12], &[0]);
        let dir = tempfile::tempdir().unwrap();
        let stored = Stored { dir, sets, filler, playlist: Playlist::new(GRID, ORIGIN), segments: Vec::new() };
        fs::write(stored.path("init-1.mp4"), init_segment(&stored.track())).unwrap();
        stored.publish();
        stored
    }

    fn track(&self) -> Track<'_> {
        Track { canvas: CANVAS, fps: GRID.fps, sets: &self.sets }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn publish(&self) {
        fs::write(self.path("index.m3u8"), self.playlist.text()).unwrap();
    }

    /// Writes an epoch: pictures on the ticks `from..to`, but filler on `fill`.
    fn epoch(&mut self, from: Tick, to: Tick, fill: std::ops::Range<Tick>) {
        // The encoder sees no filler; what follows filler must be an IDR.
        let shown: Vec<_> = (from..to).filter(|tick| !fill.contains(tick)).collect();
        let idr = |tick: &Tick| *tick == from || *tick == fill.end || tick % 12 == 0;
        let idrs: Vec<_> = (0..shown.len()).filter(|at| idr(&shown[*at])).collect();
        let (sets, units) = encode(&shown, &idrs);
        assert_eq!(sets, self.sets, "pinned parameter sets");

        let mut segmenter = Segmenter::new(GRID);
        let mut units = units.into_iter();
        let mut parts = Vec::new();
        let mut round = 0;
        for tick in from..to {
            let unit = if fill.contains(&tick) {
                round = if tick == fill.start || tick % 12 == 0 { 0 } else { round + 1 };
                self.filler[round].clone()
            } else {
                units.next().unwrap()
            };
            parts.extend(segmenter.push(tick, unit).unwrap());
        }
        parts.extend(segmenter.flush());

        let name = format!("{from:07}-aaaaaa");
        fs::create_dir(self.path(&name)).unwrap();
        for part in parts {
            let path = self.path(&name).join(format!("{:06}.m4s", part.segment));
            let mut file = File::options().append(true).create(true).open(&path).unwrap();
            file.write_all(&part.bytes).unwrap();
            if part.opens {
                self.segments.push((part.first_tick, 0, path));
            }
            self.segments.last_mut().unwrap().1 += Tick::from(part.ticks);
        }
        for (first_tick, ticks, path) in self.segments.clone() {
            if path.starts_with(self.path(&name)) {
                self.playlist.push(&Entry { epoch: name.clone(), first_tick, ticks, init: "init-1.mp4".into() });
            }
        }
        self.publish();
    }

    /// Init segment and all segments in one file.
    fn joined(&self) -> PathBuf {
        let mut bytes = fs::read(self.path("init-1.mp4")).unwrap();
        self.segments.iter().for_each(|(.., path)| bytes.extend(fs::read(path).unwrap()));
        let path = self.path("joined.mp4");
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// The ticks of all pictures, decoded without a word of warning.
fn decode(path: &Path) -> Vec<Tick> {
    let path = path.to_str().unwrap();
    let arguments = ["-v", "warning", "-copyts", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-"];
    let (pictures, warnings) = run("ffmpeg", &arguments, Vec::new());
    assert_eq!(warnings, "", "{path}");
    ticks_of(&pictures)
}

fn probe(path: &Path) -> Value {
    let path = path.to_str().unwrap();
    let arguments = ["-v", "warning", "-show_packets", "-show_streams", "-show_format", "-of", "json", path];
    let (json, warnings) = run("ffprobe", &arguments, Vec::new());
    assert_eq!(warnings, "", "{path}");
    serde_json::from_slice(&json).unwrap()
}

/// Time stamp in ticks, and whether a player may start there, for each packet.
fn packets(probed: &Value) -> Vec<(f64, bool)> {
    let packets = probed["packets"].as_array().unwrap();
    let packet = |packet: &Value| {
        assert_eq!(packet["pts"], packet["dts"]);
        let seconds: f64 = packet["pts_time"].as_str().unwrap().parse().unwrap();
        (seconds * 2.0, packet["flags"].as_str().unwrap().starts_with('K'))
    };
    packets.iter().map(packet).collect()
}

/// What the bars of the ticks must say, with filler where no epoch has pictures.
fn bars(ticks: impl Iterator<Item = Tick>, shown: impl Fn(Tick) -> bool) -> Vec<Tick> {
    ticks.map(|tick| if shown(tick) { tick } else { FILL }).collect()
}

/// A meeting: an epoch with live filler inside, a restart that goes on at once, one after a long gap.
fn meeting() -> Stored {
    let mut stored = Stored::new();
    stored.epoch(3, 40, 20..31);
    stored.epoch(40, 53, 0..0);
    stored.epoch(600, 625, 0..0);
    stored
}

fn shown(tick: Tick) -> bool {
    (3..20).contains(&tick) || (31..53).contains(&tick) || (600..625).contains(&tick)
}

#[test]
fn segments_play_as_one_stream() {
    let stored = meeting();
    let path = stored.joined();
    let written = || (3..53).chain(600..625);
    assert_eq!(decode(&path), bars(written(), shown));

    let probed = probe(&path);
    let idr = |tick: Tick| tick % 12 == 0 || [3, 20, 31, 40, 600].contains(&tick);
    let expected: Vec<_> = written().map(|tick| (tick as f64, idr(tick))).collect();
    assert_eq!(packets(&probed), expected);
    check_stream(&probed["streams"]);
}

#[test]
fn the_playlist_plays_on_the_recordings_grid() {
    let mut stored = meeting();
    stored.playlist.end();
    stored.publish();
    let path = stored.path("index.m3u8");
    let probed = probe(&path);
    let times: Vec<_> = packets(&probed).into_iter().map(|(time, _)| time).collect();
    let expected: Vec<_> = (3..53).chain(600..625).map(|tick| tick as f64).collect();
    assert_eq!(times, expected);
    assert_eq!(decode(&path), bars((3..53).chain(600..625), shown));
}

#[test]
fn the_mp4_has_every_tick_at_its_time() {
    let stored = meeting();
    let mut spans = Vec::new();
    let mut at = 0;
    for (first_tick, ticks, path) in &stored.segments {
        if *first_tick > at {
            spans.push(Span::Filler { ticks: first_tick - at, gop: &stored.filler });
        }
        spans.push(Span::Segment(path));
        at = first_tick + ticks;
    }
    spans.push(Span::Filler { ticks: 15, gop: &stored.filler });
    let movie = Movie { track: stored.track(), title: Some("Zoë Ω"), origin_unix: ORIGIN, expected_ticks: 640 };
    let path = stored.path("video.mp4");
    let done = assemble(&mut File::create(&path).unwrap(), &movie, &spans).unwrap();
    assert_eq!((done.bytes, done.ticks), (fs::metadata(&path).unwrap().len(), 640));

    assert_eq!(decode(&path), bars(0..640, shown));
    let probed = probe(&path);
    let times: Vec<_> = packets(&probed).into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, (0..640).map(|tick| tick as f64).collect::<Vec<_>>());
    check_stream(&probed["streams"]);
    let (format, stream) = (&probed["format"], &probed["streams"][0]);
    assert_eq!(format["start_time"], "0.000000");
    assert_eq!(format["duration"], "320.000000");
    assert_eq!((&stream["nb_frames"], &stream["avg_frame_rate"]), (&"640".into(), &"2/1".into()));
    assert_eq!(stream["r_frame_rate"], "2/1");
    assert_eq!(format["tags"]["title"], "Zoë Ω");
    assert_eq!(format["tags"]["creation_time"], "2026-01-01T10:00:00.000000Z");
    assert_eq!(stream["tags"]["creation_time"], "2026-01-01T10:00:00.000000Z");

    // Seeking: a player that jumps to a tick shows that tick.
    let path = path.to_str().unwrap();
    for tick in [3, 19, 31, 52, 599, 610] {
        let at = format!("{:.1}", tick as f64 / 2.0);
        let arguments = ["-v", "warning", "-ss", &at, "-i", path, "-frames:v", "1", "-f", "rawvideo", "-"];
        let (picture, _) = run("ffmpeg", &arguments, Vec::new());
        assert_eq!(ticks_of(&picture), bars(tick..=tick, shown));
    }
}

fn check_stream(streams: &Value) {
    assert_eq!(streams.as_array().unwrap().len(), 1);
    let stream = &streams[0];
    for (key, value) in [
        ("codec_name", "h264"),
        ("codec_tag_string", "avc1"),
        ("color_range", "tv"),
        ("color_space", "bt709"),
        ("color_transfer", "bt709"),
        ("color_primaries", "bt709"),
        ("sample_aspect_ratio", "1:1"),
        ("time_base", "1/2000"),
    ] {
        assert_eq!(stream[key], value, "{key}");
    }
    assert_eq!((&stream["width"], &stream["height"]), (&256.into(), &144.into()));
}
