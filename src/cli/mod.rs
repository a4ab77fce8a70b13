//! The command line: one module per subcommand.

mod found;
pub mod repair;
pub mod serve;
pub mod simulate;
pub mod verify;
