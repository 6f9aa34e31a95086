//! Subscriptions that a backend ends: what the client is told, and that nothing of them is sent.

use std::{future::Future, time::Duration};

use serde_json::{Value, json};
use sidewire_protocol::{Position, Topic, UserName};
use tokio::task::{spawn_local, yield_now};

use super::json::{acme, hears, resume_json, subscribe_json};
use crate::{
    connection::{
        testing::{ConnectionFixture, FrameClient, WIDE, event_about, settle, simulate},
        wire_testing::{ReceivedFrame, json as text},
    },
    hub::ShardTimeout,
};

const SECOND: Duration = Duration::from_secs(1);

/// Creates a shard that answers calls, with a log.
fn fixture() -> ConnectionFixture {
    let fixture = ConnectionFixture::with_log(|_| ());
    let shard = std::rc::Rc::clone(&fixture.shard);
    spawn_local(async move { shard.hub.answer_calls().await });
    fixture
}

/// Ends ann's subscriptions to these topics.
fn end_subscriptions(
    fixture: &ConnectionFixture,
    topics: &[&str],
) -> impl Future<Output = Result<u64, ShardTimeout>> + use<> {
    let admin = fixture.shard.relay.publisher.admin().clone();
    let topics = topics.iter().map(|topic| Topic::parse(topic).unwrap());
    let topics = topics.collect();
    async move {
        let ann = UserName::parse("ann").unwrap();
        admin.end_subscriptions(&acme(), &ann, topics, SECOND).await
    }
}

fn subscribe_all(id: &str, topics: impl IntoIterator<Item = String>) -> Vec<u8> {
    let topics: Vec<_> = topics.into_iter().collect();
    text(&json!({"messageId": id, "subscribe": {"topics": topics}}).to_string())
}

/// Connects a JSON client of the user that is subscribed to the topic.
async fn subscribed(fixture: &ConnectionFixture, user: &'static str, topic: &str) -> FrameClient {
    let mut client = fixture.connect_json_as(user, WIDE);
    client.send(subscribe_json("s", topic)).await;
    hears(&mut client, [ReceivedFrame::Subscribed("s".to_owned())]).await;
    client
}

/// Reads the notice of ended subscriptions, and returns its topics.
async fn revoked(client: &mut FrameClient) -> Vec<String> {
    let notice = client.next_json().await;
    let confirmed = &notice["unsubscribeConfirmed"];
    assert!(confirmed.get("requestMessageId").is_none(), "{notice}");
    let topics = confirmed["topics"].as_array().expect("it is the notice");
    let topics = topics.iter().map(|topic| topic.as_str().unwrap());
    topics.map(str::to_owned).collect()
}

