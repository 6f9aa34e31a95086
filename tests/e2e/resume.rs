//! Clients that reconnect and resume, over real sockets.

use std::time::Duration;

use sidewire_client::ControlMessage;
use sidewire_protocol::wire::{self, Position};

use crate::{
    client::TestClient,
    support::{TestRelay, token_with},
    vocabulary::{about, also, created},
};

/// Returns the offsets of the next events.
async fn offsets(client: &mut TestClient, count: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        offsets.push(client.event().await.position.unwrap().offset);
    }
    offsets
}

async fn publish(relay: &TestRelay, project: &str, count: usize) -> Position {
    let mut last = None;
    for _ in 0..count {
        last = Some(relay.publish("acme", created(project)).await.position);
    }
    last.unwrap()
}

fn at(position: &Position, offset: u64) -> Position {
    Position {
        offset,
        ..position.clone()
    }
}

#[tokio::test]
async fn a_client_that_reconnects_gets_missed_events_and_then_new_ones() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let had = client.subscribe(&["project:p1"]).await.position.unwrap();
    drop(client);
    publish(&relay, "p1", 3).await;
    publish(&relay, "p2", 2).await;
    let head = publish(&relay, "p1", 1).await;

    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.resume(&["project:p1"], &had).await;
    assert!(confirmed.recovered);
    assert_eq!((confirmed.replayed, confirmed.position), (4, Some(head)));
    assert_eq!(offsets(&mut client, 4).await, [1, 2, 3, 6]);
    publish(&relay, "p1", 1).await;
    assert_eq!(offsets(&mut client, 1).await, [7]);
    client.nothing_more().await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_resumes_total{result=\"recovered\"}"], 1.0);
    assert_eq!(metrics["sidewire_events_replayed_total"], 4.0);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn only_the_first_resume_replays_the_implicit_topics_and_it_may_name_none() {
    let relay = TestRelay::start();
    let mut first = relay.connect("acme", "ann").await;
    let start = first.subscribe(&[]).await.position.unwrap();
    for topic in ["user:ann", "user:bob", "tenant:*"] {
        let event = also(about(&["work_item:w"]), &[topic]);
        relay.publish("acme", event).await;
    }
    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.resume(&[], &start).await;
    assert_eq!((confirmed.recovered, confirmed.replayed), (true, 2));
    assert_eq!(offsets(&mut client, 2).await, [1, 3]);
    // Events that were replayed once are not replayed again through another topic.
    let again = client.resume(&["work_item:w"], &start).await;
    assert_eq!((again.recovered, again.replayed), (true, 1));
    assert_eq!(offsets(&mut client, 1).await, [2]);
    let again = client.resume(&[], &start).await;
    assert_eq!((again.recovered, again.replayed), (true, 0));
    client.nothing_more().await;
    drop((first, client));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_resume_is_authorized_by_the_current_token() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let had = client.subscribe(&["project:p1"]).await.position.unwrap();
    drop(client);
    publish(&relay, "p1", 2).await;
    let narrower = token_with(
        "acme",
        "ann",
        Duration::from_hours(1),
        Some(&["project:p2"]),
    );
    let mut client = relay.connect_with(narrower).await.unwrap();
    let subscribe = wire::Subscribe {
        topics: vec!["project:p1".to_owned()],
        resume_from: Some(had.clone()),
    };
    client.send(ControlMessage::Subscribe(subscribe)).await;
    assert_eq!(client.error().await.error_code, "AUTHORIZATION_FAILED");
    client.nothing_more().await;
    assert_eq!(client.resume(&["project:p2"], &had).await.replayed, 0);
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn events_delivered_by_a_subscription_are_not_replayed_until_it_is_removed() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let start = client.subscribe(&["project:p1"]).await.position.unwrap();
    let event = about(&["work_item:w", "project:p1"]);
    relay.publish("acme", event).await;
    assert_eq!(offsets(&mut client, 1).await, [1]);
    // The same event through its other topic, and again through its own.
    for topic in ["work_item:w", "project:p1"] {
        assert_eq!(client.resume(&[topic], &start).await.replayed, 0);
    }
    client.unsubscribe(&["work_item:w", "project:p1"]).await;
    assert_eq!(client.resume(&["work_item:w"], &start).await.replayed, 1);
    assert_eq!(offsets(&mut client, 1).await, [1]);
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_position_that_cannot_be_resumed_from_is_reported_and_the_client_is_live() {
    let relay = TestRelay::with(|config| config.replay.events = 3);
    let mut client = relay.connect("acme", "ann").await;
    let start = client.subscribe(&[]).await.position.unwrap();
    let head = publish(&relay, "p1", 5).await;
    let other = Position {
        epoch: "0123456789abcdef0123456789abcdef".to_owned(),
        offset: 5,
    };
    let none = Position {
        epoch: "none".to_owned(),
        offset: 5,
    };
    let refused = [
        ("evicted", at(&head, 1)),
        ("evicted", start),
        ("future", at(&head, 6)),
        ("future", at(&head, u64::MAX)),
        ("unknown_epoch", other),
        ("unknown_epoch", none),
        ("unknown_epoch", Position::default()),
    ];
    for (_, from) in &refused {
        let confirmed = client.resume(&["project:p1"], from).await;
        assert_eq!(
            (confirmed.recovered, confirmed.replayed),
            (false, 0),
            "{from:?}"
        );
        assert_eq!(confirmed.position, Some(head.clone()));
    }
    let metrics = relay.metrics().await;
    for reason in ["evicted", "future", "unknown_epoch"] {
        let expected = refused.iter().filter(|(it, _)| *it == reason).count();
        let series = format!("sidewire_resumes_total{{result=\"{reason}\"}}");
        assert_eq!(metrics[&series], expected as f64);
    }
    publish(&relay, "p1", 1).await;
    assert_eq!(offsets(&mut client, 1).await, [6]);
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn without_a_window_positions_are_assigned_and_every_resume_is_refused() {
    let relay = TestRelay::with(|config| config.replay.enabled = false);
    let mut client = relay.connect("acme", "ann").await;
    let start = client.subscribe(&["project:p1"]).await.position.unwrap();
    assert!(!client.resume(&[], &start).await.recovered);
    let head = publish(&relay, "p1", 2).await;
    assert_eq!(offsets(&mut client, 2).await, [1, 2]);
    assert!(!client.resume(&[], &head).await.recovered);
    client.nothing_more().await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_resumes_total{result=\"disabled\"}"], 2.0);
    // All events were read, and nothing else keeps them in memory.
    relay
        .metrics_where(|metrics| metrics["sidewire_events_bytes"] == 0.0)
        .await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_tenant_that_all_clients_have_left_can_still_be_resumed() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let start = client.subscribe(&["project:p1"]).await.position.unwrap();
    drop(client);
    relay
        .metrics_where(|metrics| metrics["sidewire_tenants_dormant"] == 1.0)
        .await;
    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.resume(&["project:p1"], &start).await;
    assert_eq!((confirmed.recovered, confirmed.replayed), (true, 0));
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn after_a_restart_a_resume_reports_a_gap() {
    let relay = TestRelay::start();
    let head = publish(&relay, "p1", 2).await;
    assert!(relay.stop().await);
    let relay = TestRelay::start();
    publish(&relay, "p1", 5).await;
    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.resume(&["project:p1"], &head).await;
    assert!(!confirmed.recovered);
    assert_ne!(confirmed.position.unwrap().epoch, head.epoch);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_during_catch_up_counts_as_matched_and_reads_from_the_log() {
    let relay = TestRelay::start();
    let start = publish(&relay, "p1", 600).await;
    let mut client = relay.connect("acme", "ann").await;
    let start = at(&start, 0);
    let confirmed = client.resume(&["project:p1"], &start).await;
    assert_eq!(confirmed.replayed, 600);
    let published = relay.publish("acme", created("p1")).await;
    assert_eq!(published.matched, Some(1));
    assert_eq!(
        offsets(&mut client, 601).await,
        (1..=601).collect::<Vec<_>>()
    );
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}
