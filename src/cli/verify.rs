//! `tilecast verify`: what [`crate::pipeline::verify`] finds, as a table or as JSON.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::StoreOptions;
use crate::pipeline::verify::{Options, RecordingReport, TrackReport, verify_recording};

use super::found::Found;

/// Options of `verify`.
#[derive(Clone, Debug, clap::Args)]
pub struct VerifyArgs {
    /// A recording's folder, or a store: a folder, s3://bucket/prefix, gs://... or az://...
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Do not decode pictures: names, sizes, hashes, ticks and books only
    #[arg(long)]
    pub no_decode: bool,
    /// Where recordings of a store that is no folder are copied to, one at a time [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub aside: Option<PathBuf>,
    /// How the store is used.
    #[command(flatten)]
    pub store_options: StoreOptions,
}

/// Checks, prints; exit code 1 when anything is off.
///
/// # Errors
/// When there is no recording to be read, or standard output is gone.
pub fn run(args: &VerifyArgs) -> Result<ExitCode, String> {
    let found = Found::at(&args.path, &args.store_options, args.aside.as_deref())?;
    let options = Options { decode: !args.no_decode };
    let mut out = std::io::stdout().lock();
    let mut reports = Vec::new();
    let (mut well, count) = (true, found.count());
    for number in 0..count {
        let look = found.get(number)?;
        let mut report = verify_recording(&look.folder(), options, &mut |what| {
            eprintln!("{} ({} of {count}): {what}", look.name(), number + 1);
        });
        report.folder = look.name();
        well &= report.is_well();
        match args.json {
            true => reports.push(report),
            false => print(&mut out, &report).map_err(|error| error.to_string())?,
        }
    }
    if args.json {
        let json = serde_json::json!({ "schema": 1, "well": well, "recordings": reports });
        writeln!(out, "{json:#}").map_err(|error| error.to_string())?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints a recording: a line for each track, then what is wrong.
pub(super) fn print(out: &mut impl Write, report: &RecordingReport) -> std::io::Result<()> {
    let id = report.recording_id.as_deref().unwrap_or("(no manifest)");
    writeln!(out, "\n{}  {}  {}", printable(id), report.state.unwrap_or("unknown"), report.folder)?;
    if !report.tracks.is_empty() {
        writeln!(
            out,
            "  {:<24} {:>8} {:>6} {:>7} {:>8} {:>8} {:>9} {:>9}",
            "track", "pictures", "held", "filled", "segments", "decoded", "duration", "size"
        )?;
    }
    for track in &report.tracks {
        print_track(out, track, report.fps.unwrap_or(1))?;
    }
    for finding in &report.findings.told {
        writeln!(out, "  WRONG: {}: {}", printable(&finding.path), printable(&finding.what))?;
    }
    match report.findings.count() {
        0 => writeln!(out, "  all is well"),
        n => writeln!(out, "  {n} findings, {} of them not told", report.findings.untold),
    }
}

/// What a file says must not steer a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn print_track(out: &mut impl Write, track: &TrackReport, fps: u32) -> std::io::Result<()> {
    writeln!(
        out,
        "  {:<24} {:>8} {:>6} {:>7} {:>8} {:>8} {:>7.1} s {:>6.1} MB  {}",
        track.track,
        track.pictures,
        track.held,
        track.filled,
        track.segments,
        track.decoded,
        track.ticks as f64 / f64::from(fps),
        track.bytes as f64 / 1e6,
        if track.findings == 0 { "well" } else { "WRONG" }
    )
}
