//! The backend's side: posts events to the relay's ingest listener over HTTP/1.1
//! and reads its answers. Does not look into what it posts.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::timeout,
};

use super::{
    address::{Address, AddressError, Schemes, UNRESERVED},
    options::Credential,
    problem::{Problem, position},
    stream::connect_tcp,
};
use crate::protocol::wire;

/// How long a call may take: the relay answers within seconds even when it waits
/// for room and for a shard.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// More than a batch of 1,000 events that name 100 long topics each is answered
/// with.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Posts events to one relay. Keeps one connection alive between calls; calls at
/// the same time open more.
#[derive(Debug)]
pub struct Publisher {
    place: Place,
    host: HeaderValue,
    /// The path before `/v1`, empty or without a slash at its end.
    prefix: String,
    authorization: Option<HeaderValue>,
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// Where a listener for events is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A host and a port.
    Tcp(Address),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`, proto3 JSON.
    Json,
}

/// What the relay did with what was posted.
#[derive(Debug, Clone)]
pub struct PublishAnswer {
    /// 200, or 202 where a shard has not answered in time: the events are in the
    /// log all the same.
    pub status: u16,
    /// One for each event that was posted, in the same order.
    pub results: Vec<Published>,
    /// The answer as it came, JSON.
    pub body: Bytes,
}

/// What the relay did with one event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Published {
    /// What it is called, given or made up by the relay.
    pub message_id: String,
    /// Where it stands in its tenant's order.
    #[serde(deserialize_with = "position")]
    pub position: wire::Position,
    /// What it relates to.
    pub topics: Vec<String>,
    /// How many connections of the relay's process it is queued for; none with 202.
    #[serde(default)]
    pub matched: Option<u64>,
    /// Whether it had been posted before.
    pub duplicate: bool,
}

/// Why there is no answer to a call, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The URL cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The key has characters that no header can hold.
    #[error("the ingest key is malformed: it has characters that no HTTP header can hold")]
    MalformedKey,
    /// There was no connection; nothing was posted.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// What was tried.
        address: Place,
        /// What the system says.
        source: io::Error,
    },
    /// The relay refused; nothing was stored.
    #[error("the relay refused: {0}")]
    Refused(Box<Problem>),
    /// The connection broke before the answer, so the events may be stored or not.
    #[error("the connection was lost before the answer ({0}): the events may be stored or not")]
    Lost(hyper::Error),
    /// No answer came in time, so the events may be stored or not.
    #[error("no answer within {ANSWER_TIMEOUT:?}: the events may be stored or not")]
    TimedOut,
    /// The answer is none that a relay gives.
    #[error("what answered is no relay: {0}")]
    Protocol(String),
}

impl Publisher {
    /// A publisher for the ingest listener at `http://host:port`, or at `unix:` and the
    /// path of a socket.
    ///
    /// # Errors
    ///
    /// When the URL is none of a listener, or the key cannot stand in a header.
    pub fn new(url: &str, key: Option<&Credential>) -> Result<Self, PublishError> {
        let malformed = |error: &dyn std::error::Error| AddressError::Malformed(error.to_string());
        let authorization = key.map(bearer).transpose()?;
        if let Some(path) = url.strip_prefix("unix:") {
            return Ok(Self {
                place: Place::Unix(path.into()),
                host: HeaderValue::from_static("localhost"),
                prefix: String::new(),
                authorization,
                idle: Mutex::new(None),
            });
        }
        let uri: Uri = url.parse().map_err(|error| malformed(&error))?;
        let address = Address::of(&uri, Schemes::INGEST)?;
        let host = HeaderValue::try_from(address.to_string()).map_err(|error| malformed(&error))?;
        Ok(Self {
            place: Place::Tcp(address),
            host,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            authorization,
            idle: Mutex::new(None),
        })
    }

    /// Posts one event, or with `batch` a BatchUpdate, with these topics in
    /// addition to those that the events name themselves.
    ///
    /// # Errors
    ///
    /// When the relay cannot be reached or refuses, when the connection is lost or no
    /// answer comes in time, and when what answers is no relay.
    pub async fn post(
        &self,
        tenant: &str,
        body: impl Into<Bytes>,
        encoding: Encoding,
        extra_topics: &[&str],
        batch: bool,
    ) -> Result<PublishAnswer, PublishError> {
        let target = target(&self.prefix, tenant, batch, &query(extra_topics, &[]));
        self.call(&target, body.into(), encoding, batch).await
    }

