//! Asks over HTTP/1.1, and keeps connections for the next questions.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::{
    Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use tokio::{sync::OnceCell, time::Instant};
use tokio_rustls::TlsConnector;

use super::transport::{ANSWER_BYTES_MAX, BackendTarget, BackendTransport, TransportError};
use crate::{
    config::BackendUrl,
    http::{self, ClientConnection, FetchError, read_document, tls_connector},
};

/// Time after which a connection that was not used is not used again. Servers close theirs after
/// 5 s to 75 s, and a question over one that is just being closed has to be sent again.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// The connections to one backend.
#[derive(Debug, Default)]
pub struct HttpTransport {
    pool: Mutex<Option<Arc<ConnectionPool>>>,
}

/// The connections to one target.
struct ConnectionPool {
    target: Arc<BackendTarget>,
    /// Built with the first connection, since reading the root certificates takes long.
    connector: OnceCell<TlsConnector>,
    /// Connections that are not in use, with the time of their last use; the last one is the most
    /// recent.
    idle: Mutex<Vec<(ClientConnection<Full<Bytes>>, Instant)>>,
}

impl fmt::Debug for ConnectionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl BackendTransport for HttpTransport {
    fn post(
        &self,
        target: &Arc<BackendTarget>,
        question: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let pool = self.pool_of(target);
        Box::pin(async move { Ok(pool.post(question).await?) })
    }
}

impl HttpTransport {
    /// Returns the pool for the target. Connections to another one are not kept.
    fn pool_of(&self, target: &Arc<BackendTarget>) -> Arc<ConnectionPool> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pool {
            Some(pool) if Arc::ptr_eq(&pool.target, target) => Arc::clone(pool),
            _ => {
                let new = Arc::new(ConnectionPool {
                    target: Arc::clone(target),
                    connector: OnceCell::new(),
                    idle: Mutex::default(),
                });
                *pool = Some(Arc::clone(&new));
                new
            }
        }
    }
}

impl ConnectionPool {
    async fn post(&self, question: Bytes) -> Result<Bytes, FetchError> {
        if let Some(connection) = self.take_idle() {
            match self.exchange(connection, question.clone()).await {
                // The backend may have closed the connection at this moment, because it was idle.
                Err(FetchError::Http(_)) => {}
                answer => return answer,
            }
        }
        let connection = self.connect().await?;
        self.exchange(connection, question).await
    }

    /// Returns the connection that was used last. Closes those that are too old.
    fn take_idle(&self) -> Option<ClientConnection<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < IDLE_MAX);
        let (connection, _) = idle.pop()?;
        Some(connection)
    }

    async fn connect(&self) -> Result<ClientConnection<Full<Bytes>>, FetchError> {
        match &self.target.url {
            BackendUrl::Tcp(uri) => {
                let tls = async || Ok(self.connector.get_or_try_init(tls_connector).await?.clone());
                ClientConnection::connect(uri, tls).await
            }
            BackendUrl::Unix { socket, .. } => ClientConnection::connect_unix(socket).await,
        }
    }

    /// Sends the question and reads the whole answer, after which the connection can be kept.
    async fn exchange(
        &self,
        mut connection: ClientConnection<Full<Bytes>>,
        question: Bytes,
    ) -> Result<Bytes, FetchError> {
        let response = connection.send(self.request(question)).await?;
        let answer = read_document(response, ANSWER_BYTES_MAX).await?;
        if !connection.is_closed() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((connection, Instant::now()));
        }
        Ok(answer)
    }

    fn request(&self, question: Bytes) -> Request<Full<Bytes>> {
        let (path, host) = match &self.target.url {
            BackendUrl::Tcp(uri) => (
                uri.path_and_query().cloned(),
                uri.authority().map_or("", |authority| authority.as_str()),
            ),
            BackendUrl::Unix { request, .. } => (Some(request.clone()), "localhost"),
        };
        let mut request = Request::post(path.map_or_else(Uri::default, Uri::from))
            .body(Full::new(question))
            .unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = host.parse() {
            headers.insert(HOST, host);
        }
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json.clone());
        headers.insert(ACCEPT, json);
        headers.insert(USER_AGENT, HeaderValue::from_static(http::USER_AGENT));
        if let Some(key) = &self.target.authorization {
            headers.insert(AUTHORIZATION, key.clone());
        }
        request
    }
}
