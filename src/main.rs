//! The daemon and its tools.

use std::{
    io::{Write, stderr},
    process::ExitCode,
};

use clap::Parser;
use sidewire::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With standard error gone there is nobody left to tell.
            drop(writeln!(stderr(), "sidewire: {failure}"));
            ExitCode::from(failure.exit_code)
        }
    }
}
