//! The bytes of the largest items: envelopes, bodies, requests, frames.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use sidewire_testing::{
    protobuf::{bytes, number, text},
    relay::INGEST_KEY,
    websocket::{self, FIN},
};

use super::rows::LogEnd;

pub(super) const KIB: usize = 1024;
pub(super) const MIB: usize = 1024 * KIB;

/// Number of client events that a user may send at once.
pub(super) const CLIENT_EVENTS: usize = 600;

/// The bounds of the items, which are defaults of the relay.
pub(super) const BODY_BYTES: usize = MIB;
pub(super) const BATCH_BODY_BYTES: usize = 8 * MIB;
pub(super) const BATCH_EVENTS: usize = 1000;
pub(super) const EVENT_TOPICS: usize = 100;
pub(super) const SUBSCRIBE_TOPICS: usize = 1000;
pub(super) const CONNECTION_TOPICS: usize = 10_000;
pub(super) const MESSAGE_BYTES: usize = 64 * KIB;
pub(super) const INGEST_HEAD_BYTES: usize = 64 * KIB;
pub(super) const CLIENT_HEAD_BYTES: usize = 16 * KIB;
/// Number of changes of an event in protobuf and in JSON: slightly fewer than the limit of
/// 100,000 fields, and half of the limit of 100,000 brackets and commas, since the item
/// counts too.
const EVENT_CHANGES: usize = 99_950;
pub(super) const JSON_CHANGES: usize = 49_950;
pub(super) const HEARTBEATS: usize = 60;
pub(super) const FRAMES_PER_HEARTBEAT: usize = 2048;
pub(super) const REFUSALS: usize = 100;

/// Field numbers of the bundled envelope.
pub(super) const CREATED: u32 = 2;
const UPDATED: u32 = 3;
const SUBSCRIBE: u32 = 10;
const UNSUBSCRIBE: u32 = 12;
const PING: u32 = 14;
const AUTHENTICATE: u32 = 19;
const BATCH: u32 = 17;
const TOPICS: u32 = 18;
/// Field number in Subscribe and Unsubscribe.
const FULL_TOPICS: u32 = 16;
const RESUME_FROM: u32 = 17;

/// Number of tenants of the attackers.
const TENANTS: usize = 16;

/// Returns the tenant of an attacking user.
pub(super) fn loud(user: usize) -> String {
    format!("loud-{:02}", user % TENANTS)
}

/// Returns an item of `len` bytes, where `build` makes one with the given amount of padding.
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

/// Returns a WorkItemUpdated that contains its item twice, which a reader has to merge, and
/// this many empty changes, two bytes each.
fn updated_twice(changes: usize, padding: usize) -> Vec<u8> {
    let item = bytes(1, &[text(1, "i"), text(3, "p")].concat());
    let user = text(3, &"u".repeat(padding));
    bytes(
        UPDATED,
        &[item.clone(), item, b"\x12\x00".repeat(changes), user].concat(),
    )
}

/// Returns an event of `len` bytes that takes long to read.
pub(super) fn ambiguous_event(len: usize) -> Vec<u8> {
    let changes = ((len - 100) / 2).min(EVENT_CHANGES);
    exactly(len, |padding| updated_twice(changes, padding))
}

/// Returns a batch with more JSON than is rendered before the events are appended, followed
/// by an event that takes long to render.
pub(super) fn batch_with_much_json() -> Vec<u8> {
    let item = bytes(1, &[text(1, "i"), text(3, "p")].concat());
    // Each of these bytes becomes six bytes of JSON.
    let escaped = text(3, &"\u{1}".repeat(650 * KIB));
    let much = bytes(UPDATED, &[item, escaped].concat());
    let slow = ambiguous_event(2 * EVENT_CHANGES + 200);
    batch([much.clone(), much.clone(), much, slow].into_iter())
}

/// Returns an event with this many topics: its item, then `a:1` and so on.
pub(super) fn event_with_topics(topics: usize) -> Vec<u8> {
    let created = bytes(CREATED, &bytes(1, &text(1, "i")));
    let topics = (1..topics).flat_map(|index| text(TOPICS, &format!("a:{index}")));
    created.into_iter().chain(topics).collect()
}

/// Returns a batch of these envelopes.
pub(super) fn batch(envelopes: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    envelopes.flat_map(|envelope| bytes(1, &envelope)).collect()
}

/// Returns a batch with the maximum number of envelopes and the maximum number of bytes.
pub(super) fn large_batch(envelope: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let each = BATCH_BODY_BYTES / BATCH_EVENTS - 3;
    let rest = BATCH_BODY_BYTES - (BATCH_EVENTS - 1) * (each + 3);
    let most = batch((1..BATCH_EVENTS).map(|_| envelope(each)));
    [most, batch([envelope(rest - 3)].into_iter())].concat()
}

/// Returns the JSON of a WorkItemUpdated with this many changes, padded to `len` bytes if given.
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

/// Returns the JSON of a batch of these events.
pub(super) fn json_batch(events: &[Vec<u8>]) -> Vec<u8> {
    let events = events.join(&b","[..]);
    [b"{\"messages\":[", &events[..], b"]}"].concat()
}

/// Returns a query of `len` bytes with topics of the maximum length, all escaped.
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

/// Returns a request to ingest.
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

/// Headers for a body of protobuf, or JSON.
pub(super) const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
pub(super) const JSON: &str = "Content-Type: application/json\r\n";

/// Returns a request with a head of `len` bytes, where `build` makes one with the given
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

