//! `sidewire serve`: runs the relay, from its start to its end.

use std::{future::pending, path::PathBuf};

use tokio::signal::unix::SignalKind;

use super::{
    Failure,
    runtime::{ENDING, Signals, runtime},
};
use crate::{
    ops,
    schema::{Schema, Severity},
    server::{Inherited, Server},
    setup::Setup,
};

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire serve --config /etc/sidewire/sidewire.toml

SIGTERM and ctrl-c end it: what waits for the clients is written, they are told, exit status 0.
A second signal ends it at once. SIGHUP has it read the config file again, with its keys, schema and
certificates, without a connection being closed; a file with an error changes nothing.")]
pub struct Args {
    /// The config file. `config.example.toml` documents every key.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs until a signal comes.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // While there is no thread yet.
    let inherited = Inherited::from_env().map_err(Failure::new)?;
    let setup = Setup::load(&args.config).map_err(Failure::new)?;
    let log_level = ops::init_logging(&setup.live.config.log).map_err(Failure::new)?;
    log_warnings(&setup.live.schema);
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let signals = Signals::listen(&ENDING)?;
        let reloads = Reloads {
            signals: Signals::listen(&[SignalKind::hangup()])?,
            config: args.config.clone(),
            log_level,
        };
        let server = Server::start_with(setup, inherited).map_err(Failure::new)?;
        until_stopped(server, signals, Some(reloads)).await
    });
    // A file or a name that takes its time to be looked up does not hold up the end.
    runtime.shutdown_background();
    ended
}

/// Logs what the schema probably does not mean to say. `sidewire check` tells the notes.
fn log_warnings(schema: &Schema) {
    let warnings = schema.diagnostics().iter();
    for warning in warnings.filter(|it| it.severity == Severity::Warning) {
        tracing::warn!(
            file = warning.file.as_deref(),
            line = warning.line,
            hint = warning.hint.as_deref(),
            "schema: {}",
            warning.message
        );
    }
}

/// When the config is read again, and what of it is not the server's.
pub(super) struct Reloads {
    signals: Signals,
    config: PathBuf,
    log_level: ops::LogLevel,
}

impl Reloads {
    /// Waits for the next signal; for ever where none counts.
    async fn next(reloads: &mut Option<Self>) {
        match reloads {
            Some(reloads) => reloads.signals.next().await,
            None => pending().await,
        }
    }

    async fn carry_out(&self, server: &mut Server) {
        tracing::info!(config = %self.config.display(), "SIGHUP: the config is read again");
        ops::notify_reloading();
        if let Some(live) = server.reload(&self.config).await
            && let Err(error) = self.log_level.set(&live.config.log)
        {
            tracing::error!(%error, "the level of the log cannot be changed");
        }
        ops::notify_ready();
    }
}

/// Lets the relay run until a signal comes, then ends it in good order.
pub(super) async fn until_stopped(
    mut server: Server,
    mut signals: Signals,
    mut reloads: Option<Reloads>,
) -> Result<(), Failure> {
    let failed = || Failure::new("a shard has ended; the log says why");
    tokio::select! {
        biased;
        () = signals.next() => return Ok(()),
        () = server.failed() => return Err(failed()),
        () = server.ready() => {}
    }
    let addresses = server.addresses();
    tracing::info!(
        client = %addresses.client,
        ingest = %addresses.ingest,
        ops = %addresses.ops,
        version = env!("CARGO_PKG_VERSION"),
        "the relay takes connections"
    );
    ops::notify_ready();
    loop {
        tokio::select! {
            biased;
            () = signals.next() => break,
            () = server.failed() => return Err(failed()),
            () = Reloads::next(&mut reloads) => {}
        }
        if let Some(reloads) = &reloads {
            tokio::select! {
                biased;
                () = signals.next() => break,
                () = reloads.carry_out(&mut server) => {}
            }
        }
    }

    tracing::info!("shutting down: what is queued is written first");
    ops::notify_stopping();
    tokio::select! {
        biased;
        () = signals.next() => {
            return Err(Failure::new("a second signal: ended at once"));
        }
        drained = server.drain() => {
            if drained {
                tracing::info!("every connection has ended");
            } else {
                tracing::warn!("not all came to its end in its time: a call of a backend, or a connection");
            }
        }
    }
    Ok(())
}
