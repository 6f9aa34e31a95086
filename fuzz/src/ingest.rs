//! The body of a backend's call and the events that it becomes. The first byte selects JSON
//! or protobuf, one event or a batch, and whether the call names a topic.

use std::sync::{Arc, LazyLock};

use sidewire::{
    config::Config,
    event::EventDraft,
    ingest::fuzzing::{event, events},
    memory::{MemoryAccount, MemoryUse},
    relay::{LiveSettings, Relay, RelayBuilder},
};
use sidewire_protocol::{Epoch, Position, Topic, random::RandomSource};
use tokio::time::Instant;

use crate::{
    schemas::BUNDLED,
    seeds::{self, Seeds},
};

const IS_JSON: u8 = 1;
const IS_BATCH: u8 = 2;
const HAS_TOPIC: u8 = 4;

static RELAY: LazyLock<Arc<Relay>> = LazyLock::new(relay);
static ACCOUNT: LazyLock<Arc<MemoryAccount>> = LazyLock::new(Arc::default);

/// Handles one body.
pub fn run(input: &[u8]) {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let has = |flag: u8| first & flag != 0;
    let topic = Topic::parse("project:of-the-call").expect("it is a topic");
    let topics: &[_] = if has(HAS_TOPIC) { &[topic] } else { &[] };
    let call = || {
        if has(IS_BATCH) {
            events(&RELAY, body, has(IS_JSON), topics)
        } else {
            event(&RELAY, body, has(IS_JSON), topics).map(|draft| vec![draft])
        }
    };
    match (call(), call()) {
        (Ok(drafts), Ok(again)) => {
            assert!(!drafts.is_empty() && drafts.len() == again.len());
            for (draft, again) in drafts.into_iter().zip(again) {
                check(draft, again);
            }
        }
        (Err(problem), Err(again)) => {
            assert_eq!(problem, again, "the same body, twice");
            assert!(problem.status().is_client_error(), "{problem:?}");
            drop(problem.into_response());
        }
        (one, other) => panic!("the same body, twice: {one:?} and {other:?}"),
    }
    assert_eq!(
        ACCOUNT.held_bytes(MemoryUse::Events),
        0,
        "the account of bytes"
    );
}

/// Checks that an event is an envelope with all fields that the relay adds, each once, and
/// that the same body makes the same event.
fn check(draft: EventDraft, again: EventDraft) {
    let (id, topics) = (draft.message_id().clone(), Arc::clone(draft.topics()));
    let position = Position {
        epoch: Epoch::from_bits(7),
        offset: u64::MAX,
    };
    let now = Instant::now();
    let placed = draft.into_event(position, &ACCOUNT, now);
    let envelope = placed.envelope();
    let inspected = BUNDLED.inspect(&envelope).expect("an event is an envelope");
    assert_eq!(inspected.message_id, Some(id.as_str()));
    assert!(inspected.has_position && inspected.timestamp.is_some());
    assert!(inspected.extra_topics.is_empty() && inspected.payload.is_some());
    assert!(!topics.is_empty() && topics.len() <= RELAY.live().config.limits.topics_per_event);
    assert!(inspected.topics.iter().all(|topic| topics.contains(topic)));
    assert_eq!(&topics, again.topics());
    if *again.message_id() == id {
        assert_eq!(
            again.into_event(position, &ACCOUNT, now).frame(),
            placed.frame()
        );
    }
}

/// Returns a relay without shards.
fn relay() -> Arc<Relay> {
    let mut config = Config::default();
    config.limits.topics_per_event = 8;
    config.ingest.batch_events_max = 8;
    let live = LiveSettings::open(config, BUNDLED.clone());
    let builder = RelayBuilder::new(live, RandomSource::from_seed(1));
    builder.shards(0).build().relay
}