    /// Posts one event if each of `conditions` holds: `<topic>@<epoch>:<offset>`,
    /// where the topic's last event stands, or `<topic>@0`, that there is none.
    ///
    /// # Errors
    ///
    /// As for `post`; where one does not hold, the relay refuses with 409 and says
    /// what holds instead.
    pub async fn post_if_last(
        &self,
        tenant: &str,
        body: impl Into<Bytes>,
        encoding: Encoding,
        extra_topics: &[&str],
        conditions: &[&str],
    ) -> Result<PublishAnswer, PublishError> {
        let query = query(extra_topics, conditions);
        let target = target(&self.prefix, tenant, false, &query);
        self.call(&target, body.into(), encoding, false).await
    }

    async fn call(
        &self,
        target: &str,
        body: Bytes,
        encoding: Encoding,
        batch: bool,
    ) -> Result<PublishAnswer, PublishError> {
        let request = self.request(target, encoding, body)?;
        let (status, body) = timeout(ANSWER_TIMEOUT, self.exchange(request))
            .await
            .map_err(|_| PublishError::TimedOut)??;
        answer(status, body, batch)
    }

    fn request(
        &self,
        target: &str,
        encoding: Encoding,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, PublishError> {
        let uri =
            Uri::try_from(target).map_err(|error| AddressError::Malformed(error.to_string()))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(encoding.content_type()),
        );
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), PublishError> {
        let (mut sender, response) = self.send(request).await?;
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
            let problem = Problem::read(head.status, &head.headers, &body);
            Err(PublishError::Refused(Box::new(problem)))
        }
    }

    /// Over the connection that is there, or over a new one where that has ended
    /// before any of the request was written.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), PublishError> {
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
                    None => return Err(PublishError::Lost(failure.into_error())),
                },
            },
        };
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await;
        Ok((sender, response.map_err(PublishError::Lost)?))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, PublishError> {
        let unreachable = |source| PublishError::Unreachable {
            address: self.place.clone(),
            source,
        };
        match &self.place {
            Place::Tcp(address) => {
                let stream = connect_tcp(address).await;
                speak(stream.map_err(unreachable)?).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await;
                speak(stream.map_err(unreachable)?).await
            }
        }
    }
}

async fn speak<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, PublishError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(PublishError::Lost)?;
    // It ends with the sender, which is told of errors too.
    tokio::spawn(connection);
    Ok(sender)
}

impl Encoding {
    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

fn bearer(key: &Credential) -> Result<HeaderValue, PublishError> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.reveal()))
        .map_err(|_| PublishError::MalformedKey)?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

fn target(prefix: &str, tenant: &str, batch: bool, query: &str) -> String {
    let tenant = utf8_percent_encode(tenant, UNRESERVED);
    let call = if batch { "events:batch" } else { "events" };
    format!("{prefix}/v1/tenants/{tenant}/{call}{query}")
}

fn query(extra_topics: &[&str], conditions: &[&str]) -> String {
    let topics = extra_topics.iter().map(|topic| ("topic", topic));
    let conditions = conditions.iter().map(|condition| ("if_last", condition));
    let mut query = String::new();
    for (name, value) in topics.chain(conditions) {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        query.extend(utf8_percent_encode(value, UNRESERVED));
    }
    query
}

fn lost_or_too_big(error: Box<dyn std::error::Error + Send + Sync>) -> PublishError {
    match error.downcast() {
        Ok(lost) => PublishError::Lost(*lost),
        Err(error) => PublishError::Protocol(error.to_string()),
    }
}

fn answer(status: StatusCode, body: Bytes, batch: bool) -> Result<PublishAnswer, PublishError> {
    #[derive(Deserialize)]
    struct Batch {
        results: Vec<Published>,
    }
    let results = if batch {
        serde_json::from_slice(&body).map(|batch: Batch| batch.results)
    } else {
        serde_json::from_slice(&body).map(|published| vec![published])
    };
    Ok(PublishAnswer {
        status: status.as_u16(),
        results: results
            .map_err(|error| PublishError::Protocol(format!("its answer is malformed: {error}")))?,
        body,
    })
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
