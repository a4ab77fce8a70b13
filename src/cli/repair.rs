//! `tilecast repair`: what [`crate::pipeline::verify::repair`] did, and what is left to say.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::pipeline::verify::repair::repair_recording;

use super::verify::{find, print, printable};

/// Options of `repair`.
#[derive(Clone, Debug, clap::Args)]
pub struct RepairArgs {
    /// A recording's folder, or the folder of a store
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
}

/// Repairs, prints; exit code 1 when something is still off.
///
/// # Errors
/// When there is no recording to be read, or standard output is gone.
pub fn run(args: &RepairArgs) -> Result<ExitCode, String> {
    let found = find(&args.path)?;
    let mut out = std::io::stdout().lock();
    let (mut well, count) = (true, found.len());
    for (number, folder) in found.iter().enumerate() {
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        let report = repair_recording(folder, &mut |what| {
            eprintln!("{name} ({} of {count}): {what}", number + 1);
        });
        well &= report.after.is_well();
        print(&mut out, &report.after).map_err(|error| error.to_string())?;
        let done = if report.done.is_empty() { vec!["nothing to do".to_owned()] } else { report.done };
        for what in done {
            writeln!(out, "  {}", printable(&what)).map_err(|error| error.to_string())?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
