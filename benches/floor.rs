//! The bare library calls for a picture, from the text of a message to an access unit, on one thread, round robin over as
//! many encoders as there are lanes: the least that any server of this kind could cost. Prints CPU milliseconds a
//! picture. `benches/floor.sh` puts the whole server beside it, on the same pictures.
//!
//!   cargo bench --bench floor -- [SOURCE] [LANES] [PICTURES PER LANE] [FOLDER]
//!
//! With a folder it measures nothing, but writes what each lane would be sent there, a stream of PNGs each
//! (`benches/peers.sh`).

use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Parser;
use serde_json::json;
use tilecast::cli::simulate::args::SimulateArgs;
use tilecast::cli::simulate::picture::Label;
use tilecast::cli::simulate::prepare;
use tilecast::cli::simulate::source::Pictures;
use tilecast::media::{Canvas, Kind};
use tilecast::pipeline::encode::x264::X264;
use tilecast::pipeline::encode::{Encoder, EncoderSettings};
use tilecast::pipeline::ingest::png::{PngDecoder, decode_base64};
use tilecast::pipeline::ingest::protocol::{Message, parse};

const SIZE: Canvas = Canvas { width: 640, height: 360 };
/// Ticks from one IDR to the next.
const CELL: usize = 12;
/// Messages that are kept: more than any cache holds, and they come again.
const MESSAGES: usize = 100;

#[derive(Parser)]
struct Simulated {
    #[command(flatten)]
    args: SimulateArgs,
}

/// Nanoseconds of CPU that this thread has had.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn message(base64: &str, participant: usize) -> Bytes {
    let text = json!({
        "event": "video_separate_png.data",
        "data": {
            "data": {
                "buffer": base64,
                "timestamp": { "relative": 12.5, "absolute": "2026-01-01T10:00:12.503Z" },
                "type": "webcam",
                "participant": { "id": participant, "name": "Participant", "is_host": false, "platform": "desktop" },
            },
            "recording": { "id": "5f0a2f6e-93b0-4a7e-8c1d-0b8f6f0a7d22", "metadata": {} },
        },
    });
    Bytes::from(text.to_string())
}

fn write_pngs(templates: &Pictures, lanes: usize, pictures: usize, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for participant in 0..lanes as u32 {
        let (mut stream, mut png) = (Vec::new(), Vec::new());
        for number in 0..pictures as u32 {
            let label = Label { participant, kind: Kind::Webcam, number };
            let mut base64 = String::new();
            templates.template(&label).write_base64(&label, &mut base64);
            decode_base64(base64.as_bytes(), &mut png).expect("our own base64");
            stream.extend_from_slice(&png);
        }
        std::fs::write(folder.join(format!("{participant:04}")), stream)?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figure is what it is for")]
fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let source = args.next().unwrap_or_else(|| "synthetic".to_owned());
    let lanes: usize = args.next().and_then(|text| text.parse().ok()).unwrap_or(20);
    let pictures: usize = args.next().and_then(|text| text.parse().ok()).unwrap_or(24);
    let simulated = ["floor", "--url", "ws://127.0.0.1:9/", "--participants", &lanes.to_string(), "--source", &source];
    let templates = match prepare(&Simulated::parse_from(simulated).args) {
        Ok(templates) => templates,
        Err(error) => {
            eprintln!("floor: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(folder) = args.next() {
        return match write_pngs(&templates, lanes, pictures, Path::new(&folder)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("floor: {folder}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    // Lane after lane, picture after picture, as a round robin meets them.
    let text = |n: usize| {
        let (participant, number) = ((n % lanes) as u32, (n / lanes) as u32);
        let label = Label { participant, kind: Kind::Webcam, number };
        let mut base64 = String::new();
        templates.template(&label).write_base64(&label, &mut base64);
        message(&base64, n % lanes)
    };
    let messages: Vec<Bytes> = (0..MESSAGES.next_multiple_of(lanes)).map(text).collect();
    let mut encoders: Vec<X264> =
        (0..lanes).map(|_| X264::open(&EncoderSettings::default(), SIZE).expect("libx264")).collect();
    let (mut decoder, mut png, mut bytes) = (PngDecoder::default(), Vec::new(), 0);
    let mut round = |number: usize| {
        for (lane, encoder) in encoders.iter_mut().enumerate() {
            let message = &messages[(number * lanes + lane) % messages.len()];
            let text = std::str::from_utf8(message).expect("our own message");
            let Ok(Message::Picture(message)) = parse(text) else { unreachable!("our own message") };
            decode_base64(message.buffer.as_bytes(), &mut png).expect("our own base64");
            let picture = decoder.decode(&png).expect("our own PNG");
            bytes += encoder.encode(&picture, number.is_multiple_of(CELL)).expect("an access unit").data.len();
        }
    };
    // The first round opens what is opened once.
    round(0);
    let before = cpu_ns();
    (1..=pictures).for_each(&mut round);
    let ms = (cpu_ns() - before) as f64 / 1e6 / (lanes * pictures) as f64;
    println!(
        "{ms:.3} ms of CPU a picture: {lanes} lanes x {pictures} pictures of {source}, {} kB written",
        bytes / 1000
    );
    ExitCode::SUCCESS
}
