//! `tilecast bot`: what has to do with Recall.ai's bots from outside a meeting. One file for each of its commands.

mod create;
mod recall;
mod status;
mod token;

use std::process::ExitCode;

use clap::Subcommand;

use crate::clock::SystemClock;

/// Options of `bot`.
#[derive(Clone, Debug, clap::Args)]
pub struct BotArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Send a bot into a meeting, to dial into this server
    Create(Box<create::CreateArgs>),
    /// Tell what became of a bot, and whether it reaches this server
    Status(status::OneBotArgs),
    /// Make a bot leave its meeting
    Leave(status::OneBotArgs),
    /// Print an ingest token that is derived from TILECAST_INGEST_KEY
    Token(token::TokenArgs),
}

/// Runs one of them.
///
/// # Errors
/// Text that names the option and the way out.
pub fn run(args: &BotArgs) -> Result<ExitCode, String> {
    let clock = SystemClock::new();
    match &args.command {
        Command::Create(args) => create::run(args, &clock),
        Command::Status(args) => status::status(args),
        Command::Leave(args) => status::leave(args),
        Command::Token(args) => token::run(args, &clock),
    }
}
