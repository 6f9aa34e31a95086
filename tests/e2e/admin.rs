//! Calls of backends other than publishing: inspecting a tenant, and disconnecting a user.

use std::time::Duration;

use serde_json::json;
use sidewire_protocol::wire;
use sidewire_testing::{http::Answer, socket::Socket};

use crate::{
    ingest_support::{Backend, Call, EVENTS, invalid, refusal},
    raw::RawClient,
    support::{ACME_KEY, INGEST_KEY, TestRelay},
    vocabulary::created,
};

const ACME: &str = "/v1/tenants/acme";
const ANN: &str = "/v1/tenants/acme/users/ann/connections";

async fn ask(relay: &TestRelay, method: &str, target: &str) -> Answer {
    Call::new(method, target)
        .key(INGEST_KEY)
        .answer(relay)
        .await
}

/// Disconnects the target and returns how many connections the call has closed.
async fn disconnect(relay: &TestRelay, target: &str) -> u64 {
    let answer = ask(relay, "DELETE", target).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["content-type"], "application/json");
    let closed = answer.json()["closed"].as_u64().unwrap();
    assert_eq!(answer.json(), json!({ "closed": closed }));
    closed
}

#[tokio::test]
async fn a_long_unexpected_body_ends_the_connection_and_the_answer_says_so() {
    let relay = TestRelay::start();
    let mut ann = relay.connect("acme", "ann").await;
    for (method, target) in [("GET", ACME), ("DELETE", ANN)] {
        let call = |len| {
            Call::new(method, target)
                .key(INGEST_KEY)
                .body("x".repeat(len))
        };
        let mut backend = Backend::connect(&relay).await;
        let answer = backend.call(&call(17 * 1024)).await;
        assert_eq!(refusal(&answer), (400, "VALIDATION_ERROR".to_owned(), None));
        assert_eq!(answer.headers["connection"], "close");
        let mut backend = Backend::connect(&relay).await;
        for _ in 0..2 {
            assert_eq!(backend.call(&call(1024)).await.status, 200);
        }
    }
    assert_eq!(ann.closed().await.0, 4002);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_user_is_disconnected_from_all_shards_and_no_other_user_is() {
    let relay = TestRelay::start();
    let mut anns = Vec::new();
    for _ in 0..4 {
        anns.push(relay.connect("acme", "ann").await);
    }
    let mut odd = relay.connect("acme", "a/b ä").await;
    let mut others = [
        relay.connect("acme", "bob").await,
        relay.connect("acme", "annabel").await,
        relay.connect("globex", "ann").await,
    ];
    for target in [
        "/v1/tenants/acme/users/nobody/connections",
        "/v1/tenants/nowhere/users/ann/connections",
    ] {
        assert_eq!(disconnect(&relay, target).await, 0);
    }
    assert_eq!(disconnect(&relay, ANN).await, 4);
    let goodbye = (4002, "disconnected by the backend".to_owned());
    for ann in &mut anns {
        assert_eq!(ann.closed().await, goodbye);
    }
    assert_eq!(disconnect(&relay, ANN).await, 0);
    let encoded = "/v1/tenants/acme/users/a%2Fb%20%C3%A4/connections";
    assert_eq!(disconnect(&relay, encoded).await, 1);
    assert_eq!(odd.closed().await, goodbye);
    for other in &mut others {
        other.nothing_more().await;
    }
    let mut back = relay.connect("acme", "ann").await;
    back.nothing_more().await;
    let series =
        "sidewire_connections_closed_total{transport=\"websocket\",reason=\"disconnected\"}";
    relay.metrics_where(|metrics| metrics[series] == 5.0).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn clients_that_are_to_come_back_are_closed_with_4006() {
    let relay = TestRelay::start();
    let mut ann = relay.connect("acme", "ann").await;
    assert_eq!(
        disconnect(&relay, &format!("{ANN}?reconnect=true")).await,
        1
    );
    let closed = (4006, "the backend asks for a new token".to_owned());
    assert_eq!(ann.closed().await, closed);
    let mut ann = relay.connect("acme", "ann").await;
    assert_eq!(
        disconnect(&relay, &format!("{ANN}?reconnect=false")).await,
        1
    );
    assert_eq!(ann.closed().await.0, 4002);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn subscriptions_end_on_all_shards_and_nothing_of_them_comes_after_the_answer() {
    let relay = TestRelay::start();
    let mut anns = Vec::new();
    for topics in [["project:p1", "board:1"], ["project:*", "board:1"]].repeat(3) {
        let mut ann = relay.connect("acme", "ann").await;
        ann.subscribe(&topics).await;
        anns.push((ann, topics[0]));
    }
    let mut bob = relay.connect("acme", "bob").await;
    bob.subscribe(&["project:p1"]).await;
    let mut namesake = relay.connect("globex", "ann").await;
    namesake.subscribe(&["project:p1"]).await;
    let end = |topics: &str| {
        let target = format!("/v1/tenants/acme/users/ann/subscriptions?{topics}");
        let relay = &relay;
        async move { ask(relay, "DELETE", &target).await.json() }
    };
    let ended = end("topic=project:p1&topic=sprint:*").await;
    assert_eq!(ended, json!({"revoked": 6}));
    let placed = relay.publish("acme", created("p1")).await;
    for (ann, topic) in &mut anns {
        let notice = ann.unsubscribed().await;
        assert_eq!(notice.request_message_id, "");
        assert_eq!(notice.topics, [*topic]);
        ann.nothing_more().await;
    }
    assert_eq!(bob.event().await.message_id, placed.message_id);
    namesake.nothing_more().await;
    assert_eq!(end("topic=board:*").await, json!({"revoked": 6}));
    assert_eq!(end("topic=board:*").await, json!({"revoked": 0}));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn each_connection_of_a_client_that_keeps_reconnecting_is_counted_once() {
    const TIMES: u64 = 30;
    let relay = TestRelay::start();
    let client = async {
        for _ in 0..TIMES {
            let mut ann = relay.connect("acme", "ann").await;
            assert_eq!(ann.closed().await.0, 4002);
        }
    };
    let backend = async {
        let mut closed = 0;
        while closed < TIMES {
            closed += disconnect(&relay, ANN).await;
        }
        closed
    };
    let ((), closed) = tokio::join!(client, backend);
    assert_eq!(closed, TIMES);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_tenant_view_covers_all_shards() {
    let relay = TestRelay::start();
    let absent = ask(&relay, "GET", ACME).await;
    assert_eq!(refusal(&absent), (404, "NOT_FOUND".to_owned(), None));

    let mut clients = Vec::new();
    for user in ["ann", "ann", "ann", "bob"] {
        let mut client = relay.connect("acme", user).await;
        client
            .subscribe(&["project:p1", &format!("board:{user}")])
            .await;
        clients.push(client);
    }
    let mut elsewhere = relay.connect("globex", "ann").await;
    elsewhere.subscribe(&["project:p9"]).await;
    let seen = ask(&relay, "GET", ACME).await;
    assert_eq!(seen.status, 200, "{}", seen.text());
    let epoch = seen.json()["log"]["head"]["epoch"].clone();
    let at = |offset: &str| json!({"epoch": epoch, "offset": offset});
    let expected =
        |log| json!({"tenant": "acme", "connections": 4, "users": 2, "topics": 3, "log": log});
    assert_eq!(
        seen.json(),
        expected(json!({"head": at("0"), "tail": at("0")}))
    );

    relay.publish("acme", created("p1")).await;
    relay.publish("acme", created("p1")).await;
    let seen = ask(&relay, "GET", ACME).await.json();
    assert_eq!(seen, expected(json!({"head": at("2"), "tail": at("0")})));
    let from = wire::Position {
        epoch: epoch.as_str().unwrap().to_owned(),
        offset: 0,
    };
    let mut resuming = relay.connect("acme", "eve").await;
    assert_eq!(resuming.resume(&["project:p1"], &from).await.replayed, 2);

    drop((clients, resuming));
    relay
        .metrics_where(|metrics| metrics["sidewire_connections"] == 1.0)
        .await;
    let left = ask(&relay, "GET", ACME).await.json();
    assert_eq!(left["connections"], 0);
    assert_eq!((&left["users"], &left["topics"]), (&json!(0), &json!(0)));
    assert_eq!(left["log"]["head"], at("2"), "events are enough");
    let mut backend = Socket::connect(relay.addresses.ingest).await.unwrap();
    let head = Call::new("HEAD", ACME).key(INGEST_KEY);
    backend.try_send(&head.bytes()).await.unwrap();
    backend.half_close().await;
    let answer = backend.next_answer(false).await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    backend.ended().await.unwrap();
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_tenant_with_only_expired_events_and_no_clients_is_not_found() {
    let relay = TestRelay::with(|config| config.replay.age = Duration::from_millis(1));
    relay.publish("acme", created("p1")).await;
    while ask(&relay, "GET", ACME).await.status != 404 {}
    let client = relay.connect("acme", "ann").await;
    let log = ask(&relay, "GET", ACME).await.json()["log"].clone();
    assert_eq!(
        (&log["head"], &log["head"]["offset"]),
        (&log["tail"], &json!("1"))
    );
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn authorization_is_checked_before_existence() {
    let relay = TestRelay::start();
    let other = "/v1/tenants/globex";
    let subscriptions = "/v1/tenants/acme/users/ann/subscriptions?topic=a:1";
    for (method, target, key, status) in [
        ("GET", ACME, None, 401),
        ("DELETE", ANN, None, 401),
        ("GET", other, Some(ACME_KEY), 403),
        ("GET", "/v1/tenants/globex/nothing", Some(ACME_KEY), 403),
        (
            "DELETE",
            "/v1/tenants/globex/users/ann/connections",
            Some(ACME_KEY),
            403,
        ),
        ("GET", ACME, Some(ACME_KEY), 404),
        ("DELETE", ANN, Some(ACME_KEY), 200),
        ("DELETE", subscriptions, Some(ACME_KEY), 200),
        ("GET", subscriptions, Some(ACME_KEY), 405),
        ("GET", "/v1/tenants/acme/users/ann", Some(ACME_KEY), 404),
        ("POST", ACME, Some(ACME_KEY), 405),
        ("DELETE", ACME, Some(ACME_KEY), 405),
        ("GET", ANN, Some(ACME_KEY), 405),
        ("GET", EVENTS, Some(ACME_KEY), 405),
    ] {
        let mut call = Call::new(method, target);
        if let Some(key) = key {
            call = call.key(key);
        }
        let answer = call.answer(&relay).await;
        assert_eq!(
            answer.status,
            status,
            "{method} {target}: {}",
            answer.text()
        );
        let allowed = match (status, target) {
            (405, ACME) => Some("GET, HEAD"),
            (405, target) if target == ANN || target == subscriptions => Some("DELETE"),
            (405, _) => Some("POST"),
            _ => None,
        };
        assert_eq!(answer.headers.get("allow").map(String::as_str), allowed);
    }
    let unnamed = "/v1/tenants/acme/users/%0A/connections";
    for (method, target, field) in [
        ("DELETE", unnamed, "user"),
        (
            "DELETE",
            "/v1/tenants/acme/users/ann/subscriptions",
            "topic",
        ),
        (
            "DELETE",
            "/v1/tenants/acme/users/ann/subscriptions?topic=user:ann",
            "topic",
        ),
        (
            "DELETE",
            "/v1/tenants/acme/users/ann/connections?reconnect=yes",
            "reconnect",
        ),
        (
            "DELETE",
            "/v1/tenants/acme/users/ann/connections?force=1",
            "force",
        ),
        ("GET", "/v1/tenants/acme?verbose", "verbose"),
    ] {
        let refused = ask(&relay, method, target).await;
        assert_eq!(refusal(&refused), invalid(Some(field)), "{target}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_relay_that_drains_neither_shows_nor_disconnects() {
    let mut relay = TestRelay::start();
    let mut rude = RawClient::open_narrow(&relay, "acme", "ann").await;
    let mut backend = Backend::connect(&relay).await;
    let look = Call::new("GET", ACME).key(INGEST_KEY);
    assert_eq!(backend.call(&look).await.status, 200);
    let drain = relay.begin_drain();
    // It does not answer the Close, so the relay waits.
    assert_eq!(rude.frame().await.close_code(), 1001);
    let mut unread = backend;
    let answer = unread.call(&look).await;
    assert_eq!(refusal(&answer), (503, "INTERNAL_ERROR".to_owned(), None));
    assert!(answer.headers.contains_key("retry-after"));
    drop(rude);
    assert!(drain.await.unwrap());
}
