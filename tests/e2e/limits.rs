//! Rates and caps, over real sockets. Buckets are small and fill slowly, so that the
//! results do not depend on how long a test takes.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use serde_json::{Value, json};
use sidewire::config::{Config, LimitsOverride};
use sidewire_protocol::TenantName;
use sidewire_testing::{
    http::{Answer, bearer, handshake},
    websocket::binary,
};
use tokio::{net::TcpSocket, time::timeout};

use crate::{
    ingest_support::{BATCH, Call, EVENTS, JSON},
    raw::{RawClient, http, http_over},
    support::{ACME_KEY, PATIENCE, TestRelay, token},
    vocabulary::{created, is_created, named, subscribe},
};

const HOUR: Duration = Duration::from_hours(1);

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn override_of(tenant: &str) -> LimitsOverride {
    LimitsOverride {
        tenants: vec![TenantName::parse(tenant).unwrap()],
        ..LimitsOverride::default()
    }
}

/// Returns the answer to a handshake.
async fn ask(relay: &TestRelay, tenant: &str, user: &str) -> Answer {
    let request = handshake(&bearer(&token(tenant, user)));
    let (answer, client) = RawClient::ask(relay.addresses.client, request.as_bytes()).await;
    assert_eq!(answer.headers["connection"], "close");
    client.ended().await;
    answer
}

fn assert_over(answer: &Answer, status: u16, seconds: std::ops::RangeInclusive<u64>) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.problem_code(), "RATE_LIMIT_EXCEEDED");
    let after: u64 = answer.headers["retry-after"].parse().unwrap();
    assert!(seconds.contains(&after), "{after}");
}

fn exceeded(metrics: &BTreeMap<String, f64>, limit: &str) -> f64 {
    metrics[&format!("sidewire_limits_exceeded_total{{limit=\"{limit}\"}}")]
}

async fn assert_exceeded(relay: &TestRelay, limit: &str, times: f64) {
    relay
        .metrics_where(|metrics| exceeded(metrics, limit) == times)
        .await;
}

#[tokio::test]
async fn a_connection_over_a_cap_is_refused_and_open_ones_stay() {
    type Settings = fn(&mut Config);
    let cases: [(&str, u16, Settings); 4] = [
        ("connections", 503, |it| {
            it.limits.connections = Some(count(2));
        }),
        ("tenant_connections", 429, |it| {
            it.limits.connections_per_tenant = Some(count(2));
        }),
        ("user_connections", 429, |it| {
            it.limits.connections_per_user = Some(count(2));
        }),
        ("address_connections", 429, |it| {
            it.limits.connections_per_address = Some(count(2));
        }),
    ];
    for (limit, status, settings) in cases {
        let relay = TestRelay::with(settings);
        let mut first = relay.connect("acme", "ann").await;
        let mut second = relay.connect("acme", "ann").await;
        assert_over(&ask(&relay, "acme", "ann").await, status, 1..=10);
        assert_exceeded(&relay, limit, 1.0).await;
        let refused = format!("sidewire_handshakes_refused_total{{status=\"{status}\"}}");
        assert_eq!(relay.metrics().await[&refused], 1.0);
        first.nothing_more().await;
        second.nothing_more().await;
        match limit {
            "user_connections" => relay.connect("acme", "bob").await.nothing_more().await,
            "tenant_connections" => relay.connect("globex", "ann").await.nothing_more().await,
            "address_connections" => assert_eq!(ask_from([127, 0, 0, 2], &relay).await, 101),
            _ => {}
        }
        drop(first);
        relay
            .metrics_where(|metrics| metrics["sidewire_connections"] == 1.0)
            .await;
        relay.connect("acme", "ann").await.nothing_more().await;
        assert!(relay.stop().await);
    }
}

/// Returns the status of a handshake from another address.
async fn ask_from(address: [u8; 4], relay: &TestRelay) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    let stream = socket.connect(relay.addresses.client).await.unwrap();
    let request = handshake(&bearer(&token("acme", "ann")));
    http_over(stream, &request, b"").await.status
}

