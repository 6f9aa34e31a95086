//! A client's frame and its answer.

use std::{collections::HashSet, sync::LazyLock};

use sidewire::{
    auth::Grant,
    config::Config,
    connection::{
        ClientEventRequest, ClientRequest, Conversation, ConversationAction, ConversationLimits,
        PresenceChange,
    },
};
use sidewire_protocol::{Topic, UserName, reply::Reply, schema::PayloadKind};

use crate::{
    schemas::BUNDLED,
    seeds::{Seeds, events, noise},
};

const NOW: i64 = 1_800_000_000;
const TOPICS_MAX: usize = 8;

static USER: LazyLock<UserName> = LazyLock::new(|| UserName::parse("ann").expect("it is a name"));

static GRANTS: LazyLock<[Grant; 2]> = LazyLock::new(|| {
    let listed = ["project:p1", "sprint:*", "user:ann"]
        .map(|text| Topic::parse(text).expect("it is a topic"));
    [Grant::Everything, Grant::from_topics(listed)]
});

fn limits() -> ConversationLimits {
    ConversationLimits {
        topics_per_subscribe: TOPICS_MAX,
        ..(&Config::default()).into()
    }
}

/// Handles one frame.
pub fn run(frame: &[u8]) {
    for grant in GRANTS.iter() {
        let conversation = Conversation::new(&USER, grant, limits());
        let action = conversation.handle_frame(&BUNDLED, frame, NOW);
        let again = conversation.handle_frame(&BUNDLED, frame, NOW);
        assert_eq!(action, again, "the same frame, twice");
        match action {
            ConversationAction::Reply(reply) => check_reply(&reply, frame),
            ConversationAction::Request(request) => check_topics(&request, grant),
            // The token is checked elsewhere.
            ConversationAction::RenewToken(_) => {}
            ConversationAction::Relay(event) => check_event(&event, grant),
            ConversationAction::ReadClientEvent { envelope, .. } => assert_eq!(envelope, frame),
        }
    }
}

/// Checks that an answer is an envelope of a control message, and that its contents are valid.
fn check_reply(reply: &Reply, frame: &[u8]) {
    let envelope = reply.to_envelope("id", NOW);
    let inspected = BUNDLED
        .inspect(&envelope)
        .expect("an answer is an envelope");
    let payload = inspected.payload.expect("an answer has a payload");
    assert!(matches!(payload.kind, PayloadKind::Control(_)));
    BUNDLED
        .envelope_to_json(&envelope)
        .expect("an answer has a JSON form");
    if let Reply::Error(refusal) = reply {
        let id = &refusal.request_message_id;
        assert!(
            id.len() <= 128 && !id.chars().any(char::is_control),
            "{id:?}"
        );
        assert!(!refusal.message.is_empty());
    } else {
        assert!(BUNDLED.inspect(frame).is_ok(), "{reply:?}");
    }
}

/// Checks that the topics are within the bounds, each once, and those of a Subscribe within the
/// grant.
fn check_topics(request: &ClientRequest, grant: &Grant) {
    let topics = &request.contents().topics;
    assert!(topics.len() <= TOPICS_MAX);
    assert_eq!(topics.iter().collect::<HashSet<_>>().len(), topics.len());
    for topic in topics {
        let is_granted = grant.allows(topic) && !topic.is_implicit();
        let needs_grant = matches!(request, ClientRequest::Subscribe(_));
        assert!(is_granted || !needs_grant, "{topic}");
    }
}

/// Checks that the topics of an event for other clients are within the bounds and the grant, and
/// that it has the sender. A message that withdraws the client's presence may name any topics.
fn check_event(event: &ClientEventRequest, grant: &Grant) {
    let is_sent = event.presence != Some(PresenceChange::Withdrawn);
    assert!(event.topics.len() <= limits().events.topics);
    assert!(!is_sent || !event.topics.is_empty());
    for topic in &event.topics {
        assert!(!topic.is_wildcard());
        assert!(!is_sent || grant.allows(topic) && !topic.is_implicit());
    }
    let json = BUNDLED
        .envelope_to_json(&event.field)
        .expect("it is an envelope");
    let payload = json.as_object().and_then(|it| it.values().next());
    let sender = payload.and_then(|payload| payload.get("userId"));
    assert_eq!(sender.and_then(|it| it.as_str()), Some(USER.as_str()));
}

