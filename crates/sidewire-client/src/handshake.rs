//! Opens a WebSocket over a byte stream (RFC 6455, section 4.1). hyper does the HTTP
//! part, so that the whole body of a refusal is read and no library logs the token.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{
        AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        client::IntoClientRequest,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    address::{AddressError, RelayAddress, UNRESERVED, UrlSchemes},
    options::ClientOptions,
    problem::HttpRefusal,
};

/// The subprotocol of the client: envelopes in binary frames.
pub const SUBPROTOCOL: &str = "sidewire.v1.protobuf";

/// The most bytes read of a refusal's body, more than any problem document of the relay.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The token has characters that are not allowed in a header.
    #[error("the token has characters that are not allowed in an HTTP header")]
    MalformedToken,
    /// The relay does not accept the token (401).
    #[error("the relay does not accept the token ({0})")]
    Unauthorized(HttpRefusal),
    /// The relay, or a proxy in front of it, refused for another reason.
    #[error("the relay refused the connection: {0}")]
    Refused(HttpRefusal),
    /// The TCP connection or its TLS handshake failed.
    #[error("cannot connect to {address}: {source}")]
    Unreachable {
        /// The address of the relay.
        address: RelayAddress,
        /// The error of the system.
        source: io::Error,
    },
    /// The connection was lost during the handshake.
    #[error("the connection was lost during the handshake: {0}")]
    Lost(#[from] hyper::Error),
    /// The handshake timed out.
    #[error("the relay did not answer the handshake in time")]
    TimedOut,
    /// The server does not speak WebSocket, or not this subprotocol.
    #[error("the server is not a relay: {0}")]
    Protocol(&'static str),
}

/// Builds the handshake request from the options.
pub(super) fn build_request(options: &ClientOptions) -> Result<Request<()>, OpenError> {
    let malformed = |error: &dyn std::error::Error| AddressError::Malformed(error.to_string());
    let mut url = options.url.clone();
    if let Some(user_id) = &options.user_id {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str("user_id=");
        url.extend(utf8_percent_encode(user_id, UNRESERVED));
    }
    let uri: Uri = url.parse().map_err(|error| malformed(&error))?;
    if RelayAddress::from_uri(&uri, UrlSchemes::WEBSOCKET)?.is_tls && options.tls.is_none() {
        return Err(AddressError::NoTrust.into());
    }

    let mut request = uri
        .into_client_request()
        .map_err(|error| malformed(&error))?;
    let headers = request.headers_mut();
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    if let Some(token) = &options.token {
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|_| OpenError::MalformedToken)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    Ok(request)
}

/// Sends the request and turns the stream into a WebSocket. Bytes that the relay sent
/// right after its answer are kept for the first read.
pub(super) async fn upgrade_stream<S>(
    stream: S,
    request: Request<()>,
    config: WebSocketConfig,
) -> Result<WebSocketStream<S>, OpenError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let (request, accept) = origin_form(request)?;
    // Owns the sender, so that the connection ends when the exchange does.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        check_response(response, &accept).await
    };
    let (verdict, parts) = tokio::join!(exchange, connection.without_shutdown());
    verdict?;
    let parts = parts?;
    let (stream, begun) = (parts.io.into_inner(), parts.read_buf.to_vec());
    Ok(WebSocketStream::from_partially_read(stream, begun, Role::Client, Some(config)).await)
}

/// Returns the request in origin form, and the accept key that the answer must have.
fn origin_form(request: Request<()>) -> Result<(Request<Empty<Bytes>>, String), OpenError> {
    let (mut parts, ()) = request.into_parts();
    let accept = parts
        .headers
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()))
        .ok_or(OpenError::Protocol("the request has no key"))?;
    parts.uri = parts
        .uri
        .path_and_query()
        .map_or_else(|| Uri::from_static("/"), |target| target.clone().into());
    Ok((Request::from_parts(parts, Empty::new()), accept))
}

async fn check_response(response: Response<Incoming>, accept: &str) -> Result<(), OpenError> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(read_refusal(response).await);
    }
    let header = |name| response.headers().get(name).map(HeaderValue::as_bytes);
    if !header(UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
        return Err(OpenError::Protocol("its answer is not a WebSocket upgrade"));
    }
    if header(SEC_WEBSOCKET_ACCEPT) != Some(accept.as_bytes()) {
        return Err(OpenError::Protocol("its answer is for another request"));
    }
    if header(SEC_WEBSOCKET_PROTOCOL) != Some(SUBPROTOCOL.as_bytes()) {
        return Err(OpenError::Protocol(
            "it does not speak sidewire.v1.protobuf",
        ));
    }
    Ok(())
}

async fn read_refusal(response: Response<Incoming>) -> OpenError {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, REFUSAL_BYTES_MAX).collect().await;
    // If the body cannot be read, the status alone describes the refusal.
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let problem = HttpRefusal::from_response(head.status, &head.headers, &body);
    if head.status == StatusCode::UNAUTHORIZED {
        OpenError::Unauthorized(problem)
    } else {
        OpenError::Refused(problem)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use sidewire_protocol::random::RandomSource;

    fn options(url: &str) -> ClientOptions {
        ClientOptions::new(url, Arc::new(RandomSource::from_seed(1)))
    }

    #[test]
    fn the_token_is_sent_in_a_header_that_is_not_shown() {
        let request =
            build_request(&options("ws://127.0.0.1:3000/ws").with_token("canary")).unwrap();
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer canary");
        assert_eq!(request.headers()[SEC_WEBSOCKET_PROTOCOL], SUBPROTOCOL);
        assert!(!format!("{request:?}").contains("canary"));
    }

    #[test]
    fn the_user_of_desktop_mode_is_percent_encoded() {
        for (url, target) in [
            ("ws://127.0.0.1:3000/ws", "/ws?user_id=a%26b%20%C3%BC"),
            (
                "ws://127.0.0.1:3000/ws?x=1",
                "/ws?x=1&user_id=a%26b%20%C3%BC",
            ),
        ] {
            let mut options = options(url);
            options.user_id = Some("a&b ü".to_owned());
            let request = build_request(&options).unwrap();
            assert_eq!(request.uri().path_and_query().unwrap().as_str(), target);
        }
    }

    #[test]
    fn a_token_that_is_invalid_in_a_header_is_refused() {
        let refused = build_request(&options("ws://127.0.0.1/ws").with_token("a\nb"));
        assert!(matches!(refused, Err(OpenError::MalformedToken)));
    }

    #[test]
    fn an_unusable_url_is_refused() {
        for url in [
            "",
            "ws://",
            "http://127.0.0.1/ws",
            "ws://exa mple/ws",
            "wss://127.0.0.1/ws",
        ] {
            assert!(
                matches!(build_request(&options(url)), Err(OpenError::Address(_))),
                "{url}"
            );
        }
    }
}
