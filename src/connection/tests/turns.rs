//! A Subscribe that arrives while its tenant has a longer backlog than other tenants should wait
//! for.

use std::time::Duration;

use sidewire_protocol::{Position, TenantName, close::CloseReason};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::{
    connection::{
        testing::{ConnectionFixture, FrameClient, event, settle, simulate},
        wire_testing::{ReceivedFrame, resume, subscribe},
    },
    planted::seen,
};

/// More events than a tenant has delivered in one turn.
const MANY: usize = 3_000;

/// A client is pinged after this much silence, and disconnected after twice as much; it has as
/// long for a message.
const INTERVAL: Duration = Duration::from_secs(30);

/// A client with a Subscribe that waits for a batch being delivered.
async fn with_a_subscribe_that_waits() -> (ConnectionFixture, FrameClient) {
    let fixture = ConnectionFixture::new();
    let mut client = fixture.connect(1 << 20);
    settle().await;
    have_waited();
    post(&fixture).await;
    client.send(subscribe("s", "project:p")).await;
    until_it_waits().await;
    (fixture, client)
}

async fn until_it_waits() {
    while have_waited() == 0 {
        yield_now().await;
    }
}

/// Puts a batch into the inbox, without waiting for its delivery.
async fn post(fixture: &ConnectionFixture) {
    let tenant = TenantName::parse("acme").unwrap();
    let drafts = (0..MANY).map(|_| event(10)).collect();
    let appended = fixture.shard.relay.publisher.append(&tenant, drafts).await;
    drop(appended.unwrap());
}

fn have_waited() -> u64 {
    let waited = seen().remove("a Subscribe that waited for its tenant's deliveries");
    waited.unwrap_or_default()
}

#[test]
fn a_subscribe_is_confirmed_after_the_backlog_and_before_the_next_request() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(1 << 20);
        settle().await;
        have_waited();
        post(&fixture).await;
        let both = [subscribe("s", "project:p"), subscribe("t", "project:q")].concat();
        client.send(both).await;
        let events: Vec<_> = (1..=MANY as u64).map(ReceivedFrame::Event).collect();
        assert_eq!(client.next_frames(MANY).await, events);
        let confirmed = ["s", "t"].map(|id| ReceivedFrame::Subscribed(id.to_owned()));
        assert_eq!(client.next_frames(2).await, confirmed);
        // The second had nothing left to wait for.
        assert_eq!(have_waited(), 1);
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn requests_that_waited_for_a_replay_wait_for_the_backlog_in_order() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|_| ());
        let first = fixture.publish([event(10)]).await.events[0].position;
        let start = Position { offset: 0, ..first };
        let mut client = fixture.connect(1 << 20);
        settle().await;
        have_waited();
        let three = [
            resume("r", "project:p", start),
            subscribe("s", "project:q"),
            subscribe("t", "project:r"),
        ];
        client.send(three.concat()).await;
        // Read, and not live again yet.
        while fixture.tally().replayed.get() == 0 {
            yield_now().await;
        }
        post(&fixture).await;
        let mut heard = Vec::new();
        while !heard.contains(&ReceivedFrame::Subscribed("t".to_owned())) {
            heard.push(client.next().await.expect("it goes on"));
        }
        let order: Vec<_> = heard
            .iter()
            .filter(|heard| !matches!(heard, ReceivedFrame::Event(_)))
            .collect();
        assert_eq!(
            order,
            [
                &ReceivedFrame::Resumed("r".to_owned(), 1),
                &ReceivedFrame::Subscribed("s".to_owned()),
                &ReceivedFrame::Subscribed("t".to_owned()),
            ]
        );
        assert_eq!(have_waited(), 1);
    });
}

