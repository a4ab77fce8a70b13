//! The command line: one module per subcommand.

pub mod serve;
pub mod simulate;
pub mod verify;
