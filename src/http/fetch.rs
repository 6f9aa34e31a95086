//! A GET for a small document, over TLS, or in the clear on this machine. Follows no redirect,
//! keeps no connection, and trusts only the root certificates of the system.

use std::io;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::{AbortHandle, spawn_blocking},
};
use tokio_rustls::{
    TlsConnector,
    rustls::pki_types::{InvalidDnsNameError, ServerName},
};

use crate::tls::{self, TlsError};

/// Maximum size of the head of a response, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Reason for a failed fetch. Reveals nothing of the response but its status.
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

/// Fetches the document at the URL, of at most `bytes_max` bytes. The caller has to set a
/// timeout.
///
/// # Errors
///
/// Fails if the document is missing or too big, or if the server is not the one that the URL
/// names.
pub async fn fetch_document(uri: &Uri, bytes_max: usize) -> Result<Bytes, FetchError> {
    let host = uri.host().ok_or(FetchError::NoHost)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(FetchError::Connect)?;
    if is_tls {
        let name = ServerName::try_from(host.to_owned())?;
        let stream = tls_connector().await?.connect(name, stream).await;
        send_get(stream.map_err(FetchError::Connect)?, uri, bytes_max).await
    } else if stream
        .peer_addr()
        .is_ok_and(|peer| peer.ip().to_canonical().is_loopback())
    {
        send_get(stream, uri, bytes_max).await
    } else {
        Err(FetchError::NotLoopback)
    }
}

/// Returns a connector that trusts the root certificates that the system has now.
async fn tls_connector() -> Result<TlsConnector, FetchError> {
    // This reads files.
    let config = spawn_blocking(|| tls::client_config(None))
        .await
        .map_err(|error| FetchError::Connect(error.into()))??;
    Ok(config.into())
}

/// Aborts the task when it is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send_get<S>(stream: S, uri: &Uri, bytes_max: usize) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = tokio::spawn(async move { drop(connection.await) });
    let _running = AbortOnDrop(connection.abort_handle());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(host) = uri.authority().and_then(|it| it.as_str().parse().ok()) {
        headers.insert(HOST, host);
    }
    let fixed = [
        (ACCEPT, "application/jwk-set+json, application/json"),
        (CONNECTION, "close"),
        (USER_AGENT, concat!("sidewire/", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in fixed {
        headers.insert(name, hyper::header::HeaderValue::from_static(value));
    }
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    read_body(response.into_body(), bytes_max).await
}

/// Reads the body and counts its bytes, since the announced length cannot be trusted.
async fn read_body(mut body: Incoming, bytes_max: usize) -> Result<Bytes, FetchError> {
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
