//! Connections that resume: what they are sent, in which order, and how they end if they cannot
//! resume.

use std::time::Duration;

use sidewire_protocol::{Position, close::CloseReason};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::connection::{
    testing::{ConnectionFixture, NOW, WIDE, event, settle, simulate},
    waiting::WAITING_MAX,
    wire_testing::{ReceivedFrame, ping, resume, subscribe, subscribe_many, unsubscribe},
};

/// A relay that has published this many events, and the position before the first.
async fn published(
    count: usize,
    outbox_frames: usize,
    window: usize,
) -> (ConnectionFixture, Position) {
    let fixture = ConnectionFixture::with_log(|config| {
        config.limits.outbox_frames = outbox_frames;
        config.replay.events = window;
    });
    let events = (0..count).map(|_| event(100));
    let placed = fixture.publish(events).await.events;
    let start = Position {
        offset: 0,
        ..placed[0].position
    };
    (fixture, start)
}

fn events(offsets: std::ops::RangeInclusive<u64>) -> Vec<ReceivedFrame> {
    offsets.map(ReceivedFrame::Event).collect()
}

fn resumed(id: &str, replayed: u64) -> Vec<ReceivedFrame> {
    vec![ReceivedFrame::Resumed(id.to_owned(), replayed)]
}

fn end_with_nothing_left(fixture: &ConnectionFixture) {
    fixture.check_sums();
    assert_eq!(fixture.tally().queued.get(), 0);
    assert!(fixture.shard.hub.is_empty());
}

#[test]
fn the_confirmation_comes_first_then_the_replay_then_newer_events() {
    simulate(async {
        let (fixture, start) = published(1000, 10, 10_000).await;
        let mut client = fixture.connect(512);
        client.send(resume("r", "project:p", start)).await;
        settle().await;
        // It has read less than half of it, and is not closed for the events that come now.
        for _ in 0..50 {
            fixture.publish([event(100)]).await;
        }
        assert_eq!(fixture.tally().matched.get(), 50);
        let expected = [resumed("r", 1000), events(1..=1050)].concat();
        assert_eq!(client.next_frames(1051).await, expected);
        assert_eq!(fixture.tally().replayed.get(), 1000);
        fixture.publish([event(1)]).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Event(1051)));
        drop(client);
        settle().await;
        end_with_nothing_left(&fixture);
    });
}

#[test]
fn requests_during_a_replay_wait_in_order_up_to_a_limit() {
    simulate(async {
        let (fixture, start) = published(600, 10, 10_000).await;
        let mut client = fixture.connect(512);
        client.send(resume("r", "project:p", start)).await;
        assert_eq!(client.next_frames(5).await[0], resumed("r", 600)[0]);
        let waiting = (0..WAITING_MAX).map(|number| match number % 2 {
            0 => subscribe(&format!("w{number}"), "project:q"),
            _ => unsubscribe(&format!("w{number}"), "project:q"),
        });
        let too_many = subscribe("too-many", "project:q");
        let questions: Vec<u8> = waiting.chain([too_many, ping(b"p")]).flatten().collect();
        let mut heard = Vec::new();
        let mut rest = &questions[..];
        while !rest.is_empty() {
            rest = &rest[client.send_some(rest).await..];
            heard.push(client.next().await.unwrap());
        }
        let answers = WAITING_MAX + 2;
        heard.extend(client.next_frames(596 + answers - heard.len()).await);

        let refused = ReceivedFrame::Refused("RATE_LIMIT_EXCEEDED".to_owned());
        let place = |wanted: &ReceivedFrame| heard.iter().position(|it| it == wanted).unwrap();
        let last = place(&ReceivedFrame::Event(600));
        assert!(place(&refused) < last, "it is refused at once");
        assert!(
            place(&ReceivedFrame::Pong(b"p".to_vec())) < last,
            "it is answered at once"
        );
        let confirmed: Vec<_> = (0..WAITING_MAX)
            .map(|number| match number % 2 {
                0 => ReceivedFrame::Subscribed(format!("w{number}")),
                _ => ReceivedFrame::Unsubscribed(format!("w{number}")),
            })
            .collect();
        assert_eq!(heard[last + 1..], confirmed);
        drop(client);
        settle().await;
        end_with_nothing_left(&fixture);
    });
}

#[test]
fn requests_that_waited_for_a_replay_are_handled_a_quantum_at_a_time() {
    simulate(async {
        let (fixture, start) = published(100, 1000, 10_000).await;
        let mut client = fixture.connect(WIDE);
        let topics = |n| (0..500).map(move |it| format!("project:{n}.{it}"));
        let waiting = (0..WAITING_MAX).map(|n| subscribe_many("w", topics(n).collect()));
        let all = [vec![resume("r", "project:p", start)], waiting.collect()].concat();
        client.send(all.concat()).await;
        let subscriptions = || fixture.tally().subscriptions.get();
        let (mut most, mut steps) = (0, 0);
        while subscriptions() < 500 * WAITING_MAX as u64 {
            let before = subscriptions();
            yield_now().await;
            most = most.max(subscriptions() - before);
            steps += 1;
        }
        assert!(most <= 501, "{most} at once");
        // Each is a debt of four quanta.
        assert!(steps > 3 * WAITING_MAX, "{steps}");
        let confirmed = client.next_frames(101 + WAITING_MAX).await;
        assert_eq!(
            confirmed.last(),
            Some(&ReceivedFrame::Subscribed("w".to_owned()))
        );
    });
}

