//! What each stage takes for a picture, and all of them together: synthetic 640x360 pictures, about 255 kB of PNG.
//!
//! `pipeline/floor` is the bare round-robin over 20 encoders on one thread, from the text of a message to a part: what a
//! server would cost that had no sockets, queues, threads, journals and disks. Everything here is a time per picture
//! unless its name says otherwise. Not here: the server itself (`benches/figures.sh`).

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use image::{DynamicImage, ImageFormat};
use tilecast::cli::simulate::picture::{Label, SCENE_PICTURES, draw};
use tilecast::cli::simulate::template::Template;
use tilecast::media::{Canvas, Grid, Kind, Micros, Picture, Tick};
use tilecast::pipeline::encode::x264::X264;
use tilecast::pipeline::encode::{Encoder, EncoderSettings};
use tilecast::pipeline::ingest::Capture;
use tilecast::pipeline::ingest::decode::{Ingest, Last};
use tilecast::pipeline::ingest::png::{HEADER_BYTES, PngDecoder, base64_prefix, decode_base64, header};
use tilecast::pipeline::ingest::protocol::{
    Message, Outgoing, OutgoingBody, OutgoingData, OutgoingParticipant, OutgoingThing, OutgoingTimestamp,
    PICTURE_EVENT, parse,
};
use tilecast::pipeline::package::segmenter::Segmenter;
use tilecast::pipeline::timeline::{Rules, Stamp, Step, Timeline};

const SIZE: (u32, u32) = (640, 360);
const CANVAS: Canvas = Canvas { width: SIZE.0, height: SIZE.1 };
const GRID: Grid = Grid { fps: 2, part_ticks: 2, segment_ticks: 12 };
const SEED: u64 = 1;

/// Lanes of `pipeline/floor`.
const LANES: u32 = 20;

/// Pictures that a lane of `pipeline/floor` has; then they come again. 34 MB of messages: more than any L2 holds.
const LANE_PICTURES: u32 = 5;

/// Base64 of a drawn picture's PNG.
fn base64_of(participant: u32, number: u32) -> String {
    let mut base64 = String::new();
    let label = Label { participant, kind: Kind::Webcam, number };
    Template::new(draw(SIZE, participant, Kind::Webcam, number, SEED)).write_base64(&label, &mut base64);
    base64
}

/// A message as bots send it.
fn message(participant: u32, number: u32) -> String {
    let thing = |id| OutgoingThing { id, metadata: serde_json::json!({"tenant": "a", "meeting": 17}) };
    let base64 = base64_of(participant, number);
    let outgoing = Outgoing {
        event: PICTURE_EVENT,
        data: OutgoingData {
            data: OutgoingBody {
                buffer: Some(&base64),
                timestamp: OutgoingTimestamp {
                    relative: f64::from(number) / 2.0,
                    absolute: "2026-01-01T10:00:12.503Z".to_owned(),
                },
                kind: Some(Kind::Webcam),
                participant: OutgoingParticipant {
                    id: i64::from(participant),
                    name: Some("Participant"),
                    is_host: Some(false),
                    platform: Some("desktop"),
                },
                data: None,
            },
            realtime_endpoint: thing("0d0a6a58-2d35-4a5e-9f43-51cd5d1b8c3d"),
            video_separate: Some(thing("9a0f7c1e-6d2b-4f0e-8f6e-2f0a4f1f9b11")),
            recording: thing("5f0a2f6e-93b0-4a7e-8c1d-0b8f6f0a7d22"),
            bot: Some(thing("c2b3f4de-1a2b-4c3d-9e8f-7a6b5c4d3e2f")),
        },
    };
    serde_json::to_string(&outgoing).expect("plain data")
}

fn decoded(participant: u32, number: u32) -> Picture {
    let mut png = Vec::new();
    decode_base64(base64_of(participant, number).as_bytes(), &mut png).expect("our own base64");
    PngDecoder::default().decode(&png).expect("our own PNG")
}

fn bench_parse(c: &mut Criterion) {
    let text = message(0, 0);
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function(format!("picture/{}kB", text.len() / 1000), |b| b.iter(|| parse(black_box(&text))));
    // White space hides the buffer from the short way: what messages of any other form take.
    let far = " ".repeat(600) + &text;
    group.bench_function("picture_the_long_way", |b| b.iter(|| parse(black_box(&far))));
    group.bench_function("utf8", |b| b.iter(|| std::str::from_utf8(black_box(text.as_bytes())).is_ok()));
    group.finish();
}

fn png(picture: DynamicImage) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).expect("writing to memory");
    png.into_inner()
}

