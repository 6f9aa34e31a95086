//! The connection that sends what is hostile, in either encoding.

use prost::Message;
use serde_json::{Value, json};
use sidewire_protocol::wire::{Authenticated, ErrorResponse, Pong};
use sidewire_testing::{
    protobuf::{self, Envelope},
    socket::Socket,
    websocket::{BINARY, Frame, TEXT, binary, text},
};

use super::PayloadType;

/// The encoding of the messages of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Binary,
    Json,
}

impl Encoding {
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Self::Binary => "sidewire.v1.protobuf",
            Self::Json => "sidewire.v1.json",
        }
    }

    /// Returns the frame with an envelope.
    pub(crate) fn frame(self, envelope: &[u8]) -> Vec<u8> {
        match self {
            Self::Binary => binary(envelope),
            Self::Json => text(str::from_utf8(envelope).unwrap()),
        }
    }

    /// Returns the frame with a Ping.
    pub(crate) fn ping(self, stamp: u64) -> Vec<u8> {
        match self {
            Self::Binary => binary(&protobuf::bytes(14, &protobuf::number(1, stamp))),
            Self::Json => text(&json!({"ping": {"timestamp": stamp}}).to_string()),
        }
    }

    /// Returns the frame with a Subscribe.
    pub(crate) fn subscribe(self, topics: &[&str]) -> Vec<u8> {
        let list: Vec<_> = topics.iter().map(|it| protobuf::text(16, it)).collect();
        match self {
            Self::Binary => binary(&protobuf::bytes(10, &list.concat())),
            Self::Json => text(&json!({"subscribe": {"topics": topics}}).to_string()),
        }
    }

    /// Returns the frame with a payload that names a project's topic.
    pub(crate) fn event(self, payload: &PayloadType, id: &str, project: &str) -> Vec<u8> {
        match self {
            Self::Binary => {
                let field = payload.field(&payload.project(project));
                binary(&[protobuf::text(1, id), field].concat())
            }
            Self::Json => {
                let json = payload.project_json(project);
                text(&json!({"messageId": id, payload.json_name: json}).to_string())
            }
        }
    }

    /// Reads an answer of the relay.
    pub(crate) fn answer(self, frame: &Frame) -> Result<Envelope, String> {
        let told = || format!("answered with {frame:?}");
        match (self, frame.opcode) {
            (Self::Binary, BINARY) => Envelope::decode(&frame.payload[..]).map_err(|_| told()),
            (Self::Json, TEXT) => {
                let json = serde_json::from_slice(&frame.payload).map_err(|_| told())?;
                Ok(from_json(&json))
            }
            _ => Err(told()),
        }
    }
}

/// Reads what an answer is checked for.
fn from_json(envelope: &Value) -> Envelope {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_str().and_then(|it| it.parse().ok());
    let (pong, error) = (&envelope["pong"], &envelope["error"]);
    let authenticated = &envelope["authenticated"];
    Envelope {
        message_id: text(&envelope["messageId"]),
        pong: pong.is_object().then(|| Pong {
            client_timestamp: number(&pong["clientTimestamp"]).unwrap_or_default(),
            ..Pong::default()
        }),
        error: error.is_object().then(|| ErrorResponse {
            error_code: text(&error["errorCode"]),
            error_message: text(&error["errorMessage"]),
            request_message_id: text(&error["requestMessageId"]),
            field_name: error["fieldName"].as_str().map(str::to_owned),
            retry_after_ms: number(&error["retryAfterMs"]).and_then(|it| u64::try_from(it).ok()),
        }),
        authenticated: authenticated.is_object().then(|| Authenticated {
            expires_at: number(&authenticated["expiresAt"]).unwrap_or_default(),
            revoked_topics: authenticated["revokedTopics"]
                .as_array()
                .map(|topics| topics.iter().map(text).collect())
                .unwrap_or_default(),
            request_message_id: text(&authenticated["requestMessageId"]),
        }),
        ..Envelope::default()
    }
}

/// Reads the answer to a Ping, before which an error may come. Returns the error.
pub(crate) async fn read_answers(
    socket: &mut Socket,
    encoding: Encoding,
    stamp: u64,
) -> Result<Option<ErrorResponse>, String> {
    let mut error = None;
    loop {
        let frame = socket.frame().await?.ok_or("the connection has ended")?;
        let answer = encoding.answer(&frame)?;
        match (answer.pong, answer.error) {
            (Some(pong), _) if u64::try_from(pong.client_timestamp) == Ok(stamp) => {
                return Ok(error);
            }
            (None, Some(refused)) if error.is_none() => error = Some(refused),
            _ => return Err(format!("{frame:?} in place of a sign of life")),
        }
    }
}