#[test]
fn a_resume_that_waits_for_another_is_confirmed_after_it_and_replays_less() {
    simulate(async {
        let (fixture, start) = published(20, 10, 10_000).await;
        let mut client = fixture.connect(WIDE);
        let both = [
            resume("a", "project:p", start),
            resume("b", "project:q", start),
        ]
        .concat();
        client.send(both).await;
        // The events are for everyone: the first resume replays them, and the second does not
        // repeat them.
        let expected = [resumed("a", 20), events(1..=20), resumed("b", 0)].concat();
        assert_eq!(client.next_frames(22).await, expected);
    });
}

#[test]
fn many_replays_of_one_tenant_read_a_bounded_amount_per_turn() {
    simulate(async {
        let (fixture, start) = published(1000, 1000, 10_000).await;
        let mut clients: Vec<_> = (0..100).map(|_| fixture.connect(WIDE)).collect();
        for client in &mut clients {
            client.send(resume("r", "project:p", start)).await;
        }
        let replayed = || fixture.tally().replayed.get();
        let mut most = 0;
        while replayed() < 100 * 1000 {
            let before = replayed();
            yield_now().await;
            most = most.max(replayed() - before);
        }
        // 334 in a turn of the shard.
        assert!((1..1000).contains(&most), "{most}");
        for mut client in clients {
            let expected = [resumed("r", 1000), events(1..=1000)].concat();
            assert_eq!(client.next_frames(1001).await, expected);
        }
    });
}

#[test]
fn resumes_that_arrive_at_once_are_handled_one_after_another() {
    simulate(async {
        let (fixture, start) = published(20, 100, 10_000).await;
        let mut client = fixture.connect(WIDE);
        let ids: Vec<_> = (0..3 * WAITING_MAX).map(|it| format!("r{it}")).collect();
        let all: Vec<u8> = ids
            .iter()
            .flat_map(|id| resume(id, "project:p", start))
            .collect();
        client.send(all).await;
        let rest = ids[1..].iter().flat_map(|id| resumed(id, 0)).collect();
        let expected = [resumed("r0", 20), events(1..=20), rest].concat();
        assert_eq!(client.next_frames(expected.len()).await, expected);
    });
}

#[test]
fn a_replay_overtaken_by_eviction_ends_with_4003() {
    simulate(async {
        let (fixture, start) = published(100, 10, 100).await;
        let mut client = fixture.connect(512);
        client.send(resume("r", "project:p", start)).await;
        assert_eq!(
            client.next().await,
            Some(ReceivedFrame::Resumed("r".to_owned(), 100))
        );
        settle().await;
        fixture.publish((0..100).map(|_| event(1))).await;
        let heard = client.rest_after_close().await;
        let reason = "too slow: events left the replay window first".to_owned();
        assert_eq!(heard.last(), Some(&ReceivedFrame::Close(4003, reason)));
        let so_far = u64::try_from(heard.len() - 1).unwrap();
        assert!(so_far < 100);
        assert_eq!(heard[..heard.len() - 1], events(1..=so_far));
        assert_eq!(fixture.closed("overtaken"), 1);
        settle().await;
        end_with_nothing_left(&fixture);
    });
}

#[test]
fn a_token_that_expires_during_a_replay_ends_it_at_once() {
    simulate(async {
        let (fixture, start) = published(1000, 10, 10_000).await;
        let lifetime = Duration::from_secs(5);
        let mut client = fixture.connect_until(Some(NOW + lifetime), 512);
        let began = Instant::now();
        client.send(resume("r", "project:p", start)).await;
        client.next().await;
        sleep(lifetime).await;
        let heard = client.rest_after_close().await;
        assert_eq!(began.elapsed(), lifetime);
        assert_eq!(
            heard.last(),
            Some(&ReceivedFrame::Close(4001, "token expired".to_owned()))
        );
        assert!(heard.len() < 20, "{heard:?}");
        settle().await;
        end_with_nothing_left(&fixture);
    });
}

#[test]
fn a_drain_waits_for_the_owed_events_of_a_resuming_connection() {
    simulate(async {
        let (fixture, start) = published(300, 10, 10_000).await;
        let mut client = fixture.connect(512);
        client.send(resume("r", "project:p", start)).await;
        assert_eq!(client.next().await, resumed("r", 300).pop());
        fixture.publish([event(100), event(100)]).await;
        let ending = CloseReason::drain(Duration::from_millis(7));
        fixture.shard.hub.end_all(|| ending);
        let goodbye = ReceivedFrame::Close(1001, "retry_after_ms=7".to_owned());
        let expected = [events(1..=302), vec![goodbye]].concat();
        assert_eq!(client.rest_after_close().await, expected);
        settle().await;
        end_with_nothing_left(&fixture);
        assert_eq!(fixture.tally().dropped_closed.get(), 0);
    });
}

#[test]
fn the_owed_events_of_a_client_that_leaves_are_counted_as_dropped() {
    simulate(async {
        let (fixture, start) = published(300, 10, 10_000).await;
        let mut client = fixture.connect(512);
        client.send(resume("r", "project:p", start)).await;
        assert_eq!(client.next().await, resumed("r", 300).pop());
        fixture.publish((0..30).map(|_| event(100))).await;
        assert!(fixture.tally().queued.get() > 30);
        drop(client);
        settle().await;
        assert!(fixture.tally().dropped_closed.get() >= 30);
        end_with_nothing_left(&fixture);
    });
}