/// Returns the body in chunks of one byte.
pub(super) fn in_chunks_of_one(body: &[u8]) -> Vec<u8> {
    let chunks = body
        .iter()
        .flat_map(|byte| [b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
    chunks.chain(*b"0\r\n\r\n").collect()
}

/// Encoding of a client's message: protobuf or JSON.
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
            Self::Protobuf => websocket::BINARY,
            Self::Json => websocket::TEXT,
        };
        websocket::frame(FIN | opcode, message)
    }
}

/// The topics of a Subscribe or Unsubscribe.
pub(super) struct Topics {
    /// Part of the ids, so that several messages name different topics.
    pub(super) part: usize,
    pub(super) count: usize,
}

/// Returns the number of the envelope field for a Subscribe or Unsubscribe.
fn number_of(name: &str) -> u32 {
    match name {
        "subscribe" => SUBSCRIBE,
        _ => UNSUBSCRIBE,
    }
}

/// Returns a Subscribe or Unsubscribe of the maximum number of bytes.
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

/// Returns the longest possible item of at most `len` bytes. If the padding is spread over
/// many fields, their lengths skip some sums.
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

/// Returns a Subscribe that resumes a topic from this position.
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

/// Returns a Subscribe with more ids than allowed, as many as fit.
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

/// Returns a Ping with the maximum number of fields.
pub(super) fn ping(encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => bytes(PING, &b"\x08\x01".repeat((MESSAGE_BYTES - 8) / 2)),
        Encoding::Json => {
            let spaces = " ".repeat(MESSAGE_BYTES - 27);
            format!(r#"{{"ping":{{"timestamp":"1"}}{spaces}}}"#).into_bytes()
        }
    }
}

/// Returns an Authenticate with this token.
pub(super) fn authenticate(encoding: Encoding, token: &str) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => bytes(AUTHENTICATE, &text(1, token)),
        Encoding::Json => {
            let message = json!({"authenticate": {"token": token}});
            message.to_string().into_bytes()
        }
    }
}

/// Returns a Subscribe to one topic.
pub(super) fn subscribe(encoding: Encoding, topic: &str) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => bytes(SUBSCRIBE, &text(FULL_TOPICS, topic)),
        Encoding::Json => {
            let subscribe = json!({"subscribe": {"topics": [topic]}});
            subscribe.to_string().into_bytes()
        }
    }
}

/// An event that clients send to each other, and its maximum size in bytes.
pub(super) struct ClientEvent {
    pub(super) name: &'static str,
    json_name: &'static str,
    number: u32,
    /// The field that names its topic, and the id.
    topic: (u32, &'static str, &'static str),
    pub(super) bytes: usize,
}

pub(super) const TYPING: ClientEvent = ClientEvent {
    name: "user_typing",
    json_name: "userTyping",
    number: 45,
    topic: (4, "projectId", "p"),
    bytes: 16 * 1024,
};

pub(super) const PRESENCE: ClientEvent = ClientEvent {
    name: "user_presence",
    json_name: "userPresence",
    number: 7,
    topic: (5, "projectId", "p"),
    bytes: 2 * 1024,
};

/// Returns an event of this many bytes, which takes as long as possible to read.
pub(super) fn client_event(encoding: Encoding, event: &ClientEvent, size: usize) -> Vec<u8> {
    let (number, name, id) = event.topic;
    let message = match encoding {
        Encoding::Protobuf => {
            // Fields that the schema does not know, and that are sent on.
            let build = |fields: usize, rest: usize| {
                let padding = bytes(99, &vec![0; rest]);
                let fields = b"\x98\x06\x00".repeat(fields);
                bytes(event.number, &[text(number, id), fields, padding].concat())
            };
            let fields = (size - 40) / 3;
            build(fields, size - build(fields, 0).len())
        }
        Encoding::Json => {
            // Topics that are cut before the event is sent on.
            let build = |topics: usize, rest: usize| {
                let topics = vec![r#""a""#; topics].join(",");
                let (json_name, spaces) = (event.json_name, " ".repeat(rest));
                format!(r#"{{"topics":[{topics}],"{json_name}":{{"{name}":"{id}"}}{spaces}}}"#)
            };
            let topics = (size - 80) / 4;
            build(topics, size - build(topics, 0).len()).into_bytes()
        }
    };
    assert_eq!(message.len(), size);
    message
}

/// Returns a payload of the maximum size that a client may not send: for field 3 the
/// payload that takes longest to read, for others fields without content.
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

/// Returns a message with only unknown content: fields of protobuf, or nested JSON.
pub(super) fn unknown(encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Protobuf => number(1000, 1).repeat(MESSAGE_BYTES / 3),
        Encoding::Json => b"[".repeat(MESSAGE_BYTES),
    }
}

/// Returns a token with a forged signature, of an algorithm that takes long to check.
pub(super) fn forged_token() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"ES384","typ":"JWT"}"#);
    let claims = part(r#"{"tenant_id":"loud","user_id":"eve","exp":9999999999}"#);
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([0x5a; 96]))
}

/// Returns headers that fill the head of a handshake, each of which must be inspected.
pub(super) fn many_headers(len: usize) -> String {
    let mut headers = String::new();
    // hyper accepts 100 headers; seven are already present.
    for index in 0..90 {
        headers.push_str(&format!("X-{index:02}: y\r\n"));
    }
    let rest = len - headers.len() - "X-Rest: \r\n".len();
    headers.push_str(&format!("X-Rest: {}\r\n", "z".repeat(rest)));
    headers
}
