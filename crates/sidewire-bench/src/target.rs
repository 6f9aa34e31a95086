//! The target and its protocol: the bytes of a handshake, of a Subscribe and of a call
//! that posts events. Knows nothing about sockets.

use std::{
    error::Error,
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use hyper::Uri;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message as _;
use rustls::{ClientConfig, pki_types::ServerName};
use sidewire_client::{ControlMessage, Credential, Envelope, RelayAddress, UrlSchemes};
use sidewire_protocol::{EnvelopeEncoding, TenantName, UserName, frame::client_frame, wire};

use super::{
    BenchError,
    clients::data_kind,
    event::{EventTemplate, write_number},
};

/// The addresses that clients and backends connect to, and the protocol.
#[derive(Debug)]
pub struct BenchTarget {
    /// The endpoint for clients.
    pub clients: TargetEndpoint,
    /// The endpoint for posting events.
    pub ingest: TargetEndpoint,
    /// The protocol.
    pub speech: TargetProtocol,
}

/// An address, and the host and path for requests to it.
#[derive(Debug, Clone)]
pub struct TargetEndpoint {
    pub(super) address: SocketAddr,
    /// The TLS configuration and the server's name; `None` without TLS.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    host: String,
    /// The path without a trailing slash.
    path: String,
}

/// The kind of server, and its settings.
#[derive(Debug)]
pub enum TargetProtocol {
    /// A relay.
    Relay(Box<RelayTarget>),
    /// The benchmarks' floor (the minimal server `benches/floor`), and its framing of events.
    Floor(Framing),
}

/// The settings for a relay as the target.
#[derive(Debug)]
pub struct RelayTarget {
    /// The tenant; with several tenants, the prefix of their names.
    pub tenant: TenantName,
    /// Number of tenants that the topics are spread over.
    pub tenants: usize,
    /// Makes the tokens of the clients; `None` if the relay requires no token.
    pub tokens: Option<TokenMaker>,
    /// The key for the ingest listener; `None` if it requires none.
    pub ingest_key: Option<Credential>,
    /// The encoding of the clients.
    pub encoding: EnvelopeEncoding,
}

type MakeToken =
    dyn Fn(TenantName, UserName) -> Result<String, Box<dyn Error + Send + Sync>> + Send + Sync;

/// Makes a client's token, which must not expire during the run.
pub struct TokenMaker(Box<MakeToken>);

impl TokenMaker {
    /// Wraps the function that makes the token for a user of a tenant.
    pub fn new<E: Error + Send + Sync + 'static>(
        make: impl Fn(TenantName, UserName) -> Result<String, E> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(move |tenant, user| Ok(make(tenant, user)?)))
    }
}

impl fmt::Debug for TokenMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenMaker")
    }
}

/// The protocol by which the floor accepts events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Framing {
    /// Length, topic and envelope.
    Raw,
    /// Minimal HTTP.
    Http,
}

/// The bytes of a call that posts events, and the offsets of the envelopes in them.
#[derive(Debug)]
pub(super) struct PostCall {
    bytes: Vec<u8>,
    envelopes: Vec<usize>,
}

impl PostCall {
    /// Returns the number of events that the call posts.
    pub(super) fn event_count(&self) -> usize {
        self.envelopes.len()
    }

    /// Appends the call to `out` and numbers its events from `first`.
    pub(super) fn write_call(&self, out: &mut Vec<u8>, first: usize) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for (number, at) in (first..).zip(&self.envelopes) {
            write_number(out.get_mut(start + at..).unwrap_or_default(), number);
        }
    }
}

