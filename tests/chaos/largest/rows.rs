//! The table of the suite: for each entry point the most expensive legal input, and the
//! most expensive refused one.

mod calls;
mod frames;
mod handshakes;
mod messages;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

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
use sidewire_testing::relay::SECRET;

use super::{
    attack::{Attack, Expected, WebSocket},
    items::{self, Encoding, HEARTBEATS, REFUSALS, loud},
};

pub(super) use handshakes::tls_rows;

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
    /// Tokens that grant nothing.
    empty_tokens: Arc<[String]>,
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
            empty_tokens: tokens(&loud, Some(Vec::new()), USERS),
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
            last_frames: Arc::default(),
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
        subscribe: None,
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
    let mut rows = calls::event_calls();
    rows.extend(calls::batch_calls(world));
    rows.extend(calls::parameters());
    rows.extend(calls::other_calls(world));
    rows.extend(calls::presence_calls());
    rows.extend(calls::connection_calls());
    rows.extend(calls::ops_calls());
    for encoding in Encoding::ALL {
        rows.extend(messages::messages(world, encoding));
    }
    rows.extend(frames::frame_kinds(world));
    rows.extend(handshakes::handshakes(world));
    rows
}
