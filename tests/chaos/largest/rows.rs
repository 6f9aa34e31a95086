//! The table of the suite: for each entry point the most expensive legal input, and the
//! most expensive refused one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rustls::{ClientConfig, ClientConnection, client::Resumption, pki_types::ServerName};
use sidewire::{
    auth::{Algorithm, MintError, NewToken, Secret, SigningKey, TOKEN_BYTES_MAX, TokenRules},
    ingest::{ENDPOINTS, QueryParameter},
    ops,
};
use sidewire_protocol::{
    TenantName, Topic, UserName,
    clock::Clock,
    schema::{PayloadType, Schema},
};
use sidewire_testing::{
    relay::SECRET,
    websocket::{self, FIN, frame},
};

use super::{
    attack::{Attack, Expected, Listener, WebSocket},
    items::{
        self, BATCH_BODY_BYTES, BATCH_EVENTS, BODY_BYTES, CLIENT_HEAD_BYTES, CONNECTION_TOPICS,
        EVENT_TOPICS, Encoding, FRAMES_PER_HEARTBEAT, HEARTBEATS, INGEST_HEAD_BYTES, JSON,
        JSON_CHANGES, KIB, MESSAGE_BYTES, PROTOBUF, REFUSALS, SUBSCRIBE_TOPICS, Topics, call,
        head_of, loud,
    },
};

/// The kinds of frames (RFC 6455, 5.2).
const FRAMES: [&str; 7] = [
    "continuation",
    "text",
    "binary",
    "close",
    "ping",
    "pong",
    "reserved",
];

/// Entry points before a WebSocket is open.
const HANDSHAKE: [&str; 4] = ["TLS ClientHello", "PROXY header", "GET /ws", "token"];

/// The tenant of the rows that need events in its log or subscribers.
pub(super) const FILLED: &str = "filled";

/// Number of large events in a log.
pub(super) const LARGE_EVENTS: usize = 4;

/// Topic of the large events in a log.
pub(super) const LARGE_TOPIC: &str = "large:1";

/// Number of users of the attackers.
const USERS: usize = 512;

/// More heartbeats (pongs and fragments) than a connection may send before it is closed.
const TOO_MANY_HEARTBEATS: usize = HEARTBEATS + REFUSALS + 10;

/// Name of an entry point where input enters the relay, as rows refer to it.
pub(super) type Entry = String;

/// State that is set up before a row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fixture {
    Nothing,
    /// The log of the tenant [`FILLED`] has the maximum number of topics.
    FilledLog,
    /// The log of the tenant [`FILLED`] has [`LARGE_EVENTS`] of the events that take
    /// longest to read, with the topic [`LARGE_TOPIC`].
    LargeLog,
    /// Clients of the tenant [`FILLED`] are subscribed to the maximum number of topics.
    Subscribers,
}

/// A row of the table.
pub(super) struct Row {
    pub(super) entries: Vec<Entry>,
    pub(super) name: &'static str,
    pub(super) is_legal: bool,
    pub(super) attack: Attack,
    /// The attack with one unit more than the bound, which must be refused.
    pub(super) beyond: Option<Attack>,
    pub(super) fixture: Fixture,
    /// Makes the attack from the end of [`FILLED`]'s log before it was filled for the row.
    pub(super) resumed: Option<Resumed>,
    /// Topics that a client listens to meanwhile.
    pub(super) listener: Option<WebSocket>,
}

/// Makes an attack that resumes from a log end.
type Resumed = Box<dyn Fn(&LogEnd) -> Attack>;

/// The end of a log.
#[derive(Debug, Default)]
pub(super) struct LogEnd {
    pub(super) epoch: String,
    pub(super) offset: u64,
}

impl Row {
    fn new(entries: &[&str], is_legal: bool, name: &'static str, attack: Attack) -> Self {
        Self {
            entries: entries.iter().map(|it| (*it).to_owned()).collect(),
            name,
            is_legal,
            attack,
            beyond: None,
            fixture: Fixture::Nothing,
            resumed: None,
            listener: None,
        }
    }

    fn legal(entries: &[&str], name: &'static str, attack: Attack) -> Self {
        Self::new(entries, true, name, attack)
    }