/// Returns frames that clients may send, and frames that they may not.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, json) in CONTROL {
        seeds.insert((*name).to_owned(), encode(json));
    }
    for (name, json) in events() {
        seeds.insert(name, encode(&json));
    }
    for number in 0..5 {
        seeds.insert(format!("noise-{number}"), noise(number, 40));
    }
    seeds
}

fn encode(json: &str) -> Vec<u8> {
    let envelope = BUNDLED.envelope_from_json(json.as_bytes());
    envelope.expect("an example is an envelope")
}

pub(crate) const CONTROL: &[(&str, &str)] = &[
    ("empty", "{}"),
    (
        "ping",
        r#"{"messageId":"p1","ping":{"timestamp":"1795303846"}}"#,
    ),
    (
        "pong",
        r#"{"messageId":"p1","pong":{"timestamp":"1","clientTimestamp":"2"}}"#,
    ),
    ("subscribe-nothing", r#"{"messageId":"s0","subscribe":{}}"#),
    (
        "subscribe",
        r#"{"messageId":"s1","timestamp":"1800000000","subscribe":{"projectIds":["p1","p1"],
            "sprintIds":["s1"],"workItemIds":["w1"],"topics":["project:p1","room:r1"]}}"#,
    ),
    (
        "subscribe-granted",
        r#"{"messageId":"s1","subscribe":{"projectIds":["p1"],"sprintIds":["s1"]}}"#,
    ),
    (
        "subscribe-resume",
        r#"{"messageId":"s2","subscribe":{"projectIds":["p1"],
            "resumeFrom":{"epoch":"0123456789abcdef0123456789abcdef","offset":"7"}}}"#,
    ),
    (
        "subscribe-wildcard",
        r#"{"messageId":"s3","subscribe":{"topics":["project:*"]}}"#,
    ),
    (
        "subscribe-implicit",
        r#"{"messageId":"s4","subscribe":{"topics":["user:ann","tenant:*"]}}"#,
    ),
    (
        "subscribe-malformed",
        r#"{"messageId":"s5","subscribe":{"topics":["Project", "a:", ":b"]}}"#,
    ),
    (
        "subscribe-too-many",
        r#"{"messageId":"s6","subscribe":{"projectIds":["1","2","3","4","5","6","7","8","9"]}}"#,
    ),
    (
        "unsubscribe",
        r#"{"messageId":"u1","unsubscribe":{"projectIds":["p1"],"topics":["room:r1"]}}"#,
    ),
    (
        "confirmed",
        r#"{"messageId":"c","subscriptionConfirmed":{"replayed":"3","recovered":true}}"#,
    ),
    (
        "error",
        r#"{"messageId":"e","error":{"errorCode":"CONFLICT","retryAfterMs":"5"}}"#,
    ),
    (
        "batch",
        r#"{"messageId":"b","batch":{"messages":[{"ping":{}}]}}"#,
    ),
    (
        "position",
        r#"{"messageId":"x","position":{"epoch":"e","offset":"1"},"ping":{}}"#,
    ),
    (
        "presence",
        r#"{"messageId":"x","userPresence":{"userId":"ann","projectId":"p1"}}"#,
    ),
    (
        "presence-withdrawn",
        r#"{"messageId":"x","userPresence":{"status":"PRESENCE_STATUS_OFFLINE"}}"#,
    ),
    (
        "extra-topics",
        r#"{"messageId":"x","topics":["a:b","a:b"],"ping":{}}"#,
    ),
];
