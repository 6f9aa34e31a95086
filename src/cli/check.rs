//! `sidewire check`: tests a config file, as the relay would read it.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use super::{Failure, write_result};
use crate::{schema::Schema, setup::Setup};

/// What to test.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire check --config /etc/sidewire/sidewire.toml

Exit status: 0 if the relay would start with it, 1 if not.
Each error has the file, the line and a hint. Warnings and notes about the schema go to
standard output and do not change the exit status.")]
pub struct Args {
    /// The config file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Reads the file and all that it names.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let setup = Setup::load(&args.config).map_err(Failure::new)?;
    let report = report(&setup.live.schema, &args.config).map_err(Failure::new)?;
    write_result(&mut io::stdout(), &report).map(drop)
}

/// What is worth knowing about the schema, and that the relay would start.
fn report(schema: &Schema, config: &Path) -> Result<String, std::fmt::Error> {
    let mut report = String::new();
    for diagnostic in schema.diagnostics() {
        writeln!(report, "{diagnostic}")?;
    }
    let messages = schema.message_count();
    let plural = if messages == 1 { "" } else { "s" };
    let compiled = schema.compile_time().as_millis();
    writeln!(
        report,
        "schema: {messages} message{plural}, compiled in {compiled} ms"
    )?;
    write!(
        report,
        "{}: the relay would start with it",
        config.display()
    )?;
    Ok(report)
}