    fn refused(entries: &[&str], name: &'static str, attack: Attack) -> Self {
        Self::new(entries, false, name, attack)
    }

    fn beyond(mut self, beyond: Attack) -> Self {
        self.beyond = Some(beyond);
        self
    }

    fn with(mut self, fixture: Fixture) -> Self {
        self.fixture = fixture;
        self
    }

    fn resumed(mut self, resumed: impl Fn(&LogEnd) -> Attack + 'static) -> Self {
        self.resumed = Some(Box::new(resumed));
        self
    }

    fn heard_by(mut self, listener: WebSocket) -> Self {
        self.listener = Some(listener);
        self
    }
}

/// The inputs of rows that differ between runs.
pub(super) struct World {
    pub(super) tokens: Arc<[String]>,
    filled_tokens: Arc<[String]>,
    long_tokens: Arc<[String]>,
    too_long_tokens: Arc<[String]>,
    forged: Arc<[String]>,
    payloads: Vec<PayloadType>,
}

impl World {
    pub(super) fn new() -> Self {
        let user = |index: usize| format!("user-{index:03}");
        let tokens = |tenant: &dyn Fn(usize) -> String, topics: Option<Vec<Topic>>, count| {
            (0..count)
                .map(|index| minted(&tenant(index), &user(index), topics.clone()).unwrap())
                .collect()
        };
        Self {
            tokens: tokens(&loud, None, USERS),
            filled_tokens: tokens(&|_| FILLED.to_owned(), None, USERS),
            long_tokens: tokens(&loud, Some(most_granted()), USERS),
            too_long_tokens: ["x".repeat(TOKEN_BYTES_MAX + 1)].into(),
            forged: [items::forged_token()].into(),
            payloads: Schema::bundled().unwrap().payloads().to_vec(),
        }
    }

    fn talk(&self, encoding: Encoding, frames: Vec<u8>, expected: Expected) -> WebSocket {
        WebSocket {
            proxy_header: None,
            tokens: Arc::clone(&self.tokens),
            headers: String::new(),
            is_json: encoding == Encoding::Json,
            frames: frames.into(),
            expected,
        }
    }

    fn websocket(&self, encoding: Encoding, frames: Vec<u8>, expected: Expected) -> Attack {
        Attack::WebSocket(self.talk(encoding, frames, expected))
    }
}

/// Returns as many topics as fit into a token.
fn most_granted() -> Vec<Topic> {
    let mut topics: Vec<_> = (0..TOKEN_BYTES_MAX / 25).map(granted_topic).collect();
    while minted(&loud(0), "user-000", Some(topics.clone())).is_err() {
        topics.pop();
    }
    topics
}

fn granted_topic(index: usize) -> Topic {
    Topic::parse(&format!("k:{index:020}")).unwrap()
}

fn minted(tenant: &str, user: &str, topics: Option<Vec<Topic>>) -> Result<String, MintError> {
    let token = NewToken {
        tenant: TenantName::parse(tenant).unwrap(),
        user: UserName::parse(user).unwrap(),
        expires_at: Some(Clock::system().since_unix_epoch() + Duration::from_hours(1)),
        topics,
    };
    SigningKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET))
        .unwrap()
        .mint(&token, &TokenRules::default())
}

/// Returns every entry point: those of the routers, those of the schema, and those before a
/// WebSocket.
pub(super) fn entry_points() -> BTreeSet<Entry> {
    let calls = ENDPOINTS.iter().flat_map(|it| match it.methods {
        "POST" => Encoding::ALL
            .map(|encoding| format!("POST {} {}", it.path, encoding.name()))
            .to_vec(),
        methods => vec![format!("{methods} {}", it.path)],
    });
    let parameters = QueryParameter::ALL.map(|it| format!("?{}=", it.name()));
    let ops = ops::PATHS.map(|path| format!("GET {path}"));
    let schema = Schema::bundled().unwrap();
    let messages = schema.payloads().iter().map(|it| it.name.clone());
    let messages = messages.chain(["unknown".to_owned()]).flat_map(|name| {
        Encoding::ALL.map(|encoding| format!("message {name} {}", encoding.name()))
    });
    calls
        .chain(parameters)
        .chain(ops)
        .chain(messages)
        .chain(FRAMES.map(|kind| format!("frame {kind}")))
        .chain(HANDSHAKE.map(str::to_owned))
        .collect()
}

