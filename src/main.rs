//! The daemon and its tools.

use std::process::ExitCode;

use clap::Parser;
use sidewire::{cli::Cli, ops};
use tikv_jemallocator::Jemalloc;

/// jemalloc returns freed memory to the system within about 10 s, in a thread of its own, so
/// that it does so even if the relay is idle by then. `.cargo/config.toml` sets the time.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

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
