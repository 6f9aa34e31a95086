//! TLS handshakes, which the scheduler treats as a flow of their own beside the tenants.
//!
//! A handshake costs its shard 0.3 ms with a P-256 key, 0.6 ms with RSA 2048 and 2 ms with RSA
//! 4096, and any peer that reaches the port can ask for one. So handshakes are computed one after
//! another, in the order in which their ClientHellos were complete, and skipped if the peer has
//! gone meanwhile. Each is charged what it took. As that is more than a quantum, the next one
//! waits for as many turns of the shard as it takes to pay off the debt, while all other flows
//! are served: an event passes from its backend's socket to its clients' sockets within a few
//! turns, and so waits for one or two handshakes.
//!
//! A handshake occupies the flow while it is computed, but not while it waits for its peer: with
//! a limit on the handshakes in progress, that many silent peers would lock everybody else out.
//! Nor is the work done on another thread: there is one shard per core already, so such a thread
//! would take its time from a shard, at moments that the shard cannot choose.

use std::{io, pin::pin, sync::Arc};

use futures_util::future::poll_immediate;
use rustls::{ServerConfig, ServerConnection, server::Acceptor};
use tokio::{io::Interest, net::TcpStream};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    scheduler::{QUANTUM, TenantWork},
    tls,
};

/// Performs the handshake with a client when the flow `handshakes` is scheduled.
///
/// # Errors
///
/// Fails if the client has gone or does not speak TLS, or if the two sides do not agree.
pub(super) async fn accept_tls(
    handshakes: &TenantWork,
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    // Only reads, so it need not be scheduled.
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let accepted = async {
        if has_disconnected(&start.io).await {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        start.into_stream_with(config, limit_write_buffer).await
    };
    // Costs a whole quantum at least, so that all other flows are served before the next
    // handshake.
    handshakes.run(pin!(accepted), QUANTUM).await
}

fn limit_write_buffer(connection: &mut ServerConnection) {
    connection.set_buffer_limit(Some(tls::WRITE_BUFFER_BYTES_MAX));
}

/// Returns true if the peer has closed its side, so that it cannot complete the handshake. Data
/// that it sent before may still be unread.
async fn has_disconnected(stream: &TcpStream) -> bool {
    let ready = pin!(stream.ready(Interest::READABLE));
    match poll_immediate(ready).await {
        Some(Ok(ready)) => ready.is_read_closed(),
        Some(Err(_)) => true,
        None => false,
    }
}
