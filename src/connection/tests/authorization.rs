//! Subscribes about which a backend is asked: what waits for the answer, and what does not.

mod drain;

use std::{num::NonZeroU32, rc::Rc, sync::Arc, time::Duration};

use hyper::StatusCode;
use serde_json::{Value, json};
use sidewire_protocol::{Position, Topic, UserName};
use tokio::{
    task::spawn_local,
    time::{Instant, sleep},
};

use super::{
    json::{acme, hears, resume_json, subscribe_json},
    token_renewal::{authenticate, require_tokens, token},
};
use crate::{
    backend::testing::FakeTransport,
    config::Config,
    connection::{
        testing::{ConnectionFixture, FrameClient, WIDE, event, event_about, settle, simulate},
        waiting::WAITING_MAX,
        wire_testing::{ReceivedFrame, json as text, ping_message, subscribe},
    },
    limits::tests::user_key,
    relay::LiveSettings,
};

const ALLOW: &str = r#"{"allow": ["project:*"]}"#;

struct Asking {
    fixture: ConnectionFixture,
    transport: Arc<FakeTransport>,
}

impl Asking {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(settings: impl FnOnce(&mut Config)) -> Self {
        let transport = Arc::new(FakeTransport::default());
        Self {
            fixture: ConnectionFixture::asking(&transport, settings),
            transport,
        }
    }

    async fn answer(&self, json: &'static str) {
        self.transport.next().await.answer(json);
    }

    /// Connects a JSON client that is subscribed to the topic, which the backend allows.
    async fn subscribed(&self, user: &'static str, topic: &str) -> FrameClient {
        let mut client = self.fixture.connect_json_as(user, WIDE);
        client.send(subscribe_json("s", topic)).await;
        self.answer(ALLOW).await;
        hears(&mut client, [confirmed("s")]).await;
        client
    }
}

fn confirmed(id: &str) -> ReceivedFrame {
    ReceivedFrame::Subscribed(id.to_owned())
}

fn unconfirmed(id: &str) -> ReceivedFrame {
    ReceivedFrame::Unsubscribed(id.to_owned())
}

fn refused(code: &str) -> ReceivedFrame {
    ReceivedFrame::Refused(code.to_owned())
}

fn unsubscribe_json(id: &str, topic: &str) -> Vec<u8> {
    text(&json!({"messageId": id, "unsubscribe": {"topics": [topic]}}).to_string())
}

fn typing(id: &str, project: &str) -> Vec<u8> {
    text(&typing_json(id, project).to_string())
}

fn typing_json(id: &str, project: &str) -> Value {
    json!({"messageId": id, "userTyping": {"projectId": project, "isTyping": true}})
}

/// Returns an event that is read on another thread.
fn large_typing(id: &str, project: &str) -> Vec<u8> {
    let topics: Vec<_> = (0..30)
        .map(|n| format!("a:{n}{}", "i".repeat(250)))
        .collect();
    let mut event = typing_json(id, project);
    event["topics"] = json!(topics);
    text(&event.to_string())
}

async fn received_id(client: &mut FrameClient) -> String {
    let message = client.next_json().await;
    assert!(message.get("userTyping").is_some(), "{message}");
    message["messageId"].as_str().unwrap().to_owned()
}

#[test]
fn what_the_backend_allows_is_subscribed_and_not_asked_about_again() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect(WIDE);
        client.send(subscribe("1", "project:p")).await;
        let posted = asking.transport.next().await;
        let question = json!({"tenant": "acme", "user": "ann", "topics": ["project:p"]});
        assert_eq!(posted.json, question);
        posted.answer(ALLOW);
        client.send(subscribe("2", "project:p")).await;
        hears(&mut client, [confirmed("1"), confirmed("2")]).await;
        // Of the same user, on another connection.
        let mut other = asking.fixture.connect(WIDE);
        other.send(subscribe("3", "project:p")).await;
        hears(&mut other, [confirmed("3")]).await;
        assert_eq!(asking.transport.count(), 1);
        asking.fixture.publish([event_about("project:p", 10)]).await;
        hears(&mut client, [ReceivedFrame::Event(1)]).await;
    });
}