fn bench_decode(c: &mut Criterion) {
    let base64 = [0, 1].map(|number| Bytes::from(base64_of(0, number)));
    let mut bytes = Vec::new();
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Bytes(base64[0].len() as u64));
    group.bench_function("base64", |b| b.iter(|| decode_base64(black_box(&base64[0]), &mut bytes)));
    let mut decoder = PngDecoder::default();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("header", |b| b.iter(|| header(black_box(&bytes))));
    group.bench_function(format!("png/drawn/{}kB", bytes.len() / 1000), |b| {
        b.iter(|| decoder.decode(black_box(&bytes)).expect("a good PNG"));
    });
    let drawn = DynamicImage::from(draw(SIZE, 0, Kind::Webcam, 0, SEED));
    let mut transparent = drawn.to_rgba8();
    transparent.pixels_mut().for_each(|pixel| pixel[3] = 200);
    let kinds = [
        ("rgb", png(drawn.clone())),
        ("rgba", png(drawn.to_rgba8().into())),
        ("rgba_transparent", png(transparent.into())),
        ("gray", png(drawn.to_luma8().into())),
    ];
    for (name, png) in &kinds {
        group.throughput(Throughput::Bytes(png.len() as u64));
        group.bench_function(format!("png/{name}/{}kB", png.len() / 1000), |b| {
            b.iter(|| decoder.decode(black_box(png)).expect("a good PNG"));
        });
    }
    let captures = base64.map(capture);
    let (mut ingest, mut last, mut n) = (Ingest::default(), Last::default(), 0);
    group.throughput(Throughput::Bytes(captures[0].base64.len() as u64));
    group.bench_function("capture", |b| {
        b.iter(|| {
            n += 1;
            ingest.decode(black_box(&captures[n % 2]), &mut last).expect("a good capture")
        });
    });
    group.bench_function("capture_same", |b| {
        b.iter(|| ingest.decode(black_box(&captures[0]), &mut last).expect("a good capture"));
    });
    group.finish();
}

fn capture(base64: Bytes) -> Capture {
    let zero = Micros(0);
    Capture { number: 0, at: zero, relative: zero, absolute: None, clock: zero, read_at: zero, base64 }
}

fn bench_timeline(c: &mut Criterion) {
    let seconds = Micros::from_secs;
    let rules = Rules {
        grid: GRID,
        settle: seconds(3),
        hold: seconds(10),
        hold_after_loss: seconds(2),
        live_fill: seconds(60),
    };
    let mut group = c.benchmark_group("timeline");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("10000_captures", |b| {
        b.iter(|| {
            let (mut timeline, mut steps, mut pictures) = (Timeline::new(rules), Vec::new(), 0);
            for capture in 0..10_000 {
                // 0 to 150 ms late, and every hundredth capture is lost.
                let at = Micros(capture as i64 * 500_000 + (capture * 7919 % 150) as i64 * 1000);
                if capture % 100 == 99 {
                    continue;
                }
                timeline.take(Stamp { capture, at }, (), at, &mut steps);
                pictures += steps.drain(..).filter(|step| matches!(step, Step::Picture { .. })).count();
            }
            assert!(pictures > 9_000);
            pictures
        });
    });
    group.finish();
}

fn bench_encode(c: &mut Criterion) {
    let pictures: Vec<Picture> = (0..SCENE_PICTURES).map(|number| decoded(0, number)).collect();
    let usual = EncoderSettings::default();
    let screen = EncoderSettings { screen: true, ..usual.clone() };
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    for (name, settings) in [("usual", usual.clone()), ("cheaper", usual.cheaper()), ("screen", screen)] {
        let mut encoder = X264::open(&settings, CANVAS).expect("libx264");
        let mut tick = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                tick += 1;
                encoder.encode(&pictures[tick % pictures.len()], tick % 12 == 0).expect("an access unit")
            });
        });
    }
    let mut encoder = X264::open(&usual, CANVAS).expect("libx264");
    encoder.encode(&pictures[0], true).expect("an access unit");
    group.bench_function("repeat", |b| b.iter(|| encoder.repeat(false).expect("an access unit")));
    group.bench_function("open", |b| b.iter(|| X264::open(&usual, CANVAS)));
    group.finish();
}

fn bench_package(c: &mut Criterion) {
    let mut encoder = X264::open(&EncoderSettings::default(), CANVAS).expect("libx264");
    let pictures = (0..GRID.segment_ticks).map(|number| decoded(0, number));
    let units: Vec<_> =
        pictures.enumerate().map(|(n, picture)| encoder.encode(&picture, n == 0).expect("an access unit")).collect();
    let mut group = c.benchmark_group("package");
    group.throughput(Throughput::Bytes(units.iter().map(|unit| unit.data.len() as u64).sum()));
    group.bench_function("segment_of_12", |b| {
        b.iter(|| {
            let mut segmenter = Segmenter::new(GRID);
            let push = |(tick, unit)| segmenter.push(tick, unit).expect("consecutive ticks");
            (0..).zip(units.iter().cloned()).filter_map(push).map(|part| part.bytes.len()).sum::<usize>()
        });
    });
    group.finish();
}

