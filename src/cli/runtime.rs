//! What the commands run on: an event loop, the log, and the signals that end
//! them.

use std::future::Future;

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

use super::Failure;
use crate::{config::Log, ops};

/// The event loop of the main thread. The relay's shards have their own.
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
    ops::init_logging(&Log::default()).map_err(Failure::new)?;
    runtime()?.block_on(async { Box::pin(command()).await })
}

/// Ready when ctrl-c or SIGTERM comes, from now on.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let mut signals = Signals::listen()?;
    Ok(async move { signals.next().await })
}

/// The signals that end the relay.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals, which until now would have killed the process.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(format!("cannot take signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
