//! TLS handshakes, which a shard computes one at a time, in turns with everything else that
//! it does.
//!
//! A handshake takes its shard 0.3 ms with a P-256 key, 0.6 ms with RSA 2048 and 2 ms with
//! RSA 4096, and anybody who reaches the port can ask for one. So at most one is computed
//! between two passes over everything that is ready, I/O included, in the order in which the
//! ClientHellos were complete, and none for a peer that has gone meanwhile. Deliveries then
//! wait for one handshake each time that they pass from task to task, however many peers
//! there are.
//!
//! The turn is held while a handshake is computed, and not while it waits for its peer: with
//! a bound on the handshakes that have begun, as many silent peers would lock everybody else
//! out. Nor is the work done on another thread: there is one shard per core already, so such
//! a thread would take its time from a shard, at moments that the shard cannot choose.

use std::{future::poll_fn, io, mem, pin::pin, sync::Arc, task::Poll};

use futures_util::future::poll_immediate;
use rustls::{ServerConfig, ServerConnection, server::Acceptor};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::{Mutex, MutexGuard},
    task::yield_now,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::tls;

/// The turns of one shard's TLS handshakes.
#[derive(Debug, Default)]
pub struct TlsTurns(Mutex<()>);

impl TlsTurns {
    /// Conducts the handshake with a client.
    ///
    /// # Errors
    ///
    /// When the client has gone or speaks no TLS, or the two do not agree.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        config: Arc<ServerConfig>,
    ) -> io::Result<TlsStream<TcpStream>> {
        // Only reads, so it needs no turn.
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let mut turn = self.take().await;
        if has_gone(&start.io).await {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut accept = start.into_stream_with(config, bound);
        loop {
            if let Some(accepted) = poll_immediate(&mut accept).await {
                return accepted;
            }
            drop(turn);
            woken().await;
            turn = self.take().await;
        }
    }

    /// Waits for a turn: for the handshakes that asked before, and then until everything
    /// else that is ready has been served.
    async fn take(&self) -> MutexGuard<'_, ()> {
        let turn = self.0.lock().await;
        yield_now().await;
        turn
    }
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

/// Waits until the task is woken by whatever it has been polling.
async fn woken() {
    let mut is_woken = false;
    poll_fn(|_| {
        if mem::replace(&mut is_woken, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
