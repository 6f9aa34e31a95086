//! A test's client: either that of the library, which uses binary frames, or one that uses
//! JSON. Tests send and receive the same messages with both.

use std::{env, io, sync::Arc};

use prost::Message as _;
use sidewire_client::{
    ControlMessage, Envelope, ReceiveError, ReceivedEvent, RelayConnection, RelayMessage,
};
use sidewire_protocol::{schema::Schema, wire};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::{json_client::JsonClient, support::PATIENCE};

/// Environment variable that selects JSON for the suite's clients.
const VARIABLE: &str = "SIDEWIRE_TEST_ENCODING";

/// Returns true if `SIDEWIRE_TEST_ENCODING` asks for JSON clients.
pub fn is_json_under_test() -> bool {
    match env::var(VARIABLE).as_deref() {
        Err(env::VarError::NotPresent) | Ok("protobuf") => false,
        Ok("json") => true,
        other => panic!("{VARIABLE} is neither `protobuf` nor `json`: {other:?}"),
    }
}

/// A client's connection.
pub struct TestClient(Speech);

impl TestClient {
    /// Wraps a connection of the client library.
    pub fn of(connection: RelayConnection) -> Self {
        Self(Speech::Binary(Box::new(connection)))
    }

    /// Wraps a JSON client; its messages are converted with this schema.
    pub fn json(client: JsonClient, schema: Arc<Schema>) -> Self {
        Self(Speech::Json(Box::new(client), schema))
    }

    /// Sends a control message, and returns its message id.
    pub async fn send(&mut self, control: ControlMessage) -> String {
        self.0.send(control).await
    }

    /// Subscribes to topics, given in full, without waiting, and returns the message id.
    pub async fn ask_for(&mut self, topics: &[&str]) -> String {
        let subscribe = wire::Subscribe {
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            resume_from: None,
        };
        self.send(ControlMessage::Subscribe(subscribe)).await
    }

    /// Subscribes to topics, given in full, and waits for the confirmation.
    pub async fn subscribe(&mut self, topics: &[&str]) -> wire::SubscriptionConfirmed {
        let id = self.ask_for(topics).await;
        match self.receive().await {
            RelayMessage::SubscriptionConfirmed(confirmed) => {
                assert_eq!(confirmed.request_message_id, id);
                confirmed
            }
            other => panic!("not confirmed: {other:?}"),
        }
    }

    /// Subscribes to topics from a position, and waits for the confirmation.
    pub async fn resume(
        &mut self,
        topics: &[&str],
        from: &wire::Position,
    ) -> wire::SubscriptionConfirmed {
        let subscribe = wire::Subscribe {
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            resume_from: Some(from.clone()),
        };
        let id = self.send(ControlMessage::Subscribe(subscribe)).await;
        match self.receive().await {
            RelayMessage::SubscriptionConfirmed(confirmed) => {
                assert_eq!(confirmed.request_message_id, id);
                confirmed
            }
            other => panic!("not confirmed: {other:?}"),
        }
    }

    /// Ends subscriptions and waits for the confirmation.
    pub async fn unsubscribe(&mut self, topics: &[&str]) -> wire::UnsubscribeConfirmed {
        let unsubscribe = wire::Unsubscribe {
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
        };
        let id = self.send(ControlMessage::Unsubscribe(unsubscribe)).await;
        let confirmed = self.unsubscribed().await;
        assert_eq!(confirmed.request_message_id, id);
        confirmed
    }

    /// Receives the next message, which must be an UnsubscribeConfirmed.
    pub async fn unsubscribed(&mut self) -> wire::UnsubscribeConfirmed {
        match self.receive().await {
            RelayMessage::UnsubscribeConfirmed(confirmed) => confirmed,
            other => panic!("not confirmed: {other:?}"),
        }
    }

    /// Sends a new token, and returns the answer.
    pub async fn authenticate(
        &mut self,
        token: &str,
    ) -> Result<wire::Authenticated, wire::ErrorResponse> {
        let token = token.to_owned();
        let authenticate = ControlMessage::Authenticate(wire::Authenticate { token });
        let id = self.send(authenticate).await;
        match self.receive().await {
            RelayMessage::Authenticated(authenticated) => {
                assert_eq!(authenticated.request_message_id, id);
                Ok(authenticated)
            }
            RelayMessage::Error(error) => {
                assert_eq!(error.request_message_id, id, "{error:?}");
                Err(error)
            }
            other => panic!("not answered: {other:?}"),
        }
    }