/// Returns the entry points at which nothing is legal.
pub(super) fn refused_entry_points() -> BTreeSet<Entry> {
    let schema = Schema::bundled().unwrap();
    let payloads = schema.payloads().iter();
    payloads
        .filter(|it| !it.kind.is_taken_from_clients())
        .map(|it| it.name.as_str())
        .chain(["unknown"])
        .flat_map(|name| {
            Encoding::ALL.map(|encoding| format!("message {name} {}", encoding.name()))
        })
        .chain(["frame reserved".to_owned()])
        .collect()
}

/// Returns all rows of a relay without TLS.
pub(super) fn rows(world: &World) -> Vec<Row> {
    let mut rows = event_calls();
    rows.extend(batch_calls(world));
    rows.extend(parameters());
    rows.extend(other_calls(world));
    rows.extend(ops_calls());
    for encoding in Encoding::ALL {
        rows.extend(messages(world, encoding));
    }
    rows.extend(frame_kinds(world));
    rows.extend(handshakes(world));
    rows
}

fn ingest(request: Arc<[u8]>, status: u16) -> Attack {
    Attack::Http {
        listener: Listener::Ingest,
        request,
        status,
    }
}

const EVENTS: &str = "/v1/tenants/loud/events";
const BATCHES: &str = "/v1/tenants/loud/events:batch";

fn post(path: &str, content_type: &str, body: &[u8], status: u16) -> Attack {
    ingest(call("POST", path, content_type, body), status)
}

fn event_calls() -> Vec<Row> {
    let protobuf = ["POST /v1/tenants/{tenant}/events protobuf"];
    let json = ["POST /v1/tenants/{tenant}/events JSON"];
    let largest = items::ambiguous_event(BODY_BYTES);
    let head = "POST /v1/tenants/loud/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ";
    let head = [head, sidewire_testing::relay::INGEST_KEY].concat();
    let chunked = format!("{head}\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n\r\n");
    let chunked = [chunked.into_bytes(), items::in_chunks_of_one(&largest)].concat();
    vec![
        Row::legal(
            &protobuf,
            "1 MiB to merge",
            post(EVENTS, PROTOBUF, &largest, 200),
        )
        .beyond(post(
            EVENTS,
            PROTOBUF,
            &items::ambiguous_event(BODY_BYTES + 1),
            413,
        )),
        Row::legal(
            &protobuf,
            "1 MiB in chunks of one byte",
            ingest(chunked.into(), 200),
        ),
        Row::refused(
            &protobuf,
            "100,000 topics",
            post(EVENTS, PROTOBUF, &items::event_with_topics(100_000), 400),
        ),
        Row::legal(
            &json,
            "100,000 values in 1 MiB",
            post(
                EVENTS,
                JSON,
                &items::json_event(JSON_CHANGES, Some(BODY_BYTES)),
                200,
            ),
        )
        .beyond(post(
            EVENTS,
            JSON,
            &items::json_event(JSON_CHANGES + 60, Some(BODY_BYTES)),
            413,
        )),
        Row::refused(
            &json,
            "698,000 values",
            post(
                EVENTS,
                JSON,
                &items::json_event(349_000, Some(BODY_BYTES)),
                413,
            ),
        ),
    ]
}