#[tokio::test]
async fn a_tenant_may_have_its_own_caps() {
    let relay = TestRelay::with(|it| {
        it.limits.connections_per_tenant = Some(count(1));
        it.limits.overrides = vec![LimitsOverride {
            connections_per_tenant: Some(count(2)),
            ..override_of("acme")
        }];
    });
    let _acme = [
        relay.connect("acme", "ann").await,
        relay.connect("acme", "bob").await,
    ];
    let _globex = relay.connect("globex", "ann").await;
    for tenant in ["acme", "globex"] {
        assert_over(&ask(&relay, tenant, "cid").await, 429, 1..=10);
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn too_many_handshakes_get_429_for_a_user_and_503_for_all() {
    let relay = TestRelay::with(|it| it.limits.user_handshakes_per_minute = Some(count(2)));
    for _ in 0..2 {
        relay.connect("acme", "ann").await.nothing_more().await;
    }
    assert_over(&ask(&relay, "acme", "ann").await, 429, 1..=30);
    assert_exceeded(&relay, "user_handshakes", 1.0).await;
    relay.connect("acme", "bob").await.nothing_more().await;
    assert!(relay.stop().await);

    let relay = TestRelay::with(|it| it.limits.handshakes_per_second = Some(count(1)));
    // Sends two at once, and repeats this until both arrive within a second.
    let both_within_a_second = async {
        loop {
            let request = handshake(&bearer(&token("acme", "ann")));
            let one = || RawClient::ask(relay.addresses.client, request.as_bytes());
            let ((one, _), (other, _)) = tokio::join!(one(), one());
            if let Some(refused) = [one, other].into_iter().find(|it| it.status != 101) {
                return refused;
            }
        }
    };
    let refused = timeout(PATIENCE, both_within_a_second).await.unwrap();
    assert_over(&refused, 503, 1..=1);
    relay
        .metrics_where(|metrics| exceeded(metrics, "handshakes") >= 1.0)
        .await;
    assert!(relay.stop().await);
}

/// Sends a handshake with this token and these header lines.
async fn ask_with(relay: &TestRelay, token: &str, headers: &str) -> Answer {
    let request = handshake(&format!("{}{headers}", bearer(token)));
    RawClient::ask(relay.addresses.client, request.as_bytes())
        .await
        .0
}

#[tokio::test]
async fn too_many_handshakes_from_an_address_get_429_whatever_their_user() {
    let relay = TestRelay::with(|it| it.limits.address_handshakes_per_minute = count(3));
    // The limit applies before the token is checked, so a bad token counts too.
    for _ in 0..2 {
        assert_eq!(ask_with(&relay, "a.b.c", "").await.status, 401);
    }
    relay.connect("acme", "ann").await.nothing_more().await;
    assert_over(&ask(&relay, "globex", "bob").await, 429, 1..=20);
    assert_exceeded(&relay, "address_handshakes", 1.0).await;
    // Headers from a peer that is not a trusted proxy are ignored.
    let forwarded = "X-Forwarded-For: 203.0.113.9\r\n";
    let answer = ask_with(&relay, &token("acme", "ann"), forwarded).await;
    assert_over(&answer, 429, 1..=20);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_trusted_proxy_is_not_counted_but_its_clients_are() {
    let relay = TestRelay::with(|it| {
        it.limits.address_handshakes_per_minute = count(1);
        it.client.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let token = token("acme", "ann");
    for _ in 0..3 {
        assert_eq!(ask_with(&relay, &token, "").await.status, 101);
    }
    for (address, status) in [
        ("203.0.113.9", 101),
        ("203.0.113.9", 429),
        ("203.0.113.10", 101),
        ("2001:db8:0:1::1", 101),
        ("2001:db8:0:1::2", 429),
        ("2001:db8:0:2::1", 101),
    ] {
        let forwarded = format!("X-Forwarded-For: {address}\r\n");
        let answer = ask_with(&relay, &token, &forwarded).await;
        assert_eq!(answer.status, status, "{address}");
    }
    assert!(relay.stop().await);
}

/// Receives the next envelope and returns its `error`.
async fn error(client: &mut RawClient, relay: &TestRelay) -> Value {
    client.envelope(relay).await["error"].clone()
}

fn assert_limited(error: &Value, id: &str, millis_max: u64) {
    assert_eq!(error["errorCode"], "RATE_LIMIT_EXCEEDED", "{error}");
    assert_eq!(
        error["requestMessageId"].as_str().unwrap_or(""),
        id,
        "{error}"
    );
    let after: u64 = error["retryAfterMs"].as_str().unwrap().parse().unwrap();
    assert!((1..=millis_max).contains(&after), "{after}");
}

#[tokio::test]
async fn a_user_over_its_rate_gets_a_retry_delay_and_others_do_not() {
    let relay = TestRelay::with(|it| {
        it.limits.user_burst = count(2);
        it.limits.user_period = HOUR;
    });
    let mut ann = RawClient::open(&relay, "acme", "ann").await;
    let subscribe_to = |id: &str| named(id, subscribe(&[&format!("project:{id}")]));
    // The first is free.
    for id in ["s1", "s2", "s3"] {
        ann.say(&relay, subscribe_to(id)).await;
        let confirmed = &ann.envelope(&relay).await["subscriptionConfirmed"];
        assert_eq!(confirmed["requestMessageId"], id);
    }
    ann.say(&relay, subscribe_to("s4")).await;
    assert_limited(&error(&mut ann, &relay).await, "s4", 1_800_000);
    ann.send(&binary(&[0xff])).await;
    assert_limited(&error(&mut ann, &relay).await, "", 1_800_000);
    // It had no effect, and the connection stays open.
    assert_eq!(relay.metrics().await["sidewire_subscriptions"], 3.0);
    ann.nothing_more(&relay).await;
    relay.publish("acme", created("s3")).await;
    assert!(is_created(&ann.envelope(&relay).await));
    let mut bob = RawClient::open(&relay, "acme", "bob").await;
    for id in ["s1", "s2", "s3"] {
        bob.say(&relay, subscribe_to(id)).await;
        assert!(bob.envelope(&relay).await["subscriptionConfirmed"].is_object());
    }
    assert_exceeded(&relay, "user_messages", 2.0).await;
    drop((ann, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn messages_other_than_subscribe_are_charged_to_the_tenant_too() {
    let relay = TestRelay::with(|it| {
        it.limits.tenant_burst = count(2);
        it.limits.tenant_period = HOUR;
        it.limits.overrides = vec![LimitsOverride {
            tenant_burst: Some(count(3)),
            ..override_of("globex")
        }];
    });
    for (tenant, burst) in [("acme", 2), ("globex", 3)] {
        for number in 0..burst {
            let user = format!("user-{number}");
            let mut client = RawClient::open(&relay, tenant, &user).await;
            client.send(&binary(b"")).await;
            let error = error(&mut client, &relay).await;
            assert_eq!(error["errorCode"], "VALIDATION_ERROR");
        }
        let mut late = RawClient::open(&relay, tenant, "late").await;
        late.say(&relay, json!({"messageId": "m", "pong": {}}))
            .await;
        assert_limited(&error(&mut late, &relay).await, "m", 1_800_000);
        for id in ["s1", "s2"] {
            late.say(&relay, json!({"messageId": id, "subscribe": {}}))
                .await;
            assert!(late.envelope(&relay).await["subscriptionConfirmed"].is_object());
        }
    }
    assert_exceeded(&relay, "tenant_messages", 2.0).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn pings_have_their_own_bucket() {
    let relay = TestRelay::with(|it| {
        it.limits.user_burst = count(1);
        it.limits.heartbeat_burst = count(2);
        it.limits.heartbeat_period = HOUR;
    });
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    client.nothing_more(&relay).await;
    client.nothing_more(&relay).await;
    client
        .say(&relay, json!({"messageId": "p", "ping": {}}))
        .await;
    assert_limited(&error(&mut client, &relay).await, "p", 1_800_000);
    // It was not charged to the user.
    client.send(&binary(b"")).await;
    let error = error(&mut client, &relay).await;
    assert_eq!(error["errorCode"], "VALIDATION_ERROR");
    assert_exceeded(&relay, "heartbeats", 1.0).await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_keeps_being_refused_is_closed_with_4005() {
    let relay = TestRelay::start();
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    client.send(&binary(&[0xff]).repeat(150)).await;
    for _ in 0..100 {
        let error = error(&mut client, &relay).await;
        assert_eq!(error["errorCode"], "VALIDATION_ERROR");
    }
    assert_eq!(client.closed().await.0, 4005);
    let closed = "sidewire_connections_closed_total{transport=\"websocket\",reason=\"refused\"}";
    relay.metrics_where(|metrics| metrics[closed] == 1.0).await;
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_event_posted_over_the_rate_gets_429_until_the_delay_is_over() {
    let relay = TestRelay::with(|it| {
        it.ingest.tenant_burst = Some(count(3));
        it.ingest.tenant_period = HOUR;
        it.ingest.keys[1].burst = Some(count(1));
        it.ingest.keys[1].period = Some(HOUR);
        it.limits.overrides = vec![LimitsOverride {
            ingest_burst: Some(count(1)),
            ingest_period: Some(Duration::from_millis(50)),
            ..override_of("quick")
        }];
    });
    let event = created("p1");
    let one = Call::event(EVENTS, &event);
    let batch = |len: usize| {
        let batch = json!({"messages": vec![event.clone(); len]});
        Call::post(BATCH, JSON, batch.to_string())
    };
    assert_eq!(batch(2).answer(&relay).await.status, 200);
    // The first event is charged before it is known that there are two.
    assert_over(&batch(2).answer(&relay).await, 429, 1..=3600);
    assert_over(&one.answer(&relay).await, 429, 1..=1200);
    let other = Call::event("/v1/tenants/globex/events", &event);
    assert_eq!(other.answer(&relay).await.status, 200);
    // No event of the refused batch is in the log.
    assert_exceeded(&relay, "ingest_tenant", 2.0).await;
    assert_eq!(relay.metrics().await["sidewire_events_ingested_total"], 3.0);

    let quick = Call::event("/v1/tenants/quick/events", &event);
    for _ in 0..3 {
        let again = async {
            loop {
                let answer = quick.answer(&relay).await;
                match answer.status {
                    200 => return,
                    _ => assert_over(&answer, 429, 1..=1),
                }
            }
        };
        timeout(PATIENCE, again).await.expect("its time comes");
    }
    assert!(relay.stop().await);

    let relay = TestRelay::with(|it| {
        it.ingest.keys[1].burst = Some(count(1));
        it.ingest.keys[1].period = Some(HOUR);
    });
    let with_key = |key: &str| {
        Call::new("POST", EVENTS)
            .key(key)
            .header("Content-Type: application/json")
            .body(event.to_string())
    };
    assert_eq!(with_key(ACME_KEY).answer(&relay).await.status, 200);
    assert_over(&with_key(ACME_KEY).answer(&relay).await, 429, 1..=3600);
    assert_eq!(one.answer(&relay).await.status, 200);
    assert_exceeded(&relay, "ingest_key", 1.0).await;
    let answered = "sidewire_ingest_requests_total{status=\"429\"}";
    assert_eq!(relay.metrics().await[answered], 1.0);
    assert!(relay.stop().await);
}

/// Number of topics subscribed to in all, and of tenants and paths that do not exist.
const NAMES: usize = 3_000;
/// Used before a release, with `SIDEWIRE_FULL_SIZE` set.
const NAMES_FULL: usize = 1_000_000;
const NAMES_PER_SUBSCRIBE: usize = 100;
const ODD: usize = 100;

#[tokio::test]
async fn names_without_end_are_stopped_by_the_caps_and_add_no_metric_series() {
    let all_names = if std::env::var_os("SIDEWIRE_FULL_SIZE").is_some() {
        NAMES_FULL
    } else {
        NAMES
    };
    let relay = TestRelay::with(|it| {
        it.limits.refusals_per_minute = count(10_000);
        it.limits.topics_per_connection = 1_000;
        it.limits.tenants = 20;
        it.replay.enabled = false;
        // Every name must be inspected.
        it.limits.user_burst = count(100_000);
    });
    let mut client = RawClient::open(&relay, "acme", "ann").await;
    // With that of the tenant, which has a connection.
    let series = relay.metrics().await.into_keys().collect::<Vec<_>>();
    let (mut confirmed, mut refused) = (0, 0);
    for from in (0..all_names).step_by(NAMES_PER_SUBSCRIBE) {
        let names = from..from + NAMES_PER_SUBSCRIBE;
        let topics: Vec<_> = names.map(|it| format!("odd_{}:{it}", it % 50)).collect();
        client
            .say(&relay, json!({"subscribe": {"topics": topics}}))
            .await;
        let answer = client.envelope(&relay).await;
        match answer["error"]["errorCode"].as_str() {
            None => confirmed += 1,
            Some("VALIDATION_ERROR") => refused += 1,
            Some(other) => panic!("{other}"),
        }
    }
    assert_eq!(
        (confirmed, refused),
        (10, all_names / NAMES_PER_SUBSCRIBE - 10)
    );
    assert_exceeded(&relay, "topics", refused as f64).await;
    let mut full = 0;
    for number in 0..ODD {
        let event = created("p1");
        let target = format!("/v1/tenants/odd-{number}/events");
        let answer = Call::event(&target, &event).answer(&relay).await;
        full += usize::from(answer.status == 503);
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        for address in [
            relay.addresses.client,
            relay.addresses.ingest,
            relay.addresses.ops,
        ] {
            let line = format!("GET /odd/{number} HTTP/1.1\r\n");
            let answer = http(address, &line, "Connection: close\r\n", b"").await;
            assert!(matches!(answer.status, 401 | 404), "{}", answer.status);
        }
    }
    let metrics = relay.metrics().await;
    assert_eq!(exceeded(&metrics, "tenants"), full as f64);
    assert!(metrics["sidewire_tenants"] <= 20.0);
    assert_eq!(metrics.into_keys().collect::<Vec<_>>(), series);
    drop(client);
    relay
        .metrics_where(|metrics| {
            metrics["sidewire_subscriptions"] + metrics["sidewire_connections"] == 0.0
        })
        .await;
    assert!(relay.stop().await);
}