impl TargetEndpoint {
    /// Resolves a URL. `tls` is used to verify the server's certificate.
    ///
    /// # Errors
    ///
    /// When the URL has another scheme, its host has no address, or it asks for TLS and `tls`
    /// is `None`.
    pub fn from_url(
        url: &str,
        schemes: UrlSchemes,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self, BenchError> {
        let refused = |reason: String| BenchError::Url {
            url: url.to_owned(),
            reason,
        };
        let uri: Uri = url.parse().map_err(|error| refused(format!("{error}")))?;
        let name =
            RelayAddress::from_uri(&uri, schemes).map_err(|error| refused(error.to_string()))?;
        let address = (name.host.as_str(), name.port)
            .to_socket_addrs()
            .map_err(|error| refused(error.to_string()))?
            // Prefer IPv4: for `localhost` that is where most servers listen.
            .min_by_key(SocketAddr::is_ipv6)
            .ok_or_else(|| refused("its host has no address".to_owned()))?;
        let path = uri.path().trim_end_matches('/');
        let tls = if name.is_tls {
            let tls = tls.ok_or_else(|| {
                refused("no trusted certificates are configured for TLS".to_owned())
            })?;
            let host = ServerName::try_from(name.host.clone())
                .map_err(|error| refused(error.to_string()))?;
            Some((tls, host))
        } else {
            None
        };
        Ok(Self {
            address,
            tls,
            host: name.to_string(),
            path: path.to_owned(),
        })
    }
}

impl BenchTarget {
    /// Builds the handshake request of a connection.
    pub(super) fn handshake_request(
        &self,
        connection: usize,
        channel: usize,
    ) -> Result<Vec<u8>, BenchError> {
        let TargetEndpoint { host, path, .. } = &self.clients;
        let (path, token) = match &self.speech {
            TargetProtocol::Floor(_) => (format!("{path}/{channel}"), None),
            TargetProtocol::Relay(relay) => (
                relay.handshake_path(path, connection),
                relay.client_token(connection, channel)?,
            ),
        };
        let authorization = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        let subprotocol = match self.encoding() {
            EnvelopeEncoding::Protobuf => String::new(),
            json => format!("Sec-WebSocket-Protocol: {}\r\n", json.subprotocol()),
        };
        Ok(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             {subprotocol}{authorization}\r\n"
        )
        .into_bytes())
    }

    /// Returns the encoding of the clients.
    pub(super) fn encoding(&self) -> EnvelopeEncoding {
        match &self.speech {
            TargetProtocol::Relay(relay) => relay.encoding,
            TargetProtocol::Floor(_) => EnvelopeEncoding::Protobuf,
        }
    }

    /// Builds the Subscribe frame for the topic; `None` for the floor, where the handshake
    /// names the topic.
    pub(super) fn subscribe_frame(&self, topic: String) -> Option<Vec<u8>> {
        let TargetProtocol::Relay(relay) = &self.speech else {
            return None;
        };
        let envelope = if relay.encoding == EnvelopeEncoding::Json {
            let envelope = serde_json::json!({"subscribe": {"topics": [topic]}});
            envelope.to_string().into_bytes()
        } else {
            let subscribe = wire::Subscribe {
                topics: vec![topic],
                resume_from: None,
            };
            let envelope = Envelope {
                control: Some(ControlMessage::Subscribe(subscribe)),
                ..Envelope::default()
            };
            envelope.encode_to_vec()
        };
        Some(client_frame(data_kind(relay.encoding), &envelope).into_vec())
    }

    /// Builds a call that posts this many events of the channel.
    pub(super) fn build_call(
        &self,
        mould: &EventTemplate,
        channel: usize,
        events: usize,
    ) -> Result<PostCall, BenchError> {
        let envelope = mould.build_envelope(channel)?;
        match &self.speech {
            TargetProtocol::Floor(_) if events > 1 => Err(BenchError::FloorBatch),
            TargetProtocol::Floor(Framing::Raw) => Ok(raw_call(&envelope, channel)),
            TargetProtocol::Floor(Framing::Http) => {
                let head = format!("POST /{channel} HTTP/1.1\r\nHost: {}\r\n", self.ingest.host);
                Ok(http_call(&head, &[], &envelope, 1))
            }
            TargetProtocol::Relay(relay) => Ok(self.relay_call(relay, &envelope, channel, events)),
        }
    }