    /// Receives the next message of any kind.
    pub async fn receive(&mut self) -> RelayMessage {
        self.try_receive().await.unwrap()
    }

    /// Receives the next message, or returns how the connection ended.
    pub async fn try_receive(&mut self) -> Result<RelayMessage, ReceiveError> {
        timeout(PATIENCE, self.0.receive())
            .await
            .expect("something arrives")
    }

    /// Receives the next message, which must be an event.
    pub async fn event(&mut self) -> ReceivedEvent {
        match self.receive().await {
            RelayMessage::Event(event) => event,
            other => panic!("no event: {other:?}"),
        }
    }

    /// Receives the next message, which must be an ErrorResponse.
    pub async fn error(&mut self) -> wire::ErrorResponse {
        match self.receive().await {
            RelayMessage::Error(error) => error,
            other => panic!("no error: {other:?}"),
        }
    }

    /// Asserts that nothing is queued: the next message must be the answer to a Ping. Any
    /// event that was published and acknowledged before this call would arrive before it.
    pub async fn nothing_more(&mut self) {
        let ping = wire::Ping { timestamp: 5 };
        self.send(ControlMessage::Ping(ping)).await;
        match self.receive().await {
            RelayMessage::Pong(_) => {}
            other => panic!("something came: {other:?}"),
        }
    }

    /// Waits for the Close frame, and returns its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.try_receive().await {
                Err(ReceiveError::Closed { code, reason }) => return (code, reason),
                Err(other) => panic!("not closed in good order: {other}"),
                Ok(_) => {}
            }
        }
    }
}

/// The encoding of a connection.
enum Speech {
    /// The client library, which uses Protocol Buffers.
    Binary(Box<RelayConnection>),
    /// A JSON client. Its messages are converted with the schema of the relay.
    Json(Box<JsonClient>, Arc<Schema>),
}

impl Speech {
    /// Sends a control message, and returns its message id.
    async fn send(&mut self, control: ControlMessage) -> String {
        match self {
            Self::Binary(connection) => connection.send_control(control).await.unwrap(),
            Self::Json(client, schema) => {
                let envelope = Envelope {
                    control: Some(control),
                    ..Envelope::default()
                };
                let json = schema.envelope_to_json(&envelope.encode_to_vec());
                client.say(json.unwrap()).await
            }
        }
    }

    /// Receives the next message, or returns how the connection ended.
    async fn receive(&mut self) -> Result<RelayMessage, ReceiveError> {
        match self {
            Self::Binary(connection) => connection.receive().await,
            Self::Json(client, schema) => loop {
                match client.next().await {
                    Ok(Message::Text(text)) => return Ok(received(schema, text.as_bytes())),
                    Ok(Message::Close(frame)) => {
                        // Let the client answer the Close.
                        let _ended = client.next().await;
                        let frame = frame.unwrap();
                        return Err(ReceiveError::Closed {
                            code: frame.code.into(),
                            reason: frame.reason.to_string(),
                        });
                    }
                    Ok(Message::Ping(_)) => {}
                    Ok(other) => panic!("no text frame: {other:?}"),
                    Err(Error::Io(error)) => return Err(ReceiveError::Lost(error)),
                    Err(error) => return Err(ReceiveError::Lost(io::Error::other(error))),
                }
            },
        }
    }
}

/// Converts a text frame into a message.
fn received(schema: &Schema, text: &[u8]) -> RelayMessage {
    let bytes = schema.envelope_from_json(text).unwrap();
    let envelope = Envelope::decode(&bytes[..]).unwrap();
    match envelope.control {
        None => RelayMessage::Event(ReceivedEvent {
            envelope: bytes.into(),
            message_id: envelope.message_id,
            timestamp: envelope.timestamp,
            position: envelope.position,
        }),
        Some(ControlMessage::SubscriptionConfirmed(it)) => RelayMessage::SubscriptionConfirmed(it),
        Some(ControlMessage::UnsubscribeConfirmed(it)) => RelayMessage::UnsubscribeConfirmed(it),
        Some(ControlMessage::Pong(pong)) => RelayMessage::Pong(pong),
        Some(ControlMessage::Authenticated(it)) => RelayMessage::Authenticated(it),
        Some(ControlMessage::Error(error)) => RelayMessage::Error(error),
        Some(other) => panic!("only clients send this: {other:?}"),
    }
}
