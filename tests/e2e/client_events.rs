//! Clients that see each other: events that they send, and presence, over real sockets and two
//! shards, with both bundled schemas.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    json_client::JsonClient,
    support::{TestRelay, token_with},
    vocabulary::{TestSchema, topics},
};

/// What the messages are called, and what they contain, in one of the schemas.
struct Names {
    typing: &'static str,
    presence: &'static str,
}

fn names() -> Names {
    match TestSchema::under_test() {
        TestSchema::Tracker => Names {
            typing: "userTyping",
            presence: "userPresence",
        },
        TestSchema::Generic => Names {
            typing: "message",
            presence: "presence",
        },
    }
}

/// An event of a client about the project, with a forged sender.
fn typing(project: &str) -> Value {
    let payload = match TestSchema::under_test() {
        TestSchema::Tracker => json!({"projectId": project, "isTyping": true, "userId": "forged"}),
        TestSchema::Generic => {
            json!({"topics": [format!("project:{project}")], "type": "typing", "userId": "forged"})
        }
    };
    json!({names().typing: payload})
}

fn present(project: &str) -> Value {
    let payload = match TestSchema::under_test() {
        TestSchema::Tracker => json!({"projectId": project, "status": "PRESENCE_STATUS_ONLINE"}),
        TestSchema::Generic => json!({"topics": [format!("project:{project}")]}),
    };
    json!({names().presence: payload})
}

fn withdrawn() -> Value {
    let payload = match TestSchema::under_test() {
        TestSchema::Tracker => json!({"status": "PRESENCE_STATUS_OFFLINE"}),
        TestSchema::Generic => json!({"absent": true}),
    };
    json!({names().presence: payload})
}

fn is_absent(envelope: &Value) -> bool {
    let payload = &envelope[names().presence];
    payload["status"] == "PRESENCE_STATUS_OFFLINE" || payload["absent"] == true
}

fn sender<'e>(envelope: &'e Value, payload: &str) -> &'e Value {
    assert!(envelope.get("position").is_none(), "{envelope}");
    &envelope[payload]["userId"]
}

async fn subscribed(relay: &TestRelay, user: &str, project: &str) -> JsonClient {
    let mut client = JsonClient::open(relay, "acme", user).await;
    client
        .subscribe(topics(&[&format!("project:{project}")]))
        .await;
    client
}

#[tokio::test]
async fn an_event_of_a_client_reaches_the_others_on_both_shards_and_nobody_else() {
    let relay = TestRelay::start();
    let mut sender_client = subscribed(&relay, "ann", "p").await;
    let mut others = Vec::new();
    for user in ["ann", "bob", "eve", "joe"] {
        others.push(subscribed(&relay, user, "p").await);
    }
    let mut elsewhere = subscribed(&relay, "kim", "q").await;
    let mut foreign = JsonClient::open(&relay, "globex", "bob").await;
    foreign.subscribe(topics(&["project:p"])).await;
    let id = sender_client.say(typing("p")).await;
    for other in &mut others {
        let heard = other.envelope().await;
        assert_eq!(heard["messageId"], id);
        assert_eq!(sender(&heard, names().typing), "ann");
        other.nothing_more().await;
    }
    for client in [&mut sender_client, &mut elsewhere, &mut foreign] {
        client.nothing_more().await;
    }
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_client_events_total"], 1.0);
    assert_eq!(metrics["sidewire_events_relayed_total"], 4.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn events_of_clients_and_of_backends_arrive_side_by_side() {
    let relay = TestRelay::start();
    let mut ann = subscribed(&relay, "ann", "p").await;
    let mut bob = subscribed(&relay, "bob", "p").await;
    for offset in 1..=20 {
        relay.publish("acme", crate::vocabulary::created("p")).await;
        ann.say(typing("p")).await;
        let event = bob.event().await;
        assert_eq!(event["position"]["offset"], offset.to_string());
        assert_eq!(sender(&bob.envelope().await, names().typing), "ann");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_event_outside_the_grant_or_the_subscriptions_is_refused() {
    let relay = TestRelay::start();
    let token = token_with(
        "acme",
        "ann",
        Duration::from_secs(60),
        Some(&["project:p", "project:q"]),
    );
    let mut ann = JsonClient::open_with(&relay, &token).await;
    ann.subscribe(topics(&["project:p"])).await;
    for project in ["q", "other"] {
        let id = ann.say(typing(project)).await;
        let error = ann.refused().await;
        assert_eq!(error["errorCode"], "AUTHORIZATION_FAILED", "{project}");
        assert_eq!(error["requestMessageId"], id);
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_user_appears_and_disappears_for_clients_on_both_shards() {
    let relay = TestRelay::with(|config| config.presence.linger = Duration::from_millis(300));
    let mut watchers = Vec::new();
    for user in ["w1", "w2", "w3"] {
        watchers.push(subscribed(&relay, user, "p").await);
    }
    let mut ann = subscribed(&relay, "ann", "p").await;
    let id = ann.say(present("p")).await;
    for watcher in &mut watchers {
        let heard = watcher.envelope().await;
        assert_eq!(heard["messageId"], id);
        assert_eq!(sender(&heard, names().presence), "ann");
        assert!(!is_absent(&heard), "{heard}");
    }
    watchers.push(subscribed(&relay, "late", "p").await);
    let late = watchers.last_mut().unwrap();
    assert_eq!(late.envelope().await["messageId"], id, "the same message");

    drop(ann);
    for watcher in &mut watchers {
        let heard = watcher.envelope().await;
        assert_eq!(sender(&heard, names().presence), "ann");
        assert!(is_absent(&heard), "{heard}");
        watcher.nothing_more().await;
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_client_that_comes_back_or_withdraws_is_seen_as_it_is() {
    let relay = TestRelay::with(|config| config.presence.linger = Duration::from_secs(1));
    let mut watcher = subscribed(&relay, "bob", "p").await;
    let mut first = subscribed(&relay, "ann", "p").await;
    first.say(present("p")).await;
    watcher.envelope().await;
    drop(first);
    let mut second = subscribed(&relay, "ann", "p").await;
    second.say(json!({"ping": {}})).await;
    let id = second.say(present("p")).await;
    assert_eq!(watcher.envelope().await["messageId"], id);
    second.say(withdrawn()).await;
    // The message of the first connection may still linger.
    while !is_absent(&watcher.envelope().await) {}
    assert!(relay.stop().await);
}
