//! The command line: one module per subcommand.

pub mod check;
mod found;
pub mod repair;
pub mod serve;
pub mod simulate;
pub mod verify;
