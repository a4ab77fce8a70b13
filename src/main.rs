//! The `tilecast` program: parse arguments, run one subcommand, an error becomes the exit code.

use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tilecast::cli::{bot, check, health, repair, serve, simulate, verify};
use tilecast::config::{Config, with_file};

/// Turns the PNG streams of Recall.ai meeting bots into aligned MP4s and live HLS, one per participant.
#[derive(Parser)]
#[command(name = "tilecast", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Serve(Box<Config>),
    /// Prove the options of serve: spool, encoder, and a probe object in the store
    Check(Box<Config>),
    /// Play bots that send pictures to a server
    Simulate(Box<simulate::SimulateArgs>),
    /// Recall.ai's bots: create one, look at it, let it leave, print a token for one
    Bot(bot::BotArgs),
    /// Ask a server on this machine whether it is well
    Health(health::HealthArgs),
    /// Check recordings in a store, file against file
    Verify(verify::VerifyArgs),
    /// Rebuild playlists, MP4s and manifests from segments, where verify finds fault
    Repair(repair::RepairArgs),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tilecast: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let args: Vec<String> = std::env::args().collect();
    let mut command = Cli::command();
    let name = args.get(1).map(String::as_str).filter(|name| ["serve", "check", "health"].contains(name));
    if let Some(name) = name
        && let Some(path) = serve::config_file(&args)
    {
        // The file's keys become the defaults of the flags, and so stand below flags and environment.
        let about = command.find_subcommand(name).and_then(|found| found.get_about().cloned()).unwrap_or_default();
        let with_keys = with_file(Config::augment_args(clap::Command::new(name.to_owned()).about(about)), &path);
        let with_keys = with_keys.map_err(|error| error.to_string())?;
        command = command.mut_subcommand(name, |found| match name {
            "health" => health::with_default_of(found, &with_keys),
            _ => with_keys,
        });
    }
    let matches = command.get_matches_from(args);
    match Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command {
        Command::Check(config) => {
            check::run(&config, matches.subcommand_matches("check").expect("it is the subcommand that was given"))
        }
        Command::Serve(config) => serve::run(*config),
        Command::Simulate(args) => simulate::run(*args).map_err(|error| error.to_string()),
        Command::Health(args) => health::run(&args),
        Command::Bot(args) => bot::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Repair(args) => repair::run(&args),
    }
}
