//! A connection that ends while a backend is asked about its subscribe: it hears every event and
//! the answer before Close, or no position that an event it lost precedes.

use std::pin::pin;

use sidewire_protocol::close::CloseReason;

use super::*;

#[test]
fn a_drain_waits_for_the_answer() {
    simulate(async {
        let asking = Asking::new();
        let mut allowed = asking.fixture.connect_json(WIDE);
        let mut unanswered = asking.fixture.connect_json_as("bob", WIDE);
        for client in [&mut allowed, &mut unanswered] {
            client.send(subscribe_json("1", "project:p")).await;
        }
        let posted = asking.transport.next().await;
        let reason = || CloseReason::drain(Duration::ZERO);
        asking.fixture.shard.hub.end_all(reason);
        settle().await;
        assert!(allowed.is_served() && unanswered.is_served());
        posted.answer(ALLOW);
        let is_drained = |frames: &[ReceivedFrame], expected: ReceivedFrame| {
            assert_eq!(frames[0], expected);
            assert!(matches!(frames[1], ReceivedFrame::Close(1001, _)));
        };
        is_drained(&allowed.rest_after_close().await, confirmed("1"));
        let frames = unanswered.rest_after_close().await;
        is_drained(&frames, refused("INTERNAL_ERROR"));
    });
}

#[test]
fn an_event_that_comes_while_a_drain_waits_for_an_answer_precedes_the_answer() {
    simulate(async {
        let asking = Asking::new();
        let mut client = asking.fixture.connect(WIDE);
        client.send(subscribe("1", "project:p")).await;
        let posted = asking.transport.next().await;
        let reason = || CloseReason::drain(Duration::ZERO);
        asking.fixture.shard.hub.end_all(reason);
        asking.fixture.publish([event(1)]).await;
        posted.answer(ALLOW);
        let frames = client.rest_after_close().await;
        // The confirmed position is that of the event.
        assert_eq!(frames[..2], [ReceivedFrame::Event(1), confirmed("1")]);
        assert!(matches!(frames[2], ReceivedFrame::Close(1001, _)));
        asking.fixture.check_sums();
    });
}

#[test]
fn a_client_that_falls_behind_while_a_drain_waits_for_an_answer_is_closed_as_too_slow() {
    simulate(async {
        let asking = Asking::with(|config| config.limits.outbox_frames = 4);
        let mut client = asking.fixture.connect(1);
        client.send(subscribe("1", "project:p")).await;
        let posted = asking.transport.next().await;
        let reason = || CloseReason::drain(Duration::ZERO);
        asking.fixture.shard.hub.end_all(reason);
        for _ in 0..8 {
            asking.fixture.publish([event(100)]).await;
        }
        posted.answer(ALLOW);
        let frames = client.rest_after_close().await;
        assert!(!frames.contains(&confirmed("1")), "{frames:?}");
        let last = frames.last();
        assert!(
            matches!(last, Some(ReceivedFrame::Close(4003, _))),
            "{frames:?}"
        );
    });
}

#[test]
fn a_client_that_lost_an_event_hears_no_later_position_even_if_it_is_refused_too_often() {
    simulate(async {
        let asking = Asking::with(|config| {
            config.limits.outbox_frames = 4;
            config.limits.refusals_per_minute = NonZeroU32::MIN;
        });
        let mut client = asking.fixture.connect_json(WIDE);
        client.send(subscribe_json("1", "project:p")).await;
        let posted = asking.transport.next().await;
        for id in ["2", "3", "4", "5"] {
            client.send(unsubscribe_json(id, "project:q")).await;
        }
        client
            .send(text(r#"{"messageId": "6", "subscribe": {}}"#))
            .await;
        client.send(subscribe_json("7", "nothing")).await;
        settle().await;
        asking.fixture.stop_delivering();
        let mut publishing = pin!(asking.fixture.publish([event(1)]));
        assert!(futures_util::poll!(publishing.as_mut()).is_pending());
        // Before the empty Subscribe is confirmed, the event finds the outbox full of answers.
        posted.fail(StatusCode::INTERNAL_SERVER_ERROR);
        let frames = client.rest_after_close().await;
        assert!(
            matches!(&frames[..], [ReceivedFrame::Close(4003, _)]),
            "{frames:?}"
        );
        assert_eq!(asking.fixture.tally().dropped_slow.get(), 1);
    });
}
