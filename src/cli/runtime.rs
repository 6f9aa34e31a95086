//! The event loop, the log and the signal handling that commands share.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::CommandFailure;
use crate::{config::LogSection, telemetry};

/// Builds the runtime of the main thread. Each of the relay's shards has its own.
pub(super) fn build_runtime() -> Result<Runtime, CommandFailure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandFailure::new(format!("cannot start the async runtime: {error}")))
}

/// Runs the future of a command on a runtime, with logging initialized.
pub(super) fn run_client<F>(command: impl FnOnce() -> F) -> Result<(), CommandFailure>
where
    F: Future<Output = Result<(), CommandFailure>>,
{
    telemetry::init_logging(&LogSection::default())
        .map(drop)
        .map_err(CommandFailure::new)?;
    build_runtime()?.block_on(async { Box::pin(command()).await })
}

/// The signals that stop a command cleanly.
pub(super) const ENDING: [SignalKind; 2] = [SignalKind::terminate(), SignalKind::interrupt()];

/// Listens for ctrl-c and SIGTERM, and returns a future that waits for one of them.
pub(super) fn listen_for_interrupt() -> Result<impl Future<Output = ()>, CommandFailure> {
    let mut signals = SignalListener::listen(&ENDING)?;
    Ok(async move { signals.next_signal().await })
}

/// Signals that would kill the process if nothing listened for them.
pub(super) struct SignalListener(Vec<Signal>);

impl SignalListener {
    /// Listens for the signals from now on.
    pub(super) fn listen(kinds: &[SignalKind]) -> Result<Self, CommandFailure> {
        kinds
            .iter()
            .map(|kind| signal(*kind))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|error| CommandFailure::new(format!("cannot listen for signals: {error}")))
    }

    /// Waits for the next signal.
    pub(super) async fn next_signal(&mut self) {
        poll_fn(|context| {
            let came = |signal: &mut Signal| signal.poll_recv(context).is_ready();
            if self.0.iter_mut().any(came) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
