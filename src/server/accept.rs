//! Accepts connections: assigns those of clients and backends to the shards, and serves
//! operators here. Turns away connections for which there is no descriptor or memory.

use std::{io, net::TcpStream, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    handshakes::Handshakes,
    listener::{Listener, LocalListener, LocalStream},
    shards::{Connection, Shards},
    turned_away::TurnedAway,
};
use crate::{
    connection::{NO_MEMORY, handshake_bytes},
    http::{Problem, Via},
    ingest::BACKEND_CONNECTION_BYTES,
    limits::{Arrival, Limit, Seat, Sockets, Whose},
    memory::{MemoryExceeded, MemoryUse, Reservation},
    ops::{self, Metrics, Ops},
    protocol::ErrorCode,
    relay::Relay,
    repeated::{RepeatedLine, log_repeated},
};

/// Accepts the connections of clients until `stop` is cancelled. Connections accepted by then
/// are served.
pub(super) struct AcceptClients {
    pub(super) listener: Listener,
    pub(super) stop: CancellationToken,
    pub(super) handshakes: Arc<Handshakes>,
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
            let Some((seat, arrival)) = self.sockets.take(Whose::Client) else {
                turn_away(&self.relay, stream, Limit::Descriptors, &mut turned_away);
                continue;
            };
            let memory = self.relay.publisher.memory();
            let bytes = handshake_bytes(self.relay.live().config.client.head_max);
            let Ok(permit) = self.handshakes.permit(memory, bytes).await else {
                turn_away(&self.relay, stream, Limit::Memory, &mut turned_away);
                continue;
            };
            let arrival = (arrival, permit);
            let connection = Connection::Client(stream, peer, seat, arrival);
            self.shards.assign(connection).await;
        }
    }
}

fn turn_away(relay: &Relay, stream: TcpStream, limit: Limit, turned_away: &mut TurnedAway) {
    relay.metrics.exceeded(limit);
    // A client that speaks TLS could not read a plain answer, so its connection is just closed.
    if relay.live().tls.is_none() {
        let problem = no_room(relay, limit);
        relay.metrics.handshake_refused(problem.status());
        turned_away.tell(stream, problem);
    }
}

fn no_room(relay: &Relay, limit: Limit) -> Problem {
    let detail = match limit {
        Limit::Memory => NO_MEMORY.to_owned(),
        _ => format!("there are {limit}"),
    };
    Problem::unavailable(ErrorCode::RateLimitExceeded, detail, relay.retry_after())
}

/// Accepts the connections of backends until `stop` is cancelled.
pub(super) struct AcceptBackends {
    pub(super) listener: LocalListener,
    pub(super) stop: CancellationToken,
    pub(super) sockets: Arc<Sockets>,
    pub(super) relay: Arc<Relay>,
    pub(super) shards: Arc<Shards>,
}

impl AcceptBackends {
    pub(super) async fn run(self) {
        let mut turned_away = TurnedAway::default();
        let metrics = &self.relay.metrics;
        let accept = || self.listener.accept(|error| accept_failed(metrics, error));
        while let Some(stream) = self.stop.run_until_cancelled(accept()).await {
            match (self.admit(), stream) {
                (Ok(admitted), stream) => {
                    let connection = Connection::Backend(stream, admitted);
                    self.shards.assign(connection).await;
                }
                (Err(limit), LocalStream::Tcp(stream)) => {
                    metrics.exceeded(limit);
                    turned_away.tell(stream, no_room(&self.relay, limit));
                }
                (Err(limit), LocalStream::Unix(_)) => metrics.exceeded(limit),
            }
        }
    }

    /// Reserves a descriptor and memory for a connection. Returns the exceeded limit if there is
    /// none left.
    fn admit(&self) -> Result<(Seat, Arrival, Reservation), Limit> {
        let seat = self.sockets.take(Whose::Backend);
        let (seat, arrival) = seat.ok_or(Limit::Descriptors)?;
        let memory = self.relay.publisher.memory();
        let memory = memory.reserve(MemoryUse::BackendConnections, BACKEND_CONNECTION_BYTES);
        let memory = memory.map_err(|MemoryExceeded| Limit::Memory)?;
        Ok((seat, arrival, memory))
    }
}

/// Serves requests for metrics and health until the future is dropped.
pub(super) async fn serve_ops(
    listener: LocalListener,
    sockets: Arc<Sockets>,
    relay: Arc<Relay>,
    ops: Arc<Ops>,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        while connections.try_join_next().is_some() {}
        let Some((seat, _)) = sockets.take(Whose::Operator) else {
            relay.metrics.exceeded(Limit::Descriptors);
            continue;
        };
        let ops = Arc::clone(&ops);
        match stream {
            LocalStream::Tcp(stream) => {
                if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                    connections.spawn(serve_operator(ops, stream, Via::Tcp, seat));
                }
            }
            LocalStream::Unix(stream) => {
                if let Ok(stream) = tokio::net::UnixStream::from_std(stream) {
                    connections.spawn(serve_operator(ops, stream, Via::UnixSocket, seat));
                }
            }
        }
    }
}

async fn serve_operator<S: AsyncRead + AsyncWrite + Unpin>(
    ops: Arc<Ops>,
    stream: S,
    via: Via,
    seat: Seat,
) {
    ops::serve(ops, stream, via).await;
    drop(seat);
}

fn accept_failed(metrics: &Metrics, error: &io::Error) {
    metrics.accept_failed();
    log_repeated!(RepeatedLine::NotAccepted, %error);
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

    /// Turns a client away. Returns its answer, and the numbers of exceeded limits and refused
    /// handshakes so far.
    async fn turned_away(bench: &Bench) -> (String, u64, u64) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut turned_away = TurnedAway::default();
        let relay = &bench.shard.relay;
        turn_away(relay, stream, Limit::Descriptors, &mut turned_away);
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
            schema: Arc::clone(&bench.shard.relay.live().schema),
            authenticator: Authenticator::Open,
            ingest_keys: IngestKeys::default(),
            tls: Some(tls::server_config(vec![made.cert.der().clone()], key).unwrap()),
        }));
        assert_eq!(turned_away(&bench).await, (String::new(), 2, 1));
    }
}
