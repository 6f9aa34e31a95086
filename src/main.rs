//! The daemon and its tools.

use std::process::ExitCode;

use clap::Parser;
use sidewire::{cli::Cli, ops};

fn main() -> ExitCode {
    // Also where it panics.
    let _flushed_at_the_end = ops::FlushLog;
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ops::say(&format!("sidewire: {failure}"));
            ExitCode::from(failure.exit_code)
        }
    }
}
