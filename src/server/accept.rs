//! Accepts connections: assigns those of clients and backends to the shards, and serves
//! operators here. Turns away connections for which there is no descriptor or memory.

use std::{io, net::TcpStream, sync::Arc};

use sidewire_protocol::ErrorCode;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    handshakes::HandshakeLimiter,
    listener::{LocalListener, LocalStream, SocketListener},
    shards::{AcceptedConnection, ShardThreads},
    turned_away::TurnedAway,
};
use crate::{
    connection::{NO_MEMORY, handshake_bytes},
    http::{HttpProblem, ListenerKind},
    ingest::BACKEND_CONNECTION_BYTES,
    limits::{HandshakeGuard, Limit, PeerKind, SocketPermit, SocketPool},
    memory::{MemoryExceeded, MemoryReservation, MemoryUse},
    ops::{self, OpsService},
    relay::Relay,
    repeated::{RepeatedLine, log_repeated},
    telemetry::Metrics,
};

/// Accepts the connections of clients until `stop` is cancelled. Connections accepted by then
/// are served.
pub(super) struct ClientAcceptor {
    pub(super) listener: SocketListener,
    pub(super) stop: CancellationToken,
    pub(super) handshakes: Arc<HandshakeLimiter>,
    pub(super) sockets: Arc<SocketPool>,
    pub(super) relay: Arc<Relay>,
    pub(super) shards: Arc<ShardThreads>,
}

impl ClientAcceptor {
    pub(super) async fn run(self) {
        let mut turned_away = TurnedAway::default();
        let metrics = &self.relay.metrics;
        let accept = || self.listener.accept(|error| accept_failed(metrics, error));
        while let Some((stream, peer)) = self.stop.run_until_cancelled(accept()).await {
            let Some((seat, arrival)) = self.sockets.try_acquire(PeerKind::Client) else {
                turn_away(&self.relay, stream, Limit::Descriptors, &mut turned_away);
                continue;
            };
            let memory = self.relay.publisher.memory();
            let bytes = handshake_bytes(self.relay.live().config.client.head_max);
            let Ok(permit) = self.handshakes.acquire_permit(memory, bytes).await else {
                turn_away(&self.relay, stream, Limit::Memory, &mut turned_away);
                continue;
            };
            let arrival = (arrival, permit);
            let connection = AcceptedConnection::Client(stream, peer, seat, arrival);
            self.shards.assign(connection).await;
        }
    }
}

fn turn_away(relay: &Relay, stream: TcpStream, limit: Limit, turned_away: &mut TurnedAway) {
    relay.metrics.limit_exceeded(limit);
    // A client that speaks TLS could not read a plain answer, so its connection is just closed.
    if relay.live().tls.is_none() {
        let problem = no_room_problem(relay, limit);
        relay.metrics.handshake_refused(problem.status());
        turned_away.answer_and_close(stream, problem);
    }
}

fn no_room_problem(relay: &Relay, limit: Limit) -> HttpProblem {
    let detail = match limit {
        Limit::Memory => NO_MEMORY.to_owned(),
        _ => format!("there are {limit}"),
    };
    HttpProblem::unavailable(ErrorCode::RateLimitExceeded, detail, relay.retry_after())
}

/// Accepts the connections of backends until `stop` is cancelled.
pub(super) struct BackendAcceptor {
    pub(super) listener: LocalListener,
    pub(super) stop: CancellationToken,
    pub(super) sockets: Arc<SocketPool>,
    pub(super) relay: Arc<Relay>,
    pub(super) shards: Arc<ShardThreads>,
}

impl BackendAcceptor {
    pub(super) async fn run(self) {
        let mut turned_away = TurnedAway::default();
        let metrics = &self.relay.metrics;
        let accept = || self.listener.accept(|error| accept_failed(metrics, error));
        while let Some(stream) = self.stop.run_until_cancelled(accept()).await {
            match (self.reserve_resources(), stream) {
                (Ok(admitted), stream) => {
                    let connection = AcceptedConnection::Backend(stream, admitted);
                    self.shards.assign(connection).await;
                }
                (Err(limit), LocalStream::Tcp(stream)) => {
                    metrics.limit_exceeded(limit);
                    turned_away.answer_and_close(stream, no_room_problem(&self.relay, limit));
                }
                (Err(limit), LocalStream::Unix(_)) => metrics.limit_exceeded(limit),
            }
        }
    }

    /// Reserves a descriptor and memory for a connection. Returns the exceeded limit if there is
    /// none left.
    fn reserve_resources(
        &self,
    ) -> Result<(SocketPermit, HandshakeGuard, MemoryReservation), Limit> {
        let seat = self.sockets.try_acquire(PeerKind::Backend);
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
    sockets: Arc<SocketPool>,
    relay: Arc<Relay>,
    ops: Arc<OpsService>,
) {
    let mut connections = JoinSet::new();
    loop {
        let stream = listener
            .accept(|error| accept_failed(&relay.metrics, error))
            .await;
        while connections.try_join_next().is_some() {}
        let Some((seat, _)) = sockets.try_acquire(PeerKind::Operator) else {
            relay.metrics.limit_exceeded(Limit::Descriptors);
            continue;
        };
        let ops = Arc::clone(&ops);
        match stream {
            LocalStream::Tcp(stream) => {
                if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                    connections.spawn(serve_operator(ops, stream, ListenerKind::Tcp, seat));
                }
            }
            LocalStream::Unix(stream) => {
                if let Ok(stream) = tokio::net::UnixStream::from_std(stream) {
                    connections.spawn(serve_operator(ops, stream, ListenerKind::UnixSocket, seat));
                }
            }
        }
    }
}

async fn serve_operator<S: AsyncRead + AsyncWrite + Unpin>(
    ops: Arc<OpsService>,
    stream: S,
    via: ListenerKind,
    seat: SocketPermit,
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
    use crate::{connection::testing::ConnectionFixture, tls};

    /// Turns a client away. Returns its answer, and the numbers of exceeded limits and refused
    /// handshakes so far.
    async fn turned_away(fixture: &ConnectionFixture) -> (String, u64, u64) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = tokio::net::TcpStream::from_std(client).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut turned_away = TurnedAway::default();
        let relay = &fixture.shard.relay;
        turn_away(relay, stream, Limit::Descriptors, &mut turned_away);
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        (
            heard,
            fixture.metric("sidewire_limits_exceeded_total{limit=\"descriptors\"}"),
            fixture.metric("sidewire_handshakes_refused_total{status=\"503\"}"),
        )
    }

    #[tokio::test(flavor = "local")]
    async fn a_503_is_sent_and_counted_as_a_refusal_except_over_tls() {
        let fixture = ConnectionFixture::new();
        let (heard, exceeded, refused) = turned_away(&fixture).await;
        assert!(heard.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(heard.contains("\"there are too many connections\""));
        assert_eq!((exceeded, refused), (1, 1));

        let made = generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
        let key = tls::parse_private_key(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let tls = tls::server_config(vec![made.cert.der().clone()], key).unwrap();
        fixture.replace_settings(|live| live.tls = Some(tls));
        assert_eq!(turned_away(&fixture).await, (String::new(), 2, 1));
    }
}
