//! `tilecast repair`: what [`crate::pipeline::verify::repair`] did, and what is left to say.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::StoreOptions;
use crate::pipeline::verify::repair::repair_recording;

use super::found::Found;
use super::verify::{print, printable};

/// Options of `repair`.
#[derive(Clone, Debug, clap::Args)]
pub struct RepairArgs {
    /// A recording's folder, or a store: a folder, s3://bucket/prefix, gs://... or az://...
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Where recordings of a store that is no folder are copied to, one at a time [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub aside: Option<PathBuf>,
    /// How the store is used.
    #[command(flatten)]
    pub store_options: StoreOptions,
}

/// Repairs, prints; exit code 1 when something is still off.
///
/// # Errors
/// When there is no recording to be read, or standard output is gone.
pub fn run(args: &RepairArgs) -> Result<ExitCode, String> {
    let found = Found::at(&args.path, &args.store_options, args.aside.as_deref())?;
    let mut out = std::io::stdout().lock();
    let (mut well, count) = (true, found.count());
    for number in 0..count {
        let look = found.get(number)?;
        let mut report = repair_recording(&look.folder(), &mut |what| {
            eprintln!("{} ({} of {count}): {what}", look.name(), number + 1);
        });
        report.done.extend(found.put_back(&look)?.into_iter().map(|key| format!("{key}: put into the store")));
        report.after.folder = look.name();
        well &= report.after.is_well();
        print(&mut out, &report.after).map_err(|error| error.to_string())?;
        let done = if report.done.is_empty() { vec!["nothing to do".to_owned()] } else { report.done };
        for what in done {
            writeln!(out, "  {}", printable(&what)).map_err(|error| error.to_string())?;
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