#[test]
fn a_client_that_leaves_while_its_subscribe_waits_leaves_nothing_behind() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        // Another client keeps the tenant and its backlog alive.
        let mut other = fixture.connect(1 << 20);
        let mut client = fixture.connect(16);
        settle().await;
        have_waited();
        post(&fixture).await;
        client.send(subscribe("s", "project:p")).await;
        until_it_waits().await;
        drop(client);
        let events: Vec<_> = (1..=MANY as u64).map(ReceivedFrame::Event).collect();
        assert_eq!(other.next_frames(MANY).await, events);
        assert_eq!(fixture.tally().subscriptions.get(), 0);
        drop(other);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

/// A client that has waited for longer than it may be silent, possibly with half a message sent
/// after it.
async fn waited_for_long(behind: &[u8]) -> (ConnectionFixture, FrameClient) {
    let fixture = ConnectionFixture::with_settings(|config| {
        config.client.ping_interval = INTERVAL;
        config.client.idle_timeout = 2 * INTERVAL;
        config.client.message_timeout = INTERVAL;
    });
    let mut client = fixture.connect(1 << 20);
    settle().await;
    have_waited();
    fixture.stop_delivering();
    post(&fixture).await;
    post(&fixture).await;
    let both = [&subscribe("s", "project:p"), behind].concat();
    client.send(both).await;
    until_it_waits().await;
    sleep(5 * INTERVAL + INTERVAL / 3).await;
    assert!(client.is_served());
    fixture.resume_delivering();
    let heard = client.next_frames(2 * MANY + 1).await;
    assert_eq!(
        heard.last(),
        Some(&ReceivedFrame::Subscribed("s".to_owned()))
    );
    (fixture, client)
}

#[test]
fn the_idle_timeout_restarts_after_a_subscribe_has_waited() {
    simulate(async {
        let (fixture, mut client) = waited_for_long(b"").await;
        let began = Instant::now();
        let heard = client.rest_after_close().await;
        assert_eq!(heard[0], ReceivedFrame::Ping);
        assert!(matches!(heard.last(), Some(ReceivedFrame::Close(4004, _))));
        assert!(began.elapsed() > INTERVAL);
        assert_eq!(fixture.closed("idle"), 1);
    });
}

#[test]
fn the_time_for_the_next_message_restarts_after_a_subscribe_has_waited() {
    simulate(async {
        let next = subscribe("t", "project:q");
        let (half, _) = next.split_at(next.len() / 2);
        let (fixture, mut client) = waited_for_long(half).await;
        let began = Instant::now();
        let heard = client.rest_after_close().await;
        assert!(
            matches!(heard[..], [ReceivedFrame::Close(4004, _)]),
            "{heard:?}"
        );
        assert!((INTERVAL / 2..=INTERVAL).contains(&began.elapsed()));
        assert_eq!(fixture.closed("unfinished"), 1);
    });
}

#[test]
fn a_waiting_subscribe_is_answered_when_the_relay_drains() {
    simulate(async {
        let (fixture, mut client) = with_a_subscribe_that_waits().await;
        let retry_after = Duration::from_secs(1);
        fixture
            .shard
            .hub
            .end_all(|| CloseReason::drain(retry_after));
        let heard = client.rest_after_close().await;
        let events: Vec<_> = (1..=MANY as u64).map(ReceivedFrame::Event).collect();
        let (before, after) = heard.split_at(events.len());
        assert_eq!(before, events);
        assert_eq!(after[0], ReceivedFrame::Subscribed("s".to_owned()));
        assert!(
            matches!(after[1..], [ReceivedFrame::Close(1001, _)]),
            "{after:?}"
        );
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_waiting_subscribe_is_dropped_when_its_client_is_disconnected() {
    simulate(async {
        let (fixture, mut client) = with_a_subscribe_that_waits().await;
        fixture.shard.hub.end_all(|| CloseReason::Disconnected);
        let heard = client.rest_after_close().await;
        assert!(!heard.contains(&ReceivedFrame::Subscribed("s".to_owned())));
        assert!(matches!(heard.last(), Some(ReceivedFrame::Close(4002, _))));
        settle().await;
        fixture.check_nothing_is_left();
    });
}