#[test]
fn what_the_backend_does_not_allow_is_refused_whole() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect_json(WIDE);
        let topics = json!(["project:p", "sprint:b", "sprint:a"]);
        let message = json!({"messageId": "1", "subscribe": {"topics": topics}});
        client.send(text(&message.to_string())).await;
        asking.answer(ALLOW).await;
        let error = &client.next_json().await["error"];
        assert_eq!(error["errorCode"], "AUTHORIZATION_FAILED");
        assert_eq!(error["requestMessageId"], "1");
        let text = error["errorMessage"].as_str().unwrap();
        assert_eq!(text, "sprint:b is not allowed by the backend");
        assert_eq!(asking.fixture.tally().subscriptions.get(), 0);
    });
}

#[test]
fn pings_are_answered_and_events_arrive_while_the_backend_is_asked() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect(WIDE);
        client.send(subscribe("1", "project:p")).await;
        asking.answer(ALLOW).await;
        hears(&mut client, [confirmed("1")]).await;
        client.send(subscribe("2", "sprint:s")).await;
        let posted = asking.transport.next().await;
        asking.fixture.publish([event_about("project:p", 10)]).await;
        client.send(ping_message()).await;
        // A Subscribe is under way, so the Pong has no position.
        let expected = [ReceivedFrame::Event(1), ReceivedFrame::Answered(None)];
        hears(&mut client, expected).await;
        posted.answer(r#"{"allow": ["sprint:s"]}"#);
        hears(&mut client, [confirmed("2")]).await;
        client.send(ping_message()).await;
        hears(&mut client, [ReceivedFrame::Answered(Some(1))]).await;
    });
}