    fn relay_call(
        &self,
        relay: &RelayTarget,
        envelope: &[u8],
        channel: usize,
        events: usize,
    ) -> PostCall {
        let TargetEndpoint { host, path, .. } = &self.ingest;
        let tenant = relay.tenant_of(channel);
        let tenant = utf8_percent_encode(&tenant, NON_ALPHANUMERIC);
        let (calls, item) = match events {
            1 => ("events", Vec::new()),
            _ => ("events:batch", batch_item(envelope.len())),
        };
        let key = relay.ingest_key.as_ref().map_or_else(String::new, |key| {
            format!("Authorization: Bearer {}\r\n", key.reveal())
        });
        let head = format!(
            "POST {path}/v1/tenants/{tenant}/{calls} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: application/x-protobuf\r\n{key}"
        );
        http_call(&head, &item, envelope, events)
    }
}

impl RelayTarget {
    fn tenant_of(&self, channel: usize) -> String {
        match channel.checked_rem(self.tenants) {
            Some(number) if self.tenants > 1 => format!("{}-{number}", self.tenant.as_str()),
            _ => self.tenant.as_str().to_owned(),
        }
    }

    /// Returns the path of the handshake. Without a token it names the user.
    fn handshake_path(&self, path: &str, connection: usize) -> String {
        match self.tokens {
            Some(_) => path.to_owned(),
            None => format!("{path}?user_id={}", user_name(connection)),
        }
    }

    fn client_token(
        &self,
        connection: usize,
        channel: usize,
    ) -> Result<Option<String>, BenchError> {
        let Some(TokenMaker(make)) = &self.tokens else {
            return Ok(None);
        };
        let tenant = TenantName::parse(&self.tenant_of(channel))?;
        let user = UserName::parse(&user_name(connection))?;
        make(tenant, user).map(Some).map_err(BenchError::Token)
    }
}

fn user_name(connection: usize) -> String {
    format!("bench-{connection}")
}

/// Returns the header of an envelope in a BatchUpdate: the tag of field 1, and the length.
fn batch_item(envelope_bytes: usize) -> Vec<u8> {
    let mut item = vec![0x0a];
    prost::encoding::encode_varint(envelope_bytes as u64, &mut item);
    item
}

/// Builds a request with a body of `events` copies of the envelope, each after `item`.
fn http_call(head: &str, item: &[u8], envelope: &[u8], events: usize) -> PostCall {
    let body_bytes = (item.len() + envelope.len()) * events;
    let mut bytes = format!("{head}Content-Length: {body_bytes}\r\n\r\n").into_bytes();
    let mut envelopes = Vec::new();
    for _ in 0..events {
        bytes.extend_from_slice(item);
        envelopes.push(bytes.len());
        bytes.extend_from_slice(envelope);
    }
    PostCall { bytes, envelopes }
}

