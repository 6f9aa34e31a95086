//! Clients that speak JSON: replays, the bytes of their outboxes, and the memory for their JSON.

use std::time::Duration;

use sidewire_protocol::{Position, close::CloseReason};
use tokio::time::sleep;

use super::json::{acme, hears, padded, resume_json};
use crate::connection::{
    testing::{ConnectionFixture, WIDE, event, settle, simulate},
    wire_testing::{ReceivedFrame, json as text, ping_message, resume},
};

#[test]
fn missed_events_are_replayed_as_json_and_counted() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|config| config.limits.outbox_frames = 20);
        let first = fixture.publish([event(10)]).await.events[0].position;
        fixture.publish((0..100).map(|_| event(3_000))).await;
        let start = Position { offset: 0, ..first };
        let mut client = fixture.connect_json(WIDE);
        client.send(resume_json("r", "project:p", start)).await;
        client.send(text(r#"{"ping": {}}"#)).await;
        assert_eq!(
            client.next().await,
            Some(ReceivedFrame::Resumed("r".to_owned(), 101))
        );
        let mut heard = client.next_frames(102).await;
        // Answered at once, before all is replayed, and without a position.
        let pong = heard
            .iter()
            .position(|it| *it == ReceivedFrame::Answered(None));
        heard.remove(pong.unwrap());
        assert_eq!(
            heard,
            (1..=101).map(ReceivedFrame::Event).collect::<Vec<_>>()
        );
        fixture.publish([event(10)]).await;
        client.send(text(r#"{"ping": {}}"#)).await;
        hears(
            &mut client,
            [
                ReceivedFrame::Event(102),
                ReceivedFrame::Answered(Some(102)),
            ],
        )
        .await;
        assert_eq!(fixture.tally().json_replayed.get(), 101);
        assert_eq!(fixture.tally().json_delivered.get(), 1);
        fixture.check_sums();
    });
}

#[test]
fn large_events_are_replayed_and_delivered_as_json_in_order() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|_| {});
        let sizes = [10, 100_000, 10, 5_000];
        let first = fixture.publish(sizes.map(event)).await.events[0].position;
        let start = Position { offset: 0, ..first };
        let mut live = fixture.connect_json(WIDE);
        live.send(text(r#"{"ping": {}}"#)).await;
        assert_eq!(live.next().await, Some(ReceivedFrame::Answered(Some(4))));
        let mut resumed = fixture.connect_json(WIDE);
        resumed.send(resume_json("r", "project:p", start)).await;
        hears(&mut resumed, [ReceivedFrame::Resumed("r".to_owned(), 4)]).await;
        fixture.publish(sizes.map(event)).await;
        hears(&mut resumed, (1..=8).map(ReceivedFrame::Event)).await;
        hears(&mut live, (5..=8).map(ReceivedFrame::Event)).await;
        fixture.check_sums();
    });
}

#[test]
fn a_pong_has_the_position_of_the_connection_unless_a_replay_is_running() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|config| config.limits.outbox_frames = 20);
        let mut client = fixture.connect(WIDE);
        client.send(ping_message()).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Answered(Some(0))));
        let events = (0..100).map(|_| event(10));
        let first = fixture.publish(events).await.events[0].position;
        client.send(ping_message()).await;
        hears(&mut client, (1..=100).map(ReceivedFrame::Event)).await;
        assert_eq!(
            client.next().await,
            Some(ReceivedFrame::Answered(Some(100)))
        );
        let start = Position { offset: 0, ..first };
        let mut other = fixture.connect(WIDE);
        other
            .send([resume("r", "project:p", start), ping_message()].concat())
            .await;
        let heard = other.next_frames(102).await;
        assert!(heard.contains(&ReceivedFrame::Answered(None)), "{heard:?}");
        other.send(ping_message()).await;
        assert_eq!(other.next().await, Some(ReceivedFrame::Answered(Some(100))));
    });
}

#[test]
fn a_json_client_that_reads_nothing_is_closed_for_the_bytes_of_its_json() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.limits.outbox_bytes = 10_000;
            config.limits.outbox_frames = 1_000;
        });
        let mut neighbour = fixture.connect(WIDE);
        let _client = fixture.connect_json(64);
        for _ in 0..500 {
            fixture.publish([event(1)]).await;
        }
        settle().await;
        // The binary frame of each has 60 bytes or so, its JSON 110.
        assert!((50..120).contains(&fixture.tally().dropped_slow.get()));
        fixture.check_sums();
        hears(&mut neighbour, (1..=500).map(ReceivedFrame::Event)).await;
        drop(neighbour);
        sleep(Duration::from_secs(11)).await;
        assert_eq!(fixture.closed("too_slow"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_drain_waits_for_the_answer_to_an_offloaded_frame() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        client.send(padded("s", "project:p", 60 * 1024)).await;
        // It is read, but not handled yet.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let retry_after = Duration::from_secs(1);
        fixture
            .shard
            .hub
            .end_all(|| CloseReason::drain(retry_after));
        let heard = client.rest_after_close().await;
        let reason = "retry_after_ms=1000".to_owned();
        let expected = [
            ReceivedFrame::Subscribed("s".to_owned()),
            ReceivedFrame::Close(1001, reason),
        ];
        assert_eq!(heard, expected);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn without_memory_for_json_only_json_connections_are_closed() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_json(WIDE);
        let mut neighbour = fixture.connect(WIDE);
        fixture.stop_delivering();
        let publisher = &fixture.shard.relay.publisher;
        drop(publisher.append(&acme(), vec![event(10)]).await.unwrap());
        fixture.bound_memory(1);
        fixture.resume_delivering();
        assert_eq!(neighbour.next().await, Some(ReceivedFrame::Event(1)));
        let heard = client.rest_after_close().await;
        assert!(
            matches!(heard[..], [ReceivedFrame::Close(4003, _)]),
            "{heard:?}"
        );
        assert_eq!(fixture.tally().dropped_slow.get(), 1);
        drop(neighbour);
        settle().await;
        fixture.check_nothing_is_left();
    });
}
