//! tilecast's command line.

use std::process::ExitCode;

use clap::Parser;
use tilecast::cli::simulate::{self, SimulateArgs};

#[derive(Parser)]
#[command(version, about)]
enum Command {
    Simulate(SimulateArgs),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Simulate(args) => simulate::run(args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tilecast: {error}");
        ExitCode::FAILURE
    })
}