/// Builds a call to the floor: the length of the rest, the topic's number, the envelope.
fn raw_call(envelope: &[u8], channel: usize) -> PostCall {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let head = [number(4 + envelope.len()), number(channel)].concat();
    PostCall {
        envelopes: vec![head.len()],
        bytes: [&head, envelope].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RunId;
    use sidewire_protocol::{random::RandomSource, schema::Schema};

    fn target(speech: TargetProtocol) -> BenchTarget {
        BenchTarget {
            clients: TargetEndpoint::from_url(
                "ws://127.0.0.1:3000/ws/",
                UrlSchemes::WEBSOCKET,
                None,
            )
            .unwrap(),
            ingest: TargetEndpoint::from_url("http://127.0.0.1:3001", UrlSchemes::INGEST, None)
                .unwrap(),
            speech,
        }
    }

    fn relay(tenants: usize) -> BenchTarget {
        target(TargetProtocol::Relay(Box::new(RelayTarget {
            tenant: TenantName::parse("a b").unwrap(),
            tenants,
            tokens: None,
            ingest_key: Some(Credential::new("key")),
            encoding: EnvelopeEncoding::Protobuf,
        })))
    }

    fn mould() -> EventTemplate {
        let run = RunId::new(&RandomSource::from_seed(1));
        EventTemplate::new(&Schema::bundled().unwrap(), run, 1, 200).unwrap()
    }

    /// The call as it is written, with the events' numbers from 7 on.
    fn written(target: &BenchTarget, channel: usize, events: usize) -> Vec<u8> {
        let mut out = b"before".to_vec();
        let call = target.build_call(&mould(), channel, events).unwrap();
        assert_eq!(call.event_count(), events);
        call.write_call(&mut out, 7);
        out.split_off(6)
    }

    #[test]
    fn a_floor_target_gets_lengths_and_topic_numbers() {
        let raw = target(TargetProtocol::Floor(Framing::Raw));
        let bytes = written(&raw, 3, 1);
        assert_eq!(bytes[..8], [204, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(mould().run.number_of(&bytes[8..]), Some(7));
        assert_eq!(bytes.len(), 208);
        assert!(raw.build_call(&mould(), 3, 2).is_err());
        assert!(raw.subscribe_frame("a:b".to_owned()).is_none());
        let head = raw.handshake_request(9, 3).unwrap();
        assert!(head.starts_with(b"GET /ws/3 HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n"));
        let http = written(&target(TargetProtocol::Floor(Framing::Http)), 3, 1);
        assert!(http.starts_with(b"POST /3 HTTP/1.1\r\n"));
    }

    #[test]
    fn a_relay_target_gets_events_for_the_tenant_of_the_channel() {
        for (tenants, path) in [(1, "a%20b"), (4, "a%20b%2D2")] {
            let bytes = written(&relay(tenants), 6, 1);
            let head = String::from_utf8_lossy(&bytes[..bytes.len() - 200]).into_owned();
            let line = format!("POST /v1/tenants/{path}/events HTTP/1.1\r\n");
            assert!(head.starts_with(&line), "{head}");
            assert!(head.contains("Authorization: Bearer key\r\n"));
            assert!(head.ends_with("Content-Length: 200\r\n\r\n"));
            assert_eq!(mould().run.number_of(&bytes[bytes.len() - 200..]), Some(7));
        }
    }

    #[test]
    fn the_events_of_a_batch_are_numbered_in_order() {
        let bytes = written(&relay(1), 0, 3);
        let body = &bytes[bytes.len() - 3 * 203..];
        let schema = Schema::bundled().unwrap();
        let numbers: Vec<_> = schema
            .batch_messages(body, 3)
            .unwrap()
            .iter()
            .map(|envelope| mould().run.number_of(envelope))
            .collect();
        assert_eq!(numbers, [Some(7), Some(8), Some(9)]);
    }

    #[test]
    fn a_client_without_a_token_gives_its_user_id() {
        let head = relay(1).handshake_request(9, 3).unwrap();
        assert!(head.starts_with(b"GET /ws?user_id=bench-9 HTTP/1.1\r\n"));
        assert!(!head.windows(13).any(|it| it == b"Authorization"));
    }

    #[test]
    fn an_invalid_url_is_refused() {
        for url in [
            "http://127.0.0.1:1/ws",
            "ws://",
            "ws://256.1.1.1/",
            "wss://127.0.0.1/",
        ] {
            assert!(
                TargetEndpoint::from_url(url, UrlSchemes::WEBSOCKET, None).is_err(),
                "{url}"
            );
        }
        let place =
            TargetEndpoint::from_url("ws://localhost:9/ws", UrlSchemes::WEBSOCKET, None).unwrap();
        assert_eq!(
            (place.host.as_str(), place.path.as_str()),
            ("localhost:9", "/ws")
        );
    }
}