fn batch_calls(world: &World) -> Vec<Row> {
    let protobuf = ["POST /v1/tenants/{tenant}/events:batch protobuf"];
    let json = ["POST /v1/tenants/{tenant}/events:batch JSON"];
    let largest = items::large_batch(items::ambiguous_event);
    let small = items::event_with_topics(1);
    let too_many = items::batch((0..=BATCH_EVENTS).map(|_| small.clone()));
    // Each event is refused, as its last topic is one too many.
    let with_topics = items::event_with_topics(EVENT_TOPICS);
    let refused = items::batch((0..BATCH_EVENTS).map(|_| with_topics.clone()));
    let values = items::json_event(JSON_CHANGES, None);
    let fitting = (BATCH_BODY_BYTES - KIB) / (values.len() + 1);
    let events = vec![values; fitting];
    let empty = vec![b"{}".to_vec(); BATCH_BODY_BYTES / 3 - 10];
    let announced = format!(
        "POST {BATCHES} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{PROTOBUF}\
         Content-Length: {BATCH_BODY_BYTES}\r\n\r\n",
        sidewire_testing::relay::INGEST_KEY
    );
    let begun = [announced.into_bytes(), largest[1..].to_vec()].concat();
    let listener = WebSocket {
        tokens: [minted(&loud(0), "listener", None).unwrap()].into(),
        ..world.talk(Encoding::Json, Vec::new(), Expected::Close(0))
    };
    let heard = format!("/v1/tenants/{}/events:batch?topic=tenant:*", loud(0));
    vec![
        Row::legal(
            &protobuf,
            "1,000 events to merge in 8 MiB",
            post(BATCHES, PROTOBUF, &largest, 200),
        )
        .beyond(post(BATCHES, PROTOBUF, &too_many, 400)),
        Row::legal(
            &protobuf,
            "12 MB of JSON for a client",
            post(&heard, PROTOBUF, &items::batch_with_much_json(), 200),
        )
        .heard_by(listener),
        Row::legal(
            &protobuf,
            "8 MiB less a byte, and no end",
            Attack::Held {
                listener: Listener::Ingest,
                bytes: begun.into(),
            },
        ),
        Row::refused(
            &protobuf,
            "1,000 events with 101 topics",
            post(&format!("{BATCHES}?topic=b:1"), PROTOBUF, &refused, 400),
        ),
        Row::legal(
            &json,
            "100,000 values an event in 8 MiB",
            post(BATCHES, JSON, &items::json_batch(&events), 200),
        ),
        Row::refused(
            &json,
            "2,800,000 events",
            post(BATCHES, JSON, &items::json_batch(&empty), 400),
        ),
    ]
}

fn parameters() -> Vec<Row> {
    let event = items::event_with_topics(1);
    // 1,000 of these have an answer of 29 MB.
    let small = items::batch((0..BATCH_EVENTS).map(|_| event.clone()));
    let post_to = |path: &str, query: String, body: &[u8], status: u16| {
        post(&format!("{path}?{query}"), PROTOBUF, body, status)
    };
    let longest: Vec<_> = (0..EVENT_TOPICS - 1)
        .map(|index| format!("topic={}:{index:03}{}", "k".repeat(32), "x".repeat(253)))
        .collect();
    let at_head_limit = |status: u16, more: usize| {
        let request = head_of(INGEST_HEAD_BYTES + more, |padding| {
            let query = items::topics_query(EVENT_TOPICS - 1, 50_000);
            let padding = format!("X-Padding: {padding}\r\n{PROTOBUF}");
            call("POST", &format!("{EVENTS}?{query}"), &padding, &event)
        });
        ingest(request, status)
    };
    let too_many: Vec<_> = (0..4_900)
        .map(|index| format!("topic=a:{index:04}"))
        .collect();
    let condition = |index: usize| format!("if_last=k:{index:03}{}@0", "x".repeat(253));
    let conditions = |count: usize| (0..count).map(condition).collect::<Vec<_>>().join("&");
    let unmet = (1..EVENT_TOPICS).map(|index| format!("if_last=a:{index}@0"));
    let unmet = unmet.collect::<Vec<_>>().join("&");
    let filled = format!("/v1/tenants/{FILLED}/events");
    vec![
        Row::legal(
            &["?topic="],
            "an answer of 29 MB",
            post_to(BATCHES, longest.join("&"), &small, 200),
        ),
        Row::legal(&["?topic="], "a head of 64 KiB", at_head_limit(200, 0))
            .beyond(at_head_limit(431, 1)),
        Row::refused(
            &["?topic="],
            "4,900 topics",
            post_to(EVENTS, too_many.join("&"), &event, 400),
        ),
        Row::legal(
            &["?if_last="],
            "100 conditions in a full log",
            post_to(&filled, conditions(EVENT_TOPICS), &event, 200),
        )
        .beyond(post_to(&filled, conditions(EVENT_TOPICS + 1), &event, 400))
        .with(Fixture::FilledLog),
        Row::refused(
            &["?if_last="],
            "99 conditions that do not hold",
            post_to(&filled, unmet, &event, 409),
        )
        .with(Fixture::FilledLog),
    ]
}

