//! `sidewire check`: tests a config file, as the relay would read it.

use std::{io, path::PathBuf};

use super::{Failure, write_result};
use crate::setup::Setup;

/// What to test.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire check --config /etc/sidewire/sidewire.toml

Exit status: 0 if the relay would start with it, 1 if not.
Each error has the file, the line and a hint.")]
pub struct Args {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Reads the file and all that it names.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    Setup::load(&args.config).map_err(Failure::new)?;
    let path = args.config.display();
    write_result(
        &mut io::stdout(),
        &format!("{path}: the relay would start with it"),
    )
    .map(drop)
}
