//! Events that clients send to each other: who receives them, and what happens without room.

use std::num::NonZeroU32;

use serde_json::{Value, json};

use super::json::{hears, resume_json, subscribe_json};
use crate::connection::{
    testing::{ConnectionFixture, FrameClient, NOW, WIDE, event, settle, simulate},
    wire_testing::{ReceivedFrame, json as text, ping_message, subscribe},
};

/// A frame with an event of a client that is typing in the project.
fn typing(id: &str, project: &str) -> Vec<u8> {
    text(&typing_json(id, project).to_string())
}

fn typing_json(id: &str, project: &str) -> Value {
    json!({
        "messageId": id,
        "position": {"offset": "9"},
        "userTyping": {"userId": "bob", "projectId": project, "isTyping": true},
    })
}

/// The event as others receive it.
fn heard_typing(id: &str, project: &str) -> Value {
    json!({
        "messageId": id,
        "timestamp": NOW.as_secs().to_string(),
        "userTyping": {"userId": "ann", "projectId": project, "isTyping": true},
    })
}

/// Connects a JSON client that is subscribed to the topic.
async fn subscribed(fixture: &ConnectionFixture, topic: &str) -> FrameClient {
    let mut client = fixture.connect_json(WIDE);
    client.send(subscribe_json("s", topic)).await;
    hears(&mut client, [ReceivedFrame::Subscribed("s".to_owned())]).await;
    client
}

/// Asserts that nothing is left to read, by a ping that is answered next.
async fn hears_nothing(client: &mut FrameClient) {
    client.send(text(r#"{"ping": {}}"#)).await;
    let answer = client.next_json().await;
    assert!(answer.get("pong").is_some(), "{answer}");
}

fn relayed_and_dropped(fixture: &ConnectionFixture) -> [u64; 4] {
    let tally = fixture.tally();
    [
        &tally.relayed,
        &tally.dropped_catching_up,
        &tally.dropped_outbox,
        &tally.dropped_inbox,
    ]
    .map(|cell| cell.get())
}

#[test]
fn an_event_reaches_the_other_subscribers_with_its_sender_and_no_position() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut sender = subscribed(&fixture, "project:p").await;
        let mut other = subscribed(&fixture, "project:p").await;
        let mut elsewhere = subscribed(&fixture, "project:q").await;
        sender.send(typing("t", "p")).await;
        assert_eq!(other.next_json().await, heard_typing("t", "p"));
        for client in [&mut sender, &mut other, &mut elsewhere] {
            hears_nothing(client).await;
        }
        assert_eq!(relayed_and_dropped(&fixture), [1, 0, 0, 0]);
        assert_eq!(fixture.metric("sidewire_client_events_total"), 1);
        fixture.check_sums();
        drop((sender, other, elsewhere));
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn an_event_without_a_message_id_gets_one() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut sender = subscribed(&fixture, "project:p").await;
        let mut other = subscribed(&fixture, "project:p").await;
        sender.send(typing("", "p")).await;
        let heard = other.next_json().await;
        let id = heard["messageId"].as_str().unwrap();
        let version = id.chars().nth(14);
        assert_eq!((id.len(), version), (36, Some('7')), "{id} is no UUIDv7");
    });
}

#[test]
fn an_event_goes_only_to_those_of_its_topics_that_the_sender_is_subscribed_to() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut sender = subscribed(&fixture, "project:p").await;
        let mut of_both = subscribed(&fixture, "work_item:w").await;
        of_both.send(subscribe_json("s", "project:p")).await;
        of_both.next_json().await;
        let mut of_other = subscribed(&fixture, "work_item:w").await;
        let event = json!({"userTyping": {"projectId": "p", "workItemId": "w"}});
        sender.send(text(&event.to_string())).await;
        assert_eq!(of_both.next_json().await["userTyping"]["workItemId"], "w");
        hears_nothing(&mut of_both).await;
        hears_nothing(&mut of_other).await;
        assert_eq!(relayed_and_dropped(&fixture), [1, 0, 0, 0]);
    });
}

#[test]
fn an_event_is_refused_unless_a_topic_of_it_is_subscribed() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut sender = subscribed(&fixture, "project:p").await;
        sender.send(typing("t", "q")).await;
        let error = &sender.next_json().await["error"];
        assert_eq!(error["errorCode"], "AUTHORIZATION_FAILED");
        assert_eq!(error["requestMessageId"], "t");
        assert_eq!(error["fieldName"], "user_typing");
        assert_eq!(fixture.metric("sidewire_client_events_total"), 0);
    });
}

