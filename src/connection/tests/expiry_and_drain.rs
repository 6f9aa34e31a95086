//! Endings caused by the relay: the token expires, the relay shuts down.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use sidewire_protocol::close::CloseReason;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connection::{
    testing::{ConnectionFixture, NOW, ObservedEnd, WIDE, event, settle, simulate},
    wire_testing::{BINARY, ReceivedFrame, close, frame, ping, subscribe},
};

const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const LIFETIME: Duration = Duration::from_secs(60);

fn expired() -> [ReceivedFrame; 2] {
    [
        ReceivedFrame::Refused("AUTHENTICATION_FAILED".to_owned()),
        ReceivedFrame::Close(4001, "token expired".to_owned()),
    ]
}

#[test]
fn a_token_expiry_is_announced_and_closes_the_connection_exactly_then() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let start = Instant::now();
        let mut client = fixture.connect_until(Some(NOW + LIFETIME), WIDE);
        sleep(LIFETIME - Duration::from_millis(1)).await;
        fixture.publish([event(1)]).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Event(1)));
        settle().await;
        assert_eq!(client.read_some(1).await, 0);

        let [error, goodbye] = expired();
        assert_eq!(client.next().await, Some(error));
        assert_eq!(start.elapsed(), LIFETIME);
        let published = fixture.publish([event(1)]).await;
        assert_eq!(published.events[0].matched, Some(0));
        assert_eq!(client.next().await, Some(goodbye));
        client.send(close(4001)).await;
        assert_eq!(client.next().await, None);
        let end = client.wait_for_end().await;
        assert_eq!((end.at - start, end.was_reset), (LIFETIME, false));
        assert_eq!(fixture.closed("token_expired"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_token_that_expired_during_the_handshake_lets_nothing_through() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_until(Some(NOW), WIDE);
        client.send(subscribe("s", "project:p")).await;
        assert_eq!(client.rest_after_close().await, expired());
        assert_eq!(fixture.tally().subscriptions.get(), 0);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_floods_cannot_delay_its_token_expiry() {
    let floods = [
        subscribe("s", "project:p"),
        ping(b"again"),
        frame(BINARY, true, &[0xff; 100]),
    ];
    for message in floods {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let start = Instant::now();
            let mut client = fixture.connect_until(Some(NOW + LIFETIME), 4096);
            sleep(LIFETIME - Duration::from_millis(100)).await;
            client.flood(message.repeat(100), Duration::from_millis(1));
            let mut heard = Vec::new();
            while heard.last() != expired().last() {
                heard.push(client.next().await.expect("it is said goodbye to"));
            }
            assert_eq!(start.elapsed(), LIFETIME);
            assert!(heard.ends_with(&expired()));
            let end = client.wait_for_end().await;
            assert_eq!(end.at - start, LIFETIME + CLOSE_ANSWER_TIMEOUT);
            assert_eq!(client.next().await, None);
            assert_eq!(fixture.closed("token_expired"), 1);
        });
    }
}

#[test]
fn a_client_not_reading_when_its_token_expires_is_cut_off_at_the_write_deadline() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let start = Instant::now();
        let mut client = fixture.connect_until(Some(NOW + LIFETIME), 64);
        let stalled = LIFETIME - Duration::from_secs(4);
        sleep(stalled).await;
        fixture.publish([event(100), event(100), event(100)]).await;
        sleep_until(start + LIFETIME).await;
        settle().await;
        // A frame in progress is kept, the rest is discarded.
        assert_eq!(fixture.tally().queued.get(), 1);
        assert_eq!(fixture.tally().dropped_closed.get(), 2);
        let end = client.wait_for_end().await;
        assert_eq!(end.at - start, stalled + Duration::from_secs(10));
        assert!(end.was_reset);
        assert_eq!(fixture.closed("token_expired"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_token_expiry_drops_queued_frames_but_not_a_begun_one() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_until(Some(NOW + LIFETIME), 64);
        sleep(LIFETIME - Duration::from_secs(4)).await;
        fixture.publish([event(100), event(100)]).await;
        sleep(Duration::from_secs(5)).await;
        let mut expected = vec![ReceivedFrame::Event(1)];
        expected.extend(expired());
        assert_eq!(client.rest_after_close().await, expected);
        fixture.check_nothing_is_left();
    });
}

const RETRY_AFTER: Duration = Duration::from_millis(1234);

