//! The `sidewire` binary: the daemon and its command line tools.

use std::process::ExitCode;

use clap::Parser;
use sidewire::{cli::Cli, telemetry};
use tikv_jemallocator::Jemalloc;

/// jemalloc returns freed memory to the system within about 10 s, in a thread of its own, so that
/// this also happens while the relay is idle. `.cargo/config.toml` sets the time.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    // A guard, so that the log is flushed after a panic too.
    let _flushed_at_the_end = telemetry::LogFlushGuard;
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            telemetry::print_last_line(&format!("sidewire: {failure}"));
            ExitCode::from(failure.exit_code)
        }
    }
}
