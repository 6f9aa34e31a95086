//! The bytes of the largest items: envelopes, bodies, requests, frames.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::rows::LogEnd;
use crate::{
    frames::{self, FIN},
    protobuf::{bytes, number, text},
    relay::INGEST_KEY,
};

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// The bounds that the items go up to: defaults of the relay.
pub(super) const BODY_BYTES: usize = MIB;
pub(super) const BATCH_BODY_BYTES: usize = 8 * MIB;
pub(super) const BATCH_EVENTS: usize = 1000;
pub(super) const EVENT_TOPICS: usize = 100;
pub(super) const SUBSCRIBE_TOPICS: usize = 1000;
pub(super) const CONNECTION_TOPICS: usize = 10_000;
pub(super) const MESSAGE_BYTES: usize = 64 * KIB;
pub(super) const INGEST_HEAD_BYTES: usize = 64 * KIB;
pub(super) const CLIENT_HEAD_BYTES: usize = 16 * KIB;
/// Changes of an event in protobuf and in JSON: a few less than the 100,000 fields, and half
/// of the 100,000 brackets and commas, since the item counts too.
const EVENT_CHANGES: usize = 99_950;
pub(super) const JSON_CHANGES: usize = 49_950;
pub(super) const HEARTBEATS: usize = 60;
pub(super) const FRAMES_A_HEARTBEAT: usize = 2048;
pub(super) const REFUSALS: usize = 100;

/// Numbers of fields of the bundled envelope.
pub(super) const CREATED: u32 = 2;
const UPDATED: u32 = 3;
const SUBSCRIBE: u32 = 10;
const UNSUBSCRIBE: u32 = 12;
const PING: u32 = 14;
const BATCH: u32 = 17;
const TOPICS: u32 = 18;
/// In Subscribe and Unsubscribe.
const FULL_TOPICS: u32 = 16;
const RESUME_FROM: u32 = 17;

/// The tenants of the attackers.
const TENANTS: usize = 16;

/// The tenant of an attacking user.
pub(super) fn loud(user: usize) -> String {
    format!("loud-{:02}", user % TENANTS)
}

/// The item that has `len` bytes, where `build` makes one with so much padding in it.
pub(super) fn exactly(len: usize, build: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut padding = len - build(0).len();
    for _ in 0..8 {
        let built = build(padding);
        if built.len() == len {
            return built;
        }
        padding = padding + len - built.len();
    }
    panic!("no padding makes {len} bytes")
}

/// WorkItemUpdated with its item twice, which a reader has to merge, and with so many
/// changes without content, two bytes each.
fn updated_twice(changes: usize, padding: usize) -> Vec<u8> {
    let item = bytes(1, &[text(1, "i"), text(3, "p")].concat());
    let user = text(3, &"u".repeat(padding));
    bytes(
        UPDATED,
        &[item.clone(), item, b"\x12\x00".repeat(changes), user].concat(),
    )
}

/// An event that takes long to read, of so many bytes.
pub(super) fn ambiguous_event(len: usize) -> Vec<u8> {
    let changes = ((len - 100) / 2).min(EVENT_CHANGES);
    exactly(len, |padding| updated_twice(changes, padding))
}

/// Events with more JSON than is rendered before they are appended, and behind them one
/// that takes long to render.
pub(super) fn batch_with_much_json() -> Vec<u8> {
    let item = bytes(1, &[text(1, "i"), text(3, "p")].concat());
    // A byte of these is six bytes of JSON.
    let escaped = text(3, &"\u{1}".repeat(650 * KIB));
    let much = bytes(UPDATED, &[item, escaped].concat());
    let slow = ambiguous_event(2 * EVENT_CHANGES + 200);
    batch([much.clone(), much.clone(), much, slow].into_iter())
}

/// An event that relates to so many topics: its item, and `a:1` and so on.
pub(super) fn event_with_topics(topics: usize) -> Vec<u8> {
    let created = bytes(CREATED, &bytes(1, &text(1, "i")));
    let topics = (1..topics).flat_map(|index| text(TOPICS, &format!("a:{index}")));
    created.into_iter().chain(topics).collect()
}

/// A batch of these envelopes.
pub(super) fn batch(envelopes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    envelopes.flat_map(|envelope| bytes(1, &envelope)).collect()
}

