//! Presence: who is shown to whom, when a user is shown to leave, and the bounds.

use std::{num::NonZeroU32, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::json::{hears, subscribe_json};
use crate::{
    connection::{
        testing::{ConnectionFixture, FrameClient, NOW, WIDE, settle, simulate},
        wire_testing::{ReceivedFrame, json as text},
    },
    memory::MemoryUse,
};

const LINGER: Duration = Duration::from_secs(5);

fn fixture() -> ConnectionFixture {
    ConnectionFixture::with_settings(|_| ())
}

/// A frame with a presence message that names the project.
fn present(id: &str, status: &str, project: &str) -> Vec<u8> {
    let presence = json!({"userId": "x", "status": status, "projectId": project});
    text(&json!({"messageId": id, "userPresence": presence}).to_string())
}

fn online(id: &str, project: &str) -> Vec<u8> {
    present(id, "PRESENCE_STATUS_ONLINE", project)
}

fn offline(id: &str) -> Vec<u8> {
    present(id, "PRESENCE_STATUS_OFFLINE", "elsewhere")
}

/// Connects a client of the user that is subscribed to the topic, without reading further.
async fn subscribed(fixture: &ConnectionFixture, user: &'static str, topic: &str) -> FrameClient {
    let mut client = fixture.connect_json_as(user, WIDE);
    client.send(subscribe_json("s", topic)).await;
    hears(&mut client, [ReceivedFrame::Subscribed("s".to_owned())]).await;
    client
}

/// Returns the presence messages that have come by now, each as user, status and project.
async fn seen(client: &mut FrameClient) -> Vec<(String, String, String)> {
    settle().await;
    client.send(text(r#"{"ping": {}}"#)).await;
    let mut seen = Vec::new();
    loop {
        let next = client.next_json().await;
        if next.get("pong").is_some() {
            return seen;
        }
        assert!(next.get("position").is_none(), "{next}");
        let presence = &next["userPresence"];
        let text = |name: &str| presence[name].as_str().unwrap_or_default().to_owned();
        seen.push((text("userId"), text("status"), text("projectId")));
    }
}

fn is(user: &str, status: &str, project: &str) -> (String, String, String) {
    let status = format!("PRESENCE_STATUS_{status}");
    (user.to_owned(), status, project.to_owned())
}

/// Connects bob and ann, who are subscribed to the project, and has ann show bob that she is online.
async fn ann_shown_to_bob(fixture: &ConnectionFixture) -> (FrameClient, FrameClient) {
    let mut bob = subscribed(fixture, "bob", "project:p").await;
    let mut ann = subscribed(fixture, "ann", "project:p").await;
    ann.send(online("1", "p")).await;
    assert_eq!(seen(&mut bob).await, [is("ann", "ONLINE", "p")]);
    (bob, ann)
}

fn presence_bytes(fixture: &ConnectionFixture) -> u64 {
    let memory = fixture.shard.relay.publisher.memory();
    memory.held_bytes(MemoryUse::Presence)
}

#[test]
fn a_presence_message_reaches_subscribers_of_now_and_later_and_not_its_sender() {
    simulate(async {
        let fixture = fixture();
        let mut early = subscribed(&fixture, "bob", "project:p").await;
        let mut ann = subscribed(&fixture, "ann", "project:p").await;
        ann.send(online("m", "p")).await;
        let heard = early.next_json().await;
        let stamp = NOW.as_secs().to_string();
        assert_eq!(
            heard,
            json!({
                "messageId": "m",
                "timestamp": stamp,
                "userPresence": {
                    "userId": "ann", "status": "PRESENCE_STATUS_ONLINE", "projectId": "p",
                },
            })
        );
        sleep(Duration::from_secs(100)).await;
        let mut late = subscribed(&fixture, "eve", "project:p").await;
        assert_eq!(
            late.next_json().await,
            heard,
            "the message as it was first sent"
        );
        let mut elsewhere = subscribed(&fixture, "eve", "project:q").await;
        for client in [&mut early, &mut late, &mut ann, &mut elsewhere] {
            assert_eq!(seen(client).await, []);
        }
        fixture.check_sums();
    });
}

#[test]
fn a_user_whose_connection_has_ended_is_absent_when_it_has_lingered() {
    simulate(async {
        let fixture = fixture();
        let (mut bob, ann) = ann_shown_to_bob(&fixture).await;
        let begun = Instant::now();
        drop(ann);
        settle().await;
        let mut late = subscribed(&fixture, "eve", "project:p").await;
        assert_eq!(seen(&mut late).await, [is("ann", "ONLINE", "p")]);
        let gone = bob.next_json().await;
        assert_eq!(begun.elapsed(), LINGER);
        assert_eq!(gone["userPresence"]["status"], "PRESENCE_STATUS_OFFLINE");
        assert_eq!(gone["userPresence"]["userId"], "ann");
        let id = gone["messageId"].as_str().unwrap();
        assert_eq!(id.len(), 36);
        let ended = (NOW + LINGER).as_secs().to_string();
        assert_eq!(gone["timestamp"], json!(ended));
        assert_eq!(late.next_json().await, gone);
        let mut after = subscribed(&fixture, "eve", "project:p").await;
        assert_eq!(seen(&mut after).await, []);
        assert_eq!(presence_bytes(&fixture), 0);
        fixture.check_sums();
        drop((bob, late, after));
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_user_who_comes_back_in_time_is_not_shown_to_leave() {
    simulate(async {
        let fixture = fixture();
        let (mut bob, ann) = ann_shown_to_bob(&fixture).await;
        drop(ann);
        sleep(LINGER - Duration::from_millis(1)).await;
        let mut ann = subscribed(&fixture, "ann", "project:p").await;
        // Its own earlier message, of the connection that has ended, is another connection's.
        assert_eq!(seen(&mut ann).await, [is("ann", "ONLINE", "p")]);
        ann.send(present("2", "PRESENCE_STATUS_AWAY", "p")).await;
        sleep(LINGER).await;
        assert_eq!(seen(&mut bob).await, [is("ann", "AWAY", "p")]);
        assert_eq!(seen(&mut ann).await, []);
    });
}

#[test]
fn a_withdrawn_message_is_absent_at_once_whatever_the_withdrawal_names() {
    simulate(async {
        let fixture = fixture();
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        let mut ann = subscribed(&fixture, "ann", "project:p").await;
        ann.send(online("1", "p")).await;
        ann.send(offline("2")).await;
        let expected = [is("ann", "ONLINE", "p"), is("ann", "OFFLINE", "p")];
        let heard = seen(&mut bob).await;
        // Both changes may be merged, and then nothing has happened.
        assert!(heard.is_empty() || heard == expected, "{heard:?}");
        assert_eq!(seen(&mut ann).await, []);
        // Nothing is left to withdraw.
        ann.send(offline("3")).await;
        assert_eq!(seen(&mut ann).await, []);
        assert_eq!(seen(&mut bob).await, []);
        assert_eq!(presence_bytes(&fixture), 0);
    });
}

#[test]
fn of_two_connections_of_a_user_the_newest_message_is_seen() {
    simulate(async {
        let fixture = fixture();
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        let mut first = subscribed(&fixture, "ann", "project:p").await;
        let mut second = subscribed(&fixture, "ann", "project:p").await;
        first.send(online("1", "p")).await;
        assert_eq!(seen(&mut bob).await, [is("ann", "ONLINE", "p")]);
        assert_eq!(seen(&mut second).await, [is("ann", "ONLINE", "p")]);
        second.send(present("2", "PRESENCE_STATUS_AWAY", "p")).await;
        assert_eq!(seen(&mut bob).await, [is("ann", "AWAY", "p")]);
        assert_eq!(seen(&mut first).await, [is("ann", "AWAY", "p")]);
        second.send(offline("3")).await;
        assert_eq!(seen(&mut bob).await, [is("ann", "ONLINE", "p")]);
        drop(second);
        sleep(2 * LINGER).await;
        assert_eq!(seen(&mut bob).await, []);
        drop(first);
        sleep(2 * LINGER).await;
        assert_eq!(seen(&mut bob).await, [is("ann", "OFFLINE", "p")]);
    });
}

#[test]
fn unsubscribing_ends_what_the_sender_shows_on_that_topic() {
    simulate(async {
        let fixture = fixture();
        let (mut bob, mut ann) = ann_shown_to_bob(&fixture).await;
        ann.send(text(r#"{"unsubscribe": {"projectIds": ["p"]}}"#))
            .await;
        assert!(ann.next_json().await.get("unsubscribeConfirmed").is_some());
        assert_eq!(seen(&mut bob).await, [is("ann", "OFFLINE", "p")]);
        assert_eq!(presence_bytes(&fixture), 0);
    });
}

#[test]
fn a_receiver_that_unsubscribes_is_sent_what_it_now_sees_instead() {
    simulate(async {
        let fixture = fixture();
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        bob.send(subscribe_json("s", "project:q")).await;
        hears(&mut bob, [ReceivedFrame::Subscribed("s".to_owned())]).await;
        let mut first = subscribed(&fixture, "ann", "project:q").await;
        first.send(online("1", "q")).await;
        let mut second = subscribed(&fixture, "ann", "project:p").await;
        second.send(online("2", "p")).await;
        settle().await;
        assert_eq!(
            seen(&mut bob).await,
            [is("ann", "ONLINE", "q"), is("ann", "ONLINE", "p")]
        );
        bob.send(text(r#"{"unsubscribe": {"topics": ["project:p"]}}"#))
            .await;
        let next = bob.next_json().await;
        assert_eq!(next["userPresence"]["projectId"], "q", "{next}");
        assert!(bob.next_json().await.get("unsubscribeConfirmed").is_some());
        // The rest is forgotten by the client itself.
        bob.send(text(r#"{"unsubscribe": {"topics": ["project:q"]}}"#))
            .await;
        assert!(bob.next_json().await.get("unsubscribeConfirmed").is_some());
        assert_eq!(seen(&mut bob).await, []);
    });
}

#[test]
fn a_client_that_reads_slowly_ends_up_with_the_right_state() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| it.limits.outbox_frames = 4);
        let mut slow = fixture.connect_json_as("bob", 300);
        slow.send(subscribe_json("s", "project:p")).await;
        hears(&mut slow, [ReceivedFrame::Subscribed("s".to_owned())]).await;
        let mut users = Vec::new();
        for user in ["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"] {
            let mut client = subscribed(&fixture, user, "project:p").await;
            client.send(online("1", "p")).await;
            settle().await;
            users.push(client);
        }
        for client in &mut users[..4] {
            client.send(offline("2")).await;
            settle().await;
        }
        assert!(slow.is_served());
        let mut view = std::collections::BTreeMap::new();
        loop {
            let news = seen(&mut slow).await;
            if news.is_empty() {
                break;
            }
            view.extend(news.into_iter().map(|(user, status, _)| (user, status)));
        }
        view.retain(|_, status| status != "PRESENCE_STATUS_OFFLINE");
        assert_eq!(view.keys().collect::<Vec<_>>(), ["u5", "u6", "u7", "u8"]);
        fixture.check_sums();
    });
}

#[test]
fn a_connection_that_is_owed_too_much_presence_is_closed_as_too_slow() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| {
            it.limits.outbox_frames = 2;
            it.presence.owed = 2;
        });
        let mut slow = fixture.connect_json_as("bob", 64);
        slow.send(subscribe_json("s", "project:p")).await;
        settle().await;
        let mut users = Vec::new();
        for user in ["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"] {
            let mut client = fixture.connect_json_as(user, WIDE);
            client.send(subscribe_json("s", "project:p")).await;
            client.send(online("1", "p")).await;
            settle().await;
            users.push(client);
        }
        assert_eq!(fixture.closed("presence_owed"), 0, "counted at its end");
        let heard = slow.rest_after_close().await;
        assert!(
            heard.contains(&ReceivedFrame::Close(
                4003,
                "too slow: too much presence was owed".to_owned()
            )),
            "{heard:?}"
        );
        settle().await;
        assert_eq!(fixture.closed("presence_owed"), 1);
        fixture.check_sums();
    });
}

/// Sends the frame, which is refused, and returns the error.
async fn refused(client: &mut FrameClient, frame: Vec<u8>) -> Value {
    client.send(frame).await;
    let next = client.next_json().await;
    let error = next["error"].clone();
    assert_eq!(error["errorCode"], "RATE_LIMIT_EXCEEDED", "{next}");
    assert!(error["retryAfterMs"].is_string(), "{error}");
    error
}

#[test]
fn beyond_a_bound_a_message_is_refused_and_the_earlier_one_stands() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| {
            it.presence.messages_per_user = 2;
            it.presence.users_per_topic = 2;
            it.presence.message_max = 120;
        });
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        let mut ann = subscribed(&fixture, "ann", "project:p").await;
        let mut again = subscribed(&fixture, "ann", "project:p").await;
        let mut third = subscribed(&fixture, "ann", "project:p").await;
        let mut eve = subscribed(&fixture, "eve", "project:p").await;
        let mut max = subscribed(&fixture, "max", "project:p").await;
        ann.send(online("1", "p")).await;
        settle().await;
        again.send(online("2", "p")).await;
        assert_eq!(seen(&mut third).await.len(), 2);
        let error = refused(&mut third, online("3", "p")).await;
        assert!(
            error["errorMessage"]
                .as_str()
                .unwrap()
                .contains("messages_per_user")
        );
        eve.send(online("1", "p")).await;
        settle().await;
        seen(&mut max).await;
        let error = refused(&mut max, online("1", "p")).await;
        assert!(
            error["errorMessage"]
                .as_str()
                .unwrap()
                .contains("users_per_topic")
        );
        seen(&mut ann).await;
        let error = refused(&mut ann, online(&"long".repeat(30), "p")).await;
        assert!(
            error["errorMessage"]
                .as_str()
                .unwrap()
                .contains("message_max")
        );
        let all = seen(&mut bob).await;
        let users: Vec<_> = all.iter().map(|(user, ..)| user.as_str()).collect();
        assert_eq!(users, ["ann", "ann", "eve"]);
        let limit = "sidewire_limits_exceeded_total{limit=\"presence\"}";
        assert_eq!(fixture.metric(limit), 2);
        fixture.check_sums();
    });
}

