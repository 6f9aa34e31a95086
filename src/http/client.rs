//! Connections to other servers: over TLS, in the clear on this machine, or over a Unix socket.
//! Trusts only the root certificates of the system.

use std::{io, path::Path};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Body, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::{AbortHandle, spawn_blocking},
};
use tokio_rustls::{
    TlsConnector,
    rustls::pki_types::{InvalidDnsNameError, ServerName},
};

use crate::tls::{self, TlsError};

/// Name of the relay in its requests.
pub const USER_AGENT: &str = concat!("sidewire/", env!("CARGO_PKG_VERSION"));

/// Maximum size of the head of a response, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Reason for a failed request. Reveals nothing of the response but its status.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL has no host.
    #[error("the URL has no host")]
    NoHost,
    /// The host is not a name that a certificate could be for.
    #[error("{0}")]
    Name(#[from] InvalidDnsNameError),
    /// The URL is not https, and its host is not on this machine.
    #[error("the host is not on this machine, and the URL is not https")]
    NotLoopback,
    /// The connection or its TLS handshake failed.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// TLS cannot be used at all, for example because there are no root certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The response is not valid HTTP.
    #[error("no valid HTTP response: {0}")]
    Http(#[from] hyper::Error),
    /// The status is not 200.
    #[error("the response status is {0}")]
    Status(StatusCode),
    /// The document is larger than allowed.
    #[error("the response has more than {0} bytes")]
    TooBig(usize),
}

/// A connection to a server, which is closed when it is dropped.
#[derive(Debug)]
pub struct ClientConnection<B> {
    sender: SendRequest<B>,
    running: AbortHandle,
}

impl<B> Drop for ClientConnection<B> {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl<B> ClientConnection<B>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    /// Connects to the host of the URL: with TLS if it is https, else only on this machine.
    /// `tls` is called for the connector. The caller has to set a timeout.
    ///
    /// # Errors
    ///
    /// Fails if there is no connection, or if the server is not the one that the URL names.
    pub async fn connect(
        uri: &Uri,
        tls: impl AsyncFnOnce() -> Result<TlsConnector, FetchError>,
    ) -> Result<Self, FetchError> {
        let host = uri.host().ok_or(FetchError::NoHost)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(FetchError::Connect)?;
        if is_tls {
            let name = ServerName::try_from(host.to_owned())?;
            let stream = tls().await?.connect(name, stream).await;
            Self::over(stream.map_err(FetchError::Connect)?).await
        } else if stream
            .peer_addr()
            .is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
        {
            Self::over(stream).await
        } else {
            Err(FetchError::NotLoopback)
        }
    }

    /// Connects to a Unix socket. The caller has to set a timeout.
    ///
    /// # Errors
    ///
    /// Fails if there is no connection.
    pub async fn connect_unix(socket: &Path) -> Result<Self, FetchError> {
        let stream = UnixStream::connect(socket).await;
        Self::over(stream.map_err(FetchError::Connect)?).await
    }

    async fn over<S>(stream: S) -> Result<Self, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let running = tokio::spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            running: running.abort_handle(),
        })
    }

    /// Returns true if the server has closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request, and returns the head of the response.
    ///
    /// # Errors
    ///
    /// Fails if the connection breaks or the response is not HTTP.
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, FetchError> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

/// Returns a connector that trusts the root certificates that the system has now.
///
/// # Errors
///
/// Fails if it has none.
pub async fn tls_connector() -> Result<TlsConnector, FetchError> {
    // This reads files.
    let config = spawn_blocking(|| tls::client_config(None))
        .await
        .map_err(|error| FetchError::Connect(error.into()))??;
    Ok(config.into())
}

/// Reads the body of a response with status 200, of at most `bytes_max` bytes. Counts them, since
/// the announced length cannot be trusted.
///
/// # Errors
///
/// Fails if the status is another one, if the body is larger, or if the connection breaks.
pub async fn read_document(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<Bytes, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bytes_max {
            return Err(FetchError::TooBig(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
