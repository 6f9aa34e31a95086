//! The byte stream of a connection.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that can be reset.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Turns the end of the stream into a reset: data that is not sent yet is discarded.
    fn reset(&self);

    /// Ends the stream if the peer has not acknowledged data for this long. A stream that is no
    /// socket ignores it.
    fn set_dead_peer_timeout(&self, timeout: Duration) {
        let _ = timeout;
    }

    /// Returns true if what was to be sent is complete, so that the stream takes nothing more.
    fn is_complete(&self) -> bool {
        false
    }
}

impl Transport for tokio::net::TcpStream {
    fn reset(&self) {
        // Without it the kernel would go on sending what is queued to a client that does not
        // read. It fails only if the socket is dead already.
        drop(self.set_zero_linger());
    }

    fn set_dead_peer_timeout(&self, timeout: Duration) {
        // As above. Without it a dead peer is noticed later.
        drop(SockRef::from(self).set_tcp_user_timeout(Some(timeout)));
    }
}

impl<S: Transport> Transport for tokio_rustls::server::TlsStream<S> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }

    fn set_dead_peer_timeout(&self, timeout: Duration) {
        self.get_ref().0.set_dead_peer_timeout(timeout);
    }
}

impl<S: Transport + ?Sized> Transport for Box<S> {
    fn reset(&self) {
        S::reset(self);
    }

    fn set_dead_peer_timeout(&self, timeout: Duration) {
        S::set_dead_peer_timeout(self, timeout);
    }

    fn is_complete(&self) -> bool {
        S::is_complete(self)
    }
}

impl Transport for tokio::io::DuplexStream {
    fn reset(&self) {}
}