fn other_calls(world: &World) -> Vec<Row> {
    let look = ["GET, HEAD /v1/tenants/{tenant}"];
    let disconnect = ["DELETE /v1/tenants/{tenant}/users/{user}/connections"];
    let query = vec!["%61=%61"; 8_000].join("&");
    let path = format!("/v1/tenants/{FILLED}");
    let connections = "/v1/tenants/loud/users/eve/connections";
    let subscribed = subscribe_to_all(world);
    vec![
        Row::legal(
            &look,
            "a tenant with many topics",
            ingest(call("GET", &path, "", b""), 200),
        )
        .beyond(ingest(call("GET", &format!("{path}?a=1"), "", b""), 400))
        .with(Fixture::Subscribers),
        Row::refused(
            &look,
            "8,000 parameters",
            ingest(call("GET", &format!("{path}?{query}"), "", b""), 400),
        ),
        Row::legal(
            &disconnect,
            "a connection with 10,000 topics",
            Attack::Disconnected(subscribed),
        ),
        Row::refused(
            &disconnect,
            "8,000 parameters",
            ingest(
                call("DELETE", &format!("{connections}?{query}"), "", b""),
                400,
            ),
        ),
    ]
}

fn ops_calls() -> Vec<Row> {
    let rows = ops::PATHS.map(|path| {
        let request = |method| call(method, path, &items::many_headers(CLIENT_HEAD_BYTES), b"");
        let attack = |method, status| Attack::Http {
            listener: Listener::Ops,
            request: request(method),
            status,
        };
        let entry = format!("GET {path}");
        [
            Row::legal(&[&entry], "a head of 16 KiB", attack("GET", 200)),
            Row::refused(&[&entry], "another method", attack("DELETE", 405)),
        ]
    });
    rows.into_iter().flatten().collect()
}

/// Subscribes to as many topics as a connection may have.
fn subscribe_to_all(world: &World) -> WebSocket {
    let parts = CONNECTION_TOPICS / SUBSCRIBE_TOPICS;
    let subscribes = topics_frames(Encoding::Protobuf, "subscribe", parts);
    let confirmed = Expected::Messages("subscription_confirmed", parts);
    world.talk(Encoding::Protobuf, subscribes, confirmed)
}

fn topics_frames(encoding: Encoding, name: &str, parts: usize) -> Vec<u8> {
    let message = |part| {
        let topics = Topics {
            part,
            count: SUBSCRIBE_TOPICS,
        };
        encoding.frame(&items::topics_message(encoding, name, &topics))
    };
    (0..parts).flat_map(message).collect()
}

fn messages(world: &World, encoding: Encoding) -> Vec<Row> {
    let entry = |name: &str| format!("message {name} {}", encoding.name());
    let parts = CONNECTION_TOPICS / SUBSCRIBE_TOPICS;
    let talk = |frames, expected| world.websocket(encoding, frames, expected);
    let mut rows = Vec::new();
    for (name, confirmed) in [
        ("subscribe", "subscription_confirmed"),
        ("unsubscribe", "unsubscribe_confirmed"),
    ] {
        let mut largest = topics_frames(encoding, "subscribe", parts);
        if name == "unsubscribe" {
            largest.extend(topics_frames(encoding, name, parts));
        }
        let one_more = Topics {
            part: 0,
            count: SUBSCRIBE_TOPICS + 1,
        };
        let one_more = encoding.frame(&items::topics_message(encoding, name, &one_more));
        let wanted = if name == "subscribe" {
            Expected::Messages(confirmed, parts)
        } else {
            Expected::Any(confirmed, 2 * parts)
        };
        let without_end = encoding.frame(&items::ids_without_end(encoding, name));
        rows.extend([
            Row::legal(
                &[&entry(name)],
                "10 times 1,000 topics in 64 KiB",
                talk(largest, wanted),
            )
            .beyond(talk(one_more, Expected::Messages("error", 1))),
            Row::refused(
                &[&entry(name)],
                "10 times as many ids as fit",
                talk(without_end.repeat(10), Expected::Messages("error", 10)),
            ),
        ]);
    }
    rows.extend(resumes(world, encoding, &entry("subscribe")));
    let ping = encoding.frame(&items::ping(encoding));
    rows.extend([
        Row::legal(
            &[&entry("ping")],
            "60 of 64 KiB",
            talk(
                ping.repeat(HEARTBEATS),
                Expected::Messages("pong", HEARTBEATS),
            ),
        ),
        Row::refused(
            &[&entry("ping")],
            "200 of 64 KiB",
            talk(ping.repeat(200), Expected::Close(4005)),
        ),
    ]);
    rows.extend(never_taken(world, encoding));
    rows
}