#[test]
fn the_first_message_and_withdrawals_are_not_charged() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| {
            it.limits.user_event_burst = NonZeroU32::MIN;
        });
        let mut ann = subscribed(&fixture, "ann", "project:p").await;
        for (id, frame) in [
            ("first", online("1", "p")),
            ("withdrawn", offline("2")),
            ("charged", online("3", "p")),
            ("withdrawn again", offline("4")),
        ] {
            ann.send(frame).await;
            assert_eq!(seen(&mut ann).await, [], "{id}");
        }
        refused(&mut ann, online("5", "p")).await;
    });
}

#[test]
fn a_drain_shows_nobody_to_leave() {
    simulate(async {
        let fixture = fixture();
        let (mut bob, mut ann) = ann_shown_to_bob(&fixture).await;
        fixture.shard.end_clients();
        ann.rest_after_close().await;
        drop(ann);
        sleep(2 * LINGER).await;
        let heard = bob.remaining_frames().await;
        assert!(
            matches!(heard[..], [ReceivedFrame::Close(1001, _)]),
            "{heard:?}"
        );
    });
}

#[test]
fn the_users_of_a_new_topic_are_sent_at_the_rate_of_the_receiver() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|it| {
            it.presence.snapshot_messages_per_minute = NonZeroU32::new(2).unwrap();
        });
        let mut users = Vec::new();
        for user in ["u1", "u2", "u3"] {
            let mut client = fixture.connect_json_as(user, WIDE);
            client.send(subscribe_json("s", "project:p")).await;
            client.send(online("1", "p")).await;
            settle().await;
            users.push(client);
        }
        let mut bob = subscribed(&fixture, "bob", "project:p").await;
        let two = [is("u1", "ONLINE", "p"), is("u2", "ONLINE", "p")];
        assert_eq!(seen(&mut bob).await, two);
        users[1]
            .send(present("2", "PRESENCE_STATUS_AWAY", "p"))
            .await;
        settle().await;
        // Changes do not wait for the rate.
        assert_eq!(seen(&mut bob).await, [is("u2", "AWAY", "p")]);
        let begun = Instant::now();
        assert_eq!(bob.next_json().await["userPresence"]["userId"], "u3");
        assert_eq!(begun.elapsed(), Duration::from_secs(30));
    });
}