fn drain(fixture: &ConnectionFixture) {
    fixture
        .shard
        .hub
        .end_all(|| CloseReason::drain(RETRY_AFTER));
}

fn going_away() -> ReceivedFrame {
    ReceivedFrame::Close(1001, "retry_after_ms=1234".to_owned())
}

#[test]
fn a_drain_writes_queued_frames_and_then_closes_with_a_retry_delay() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        client.send(subscribe("s", "project:p")).await;
        fixture.publish((0..100).map(|_| event(100))).await;
        drain(&fixture);
        settle().await;
        // It receives nothing of what comes after.
        let published = fixture.publish([event(1)]).await;
        assert_eq!(published.events[0].matched, Some(0));
        let mut heard = client.rest_after_close().await;
        assert_eq!(heard.pop(), Some(going_away()));
        let confirmed = heard
            .iter()
            .position(|it| matches!(it, ReceivedFrame::Subscribed(_)));
        heard.remove(confirmed.expect("the answer is written too"));
        assert_eq!(
            heard,
            (1..=100).map(ReceivedFrame::Event).collect::<Vec<_>>()
        );
        assert_eq!(fixture.tally().written.get(), 100);
        assert_eq!(fixture.closed("drain"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_drain_delivers_an_event_that_is_already_in_the_inbox() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        settle().await;
        let mut publishing = pin!(fixture.publish([event(1)]));
        // The event is in the shard's inbox, and the shard has not seen it yet.
        let published = poll_fn(|cx| Poll::Ready(publishing.as_mut().poll(cx))).await;
        assert!(published.is_pending());
        drain(&fixture);
        assert_eq!(publishing.await.events[0].matched, Some(1));
        let heard = client.rest_after_close().await;
        assert_eq!(heard, [ReceivedFrame::Event(1), going_away()]);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_never_answers_the_close_is_dropped_after_two_seconds() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        let start = Instant::now();
        fixture.publish([event(1)]).await;
        drain(&fixture);
        let end = client.wait_for_end().await;
        assert_eq!(end.at - start, CLOSE_ANSWER_TIMEOUT);
        // The Close was written, and the client can read it.
        assert!(!end.was_reset);
        assert_eq!(
            client.remaining_frames().await,
            [ReceivedFrame::Event(1), going_away()]
        );
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_keeps_sending_after_the_close_is_dropped_after_two_seconds() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        settle().await;
        let start = Instant::now();
        drain(&fixture);
        let sending = async {
            while client.is_served() {
                client.send_some(&subscribe("s", "project:p")).await;
                sleep(Duration::from_millis(10)).await;
            }
        };
        sending.await;
        assert_eq!(client.wait_for_end().await.at - start, CLOSE_ANSWER_TIMEOUT);
        assert_eq!(client.remaining_frames().await, [going_away()]);
        assert_eq!(fixture.tally().subscriptions.get(), 0);
    });
}

#[test]
fn a_client_that_does_not_read_during_a_drain_is_cut_off_and_delays_no_other() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let (mut silent, mut good) = (fixture.connect(64), fixture.connect(WIDE));
        let start = Instant::now();
        fixture.publish([event(100)]).await;
        drain(&fixture);
        assert_eq!(
            good.rest_after_close().await,
            [ReceivedFrame::Event(1), going_away()]
        );
        assert_eq!(start.elapsed(), Duration::ZERO);
        let ObservedEnd { at, was_reset } = silent.wait_for_end().await;
        assert_eq!((at - start, was_reset), (Duration::from_secs(10), true));
        assert_eq!(fixture.tally().written.get(), 1);
        assert_eq!(fixture.tally().dropped_closed.get(), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_reads_slowly_during_a_drain_is_not_cut_off_by_its_connection() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_until(Some(NOW + LIFETIME), 64);
        fixture.publish((0..100).map(|_| event(100))).await;
        drain(&fixture);
        let mut heard = Vec::new();
        // It takes longer than any deadline, and longer than its token is valid.
        while client.is_served() {
            sleep(Duration::from_secs(1)).await;
            client.read_some(1000).await;
            heard.extend(client.next_read());
            settle().await;
        }
        let mut expected: Vec<_> = (1..=100).map(ReceivedFrame::Event).collect();
        expected.push(going_away());
        assert_eq!(heard, expected);
        fixture.check_nothing_is_left();
    });
}