/// Asserts that nothing is left to read but the answer to a ping.
async fn receives_nothing(client: &mut FrameClient) {
    settle().await;
    client.send(text(r#"{"ping": {}}"#)).await;
    let answer = client.next_json().await;
    assert!(answer.get("pong").is_some(), "{answer}");
}

#[test]
fn ended_subscriptions_are_told_and_bring_nothing_more_while_others_stay() {
    simulate(async {
        let fixture = fixture();
        let mut exact = subscribed(&fixture, "ann", "project:p").await;
        exact.send(subscribe_json("t", "sprint:1")).await;
        hears(&mut exact, [ReceivedFrame::Subscribed("t".to_owned())]).await;
        let mut wildcard = subscribed(&fixture, "ann", "project:*").await;
        let mut other = subscribed(&fixture, "ann", "project:q").await;
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        assert_eq!(end_subscriptions(&fixture, &["project:p"]).await, Ok(2));
        assert_eq!(revoked(&mut exact).await, ["project:p"]);
        assert_eq!(revoked(&mut wildcard).await, ["project:*"]);
        fixture.publish([event_about("project:p", 10)]).await;
        hears(&mut bob, [ReceivedFrame::Event(1)]).await;
        for client in [&mut exact, &mut wildcard, &mut other] {
            receives_nothing(client).await;
        }
        fixture.publish([event_about("sprint:1", 10)]).await;
        hears(&mut exact, [ReceivedFrame::Event(2)]).await;
        assert_eq!(end_subscriptions(&fixture, &["project:p"]).await, Ok(0));
        receives_nothing(&mut exact).await;
        // Nothing keeps the client from asking again.
        exact.send(subscribe_json("u", "project:p")).await;
        hears(&mut exact, [ReceivedFrame::Subscribed("u".to_owned())]).await;
        fixture.publish([event_about("project:p", 10)]).await;
        hears(&mut exact, [ReceivedFrame::Event(3)]).await;
    });
}

#[test]
fn what_was_queued_before_goes_out_before_the_notice() {
    simulate(async {
        let fixture = fixture();
        // A stream that holds less than an event.
        let mut client = fixture.connect_json_as("ann", 64);
        client.send(subscribe_json("s", "project:p")).await;
        hears(&mut client, [ReceivedFrame::Subscribed("s".to_owned())]).await;
        fixture
            .publish((0..10).map(|_| event_about("project:p", 100)))
            .await;
        assert_eq!(end_subscriptions(&fixture, &["project:*"]).await, Ok(1));
        fixture.publish([event_about("project:p", 100)]).await;
        hears(&mut client, (1..=10).map(ReceivedFrame::Event)).await;
        assert_eq!(revoked(&mut client).await, ["project:p"]);
        receives_nothing(&mut client).await;
    });
}

#[test]
fn thousands_of_subscriptions_end_in_parts_and_nothing_of_the_others_is_missed() {
    simulate(async {
        const TOPICS: usize = 5_000;
        let fixture = fixture();
        let mut client = subscribed(&fixture, "ann", "sprint:1").await;
        for part in 0..TOPICS / 500 {
            let topics = (0..500).map(|id| format!("project:{}", part * 500 + id));
            client.send(subscribe_all("p", topics)).await;
            hears(&mut client, [ReceivedFrame::Subscribed("p".to_owned())]).await;
        }
        let held = fixture.tally().subscriptions.get();
        let ended = spawn_local(end_subscriptions(&fixture, &["project:*"]));
        // Until the first notice is there, the topics are lost and not all of them are cleared.
        let mut lost = revoked(&mut client).await;
        assert!(fixture.tally().subscriptions.get() > 1);
        let both = [
            event_about("project:1", 10),
            event_about("sprint:1", 10),
            event_about("project:4999", 10),
            event_about("sprint:1", 10),
        ];
        fixture.publish(both).await;
        while lost.len() < TOPICS {
            lost.extend(revoked(&mut client).await);
        }
        lost.sort_unstable();
        let mut expected: Vec<_> = (0..TOPICS).map(|id| format!("project:{id}")).collect();
        expected.sort_unstable();
        assert_eq!(lost, expected);
        hears(&mut client, [2, 4].map(ReceivedFrame::Event)).await;
        receives_nothing(&mut client).await;
        assert_eq!(ended.await.unwrap(), Ok(TOPICS as u64));
        assert_eq!((held, fixture.tally().subscriptions.get()), (5_001, 1));
        fixture.check_sums();
        drop(client);
        settle().await;
        fixture.check_nothing_but_the_log_is_left();
    });
}

#[test]
fn a_connection_that_ends_while_its_topics_are_cleared_leaves_nothing_behind() {
    simulate(async {
        let fixture = fixture();
        let mut client = subscribed(&fixture, "ann", "sprint:1").await;
        let topics = (0..900).map(|id| format!("project:{id}"));
        client.send(subscribe_all("p", topics)).await;
        hears(&mut client, [ReceivedFrame::Subscribed("p".to_owned())]).await;
        let ended = spawn_local(end_subscriptions(&fixture, &["project:*"]));
        revoked(&mut client).await;
        drop(client);
        settle().await;
        assert_eq!(ended.await.unwrap(), Ok(900));
        fixture.check_nothing_but_the_log_is_left();
    });
}

#[test]
fn lost_topics_leave_the_index_although_the_client_does_not_read() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect_json_as("ann", 4096);
        let topics = (0..900).map(|id| format!("project:{id}"));
        client.send(subscribe_all("p", topics)).await;
        hears(&mut client, [ReceivedFrame::Subscribed("p".to_owned())]).await;
        fixture.reload(|config| config.limits.outbox_frames = 10);
        let events = (0..8).map(|_| event_about("project:1", 1_000));
        fixture.publish(events).await;
        assert_eq!(end_subscriptions(&fixture, &["project:*"]).await, Ok(900));
        for _ in 0..20 {
            settle().await;
        }
        assert_eq!(fixture.tally().subscriptions.get(), 0);
        let late = fixture.publish([event_about("project:1", 10)]).await;
        assert_eq!(late.events[0].matched, Some(0));
    });
}

/// Publishes 100 events about the project, and connects a client that has begun to replay them
/// and does not read on.
async fn replaying(fixture: &ConnectionFixture) -> FrameClient {
    let events = (0..100).map(|_| event_about("project:p", 1_000));
    let first = fixture.publish(events).await.events[0].position;
    let start = Position { offset: 0, ..first };
    let mut client = fixture.connect_json_as("ann", 256);
    client.send(subscribe_json("s", "sprint:1")).await;
    hears(&mut client, [ReceivedFrame::Subscribed("s".to_owned())]).await;
    fixture.reload(|config| config.limits.outbox_frames = 10);
    client.send(resume_json("r", "project:p", start)).await;
    let confirmed = [ReceivedFrame::Resumed("r".to_owned(), 100)];
    hears(&mut client, confirmed).await;
    client
}

