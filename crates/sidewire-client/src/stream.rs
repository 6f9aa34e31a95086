//! The stream to a relay: TCP, or TLS over TCP. Knows nothing about WebSocket and HTTP.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::address::RelayAddress;

/// A byte stream to a relay.
#[derive(Debug)]
pub enum RelayStream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl RelayStream {
    /// Connects, over TLS if the address asks for it. Fails if `tls` does not trust the
    /// certificate for the host.
    pub(super) async fn connect(
        address: &RelayAddress,
        tls: Option<Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let stream = connect_tcp(address).await?;
        if !address.is_tls {
            return Ok(Self::Tcp(stream));
        }
        let invalid = |reason| io::Error::new(io::ErrorKind::InvalidInput, reason);
        let tls = tls.ok_or_else(|| invalid("no trusted certificates are configured"))?;
        let host = ServerName::try_from(address.host.clone())
            .map_err(|_| invalid("the host is not a valid name for a certificate"))?;
        let stream = TlsConnector::from(tls).connect(host, stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }
}

/// Opens a TCP connection with `TCP_NODELAY`, so that small frames are sent at once.
pub(super) async fn connect_tcp(address: &RelayAddress) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl AsyncRead for RelayStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for RelayStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