/// As many envelopes as there may be, in as many bytes as there may be.
pub(super) fn large_batch(envelope: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let each = BATCH_BODY_BYTES / BATCH_EVENTS - 3;
    let rest = BATCH_BODY_BYTES - (BATCH_EVENTS - 1) * (each + 3);
    let most = batch((1..BATCH_EVENTS).map(|_| envelope(each)));
    [most, batch([envelope(rest - 3)].into_iter())].concat()
}

/// The JSON of a WorkItemUpdated with so many changes, and bytes where that is given.
pub(super) fn json_event(changes: usize, len: Option<usize>) -> Vec<u8> {
    let changes = vec!["{}"; changes].join(",");
    let build = |padding: usize| {
        let title = "t".repeat(padding);
        let item = format!(r#"{{"id":"i","projectId":"p","title":"{title}"}}"#);
        let updated = format!(r#"{{"workItem":{item},"changes":[{changes}]}}"#);
        format!(r#"{{"workItemUpdated":{updated}}}"#).into_bytes()
    };
    match len {
        Some(len) => exactly(len, build),
        None => build(0),
    }
}

/// The JSON of a batch of these events.
pub(super) fn json_batch(events: &[Vec<u8>]) -> Vec<u8> {
    let events = events.join(&b","[..]);
    [b"{\"messages\":[", &events[..], b"]}"].concat()
}

/// A query of topics, each as long as it can be and with all escapes, of so many bytes.
pub(super) fn topics_query(topics: usize, len: usize) -> String {
    let build = |padding: usize| {
        let mut left = padding;
        let topics: Vec<_> = (0..topics)
            .map(|index| {
                let escapes = (left / 3).min(252);
                left -= 3 * escapes;
                let plain = if index == topics - 1 { left } else { 0 };
                let id = ["%6b".repeat(escapes), "k".repeat(plain)].concat();
                format!("topic=k:{index:04}{id}")
            })
            .collect();
        topics.join("&").into_bytes()
    };
    String::from_utf8(exactly(len, build)).unwrap()
}

/// A request to ingest.
pub(super) fn call(method: &str, path: &str, headers: &str, body: &[u8]) -> Arc<[u8]> {
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", body.len()),
        _ => String::new(),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {INGEST_KEY}\r\n\
         {headers}{length}\r\n"
    );
    [head.as_bytes(), body].concat().into()
}

/// The headers for a body of protobuf, or JSON.
pub(super) const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
pub(super) const JSON: &str = "Content-Type: application/json\r\n";

/// A request of which the head has so many bytes, where `build` makes one with so much
/// padding in its head.
pub(super) fn head_of(len: usize, build: impl Fn(String) -> Arc<[u8]>) -> Arc<[u8]> {
    let head_len = |request: &[u8]| {
        let end = request.windows(4).position(|it| it == b"\r\n\r\n");
        end.unwrap() + 4
    };
    let padding = len - head_len(&build(String::new()));
    let request = build("x".repeat(padding));
    assert_eq!(head_len(&request), len);
    request
}

/// The body in pieces of one byte.
pub(super) fn in_chunks_of_one(body: &[u8]) -> Vec<u8> {
    let chunks = body
        .iter()
        .flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
    chunks.chain(*b"0\r\n\r\n").collect()
}

/// A message of a client, as protobuf or JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    pub(super) const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "protobuf",
            Self::Json => "JSON",
        }
    }

    pub(super) fn frame(self, message: &[u8]) -> Vec<u8> {
        let opcode = match self {
            Self::Protobuf => frames::BINARY,
            Self::Json => frames::TEXT,
        };
        frames::frame(FIN | opcode, message)
    }
}

/// What a Subscribe or Unsubscribe names.
pub(super) struct Topics {
    /// A part of the ids, so that several messages name others.
    pub(super) part: usize,
    pub(super) count: usize,
}

/// The field of the envelope that has a Subscribe or Unsubscribe.
fn number_of(name: &str) -> u32 {
    match name {
        "subscribe" => SUBSCRIBE,
        _ => UNSUBSCRIBE,
    }
}