#[test]
fn everything_else_behind_the_subscribe_waits_in_order() {
    simulate(async {
        let asking = Asking::new();
        let mut other = asking.subscribed("bob", "project:p").await;
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        let first = asking.transport.next().await;
        for message in [
            typing("t1", "p"),
            large_typing("t2", "p"),
            text(r#"{"messageId": "bad", "subscribe": {"topics": ["nonsense"]}}"#),
            subscribe_json("2", "sprint:s"),
            typing("t3", "p"),
            unsubscribe_json("3", "project:p"),
            typing("t4", "p"),
        ] {
            client.send(message).await;
        }
        settle().await;
        assert_eq!(asking.transport.count(), 2, "one of bob, one of ann");
        first.answer(ALLOW);
        let expected = [confirmed("1"), refused("VALIDATION_ERROR")];
        hears(&mut client, expected).await;
        for id in ["t1", "t2"] {
            assert_eq!(received_id(&mut other).await, id);
        }
        asking.answer(r#"{"allow": ["sprint:s"]}"#).await;
        let expected = [
            confirmed("2"),
            unconfirmed("3"),
            refused("AUTHORIZATION_FAILED"),
        ];
        hears(&mut client, expected).await;
        assert_eq!(received_id(&mut other).await, "t3");
    });
}

#[test]
fn sixteen_messages_wait_and_further_ones_are_refused_at_once() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        let posted = asking.transport.next().await;
        for number in 0..WAITING_MAX {
            let message = match number % 2 {
                0 => unsubscribe_json(&format!("w{number}"), "project:p"),
                _ => text("nonsense"),
            };
            client.send(message).await;
        }
        client.send(typing("too-many", "p")).await;
        let error = &client.next_json().await["error"];
        assert_eq!(error["errorCode"], "RATE_LIMIT_EXCEEDED");
        assert_eq!(error["requestMessageId"], "too-many");
        assert_eq!(error["retryAfterMs"], "1000");
        client.send(text(r#"{"ping": {}}"#)).await;
        hears(&mut client, [ReceivedFrame::Answered(None)]).await;
        posted.answer(ALLOW);
        hears(&mut client, [confirmed("1")]).await;
        for number in 0..WAITING_MAX {
            let expected = match number % 2 {
                0 => unconfirmed(&format!("w{number}")),
                _ => refused("VALIDATION_ERROR"),
            };
            hears(&mut client, [expected]).await;
        }
    });
}

#[test]
fn a_position_is_judged_when_the_answer_has_come() {
    simulate(async {
        let asking = Asking::new();
        let first = asking.fixture.publish([event(10)]).await.events[0].position;
        let start = Position { offset: 0, ..first };
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(resume_json("r", "project:p", start)).await;
        let posted = asking.transport.next().await;
        // The client gets it, by an implicit topic, and again in the replay.
        asking.fixture.publish([event(10)]).await;
        hears(&mut client, [ReceivedFrame::Event(2)]).await;
        asking.fixture.publish([event_about("project:p", 10)]).await;
        posted.answer(ALLOW);
        let resumed = ReceivedFrame::Resumed("r".to_owned(), 2);
        hears(&mut client, [resumed]).await;
        hears(&mut client, [1, 3].map(ReceivedFrame::Event)).await;
    });
}

#[test]
fn events_that_waited_are_not_overtaken_during_the_replay() {
    simulate(async {
        let asking = Asking::with(|config| config.limits.outbox_frames = 10);
        let first = asking.fixture.publish([event(10)]).await.events[0].position;
        asking.fixture.publish((0..50).map(|_| event(1_000))).await;
        let start = Position { offset: 0, ..first };
        let mut other = asking.subscribed("bob", "project:p").await;
        let mut client = asking.fixture.connect_json(512);
        client.send(resume_json("r", "project:p", start)).await;
        let posted = asking.transport.next().await;
        client.send(typing("t1", "p")).await;
        client.send(subscribe_json("2", "project:q")).await;
        client.send(typing("t2", "p")).await;
        settle().await;
        posted.answer(r#"{"allow": ["project:p"]}"#);
        hears(&mut client, [ReceivedFrame::Resumed("r".to_owned(), 51)]).await;
        client.send(typing("t3", "p")).await;
        // Only what stands before the Subscribe need not wait for the replay.
        assert_eq!(received_id(&mut other).await, "t1");
        settle().await;
        assert_eq!(asking.fixture.metric("sidewire_client_events_total"), 1);
        hears(&mut client, (1..=51).map(ReceivedFrame::Event)).await;
        asking.answer(ALLOW).await;
        hears(&mut client, [confirmed("2")]).await;
        for id in ["t2", "t3"] {
            assert_eq!(received_id(&mut other).await, id);
        }
    });
}

#[test]
fn a_backend_that_fails_is_no_fault_of_the_client() {
    simulate(async {
        let asking = Asking::with(|config| {
            config.limits.refusals_per_minute = NonZeroU32::new(2).unwrap();
        });
        let mut client = asking.fixture.connect_json(WIDE);
        for number in 0..4 {
            let id = number.to_string();
            client.send(subscribe_json(&id, "project:p")).await;
            let posted = asking.transport.next().await;
            match number {
                0 => posted.fail(StatusCode::INTERNAL_SERVER_ERROR),
                1 => posted.answer("[]"),
                // It is never answered.
                _ => drop(posted),
            }
            let began = Instant::now();
            let error = &client.next_json().await["error"];
            assert_eq!(error["errorCode"], "INTERNAL_ERROR");
            assert_eq!(error["requestMessageId"], id);
            assert_eq!(error["retryAfterMs"], "1000");
            let expected = Duration::from_secs(if number < 2 { 0 } else { 2 });
            assert_eq!(began.elapsed().as_secs(), expected.as_secs());
        }
        client.send(subscribe_json("last", "project:p")).await;
        asking.answer(ALLOW).await;
        hears(&mut client, [confirmed("last")]).await;
    });
}

#[test]
fn a_client_that_leaves_takes_its_question_and_what_waits_with_it() {
    simulate(async {
        let asking = Asking::with(|config| config.auth.subscribe.concurrency = 1);
        let mut first = asking.fixture.connect_json_as("bob", WIDE);
        first.send(subscribe_json("1", "project:p")).await;
        let posted = asking.transport.next().await;
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        client.send(typing("t", "p")).await;
        settle().await;
        drop(client);
        settle().await;
        posted.answer(r#"{"allow": [], "ttl_s": 0}"#);
        hears(&mut first, [refused("AUTHORIZATION_FAILED")]).await;
        drop(first);
        settle().await;
        assert_eq!(asking.transport.count(), 1, "nobody waits for the other");
        sleep(Duration::from_secs(5)).await;
        asking.fixture.shard.relay.authorizer.sweep();
        asking.fixture.check_nothing_is_left();
    });
}

#[test]
fn a_revocation_while_the_backend_is_asked_has_it_asked_again() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        let posted = asking.transport.next().await;
        client.send(unsubscribe_json("2", "project:q")).await;
        let who = user_key("acme", "ann");
        let topics = [Topic::parse("project:p").unwrap()];
        asking.fixture.shard.relay.authorizer.forget(&who, &topics);
        posted.answer(ALLOW);
        asking.answer(r#"{"allow": []}"#).await;
        let expected = [refused("AUTHORIZATION_FAILED"), unconfirmed("2")];
        hears(&mut client, expected).await;
    });
}

#[test]
fn a_reload_turns_the_backend_off() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        let posted = asking.transport.next().await;
        let off = |live: &mut LiveSettings| live.subscribe_backend = None;
        asking.fixture.replace_settings(off);
        posted.fail(StatusCode::NOT_FOUND);
        client.send(subscribe_json("2", "project:p")).await;
        hears(&mut client, [confirmed("1"), confirmed("2")]).await;
    });
}

