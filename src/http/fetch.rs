//! A GET for a small document. Follows no redirect and keeps no connection.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Request, Uri,
    header::{ACCEPT, CONNECTION, HOST, HeaderValue, USER_AGENT},
};

use super::client::{self, ClientConnection, FetchError, read_document, tls_connector};

/// Fetches the document at the URL, of at most `bytes_max` bytes. The caller has to set a
/// timeout.
///
/// # Errors
///
/// Fails if the document is missing or too big, or if the server is not the one that the URL
/// names.
pub async fn fetch_document(uri: &Uri, bytes_max: usize) -> Result<Bytes, FetchError> {
    let mut connection = ClientConnection::connect(uri, tls_connector).await?;
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
        (USER_AGENT, client::USER_AGENT),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    read_document(connection.send(request).await?, bytes_max).await
}