#[test]
fn a_full_outbox_drops_events_of_clients_and_its_connection_stays_open() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| it.limits.outbox_frames = 10);
        let mut sender = subscribed(&fixture, "project:p").await;
        let mut slow = fixture.connect(256);
        slow.send(subscribe("s", "project:p")).await;
        hears(&mut slow, [ReceivedFrame::Subscribed("s".to_owned())]).await;
        for number in 0..50 {
            sender.send(typing(&format!("t{number}"), "p")).await;
            settle().await;
        }
        hears_nothing(&mut sender).await;
        let [relayed, catching_up, outbox_full, inbox_full] = relayed_and_dropped(&fixture);
        assert_eq!((relayed, catching_up, inbox_full), (50, 0, 0));
        assert!((30..45).contains(&outbox_full), "{outbox_full}");
        fixture.check_sums();
        assert!(slow.is_served());
        // What was taken arrives, and then the connection takes events again.
        while slow.read_some(4096).await > 0 {
            settle().await;
        }
        slow.send(ping_message()).await;
        settle().await;
        assert!(slow.read_some(4096).await > 0);
        let tally = fixture.tally();
        assert_eq!(tally.written.get() + outbox_full, 50);
        fixture.check_sums();
    });
}

#[test]
fn a_connection_that_catches_up_gets_no_events_of_clients() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|it| it.limits.outbox_frames = 10);
        let first = fixture.publish([event(10)]).await.events[0].position;
        fixture.publish((0..50).map(|_| event(1_000))).await;
        let mut sender = subscribed(&fixture, "project:p").await;
        let start = sidewire_protocol::Position { offset: 0, ..first };
        let mut resuming = fixture.connect_json(256);
        resuming.send(resume_json("r", "project:p", start)).await;
        hears(&mut resuming, [ReceivedFrame::Resumed("r".to_owned(), 51)]).await;
        sender.send(typing("early", "p")).await;
        hears_nothing(&mut sender).await;
        hears(&mut resuming, (1..=51).map(ReceivedFrame::Event)).await;
        settle().await;
        sender.send(typing("late", "p")).await;
        assert_eq!(resuming.next_json().await, heard_typing("late", "p"));
        assert_eq!(relayed_and_dropped(&fixture), [2, 1, 0, 0]);
        fixture.check_sums();
    });
}

#[test]
fn large_and_small_events_of_a_client_arrive_in_order() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut sender = subscribed(&fixture, "project:p").await;
        let mut json = subscribed(&fixture, "project:p").await;
        let mut binary = fixture.connect(WIDE);
        binary.send(subscribe("s", "project:p")).await;
        hears(&mut binary, [ReceivedFrame::Subscribed("s".to_owned())]).await;
        let large = "i".repeat(250);
        for id in ["1", "2", "3", "4"] {
            let mut event = typing_json(id, "p");
            if id != "2" {
                // Cut on the way, but part of what is read.
                let topics: Vec<_> = (0..30).map(|n| format!("a:{n}{large}")).collect();
                event["topics"] = json!(topics);
            }
            sender.send(text(&event.to_string())).await;
        }
        for id in ["1", "2", "3", "4"] {
            assert_eq!(json.next_json().await, heard_typing(id, "p"));
        }
        hears_nothing(&mut sender).await;
        assert_eq!(relayed_and_dropped(&fixture), [8, 0, 0, 0]);
        fixture.check_sums();
    });
}

#[test]
fn events_of_clients_have_rates_of_their_own() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| {
            it.limits.user_burst = NonZeroU32::MIN;
            it.limits.user_event_burst = NonZeroU32::MIN;
        });
        let mut sender = subscribed(&fixture, "project:p").await;
        let mut other = subscribed(&fixture, "project:p").await;
        sender.send(typing("1", "p")).await;
        other.next_json().await;
        sender.send(typing("2", "p")).await;
        let error = &sender.next_json().await["error"];
        assert_eq!(error["errorCode"], "RATE_LIMIT_EXCEEDED");
        assert_eq!(error["retryAfterMs"], "60000");
        let limit = "sidewire_limits_exceeded_total{limit=\"user_client_events\"}";
        assert_eq!(fixture.metric(limit), 1);
        // The bucket of other messages is still full.
        sender.send(text(r#"{"unsubscribe": {}}"#)).await;
        assert!(
            sender
                .next_json()
                .await
                .get("unsubscribeConfirmed")
                .is_some()
        );
    });
}

#[test]
fn a_reload_turns_events_of_clients_off() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut sender = subscribed(&fixture, "project:p").await;
        fixture.reload(|config| config.client.events = false);
        sender.send(typing("t", "p")).await;
        let error = &sender.next_json().await["error"];
        assert_eq!(error["errorCode"], "VALIDATION_ERROR");
        assert_eq!(error["fieldName"], "user_typing");
    });
}