/// Returns each event in all four forms, and bodies that are refused.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |name: &str, flags: u8, body: &[u8]| {
        seeds.insert(name.to_owned(), [&[flags][..], body].concat());
    };
    for (name, json) in seeds::events() {
        let batch = format!(r#"{{"messages":[{json},{json}]}}"#);
        let encode = |what: Result<Vec<u8>, _>| what.expect("an example is an event");
        add(&format!("{name}-json"), IS_JSON, json.as_bytes());
        add(
            &name,
            0,
            &encode(BUNDLED.envelope_from_json(json.as_bytes())),
        );
        if name.starts_with("work_item") {
            add(
                &format!("{name}-batch-json"),
                IS_JSON | IS_BATCH,
                batch.as_bytes(),
            );
            let batch = encode(BUNDLED.batch_from_json(batch.as_bytes(), usize::MAX));
            add(&format!("{name}-batch"), IS_BATCH, &batch);
        }
    }
    for (name, json) in ODD {
        add(name, IS_JSON | HAS_TOPIC, json.as_bytes());
    }
    for (name, json) in ODD_BATCHES {
        add(name, IS_JSON | IS_BATCH, json.as_bytes());
    }
    seeds
}

const ODD: &[(&str, &str)] = &[
    ("odd-empty", "{}"),
    ("odd-control", r#"{"ping":{}}"#),
    ("odd-no-topic", r#"{"sprintStarted":{}}"#),
    (
        "odd-extra-topics",
        r#"{"sprintStarted":{},"topics":["room:1","tenant:*","user:ann"]}"#,
    ),
    (
        "odd-wildcard",
        r#"{"sprintStarted":{"sprintId":"*"},"topics":["room:*"]}"#,
    ),
    (
        "odd-position",
        r#"{"sprintStarted":{"sprintId":"s"},"position":{"epoch":"e","offset":"1"}}"#,
    ),
    (
        "odd-two-payloads",
        r#"{"sprintStarted":{"sprintId":"s"},"userTyping":{"isTyping":true}}"#,
    ),
    ("odd-unknown-field", r#"{"sprintStarted":{"sprintID":"s"}}"#),
    (
        "odd-names",
        r#"{"sprint_started":{"sprint_id":"s","sprintId":"s"},"message_id":"x"}"#,
    ),
    (
        "odd-numbers",
        r#"{"sprintStarted":{"sprintId":"s","startDate":1e3},"timestamp":-1.0}"#,
    ),
    (
        "odd-null",
        r#"{"sprintStarted":{"sprintId":"s"},"messageId":null,"topics":null}"#,
    ),
    (
        "odd-escapes",
        r#"{"sprintStarted":{"sprintId":"\u00e4\ud83d\ude00\u0000"}}"#,
    ),
    (
        "odd-enum",
        r#"{"workItemCreated":{"workItem":{"id":"w","itemType":3}}}"#,
    ),
    (
        "odd-many-topics",
        r#"{"sprintStarted":{"sprintId":"s"},"topics":["a:1","a:2","a:3","a:4","a:5","a:6","a:7","a:7"]}"#,
    ),
    (
        "odd-too-many-topics",
        r#"{"sprintStarted":{"sprintId":"s"},"topics":["a:1","a:2","a:3","a:4","a:5","a:6","a:7","a:8"]}"#,
    ),
    (
        "odd-oneof-optional",
        r#"{"userPresence":{"userId":"ann","projectId":"p","status":"PRESENCE_STATUS_ONLINE"}}"#,
    ),
];

const ODD_BATCHES: &[(&str, &str)] = &[
    ("batch-empty", r#"{"messages":[]}"#),
    (
        "batch-several",
        r#"{"messages":[{"messageId":"a","sprintStarted":{"sprintId":"s"}},
            {"sprintCompleted":{"sprintId":"s","endDate":"1"}},{"ping":{}}]}"#,
    ),
    (
        "batch-too-many",
        r#"{"messages":[{},{},{},{},{},{},{},{},{},{}]}"#,
    ),
    (
        "batch-nested",
        r#"{"messages":[{"batch":{"messages":[{"ping":{}}]}}]}"#,
    ),
];
