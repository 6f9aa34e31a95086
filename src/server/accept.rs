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
                None => turn_away(&self.relay, stream, &mut turned_away),
            }
        }
    }
}

fn turn_away(relay: &Relay, stream: TcpStream, turned_away: &mut TurnedAway) {
    relay.metrics.exceeded(Limit::Descriptors);
    // Who speaks TLS would not understand an answer, and has to do with the end.
    if relay.live().tls.is_none() {
        let problem = Problem::unavailable(
            ErrorCode::RateLimitExceeded,
            format!("there are {}", Limit::Descriptors),
            relay.retry_after(),
        );
        relay.metrics.handshake_refused(problem.status());
        turned_away.tell(stream, problem);
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

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::{
        auth::{Authenticator, IngestKeys},
        config::Config,
        connection::testing::Bench,
        relay::Live,
        tls,
    };

    /// What a client hears that is turned away, and how often which was counted by then.
    async fn turned_away(bench: &Bench) -> (String, u64, u64) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut turned_away = TurnedAway::default();
        turn_away(&bench.shard.relay, stream, &mut turned_away);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        (
            heard,
            bench.metric("sidewire_limits_exceeded_total{limit=\"descriptors\"}"),
            bench.metric("sidewire_handshakes_refused_total{status=\"503\"}"),
        )
    }

    #[tokio::test(flavor = "local")]
    async fn a_503_counts_where_it_is_told_and_over_tls_nothing_is() {
        let bench = Bench::new();
        let (heard, exceeded, refused) = turned_away(&bench).await;
        assert!(heard.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(heard.contains("\"there are too many connections\""));
        assert_eq!((exceeded, refused), (1, 1));

        let made = generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
        let key = tls::private_key(made.signing_key.serialize_pem().as_bytes()).unwrap();
        bench.shard.relay.live.store(Arc::new(Live {
            config: Config::default(),
            authenticator: Authenticator::Open,
            ingest_keys: IngestKeys::default(),
            tls: Some(tls::server_config(vec![made.cert.der().clone()], key).unwrap()),
        }));
        assert_eq!(turned_away(&bench).await, (String::new(), 2, 1));
    }
}