#[test]
fn a_subscribe_is_carried_out_after_the_topics_that_were_lost_meanwhile_are_cleared() {
    simulate(async {
        let asking = Asking::new();
        let shard = Rc::clone(&asking.fixture.shard);
        spawn_local(async move { shard.hub.answer_calls().await });
        let mut client = asking.fixture.connect_json(WIDE);
        for part in 0..9 {
            let topics = (0..100).map(|id| format!("project:{}", part * 100 + id));
            let topics: Vec<_> = topics.collect();
            let subscribe = json!({"messageId": "1", "subscribe": {"topics": topics}});
            client.send(text(&subscribe.to_string())).await;
            asking.answer(ALLOW).await;
            hears(&mut client, [confirmed("1")]).await;
        }
        client.send(subscribe_json("2", "sprint:1")).await;
        let posted = asking.transport.next().await;
        let admin = asking.fixture.shard.relay.publisher.admin().clone();
        let ended = spawn_local(async move {
            let ann = UserName::parse("ann").unwrap();
            let projects = [Topic::parse("project:*").unwrap()].into_iter().collect();
            let timeout = Duration::from_secs(1);
            admin
                .end_subscriptions(&acme(), &ann, projects, timeout)
                .await
        });
        // More than a quantum is left to clear when the answer comes.
        hears(&mut client, [unconfirmed("")]).await;
        posted.answer(r#"{"allow": ["sprint:1"]}"#);
        hears(&mut client, vec![unconfirmed(""); 3]).await;
        hears(&mut client, [confirmed("2")]).await;
        assert_eq!(ended.await.unwrap(), Ok(900));
        let about = ["project:1", "sprint:1"].map(|topic| event_about(topic, 10));
        asking.fixture.publish(about).await;
        hears(&mut client, [ReceivedFrame::Event(2)]).await;
        asking.fixture.check_sums();
    });
}

#[test]
fn what_waited_for_the_backend_is_judged_by_the_token_of_then() {
    simulate(async {
        let asking = Asking::new();
        require_tokens(&asking.fixture);
        let mut client = asking.fixture.connect_json(WIDE);
        let narrow = token(300, Some(&["project:p"]));
        client.send(authenticate("a", &narrow)).await;
        assert!(client.next_json().await["authenticated"].is_object());
        client.send(subscribe_json("1", "project:p")).await;
        let posted = asking.transport.next().await;
        client.send(subscribe_json("2", "project:q")).await;
        client.send(authenticate("b", &token(300, None))).await;
        assert!(client.next_json().await["authenticated"].is_object());
        posted.answer(ALLOW);
        asking.answer(ALLOW).await;
        hears(&mut client, [confirmed("1"), confirmed("2")]).await;
    });
}

#[test]
fn a_backend_that_revokes_on_and_on_does_not_put_an_answer_off_for_ever() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        let who = user_key("acme", "ann");
        let topics = [Topic::parse("project:p").unwrap()];
        let relay = &asking.fixture.shard.relay;
        let timeout = relay.live().config.auth.subscribe.timeout;
        let began = Instant::now();
        while began.elapsed() < timeout {
            let posted = asking.transport.next().await;
            relay.authorizer.forget(&who, &topics);
            sleep(timeout / 3).await;
            posted.answer(ALLOW);
        }
        hears(&mut client, [refused("INTERNAL_ERROR")]).await;
    });
}
