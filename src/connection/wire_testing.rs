//! Frames and envelopes as the client of a test sends and receives them, built on
//! `sidewire_testing`: only the generated message types are shared with the code under test.

use prost::Message;
use serde_json::Value;
use sidewire_testing::{
    protobuf::Envelope,
    websocket::{self, FIN},
};

use sidewire_protocol::{Position, wire};

pub(crate) use sidewire_testing::websocket::Frame as RelayFrame;
pub(super) use sidewire_testing::websocket::{
    BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, binary, close, ping, text as json,
};

/// The meaning of a frame from the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReceivedFrame {
    /// An event, by its offset.
    Event(u64),
    /// SubscriptionConfirmed, by the request's id.
    Subscribed(String),
    /// SubscriptionConfirmed with a replay, by the request's id, with the number of events.
    Resumed(String, u64),
    /// UnsubscribeConfirmed, by the request's id.
    Unsubscribed(String),
    /// ErrorResponse: its code.
    Refused(String),
    /// The protocol's Pong, with the offset of the connection's position.
    Answered(Option<u64>),
    /// The WebSocket's pong.
    Pong(Vec<u8>),
    /// The WebSocket's ping.
    Ping,
    /// The WebSocket's Close.
    Close(u16, String),
}

/// Removes and checks the first whole frame, if there is one.
pub(crate) fn take_frame(bytes: &mut Vec<u8>) -> Option<RelayFrame> {
    websocket::take_frame(bytes).unwrap()
}

/// Decodes a frame from the relay.
pub(super) fn decode(frame: RelayFrame) -> ReceivedFrame {
    match frame.opcode {
        PONG => ReceivedFrame::Pong(frame.payload),
        PING => {
            assert_eq!(frame.payload, b"", "a ping of the relay's is empty");
            ReceivedFrame::Ping
        }
        CLOSE => ReceivedFrame::Close(frame.close_code(), frame.close_reason().to_owned()),
        TEXT => decode_json(&frame.payload),
        _ => decode_binary(&frame.payload),
    }
}

fn decode_binary(payload: &[u8]) -> ReceivedFrame {
    let envelope = Envelope::decode(payload).expect("a whole envelope");
    assert!(envelope.filler.iter().all(|byte| *byte == 7));
    match envelope {
        Envelope {
            position: Some(position),
            ..
        } => ReceivedFrame::Event(position.offset),
        Envelope {
            subscribed: Some(confirmed),
            ..
        } if confirmed.recovered => {
            ReceivedFrame::Resumed(confirmed.request_message_id, confirmed.replayed)
        }
        Envelope {
            subscribed: Some(confirmed),
            ..
        } => ReceivedFrame::Subscribed(confirmed.request_message_id),
        Envelope {
            unsubscribed: Some(confirmed),
            ..
        } => ReceivedFrame::Unsubscribed(confirmed.request_message_id),
        Envelope {
            pong: Some(pong), ..
        } => ReceivedFrame::Answered(pong.position.map(|position| position.offset)),
        Envelope {
            error: Some(error), ..
        } => ReceivedFrame::Refused(error.error_code),
        other => panic!("what is this? {other:?}"),
    }
}

/// Decodes canonical JSON, in which default values are left out.
fn decode_json(payload: &[u8]) -> ReceivedFrame {
    let envelope: Value = serde_json::from_slice(payload).expect("a whole envelope");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_str().map(|digits| digits.parse::<u64>().unwrap());
    assert!(!text(&envelope["messageId"]).is_empty());
    if let Some(offset) = number(&envelope["position"]["offset"]) {
        return ReceivedFrame::Event(offset);
    }
    assert!(number(&envelope["timestamp"]).is_some());
    let members: Vec<_> = envelope.as_object().unwrap().keys().collect();
    let name = members
        .into_iter()
        .find(|name| !["messageId", "timestamp"].contains(&name.as_str()));
    let (name, payload) = (name.unwrap(), &envelope[name.unwrap()]);
    let id = text(&payload["requestMessageId"]);
    match name.as_str() {
        "subscriptionConfirmed" if payload["recovered"] == true => {
            ReceivedFrame::Resumed(id, number(&payload["replayed"]).unwrap_or_default())
        }
        "subscriptionConfirmed" => ReceivedFrame::Subscribed(id),
        "unsubscribeConfirmed" => ReceivedFrame::Unsubscribed(id),
        "pong" => ReceivedFrame::Answered(payload.get("position").map(|position| {
            assert_eq!(text(&position["epoch"]).len(), 32);
            number(&position["offset"]).unwrap_or_default()
        })),
        "error" => ReceivedFrame::Refused(text(&payload["errorCode"])),
        other => panic!("what is {other}? {envelope}"),
    }
}

/// Returns a client's frame.
pub(crate) fn frame(opcode: u8, is_last: bool, payload: &[u8]) -> Vec<u8> {
    websocket::frame(opcode | if is_last { FIN } else { 0 }, payload)
}

/// An Unsubscribe in one frame.
pub(super) fn unsubscribe(id: &str, topic: &str) -> Vec<u8> {
    let envelope = Envelope {
        message_id: id.to_owned(),
        unsubscribe: Some(wire::Unsubscribe {
            topics: vec![topic.to_owned()],
        }),
        ..Envelope::default()
    };
    binary(&envelope.encode_to_vec())
}

/// A Subscribe's envelope.
pub(super) fn subscribe_envelope(id: &str, topic: &str) -> Vec<u8> {
    subscribe_from(id, topic, None)
}

fn subscribe_from(id: &str, topic: &str, resume_from: Option<wire::Position>) -> Vec<u8> {
    subscribe_to(id, vec![topic.to_owned()], resume_from)
}

fn subscribe_to(id: &str, topics: Vec<String>, resume_from: Option<wire::Position>) -> Vec<u8> {
    Envelope {
        message_id: id.to_owned(),
        subscribe: Some(wire::Subscribe {
            topics,
            resume_from,
        }),
        ..Envelope::default()
    }
    .encode_to_vec()
}

/// A Subscribe to many topics in one frame.
pub(super) fn subscribe_many(id: &str, topics: Vec<String>) -> Vec<u8> {
    binary(&subscribe_to(id, topics, None))
}

/// A Subscribe in one frame that resumes from a position.
pub(super) fn resume(id: &str, topic: &str, from: Position) -> Vec<u8> {
    binary(&subscribe_from(id, topic, Some(from.into())))
}

/// A Ping in one frame.
pub(super) fn ping_message() -> Vec<u8> {
    let envelope = Envelope {
        ping: Some(wire::Ping { timestamp: 1 }),
        ..Envelope::default()
    };
    binary(&envelope.encode_to_vec())
}

/// A Subscribe in one frame.
pub(super) fn subscribe(id: &str, topic: &str) -> Vec<u8> {
    binary(&subscribe_envelope(id, topic))
}
