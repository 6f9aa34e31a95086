//! The calls of backends and operators.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sidewire::ops;
use sidewire_testing::relay::INGEST_KEY;

use super::{FILLED, Fixture, Row, World, messages::subscribe_to_all, minted};
use crate::largest::{
    attack::{Attack, Expected, Listener, WebSocket},
    items::{
        self, BATCH_BODY_BYTES, BATCH_EVENTS, BODY_BYTES, CLIENT_HEAD_BYTES, EVENT_TOPICS,
        Encoding, INGEST_HEAD_BYTES, JSON, JSON_CHANGES, KIB, PROTOBUF, call, head_of, loud,
    },
};

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

pub(super) fn event_calls() -> Vec<Row> {
    let protobuf = ["POST /v1/tenants/{tenant}/events protobuf"];
    let json = ["POST /v1/tenants/{tenant}/events JSON"];
    let largest = items::ambiguous_event(BODY_BYTES);
    let head = "POST /v1/tenants/loud/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ";
    let head = [head, INGEST_KEY].concat();
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

pub(super) fn batch_calls(world: &World) -> Vec<Row> {
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
        INGEST_KEY
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

pub(super) fn parameters() -> Vec<Row> {
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

pub(super) fn other_calls(world: &World) -> Vec<Row> {
    let look = ["GET, HEAD /v1/tenants/{tenant}"];
    let disconnect = [
        "DELETE /v1/tenants/{tenant}/users/{user}/connections",
        "?reconnect=",
    ];
    let revoke = ["DELETE /v1/tenants/{tenant}/users/{user}/subscriptions"];
    let query = vec!["%61=%61"; 8_000].join("&");
    let path = format!("/v1/tenants/{FILLED}");
    let connections = "/v1/tenants/loud/users/eve/connections";
    let subscriptions = "/v1/tenants/loud/users/user-000/subscriptions";
    // Each of the most topics that fit into a request's head is looked up once on each connection.
    let topics: Vec<_> = (0..1_400).map(|it| format!("topic=k:{it}")).collect();
    let topics = topics.join("&");
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
            Attack::Disconnected(subscribed.clone()),
        ),
        Row::legal(
            &revoke,
            "10,000 topics of a connection",
            Attack::Revoked(subscribed, "k"),
        ),
        Row::refused(
            &revoke,
            "1,400 topics and one that nobody can have",
            ingest(
                call(
                    "DELETE",
                    &format!("{subscriptions}?{topics}&topic=user:a"),
                    "",
                    b"",
                ),
                400,
            ),
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

pub(super) fn presence_calls() -> Vec<Row> {
    let list = [
        "GET, HEAD /v1/tenants/{tenant}/presence",
        "?limit=",
        "?after=",
    ];
    let topic = |index: usize| format!("{}:{index:03}{}", "k".repeat(32), "x".repeat(253));
    let cursor = |index| URL_SAFE_NO_PAD.encode(format!("{}\n{}", topic(index), "u".repeat(128)));
    let get = |topics: usize, after: usize, status: u16| {
        let topics: Vec<_> = (0..topics)
            .map(|it| format!("topic={}", topic(it)))
            .collect();
        let (topics, after) = (topics.join("&"), cursor(after));
        let query = format!("{topics}&limit=1000&after={after}");
        let path = format!("/v1/tenants/{FILLED}/presence?{query}");
        ingest(call("GET", &path, "", b""), status)
    };
    let parameters = vec!["limit=1"; 8_000].join("&");
    let path = format!("/v1/tenants/{FILLED}/presence?{parameters}");
    vec![
        Row::legal(
            &list,
            "100 topics of maximal length",
            get(EVENT_TOPICS, 0, 200),
        )
        .beyond(get(EVENT_TOPICS + 1, 0, 400)),
        Row::refused(
            &list,
            "a cursor of another listing",
            get(EVENT_TOPICS, EVENT_TOPICS, 400),
        ),
        Row::refused(
            &list,
            "8,000 parameters",
            ingest(call("GET", &path, "", b""), 400),
        ),
    ]
}

pub(super) fn connection_calls() -> Vec<Row> {
    let list = [
        "GET, HEAD /v1/tenants/{tenant}/connections",
        "?user=",
        "?topic=",
        "?limit=",
        "?after=",
    ];
    let get = |query: &str, status: u16| {
        let path = format!("/v1/tenants/{FILLED}/connections?{query}");
        ingest(call("GET", &path, "", b""), status)
    };
    let topic = |bytes: usize| format!("{}:{}", "k".repeat(32), "x".repeat(bytes));
    let filters = |user: usize, id: usize| {
        let (user, topic) = ("u".repeat(user), topic(id));
        format!("user={user}&topic={topic}&limit=1000&after=0-{}", u64::MAX)
    };
    vec![
        Row::legal(&list, "a page of 1,000 connections", get("limit=1000", 200))
            .beyond(get("limit=1001", 400)),
        Row::legal(
            &list,
            "filters of maximal length, and the last cursor",
            get(&filters(128, 256), 200),
        )
        .beyond(get(&filters(129, 256), 400)),
        Row::refused(
            &list,
            "8,000 parameters",
            get(&vec!["limit=1"; 8_000].join("&"), 400),
        ),
    ]
}

pub(super) fn ops_calls() -> Vec<Row> {
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
