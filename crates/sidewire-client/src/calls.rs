//! HTTP/1.1 calls to a listener of the relay: the connection, the key, paths and queries, and the
//! parsing of refusals. Knows no bodies.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use super::{
    address::{AddressError, RelayAddress, UNRESERVED, UrlSchemes},
    options::Credential,
    problem::HttpRefusal,
    stream::connect_tcp,
};

/// The timeout of a call. The relay answers within seconds even when it waits for room
/// in a queue or for a shard.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes of an answer: more than for a batch of 1,000 events with 100 long
/// topics each.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Makes calls to one listener. Keeps one connection alive between calls; concurrent
/// calls open more.
#[derive(Debug)]
pub(super) struct ListenerCaller {
    endpoint: ListenerEndpoint,
    host: HeaderValue,
    /// The path before that of each call: empty, or without a trailing slash.
    prefix: String,
    authorization: Option<HeaderValue>,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerEndpoint {
    /// A host and a port.
    Tcp(RelayAddress),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// The URL cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The key has characters that are not allowed in a header.
    #[error("the ingest key has characters that are not allowed in an HTTP header")]
    MalformedKey,
    /// The connection failed; nothing was done.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The address of the listener.
        address: ListenerEndpoint,
        /// The error of the system.
        source: io::Error,
    },
    /// The relay refused; nothing was done.
    #[error("the relay refused: {0}")]
    Refused(Box<HttpRefusal>),
    /// The connection was lost before the answer, so the call may or may not have taken effect.
    #[error("the connection was lost before the answer: {0}")]
    Lost(hyper::Error),
    /// No answer came in time, so the call may or may not have taken effect.
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    TimedOut,
    /// The answer is not that of a relay.
    #[error("the server is not a relay: {0}")]
    Protocol(String),
}

impl CallFailure {
    /// Returns true if the call may have taken effect although it failed.
    #[must_use]
    pub fn may_have_taken_effect(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::TimedOut | Self::Protocol(_))
    }
}

/// What a call sends.
#[derive(Debug, Clone)]
pub(super) struct CallBody {
    pub(super) content_type: &'static str,
    pub(super) bytes: Bytes,
}

impl ListenerCaller {
    /// Creates a caller of the listener at `http://host:port` or `unix:PATH`.
    ///
    /// # Errors
    ///
    /// When the URL is not one of these, or the key is not a valid header value.
    pub(super) fn new(url: &str, key: Option<&Credential>) -> Result<Self, CallFailure> {
        let malformed = |error: &dyn std::error::Error| AddressError::Malformed(error.to_string());
        let authorization = key.map(bearer_header).transpose()?;
        if let Some(path) = url.strip_prefix("unix:") {
            if path.is_empty() {
                let what = "unix: is followed by the path of a socket".to_owned();
                return Err(AddressError::Malformed(what).into());
            }
            return Ok(Self {
                endpoint: ListenerEndpoint::Unix(path.into()),
                host: HeaderValue::from_static("localhost"),
                prefix: String::new(),
                authorization,
                idle: Mutex::new(None),
            });
        }
        let uri: Uri = url.parse().map_err(|error| malformed(&error))?;
        let address = RelayAddress::from_uri(&uri, UrlSchemes::INGEST)?;
        if uri.query().is_some() {
            let what = "it has a query, which is not used".to_owned();
            return Err(AddressError::Malformed(what).into());
        }
        let host = HeaderValue::try_from(address.to_string()).map_err(|error| malformed(&error))?;
        Ok(Self {
            endpoint: ListenerEndpoint::Tcp(address),
            host,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authorization,
            idle: Mutex::new(None),
        })
    }

    /// Makes a call to this path and query. Returns the status and the body of the answer.
    ///
    /// # Errors
    ///
    /// When the relay cannot be reached or refuses, or when the connection is lost or no answer
    /// comes in time.
    pub(super) async fn call(
        &self,
        method: Method,
        target: &str,
        body: Option<CallBody>,
    ) -> Result<(StatusCode, Bytes), CallFailure> {
        let request = self.build_request(method, target, body)?;
        timeout(ANSWER_TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| CallFailure::TimedOut)?
    }

    fn build_request(
        &self,
        method: Method,
        target: &str,
        body: Option<CallBody>,
    ) -> Result<Request<Full<Bytes>>, CallFailure> {
        let uri = Uri::try_from(format!("{}{target}", self.prefix))
            .map_err(|error| AddressError::Malformed(error.to_string()))?;
        let content_type = body.as_ref().map(|body| body.content_type);
        let mut request = Request::new(Full::new(body.map(|body| body.bytes).unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), CallFailure> {
        let (mut sender, response) = self.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(lost_or_too_big)?
            .to_bytes();
        if sender.ready().await.is_ok() {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        }
        if head.status.is_success() {
            Ok((head.status, body))
        } else {
            let problem = HttpRefusal::from_response(head.status, &head.headers, &body);
            Err(CallFailure::Refused(Box::new(problem)))
        }
    }

    /// Sends the request over the idle connection, or over a new one if the idle one ended
    /// before any of the request was written.
    async fn send_request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), CallFailure> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let request = match idle {
            None => request,
            Some(mut sender) => match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                Err(mut failure) => match failure.take_message() {
                    Some(request) => request,
                    None => return Err(CallFailure::Lost(failure.into_error())),
                },
            },
        };
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await;
        Ok((sender, response.map_err(CallFailure::Lost)?))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, CallFailure> {
        let unreachable = |source| CallFailure::Unreachable {
            address: self.endpoint.clone(),
            source,
        };
        match &self.endpoint {
            ListenerEndpoint::Tcp(address) => {
                let stream = connect_tcp(address).await;
                http_handshake(stream.map_err(unreachable)?).await
            }
            ListenerEndpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                http_handshake(stream.map_err(unreachable)?).await
            }
        }
    }
}

async fn http_handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, CallFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(CallFailure::Lost)?;
    // The task ends with the sender, which also receives its errors.
    tokio::spawn(connection);
    Ok(sender)
}

fn bearer_header(key: &Credential) -> Result<HeaderValue, CallFailure> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.reveal()))
        .map_err(|_| CallFailure::MalformedKey)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

/// Returns the path of a call about a tenant. `rest` is what follows the tenant, with a slash.
pub(super) fn tenant_path(tenant: &str, rest: &str) -> String {
    let tenant = utf8_percent_encode(tenant, UNRESERVED);
    format!("/v1/tenants/{tenant}{rest}")
}

/// Returns the path of a call about what a user has.
pub(super) fn user_path(tenant: &str, user: &str, what: &str) -> String {
    let user = utf8_percent_encode(user, UNRESERVED);
    tenant_path(tenant, &format!("/users/{user}/{what}"))
}

/// Returns the query with these parameters, or an empty text if there are none.
pub(super) fn build_query<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, UNRESERVED));
    }
    query
}

fn lost_or_too_big(error: Box<dyn std::error::Error + Send + Sync>) -> CallFailure {
    match error.downcast() {
        Ok(lost) => CallFailure::Lost(*lost),
        Err(error) => CallFailure::Protocol(error.to_string()),
    }
}