#[test]
fn a_replay_of_another_topic_goes_on_and_is_complete() {
    simulate(async {
        let fixture = fixture();
        let mut client = replaying(&fixture).await;
        assert_eq!(end_subscriptions(&fixture, &["sprint:1"]).await, Ok(1));
        fixture.publish([event_about("sprint:1", 10)]).await;
        fixture.publish([event_about("project:p", 10)]).await;
        let mut events = Vec::new();
        let mut notices = 0;
        while events.last() != Some(&102) {
            match client.next().await {
                Some(ReceivedFrame::Event(offset)) => events.push(offset),
                Some(ReceivedFrame::Unsubscribed(id)) if id.is_empty() => notices += 1,
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<_> = (1..=100).chain([102]).collect();
        assert_eq!((events, notices), (expected, 1));
        fixture.check_sums();
    });
}

#[test]
fn a_revocation_is_carried_out_while_a_replay_waits_for_its_next_quantum() {
    simulate(async {
        const EVENTS: u64 = 3_000;
        let fixture = fixture();
        let mut client = subscribed(&fixture, "ann", "sprint:1").await;
        let events = (0..EVENTS).map(|_| event_about("project:p", 10));
        let first = fixture.publish(events).await.events[0].position;
        let start = Position { offset: 0, ..first };
        // Counting the events takes more than the quantum that is left.
        fixture.stop_delivering();
        client.send(resume_json("r", "project:p", start)).await;
        settle().await;
        let ended = spawn_local(end_subscriptions(&fixture, &["sprint:1"]));
        settle().await;
        fixture.resume_delivering();
        for _ in 0..1_000 {
            yield_now().await;
        }
        assert!(ended.is_finished(), "the revocation waits for the replay");
        assert_eq!(ended.await.unwrap(), Ok(1));
        assert_eq!(revoked(&mut client).await, ["sprint:1"]);
        let confirmed = ReceivedFrame::Resumed("r".to_owned(), EVENTS);
        let replay = (1..=EVENTS).map(ReceivedFrame::Event);
        hears(&mut client, [confirmed].into_iter().chain(replay)).await;
    });
}

#[test]
fn a_replay_that_covers_an_ended_topic_is_cut_with_4006() {
    simulate(async {
        let fixture = fixture();
        let mut client = replaying(&fixture).await;
        assert_eq!(end_subscriptions(&fixture, &["project:*"]).await, Ok(1));
        let rest = client.rest_after_close().await;
        let last = rest.last();
        assert!(
            matches!(last, Some(ReceivedFrame::Close(4006, _))),
            "{last:?}"
        );
        assert!(rest.len() < 100);
        assert_eq!(fixture.closed("rights_reduced"), 1);
        fixture.check_nothing_but_the_log_is_left();
    });
}

#[test]
fn a_subscribe_that_waits_for_deliveries_is_carried_out_after_the_revocation() {
    simulate(async {
        let fixture = fixture();
        let mut client = subscribed(&fixture, "ann", "project:p").await;
        fixture.stop_delivering();
        settle().await;
        let tenant = acme();
        // More events than a quantum.
        let events = (0..500).map(|_| event_about("sprint:9", 10));
        let publisher = &fixture.shard.relay.publisher;
        drop(publisher.append(&tenant, events.collect()).await.unwrap());
        client.send(subscribe_json("t", "sprint:1")).await;
        settle().await;
        let ended = spawn_local(end_subscriptions(&fixture, &["project:p", "sprint:1"]));
        settle().await;
        fixture.resume_delivering();
        assert_eq!(ended.await.unwrap(), Ok(1));
        assert_eq!(revoked(&mut client).await, ["project:p"]);
        hears(&mut client, [ReceivedFrame::Subscribed("t".to_owned())]).await;
        fixture.publish([event_about("sprint:1", 10)]).await;
        hears(&mut client, [ReceivedFrame::Event(501)]).await;
    });
}

#[test]
fn presence_on_an_ended_topic_is_taken_back_and_no_longer_shown() {
    simulate(async {
        let fixture = fixture();
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        let mut ann = subscribed(&fixture, "ann", "project:p").await;
        let online = |project: &str| {
            let presence = json!({"status": "PRESENCE_STATUS_ONLINE", "projectId": project});
            text(&json!({"userPresence": presence}).to_string())
        };
        let status = |message: &Value| message["userPresence"]["status"].clone();
        ann.send(online("p")).await;
        assert_eq!(status(&bob.next_json().await), "PRESENCE_STATUS_ONLINE");
        assert_eq!(end_subscriptions(&fixture, &["project:p"]).await, Ok(1));
        assert_eq!(status(&bob.next_json().await), "PRESENCE_STATUS_OFFLINE");
        assert_eq!(revoked(&mut ann).await, ["project:p"]);
        bob.send(online("p")).await;
        receives_nothing(&mut ann).await;
    });
}

#[test]
fn a_client_that_is_to_come_back_is_closed_with_4006() {
    simulate(async {
        let fixture = fixture();
        let mut client = subscribed(&fixture, "ann", "project:p").await;
        let ann = UserName::parse("ann").unwrap();
        let admin = fixture.shard.relay.publisher.admin().clone();
        let closed = admin.disconnect_user(&acme(), &ann, true, SECOND).await;
        assert_eq!(closed, Ok(1));
        let reason = "the backend asks for a new token".to_owned();
        assert_eq!(
            client.rest_after_close().await,
            [ReceivedFrame::Close(4006, reason)]
        );
        assert_eq!(fixture.closed("new_token_requested"), 1);
    });
}