fn resumes(world: &World, encoding: Encoding, entry: &str) -> Vec<Row> {
    let row = |fixture, is_legal, name, topics: Vec<String>, expected| {
        let tokens = Arc::clone(&world.filled_tokens);
        let talk = world.talk(encoding, Vec::new(), expected);
        let talk = WebSocket { tokens, ..talk };
        let resumed = move |from: &LogEnd| {
            let message = |topic: &String| encoding.frame(&items::resume(encoding, from, topic));
            let frames: Vec<u8> = topics.iter().flat_map(message).collect();
            let frames = frames.into();
            Attack::WebSocket(WebSocket {
                frames,
                ..talk.clone()
            })
        };
        let attack = resumed(&LogEnd::default());
        let row = Row::new(&[entry], is_legal, name, attack);
        row.with(fixture).resumed(resumed)
    };
    // Topics that no event has.
    let unknown = |count| (0..count).map(|part| format!("zzz:{part}")).collect();
    vec![
        // One resume is served and 16 wait.
        row(
            Fixture::FilledLog,
            true,
            "17 resumes for nothing",
            unknown(17),
            Expected::Messages("subscription_confirmed", 17),
        ),
        row(
            Fixture::FilledLog,
            false,
            "100 resumes at once",
            unknown(100),
            Expected::Any("error", 100),
        ),
        row(
            Fixture::LargeLog,
            true,
            "a resume for 4 events of 1 MiB",
            vec![LARGE_TOPIC.to_owned()],
            Expected::Replayed("work_item_updated", LARGE_EVENTS),
        ),
    ]
}

/// Returns one frame of each kind that the relay accepts from no client.
fn never_taken(world: &World, encoding: Encoding) -> Vec<Row> {
    let payloads = world.payloads.iter();
    let payloads: Vec<_> = payloads
        .filter(|it| !it.kind.is_taken_from_clients())
        .collect();
    let entries: Vec<_> = payloads
        .iter()
        .map(|it| format!("message {} {}", it.name, encoding.name()))
        .collect();
    let entries: Vec<_> = entries.iter().map(String::as_str).collect();
    let of = |payload: &&PayloadType| {
        let message = items::payload(encoding, payload.number, &camel_case(&payload.name));
        encoding.frame(&message)
    };
    let frames: Vec<u8> = payloads.iter().flat_map(of).collect();
    let unknown = encoding.frame(&items::unknown(encoding));
    vec![
        Row::refused(
            &entries,
            "each payload that is not for clients",
            world.websocket(
                encoding,
                frames,
                Expected::Messages("error", payloads.len()),
            ),
        ),
        Row::refused(
            &[&format!("message unknown {}", encoding.name())],
            "10 of 64 KiB",
            world.websocket(
                encoding,
                unknown.repeat(10),
                Expected::Messages("error", 10),
            ),
        ),
    ]
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(1);
        name + &initial.to_uppercase() + rest
    })
}

