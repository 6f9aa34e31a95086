//! `sidewire serve`: runs the relay, from its start to its end.

use std::path::PathBuf;

use super::{
    Failure,
    runtime::{ENDING, Signals, runtime},
};
use crate::{
    ops,
    server::{Inherited, Server},
    setup::Setup,
};

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire serve --config /etc/sidewire/sidewire.toml

SIGTERM and ctrl-c end it: what waits for the clients is written, they are told, exit status 0.
A second signal ends it at once.")]
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
    ops::init_logging(&setup.live.config.log).map_err(Failure::new)?;
    runtime()?.block_on(async {
        let signals = Signals::listen(&ENDING)?;
        let server = Server::start_with(setup, inherited).map_err(Failure::new)?;
        until_stopped(server, signals).await
    })
}

/// Lets the relay run until a signal comes, then ends it in good order.
pub(super) async fn until_stopped(server: Server, mut signals: Signals) -> Result<(), Failure> {
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
    tokio::select! {
        biased;
        () = signals.next() => {}
        () = server.failed() => return Err(failed()),
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
                tracing::warn!("the time was over before every call was answered and every connection had ended");
            }
        }
    }
    Ok(())
}
