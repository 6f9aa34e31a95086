//! The byte stream of a connection.

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream that can be reset.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Turns the end of the stream into a reset: data that is not sent yet is discarded.
    fn reset(&self);
}

impl Transport for tokio::net::TcpStream {
    fn reset(&self) {
        // Without it the kernel would go on sending what is queued to a client that does not
        // read. It fails only if the socket is dead already.
        drop(self.set_zero_linger());
    }
}

impl<S: Transport> Transport for tokio_rustls::server::TlsStream<S> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

impl<S: Transport> Transport for Box<S> {
    fn reset(&self) {
        S::reset(self);
    }
}

impl Transport for tokio::io::DuplexStream {
    fn reset(&self) {}
}
