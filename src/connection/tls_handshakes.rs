//! TLS handshakes, which are a flow of work of their own beside the tenants.
//!
//! A handshake takes its shard 0.3 ms with a P-256 key, 0.6 ms with RSA 2048 and 2 ms with
//! RSA 4096, and anybody who reaches the port can ask for one. So they are computed one
//! after another, in the order in which the ClientHellos were complete, and none for a peer
//! that has gone meanwhile. Each is charged what it took. As that is more than a quantum,
//! the next one waits for as many turns of the shard as it takes to pay that off, in which
//! all others are served: an event passes from the socket of its backend to those of its
//! clients within a few turns, and so waits for one handshake or two.
//!
//! The turn is held while a handshake is computed, and not while it waits for its peer: with
//! a bound on the handshakes that have begun, as many silent peers would lock everybody else
//! out. Nor is the work done on another thread: there is one shard per core already, so such
//! a thread would take its time from a shard, at moments that the shard cannot choose.

use std::{io, pin::pin, sync::Arc};

use futures_util::future::poll_immediate;
use rustls::{ServerConfig, ServerConnection, server::Acceptor};
use tokio::{io::Interest, net::TcpStream};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    scheduler::{QUANTUM, TenantWork},
    tls,
};

/// Conducts the handshake with a client, in turns of `handshakes`.
///
/// # Errors
///
/// When the client has gone or speaks no TLS, or the two do not agree.
pub(super) async fn accept(
    handshakes: &TenantWork,
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    // Only reads, so it needs no turn.
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let accepted = async {
        if has_gone(&start.io).await {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        start.into_stream_with(config, bound).await
    };
    // Whatever it takes: the next is not computed before all others had a turn.
    handshakes.run(pin!(accepted), QUANTUM).await
}

fn bound(connection: &mut ServerConnection) {
    connection.set_buffer_limit(Some(tls::WRITE_BUFFER_BYTES_MAX));
}

/// Whether the peer of a handshake has closed its side, so that it cannot complete it. What
/// it sent before may still be unread.
async fn has_gone(stream: &TcpStream) -> bool {
    let ready = pin!(stream.ready(Interest::READABLE));
    match poll_immediate(ready).await {
        Some(Ok(ready)) => ready.is_read_closed(),
        Some(Err(_)) => true,
        None => false,
    }
}
