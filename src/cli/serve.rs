//! `sidewire serve`: runs the relay until it is stopped.

use std::{future::pending, path::PathBuf};

use rustix::process::Signal;
use tokio::signal::unix::SignalKind;

use super::{
    CommandFailure,
    runtime::{ENDING, SignalListener, build_runtime},
};
use crate::{
    ops,
    server::{InheritedSockets, RelayServer},
    setup::RelaySetup,
    telemetry,
};

/// The flags of `sidewire serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire serve --config /etc/sidewire/sidewire.toml

SIGTERM and ctrl-c stop the relay: it writes what is queued for the clients, tells them that it is
shutting down, and exits with status 0. A second signal stops it at once. SIGHUP reloads the config
file with its keys, schema and certificates, and closes no connection. If one of the files has an
error, nothing changes.")]
pub struct ServeArgs {
    /// The config file. `config.example.toml` documents every key.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs until a signal comes.
pub(super) fn run(args: &ServeArgs) -> Result<(), CommandFailure> {
    // Must run before any thread starts, since it reads and changes the environment.
    let inherited = InheritedSockets::from_env().map_err(CommandFailure::new)?;
    let setup = RelaySetup::load(&args.config).map_err(|error| CommandFailure::config(&error))?;
    let log_level = telemetry::init_logging(&setup.live.config.log).map_err(CommandFailure::new)?;
    let runtime = build_runtime()?;
    let ended = runtime.block_on(async {
        // Without a listener, a write beyond a limit of file sizes (`ulimit -f`) would end the
        // process; with one it fails, as on a full disk.
        let file_too_large = SignalKind::from_raw(Signal::XFSZ.as_raw());
        let _listener = SignalListener::listen(&[file_too_large])?;
        let signals = SignalListener::listen(&ENDING)?;
        let reloads = ConfigReloader {
            signals: SignalListener::listen(&[SignalKind::hangup()])?,
            config: args.config.clone(),
            log_level,
        };
        let server = RelayServer::start_with(setup, inherited).map_err(CommandFailure::new)?;
        until_stopped(server, signals, Some(reloads)).await
    });
    // A slow file or name lookup must not delay the exit.
    runtime.shutdown_background();
    ended
}

/// Reloads the config on SIGHUP, including the log level, which the server does not own.
pub(super) struct ConfigReloader {
    signals: SignalListener,
    config: PathBuf,
    log_level: telemetry::LogLevel,
}

impl ConfigReloader {
    /// Waits for the next signal; forever if there are no reloads.
    async fn next_reload(reloads: Option<&mut Self>) {
        match reloads {
            Some(reloads) => reloads.signals.next_signal().await,
            None => pending().await,
        }
    }

    async fn carry_out(&self, server: &mut RelayServer) {
        tracing::info!(config = %self.config.display(), "received SIGHUP, reloading the config");
        ops::notify_reloading();
        if let Some(live) = server.reload(&self.config).await
            && let Err(error) = self.log_level.set(&live.config.log)
        {
            tracing::error!(%error, "cannot change the log level");
        }
        ops::notify_ready();
    }
}

/// Runs the relay until a signal comes, then shuts it down.
pub(super) async fn until_stopped(
    mut server: RelayServer,
    mut signals: SignalListener,
    mut reloads: Option<ConfigReloader>,
) -> Result<(), CommandFailure> {
    let is_stopped = tokio::select! {
        biased;
        () = signals.next_signal() => true,
        () = server.failed() => return Err(shard_failure()),
        () = server.ready() => false,
    };
    if !is_stopped {
        serve_until_stopped(&mut server, &mut signals, reloads.as_mut()).await?;
    }
    tracing::info!("shutting down: writing what is queued first");
    ops::notify_stopping();
    tokio::select! {
        biased;
        () = signals.next_signal() => {
            return Err(CommandFailure::new("stopped at once by a second signal"));
        }
        drained = server.drain() => {
            if drained {
                tracing::info!("every connection has ended");
            } else {
                tracing::warn!("client.drain_timeout passed before every backend call and connection had ended");
            }
        }
    }
    Ok(())
}

/// Serves connections until the first signal, and reloads the config whenever that is wanted.
async fn serve_until_stopped(
    server: &mut RelayServer,
    signals: &mut SignalListener,
    mut reloads: Option<&mut ConfigReloader>,
) -> Result<(), CommandFailure> {
    let addresses = server.addresses();
    tracing::info!(
        client = %addresses.client,
        ingest = %addresses.ingest,
        ops = %addresses.ops,
        version = env!("CARGO_PKG_VERSION"),
        "the relay is ready"
    );
    ops::notify_ready();
    loop {
        tokio::select! {
            biased;
            () = signals.next_signal() => return Ok(()),
            () = server.failed() => return Err(shard_failure()),
            () = ConfigReloader::next_reload(reloads.as_deref_mut()) => {}
        }
        if let Some(reloads) = &reloads {
            tokio::select! {
                biased;
                () = signals.next_signal() => return Ok(()),
                () = reloads.carry_out(server) => {}
            }
        }
    }
}

fn shard_failure() -> CommandFailure {
    CommandFailure::new("a shard has stopped; see the log for the reason")
}
