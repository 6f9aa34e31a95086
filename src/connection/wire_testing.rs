//! WebSocket frames (RFC 6455, 5.2) and envelopes as a client sees them, implemented a second
//! time from the standard and the contract: nothing but the generated message types is shared
//! with the code under test.

use prost::Message;
use serde_json::Value;

use sidewire_protocol::{Position, wire};

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;

/// A frame from the relay.
#[derive(Debug)]
pub(crate) struct RelayFrame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

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

#[derive(Clone, PartialEq, Message)]
struct TestEnvelope {
    #[prost(string, tag = "1")]
    message_id: String,
    #[prost(message, optional, tag = "9")]
    position: Option<wire::Position>,
    #[prost(message, optional, tag = "10")]
    subscribe: Option<wire::Subscribe>,
    #[prost(message, optional, tag = "11")]
    confirmed: Option<wire::SubscriptionConfirmed>,
    #[prost(message, optional, tag = "12")]
    unsubscribe: Option<wire::Unsubscribe>,
    #[prost(message, optional, tag = "13")]
    unsubscribed: Option<wire::UnsubscribeConfirmed>,
    #[prost(message, optional, tag = "14")]
    ping: Option<wire::Ping>,
    #[prost(message, optional, tag = "15")]
    pong: Option<wire::Pong>,
    #[prost(message, optional, tag = "16")]
    error: Option<wire::ErrorResponse>,
    #[prost(bytes = "vec", tag = "100")]
    filler: Vec<u8>,
}

/// Removes and checks the first whole frame, if there is one: a server's frames are unmasked,
/// these are never fragments, and their length is in its shortest form.
pub(crate) fn take_frame(bytes: &mut Vec<u8>) -> Option<RelayFrame> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    assert_eq!(first & 0x70, 0, "reserved bits: {first:#x}");
    assert_eq!(first & 0x80, 0x80, "a fragment: {first:#x}");
    assert_eq!(second & 0x80, 0, "masked");
    let (header_len, payload_len) = match second {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    match header_len {
        4 => assert!(payload_len > 125),
        10 => assert!(payload_len > 65_535),
        _ => {}
    }
    let opcode = first & 0x0f;
    assert!(
        [TEXT, BINARY, CLOSE, PING, PONG].contains(&opcode),
        "opcode {opcode:#x}"
    );
    assert!(opcode < CLOSE || payload_len <= 125, "a long control frame");
    let end = header_len + usize::try_from(payload_len).unwrap();
    if bytes.len() < end {
        return None;
    }
    let payload = bytes[header_len..end].to_vec();
    bytes.drain(..end);
    Some(RelayFrame { opcode, payload })
}

impl RelayFrame {
    pub(super) fn decode(self) -> ReceivedFrame {
        match self.opcode {
            PONG => ReceivedFrame::Pong(self.payload),
            PING => {
                assert_eq!(self.payload, b"", "a ping of the relay's is empty");
                ReceivedFrame::Ping
            }
            CLOSE => {
                let (code, reason) = self.payload.split_first_chunk().expect("a code");
                let reason = String::from_utf8(reason.to_vec()).unwrap();
                ReceivedFrame::Close(u16::from_be_bytes(*code), reason)
            }
            TEXT => decode_json(&self.payload),
            _ => decode_binary(&self.payload),
        }
    }
}

fn decode_binary(payload: &[u8]) -> ReceivedFrame {
    let envelope = TestEnvelope::decode(payload).expect("a whole envelope");
    assert!(envelope.filler.iter().all(|byte| *byte == 7));
    match envelope {
        TestEnvelope {
            position: Some(position),
            ..
        } => ReceivedFrame::Event(position.offset),
        TestEnvelope {
            confirmed: Some(confirmed),
            ..
        } if confirmed.recovered => {
            ReceivedFrame::Resumed(confirmed.request_message_id, confirmed.replayed)
        }
        TestEnvelope {
            confirmed: Some(confirmed),
            ..
        } => ReceivedFrame::Subscribed(confirmed.request_message_id),
        TestEnvelope {
            unsubscribed: Some(confirmed),
            ..
        } => ReceivedFrame::Unsubscribed(confirmed.request_message_id),
        TestEnvelope {
            pong: Some(pong), ..
        } => ReceivedFrame::Answered(pong.position.map(|position| position.offset)),
        TestEnvelope {
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

/// A client's frame, masked.
pub(crate) fn frame(opcode: u8, is_last: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];
    let mut bytes = vec![opcode | if is_last { 0x80 } else { 0 }];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        medium @ 126..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

pub(super) fn ping(payload: &[u8]) -> Vec<u8> {
    frame(PING, true, payload)
}

pub(super) fn close(code: u16) -> Vec<u8> {
    frame(CLOSE, true, &code.to_be_bytes())
}

/// An Unsubscribe in one frame.
pub(super) fn unsubscribe(id: &str, topic: &str) -> Vec<u8> {
    let envelope = TestEnvelope {
        message_id: id.to_owned(),
        unsubscribe: Some(wire::Unsubscribe {
            topics: vec![topic.to_owned()],
        }),
        ..TestEnvelope::default()
    };
    frame(BINARY, true, &envelope.encode_to_vec())
}

/// A Subscribe's envelope.
pub(super) fn subscribe_envelope(id: &str, topic: &str) -> Vec<u8> {
    subscribe_from(id, topic, None)
}

fn subscribe_from(id: &str, topic: &str, resume_from: Option<wire::Position>) -> Vec<u8> {
    subscribe_to(id, vec![topic.to_owned()], resume_from)
}

fn subscribe_to(id: &str, topics: Vec<String>, resume_from: Option<wire::Position>) -> Vec<u8> {
    TestEnvelope {
        message_id: id.to_owned(),
        subscribe: Some(wire::Subscribe {
            topics,
            resume_from,
        }),
        ..TestEnvelope::default()
    }
    .encode_to_vec()
}

/// A Subscribe to many topics in one frame.
pub(super) fn subscribe_many(id: &str, topics: Vec<String>) -> Vec<u8> {
    frame(BINARY, true, &subscribe_to(id, topics, None))
}

/// A Subscribe in one frame that resumes from a position.
pub(super) fn resume(id: &str, topic: &str, from: Position) -> Vec<u8> {
    frame(BINARY, true, &subscribe_from(id, topic, Some(from.into())))
}

/// A Ping in one frame.
pub(super) fn ping_message() -> Vec<u8> {
    let envelope = TestEnvelope {
        ping: Some(wire::Ping { timestamp: 1 }),
        ..TestEnvelope::default()
    };
    frame(BINARY, true, &envelope.encode_to_vec())
}

/// A client's text frame with JSON.
pub(super) fn json(text: &str) -> Vec<u8> {
    frame(TEXT, true, text.as_bytes())
}

/// A Subscribe in one frame.
pub(super) fn subscribe(id: &str, topic: &str) -> Vec<u8> {
    frame(BINARY, true, &subscribe_envelope(id, topic))
}