fn frame_kinds(world: &World) -> Vec<Row> {
    let talk = |frames, expected| world.websocket(Encoding::Protobuf, frames, expected);
    let json = |frames, expected| world.websocket(Encoding::Json, frames, expected);
    let empty = |first: u8, count: usize| frame(first, b"").repeat(count);
    let ping = items::ping(Encoding::Protobuf);
    // A message of empty fragments, the last of which is a Ping.
    let fragments = |count: usize| {
        let first = frame(websocket::BINARY, b"");
        let last = frame(FIN | websocket::CONTINUATION, b"\x72\x00");
        [first, empty(websocket::CONTINUATION, count), last].concat()
    };
    let in_bytes = |message: &[u8]| {
        let mut frames = frame(websocket::BINARY, &message[..1]);
        for byte in &message[1..message.len() - 1] {
            frames.extend(frame(websocket::CONTINUATION, &[*byte]));
        }
        let last = message.last().into_iter().copied().collect::<Vec<_>>();
        frames.extend(frame(FIN | websocket::CONTINUATION, &last));
        frames
    };
    let pings = |count: usize| frame(FIN | websocket::PING, &[b'p'; 125]).repeat(count);
    let too_many = TOO_MANY_HEARTBEATS * FRAMES_PER_HEARTBEAT;
    let just_enough = (HEARTBEATS - 2) * FRAMES_PER_HEARTBEAT;
    let pongs = [empty(FIN | websocket::PONG, just_enough), pings(1)].concat();
    let too_large = vec![0; MESSAGE_BYTES + 1];
    let text = br#"{"ping":{"timestamp":"1"}}"#;
    let largest_text = frame(FIN | websocket::TEXT, &items::ping(Encoding::Json));
    let reason = [&1000_u16.to_be_bytes()[..], &[b'r'; 123]].concat();
    let wrong_reason = [&1000_u16.to_be_bytes()[..], &[0xff; 123]].concat();
    let close = |payload: &[u8]| frame(FIN | websocket::CLOSE, payload);
    vec![
        Row::legal(
            &["frame continuation"],
            "118,784 empty fragments",
            talk(fragments(just_enough), Expected::Messages("pong", 1)),
        ),
        Row::legal(
            &["frame continuation"],
            "64 KiB in fragments of one byte",
            talk(in_bytes(&ping), Expected::Messages("pong", 1)),
        ),
        Row::refused(
            &["frame continuation"],
            "empty fragments without end",
            talk(fragments(too_many), Expected::Close(4005)),
        ),
        Row::legal(
            &["frame binary"],
            "64 KiB",
            talk(
                frame(FIN | websocket::BINARY, &ping),
                Expected::Messages("pong", 1),
            ),
        )
        .beyond(talk(
            frame(FIN | websocket::BINARY, &too_large),
            Expected::Close(1009),
        )),
        Row::refused(
            &["frame binary"],
            "64 KiB where JSON is spoken",
            json(frame(FIN | websocket::BINARY, &ping), Expected::Close(1003)),
        ),
        Row::legal(
            &["frame text"],
            "64 KiB",
            json(largest_text, Expected::Messages("pong", 1)),
        )
        .beyond(json(
            frame(FIN | websocket::TEXT, &too_large),
            Expected::Close(1009),
        )),
        Row::refused(
            &["frame text"],
            "where protobuf is spoken",
            talk(frame(FIN | websocket::TEXT, text), Expected::Close(1003)),
        ),
        Row::legal(
            &["frame ping"],
            "60 of 125 bytes",
            talk(pings(HEARTBEATS), Expected::Pongs(HEARTBEATS)),
        )
        .beyond(talk(
            frame(FIN | websocket::PING, &[0; 126]),
            Expected::Close(1002),
        )),
        Row::refused(
            &["frame ping"],
            "200 of 125 bytes",
            talk(pings(200), Expected::Close(4005)),
        ),
        Row::legal(
            &["frame pong"],
            "118,784 pongs",
            talk(pongs, Expected::Pongs(1)),
        ),
        Row::refused(
            &["frame pong"],
            "pongs without end",
            talk(
                empty(FIN | websocket::PONG, too_many),
                Expected::Close(4005),
            ),
        ),
        Row::legal(
            &["frame close"],
            "a reason of 123 bytes",
            talk(close(&reason), Expected::Close(1000)),
        )
        .beyond(talk(
            close(&[&reason[..], b"r"].concat()),
            Expected::Close(1002),
        )),
        Row::refused(
            &["frame close"],
            "a reason that is no UTF-8",
            talk(close(&wrong_reason), Expected::Close(1007)),
        ),
        Row::refused(
            &["frame reserved"],
            "a kind that there is not",
            talk(frame(FIN | 3, b""), Expected::Close(1002)),
        ),
    ]
}

