//! A fake relay that a test controls, over in-memory pipes, so that the test can pause
//! time.

use std::{io, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use sidewire_protocol::{random::RandomSource, wire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

use super::{
    ClientOptions, ConnectFuture, Connector, ControlMessage, Credential, Envelope, RelayAddress,
    SUBPROTOCOL,
};

pub(super) fn options() -> ClientOptions {
    let mut options =
        ClientOptions::new("ws://relay.test/ws", Arc::new(RandomSource::from_seed(1)));
    options.token = Some(Credential::new("a-token"));
    options
}

/// Returns a token that expires at this time in Unix seconds.
pub(super) fn token_until(expires_at: i64) -> Credential {
    let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{expires_at}}}"));
    Credential::new(format!("header.{claims}.signature"))
}

/// A position in the epoch of the tests.
pub(super) fn position(offset: u64) -> wire::Position {
    wire::Position {
        epoch: "e".to_owned(),
        offset,
    }
}

/// Connects to the [`Listener`] at the other end; fails if that was dropped.
pub(super) struct Pipes(mpsc::Sender<DuplexStream>);

impl Connector for Pipes {
    type Stream = DuplexStream;

    fn connect(&self, _: RelayAddress) -> ConnectFuture<DuplexStream> {
        let (ours, theirs) = duplex(64 * 1024);
        let offered = self.0.try_send(theirs);
        Box::pin(async move {
            match offered {
                Ok(()) => Ok(ours),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

/// Accepts the connections that the [`Pipes`] open.
pub(super) struct Listener(mpsc::Receiver<DuplexStream>);

pub(super) fn pipes() -> (Pipes, Listener) {
    let (sender, receiver) = mpsc::channel(100);
    (Pipes(sender), Listener(receiver))
}

impl Listener {
    pub(super) async fn accept(&mut self) -> Peer {
        Peer::accept(self.0.recv().await.unwrap()).await
    }

    /// Accepts the next connection, which must have this token.
    pub(super) async fn accept_with(&mut self, token: &Credential) -> Peer {
        Peer::accept_with(self.0.recv().await.unwrap(), token.reveal()).await
    }

    /// Answers the next handshake with these bytes and ends the connection.
    pub(super) async fn refuse(&mut self, answer: &str) {
        let mut stream = self.0.recv().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    /// Accepts a connection and never answers.
    pub(super) async fn ignore(&mut self) -> DuplexStream {
        self.0.recv().await.unwrap()
    }

    /// Number of connections waiting to be accepted.
    pub(super) fn waiting(&self) -> usize {
        self.0.len()
    }
}

pub(super) async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The relay's end of one accepted connection.
pub(super) struct Peer(pub(super) WebSocketStream<DuplexStream>);

impl Peer {
    pub(super) async fn accept(stream: DuplexStream) -> Self {
        Self::accept_with(stream, "a-token").await
    }

    #[expect(clippy::result_large_err, reason = "tungstenite's callback is so")]
    async fn accept_with(stream: DuplexStream, token: &str) -> Self {
        let echo = |request: &Request, mut response: Response| {
            let wanted = format!("Bearer {token}");
            assert_eq!(request.headers()["authorization"], wanted);
            let headers = response.headers_mut();
            headers.insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
            Ok::<_, ErrorResponse>(response)
        };
        Self(accept_hdr_async(stream, echo).await.unwrap())
    }

    pub(super) async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub(super) async fn control(&mut self, control: ControlMessage) {
        let envelope = Envelope {
            message_id: "from-relay".to_owned(),
            timestamp: 1,
            position: None,
            control: Some(control),
        };
        self.send(Message::Binary(envelope.encode_to_vec().into()))
            .await;
    }

    pub(super) async fn event(&mut self, offset: u64) -> Bytes {
        let mut envelope = Envelope {
            message_id: format!("event-{offset}"),
            timestamp: 2,
            position: Some(position(offset)),
            control: None,
        }
        .encode_to_vec();
        // An application's payload: field 2, three bytes.
        envelope.extend([0x12, 3, 1, 2, 3]);
        let envelope = Bytes::from(envelope);
        self.send(Message::Binary(envelope.clone())).await;
        envelope
    }

    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        self.send(Message::Close(Some(frame))).await;
    }

    /// Waits for the client's next control message and returns it with its message id.
    pub(super) async fn received(&mut self) -> (String, ControlMessage) {
        let envelope = Envelope::decode(self.received_envelope().await).unwrap();
        (envelope.message_id, envelope.control.unwrap())
    }

    /// Waits for the client's next message and returns its bytes.
    pub(super) async fn received_envelope(&mut self) -> Bytes {
        loop {
            match self.0.next().await.unwrap().unwrap() {
                Message::Binary(bytes) => return bytes,
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Confirms the next Subscribe and returns its topics.
    pub(super) async fn confirm(&mut self) -> Vec<String> {
        self.confirm_at(7, None).await.topics
    }

    /// Confirms the next Subscribe at this offset, as recovered if `replayed` is given, and
    /// returns it.
    pub(super) async fn confirm_at(
        &mut self,
        offset: u64,
        replayed: Option<u64>,
    ) -> wire::Subscribe {
        let (request_message_id, subscribe) = self.subscribe().await;
        self.control(ControlMessage::SubscriptionConfirmed(
            wire::SubscriptionConfirmed {
                topics: subscribe.topics.clone(),
                position: Some(position(offset)),
                recovered: replayed.is_some(),
                request_message_id,
                replayed: replayed.unwrap_or_default(),
            },
        ))
        .await;
        subscribe
    }

    /// Refuses the next Subscribe and returns its topics.
    pub(super) async fn refuse(&mut self, code: &str, retry_after_ms: Option<u64>) -> Vec<String> {
        let (request_message_id, subscribe) = self.subscribe().await;
        self.control(ControlMessage::Error(wire::ErrorResponse {
            error_code: code.to_owned(),
            request_message_id,
            retry_after_ms,
            ..Default::default()
        }))
        .await;
        subscribe.topics
    }

    async fn subscribe(&mut self) -> (String, wire::Subscribe) {
        match self.received().await {
            (message_id, ControlMessage::Subscribe(subscribe)) => (message_id, subscribe),
            other => panic!("no Subscribe: {other:?}"),
        }
    }
}