/// One track without anything around it.
struct Lane {
    messages: Vec<String>,
    encoder: X264,
    segmenter: Segmenter,
}

/// What the steps of `pipeline/floor` took so far.
#[derive(Default)]
struct Took {
    pictures: u32,
    steps: [(&'static str, Duration); 5],
}

impl Took {
    fn step(&mut self, index: usize, name: &'static str, since: &mut Instant) {
        let now = Instant::now();
        self.steps[index].0 = name;
        self.steps[index].1 += now - *since;
        *since = now;
    }
}

/// A picture that comes again, from the text of its message to a part: an IDR in each cell, else skip units.
fn unchanged(b: &mut Bencher<'_>) {
    let text = message(0, 0);
    let (mut ingest, mut last, mut segmenter) = (Ingest::default(), Last::default(), Segmenter::new(GRID));
    let mut encoder = X264::open(&EncoderSettings::default(), CANVAS).expect("libx264");
    let (mut tick, mut shown): (Tick, Option<Arc<Picture>>) = (0, None);
    b.iter(|| {
        let Ok(Message::Picture(message)) = parse(black_box(&text)) else { unreachable!("our own message") };
        let capture = capture(Bytes::copy_from_slice(message.buffer.as_bytes()));
        let picture = ingest.decode(&capture, &mut last).expect("a good capture").picture;
        let idr = segmenter.needs_idr(tick);
        let unit = match shown.replace(Arc::clone(&picture)) {
            Some(before) if Arc::ptr_eq(&before, &picture) => encoder.repeat(idr),
            _ => encoder.encode(&picture, idr),
        };
        black_box(segmenter.push(tick, unit.expect("an access unit")).expect("consecutive ticks"));
        tick += 1;
    });
}

fn bench_pipeline(c: &mut Criterion) {
    let mut lanes: Vec<Lane> = (0..LANES)
        .map(|participant| Lane {
            messages: (0..LANE_PICTURES).map(|number| message(participant, number)).collect(),
            encoder: X264::open(&EncoderSettings::default(), CANVAS).expect("libx264"),
            segmenter: Segmenter::new(GRID),
        })
        .collect();
    let (mut decoder, mut png, mut took) = (PngDecoder::default(), Vec::new(), Took::default());
    let mut next: Tick = 0;
    let mut round = |lanes: &mut Vec<Lane>, took: &mut Took| {
        for lane in lanes {
            let mut since = Instant::now();
            let text = &lane.messages[next as usize % lane.messages.len()];
            let Ok(Message::Picture(message)) = parse(text) else { unreachable!("our own message") };
            let first = base64_prefix(&message.buffer, HEADER_BYTES).expect("our own base64");
            black_box(header(&first).expect("our own PNG"));
            took.step(0, "parse", &mut since);
            decode_base64(message.buffer.as_bytes(), &mut png).expect("our own base64");
            took.step(1, "base64", &mut since);
            let picture = decoder.decode(&png).expect("our own PNG");
            took.step(2, "png", &mut since);
            let unit = lane.encoder.encode(&picture, lane.segmenter.needs_idr(next)).expect("an access unit");
            took.step(3, "encode", &mut since);
            black_box(lane.segmenter.push(next, unit).expect("consecutive ticks"));
            drop(picture);
            took.step(4, "part", &mut since);
            took.pictures += 1;
        }
        next += 1;
    };
    let mut group = c.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(1));
    group.bench_function("floor", |b| {
        b.iter_custom(|rounds| {
            let start = Instant::now();
            (0..rounds).for_each(|_| round(&mut lanes, &mut took));
            start.elapsed() / LANES
        });
    });
    group.bench_function("unchanged", unchanged);
    group.finish();
    let line =
        took.steps.map(|(name, time)| format!("{name} {:.3}", (time / took.pictures.max(1)).as_secs_f64() * 1e3));
    eprintln!("pipeline/floor, ms a picture over {} pictures: {}", took.pictures, line.join(", "));
}

/// Few and short samples: two thirds of a second for each.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
}

criterion_group! {
    name = stages;
    config = short();
    targets = bench_parse, bench_decode, bench_timeline, bench_encode, bench_package
}
criterion_group! {
    name = pipeline;
    config = short().sample_size(10).measurement_time(Duration::from_secs(8));
    targets = bench_pipeline
}
criterion_main!(stages, pipeline);
