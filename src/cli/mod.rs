//! The command line: one module per subcommand.

pub mod bot;
pub mod check;
mod found;
pub mod health;
pub mod repair;
pub mod serve;
pub mod simulate;
pub mod verify;
