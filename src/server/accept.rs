//! Who connects: clients and backends are handed to the shards, operators are served
//! here. Clients for which the process has no descriptor are turned away.

use std::{io, net::TcpStream, sync::Arc};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    listener::{Listener, LocalListener, LocalStream},
    shards::{Connection, Shards},
    turned_away::TurnedAway,
};
use crate::{
    http::Problem,
    limits::{Limit, Sockets},
    ops::{self, Metrics, Ops},
    protocol::ErrorCode,
    relay::Relay,
};

/// Takes the connections of clients, until `stop` says so; what is accepted by then is
/// served.
pub(super) struct AcceptClients {
    pub(super) listener: Listener,
    pub(super) stop: CancellationToken,
    pub(super) sockets: Arc<Sockets>,
    pub(super) relay: Arc<Relay>,
    pub(super) shards: Arc<Shards>,
}

impl AcceptClients {
    pub(super) async fn run(self) {
        let mut turned_away = TurnedAway::default();
        let metrics = &self.relay.metrics;
        let accept = || self.listener.accept(|error| accept_failed(metrics, error));
        while let Some((stream, peer)) = self.stop.run_until_cancelled(accept()).await {
            match self.sockets.take() {
                Some(seat) => {
                    let connection = Connection::Client(stream, peer, seat);
                    self.shards.assign(connection).await;
                }
                None => self.turn_away(stream, &mut turned_away),
            }
        }
    }

    fn turn_away(&self, stream: TcpStream, turned_away: &mut TurnedAway) {
        let metrics = &self.relay.metrics;
        metrics.exceeded(Limit::Descriptors);
        // Who speaks TLS would not understand an answer, and has to do with the end.
        if self.relay.live().tls.is_none() {
            let problem = Problem::unavailable(
                ErrorCode::RateLimitExceeded,
                format!("there are {}", Limit::Descriptors),
                self.relay.retry_after(),
            );
            metrics.handshake_refused(problem.status());
            turned_away.tell(stream, problem);
        }
    }
}

/// Takes the connections of backends, until `stop` says so.
pub(super) async fn accept_backends(
    listener: LocalListener,
    stop: CancellationToken,
    relay: Arc<Relay>,
    shards: Arc<Shards>,
) {
    let accept = || listener.accept(|error| accept_failed(&relay.metrics, error));
    while let Some(stream) = stop.run_until_cancelled(accept()).await {
        shards.assign(Connection::Backend(stream)).await;
    }
}

/// Serves who asks for metrics and health, until it is dropped.
pub(super) async fn serve_ops(listener: LocalListener, relay: Arc<Relay>, ops: Arc<Ops>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        while connections.try_join_next().is_some() {}
        match stream {
            LocalStream::Tcp(stream) => {
                if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                    connections.spawn(ops::serve(ops.clone(), stream));
                }
            }
            LocalStream::Unix(stream) => {
                if let Ok(stream) = tokio::net::UnixStream::from_std(stream) {
                    connections.spawn(ops::serve(ops.clone(), stream));
                }
            }
        }
    }
}

fn accept_failed(metrics: &Metrics, error: &io::Error) {
    metrics.accept_failed();
    tracing::warn!(%error, "no connection can be accepted");
}
