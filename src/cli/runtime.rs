//! The event loop, the log and the signal handling that commands share.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::Failure;
use crate::{config::Log, ops};

/// The event loop of the main thread. Each of the relay's shards has its own.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start an event loop: {error}")))
}

/// Runs a command that is a client.
pub(super) fn run_client<F>(command: impl FnOnce() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    ops::init_logging(&Log::default())
        .map(drop)
        .map_err(Failure::new)?;
    runtime()?.block_on(async { Box::pin(command()).await })
}

/// The signals that stop a command cleanly.
pub(super) const ENDING: [SignalKind; 2] = [SignalKind::terminate(), SignalKind::interrupt()];

/// Ready when ctrl-c or SIGTERM comes, from now on.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let mut signals = Signals::listen(&ENDING)?;
    Ok(async move { signals.next().await })
}

/// Signals that would kill the process if nothing listened for them.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// Listens for the signals from now on.
    pub(super) fn listen(kinds: &[SignalKind]) -> Result<Self, Failure> {
        kinds
            .iter()
            .map(|kind| signal(*kind))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
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