/// A Subscribe or Unsubscribe of as many bytes as there may be.
pub(super) fn topics_message(encoding: Encoding, name: &str, topics: &Topics) -> Vec<u8> {
    let Topics { part, count } = topics;
    let build = |padding: usize| {
        let topics = (0..*count).map(|index| {
            let padding = padding / count + usize::from(index < padding % count);
            format!("k:{part}-{index:05}{}", "x".repeat(padding))
        });
        match encoding {
            Encoding::Protobuf => {
                let topics = topics.flat_map(|topic| text(FULL_TOPICS, &topic));
                bytes(number_of(name), &topics.collect::<Vec<_>>())
            }
            Encoding::Json => {
                let topics: Vec<_> = topics.collect();
                let message = json!({ name: { "topics": topics } });
                message.to_string().into_bytes()
            }
        }
    };
    exactly_or_less(MESSAGE_BYTES, build)
}

/// As long as it can be: where the padding is spread over many fields, the lengths of these
/// skip some sums.
fn exactly_or_less(len: usize, build: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut padding = len - build(0).len();
    loop {
        let built = build(padding);
        if built.len() <= len {
            return built;
        }
        padding -= built.len() - len;
    }
}

/// A Subscribe that resumes a topic from there.
pub(super) fn resume(encoding: Encoding, from: &LogEnd, topic: &str) -> Vec<u8> {
    let LogEnd { epoch, offset } = from;
    match encoding {
        Encoding::Protobuf => {
            let position = [text(1, epoch), number(2, *offset)].concat();
            let position = bytes(RESUME_FROM, &position);
            bytes(SUBSCRIBE, &[text(FULL_TOPICS, topic), position].concat())
        }
        Encoding::Json => {
            let position = json!({"epoch": epoch, "offset": offset.to_string()});
            let subscribe = json!({"topics": [topic], "resumeFrom": position});
            json!({ "subscribe": subscribe }).to_string().into_bytes()
        }
    }
}

/// A Subscribe with more ids than there may be, as many as fit.
pub(super) fn ids_without_end(encoding: Encoding, name: &str) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => bytes(
            number_of(name),
            &b"\x0a\x00".repeat((MESSAGE_BYTES - 8) / 2),
        ),
        Encoding::Json => {
            let ids = vec!["\"\""; (MESSAGE_BYTES - 40) / 3].join(",");
            format!(r#"{{"{name}":{{"projectIds":[{ids}]}}}}"#).into_bytes()
        }
    }
}

/// A Ping of as many fields as there may be.
pub(super) fn ping(encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => bytes(PING, &b"\x08\x01".repeat((MESSAGE_BYTES - 8) / 2)),
        Encoding::Json => {
            let spaces = " ".repeat(MESSAGE_BYTES - 27);
            format!(r#"{{"ping":{{"timestamp":"1"}}{spaces}}}"#).into_bytes()
        }
    }
}

/// A payload that a client may not send, of as many bytes as there may be: of the number
/// 3 the one that takes longest, of others fields without content.
pub(super) fn payload(encoding: Encoding, number: u32, json_name: &str) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf if number == UPDATED => ambiguous_event(MESSAGE_BYTES),
        Encoding::Protobuf if number == BATCH => {
            bytes(BATCH, &b"\x0a\x00".repeat((MESSAGE_BYTES - 8) / 2))
        }
        Encoding::Protobuf => bytes(number, &b"\x0a\x00".repeat((MESSAGE_BYTES - 8) / 2)),
        Encoding::Json => {
            let inner = vec!["{}"; (MESSAGE_BYTES - 100) / 3].join(",");
            format!(r#"{{"{json_name}":{{"changes":[{inner}]}}}}"#).into_bytes()
        }
    }
}

/// Of nothing that the relay knows: fields of protobuf, or nesting of JSON.
pub(super) fn unknown(encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => number(1000, 1).repeat(MESSAGE_BYTES / 3),
        Encoding::Json => b"[".repeat(MESSAGE_BYTES),
    }
}

/// A token with a signature that nobody made, of a kind that takes long to check.
pub(super) fn forged_token() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"ES384","typ":"JWT"}"#);
    let claims = part(r#"{"tenant_id":"loud","user_id":"eve","exp":9999999999}"#);
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0x5a; 96]))
}

/// Headers that fill the head of a handshake, each of which has to be looked at.
pub(super) fn many_headers(len: usize) -> String {
    let mut headers = String::new();
    // hyper takes 100 headers; seven are there.
    for index in 0..90 {
        headers.push_str(&format!("X-{index:02}: y\r\n"));
    }
    let rest = len - headers.len() - "X-Rest: \r\n".len();
    headers.push_str(&format!("X-Rest: {}\r\n", "z".repeat(rest)));
    headers
}