fn handshakes(world: &World) -> Vec<Row> {
    let close = frame(FIN | websocket::CLOSE, &1000_u16.to_be_bytes());
    let talk = || world.talk(Encoding::Protobuf, close.clone(), Expected::Close(1000));
    let with_headers = |bytes: usize, expected| {
        let talk = talk();
        let head = talk.request(&talk.tokens[0]).len();
        Attack::WebSocket(WebSocket {
            headers: items::many_headers(bytes - head),
            expected,
            ..talk
        })
    };
    let with_tokens = |tokens: &Arc<[String]>, expected| {
        Attack::WebSocket(WebSocket {
            tokens: Arc::clone(tokens),
            expected,
            ..talk()
        })
    };
    let behind = |header: Vec<u8>, expected| {
        Attack::WebSocket(WebSocket {
            proxy_header: Some(header.into()),
            expected,
            ..talk()
        })
    };
    // Version 1 is read byte by byte, up to its end.
    let line = |len: usize| {
        let padding = len - "PROXY UNKNOWN \r\n".len();
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(padding)).into_bytes()
    };
    let binary = |len: usize| {
        let length = (len as u16).to_be_bytes();
        let addresses = [127, 0, 0, 3, 127, 0, 0, 1, 0x30, 0x39, 0x0b, 0xb8];
        let rest = vec![4; len - addresses.len()];
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
        [&head[..], &length, &addresses, &rest].concat()
    };
    vec![
        Row::legal(
            &["GET /ws"],
            "a head of 16 KiB",
            with_headers(CLIENT_HEAD_BYTES, Expected::Close(1000)),
        )
        .beyond(with_headers(CLIENT_HEAD_BYTES + 1, Expected::Status(431))),
        Row::refused(
            &["GET /ws"],
            "a head of 16 KiB without end",
            Attack::Held {
                listener: Listener::Client,
                bytes: vec![b'G'; CLIENT_HEAD_BYTES - 1].into(),
            },
        ),
        Row::legal(
            &["token"],
            "a grant in 8 KiB",
            with_tokens(&world.long_tokens, Expected::Close(1000)),
        )
        .beyond(with_tokens(&world.too_long_tokens, Expected::Status(401))),
        Row::refused(
            &["token"],
            "forged for four keys of P-384",
            with_tokens(&world.forged, Expected::Status(401)),
        ),
        Row::legal(
            &["PROXY header"],
            "a line of 107 bytes",
            behind(line(107), Expected::Close(1000)),
        )
        .beyond(behind(line(108), Expected::Close(0))),
        Row::legal(
            &["PROXY header"],
            "4 KiB of version 2",
            behind(binary(4 * KIB), Expected::Close(1000)),
        )
        .beyond(behind(binary(4 * KIB + 1), Expected::Close(0))),
        Row::refused(
            &["PROXY header"],
            "a line without end",
            behind(line(200), Expected::Close(0)),
        ),
    ]
}

/// Returns the rows of a relay with TLS. `config` is of a client that trusts it.
pub(super) fn tls_rows(config: &Arc<ClientConfig>) -> Vec<Row> {
    let mut config = ClientConfig::clone(config);
    // Each handshake has a signature.
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let hello: Arc<[u8]> = hello(&config).into();
    let hello = |is_awaited| Attack::Hello {
        bytes: Arc::clone(&hello),
        is_awaited,
    };
    let entry = ["TLS ClientHello"];
    vec![
        Row::legal(&entry, "a whole handshake", Attack::Tls(config)),
        Row::refused(&entry, "left when it is answered", hello(true)),
        Row::refused(&entry, "left when it is sent", hello(false)),
    ]
}

fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
