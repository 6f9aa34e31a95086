//! Clients that send too much, and clients that keep being refused.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::{Instant, advance};

use crate::{
    config::{Config, LimitsSection},
    connection::{
        testing::{ConnectionFixture, FrameClient, NOW, WIDE, event, settle, simulate},
        wire_testing::{BINARY, ReceivedFrame, frame, ping, resume, subscribe, unsubscribe},
    },
    relay::LiveSettings,
};

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

/// Creates a shard with the limits of the default configuration, except for these settings.
fn fixture(settings: impl FnOnce(&mut Config)) -> ConnectionFixture {
    ConnectionFixture::with_settings(|config| {
        config.limits = LimitsSection::default();
        settings(config);
    })
}

/// A message without a payload.
fn bad() -> Vec<u8> {
    frame(BINARY, true, &[])
}

fn refused(code: &str) -> ReceivedFrame {
    ReceivedFrame::Refused(code.to_owned())
}

async fn next(client: &mut FrameClient) -> ReceivedFrame {
    client.next().await.expect("the connection stays open")
}

#[test]
fn a_flood_of_bad_messages_is_refused_a_hundred_times_and_then_closed() {
    simulate(async {
        let fixture = fixture(|_| ());
        let mut client = fixture.connect(WIDE);
        fixture.publish([event(10)]).await;
        client.send(bad().repeat(500)).await;
        let heard = client.rest_after_close().await;
        assert_eq!(heard[0], ReceivedFrame::Event(1));
        assert_eq!(heard[1..101], vec![refused("VALIDATION_ERROR"); 100]);
        assert!(
            matches!(heard[101..], [ReceivedFrame::Close(4005, _)]),
            "{heard:?}"
        );
        assert_eq!(fixture.closed("refused"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn refusals_that_are_spread_out_do_not_close_the_connection() {
    simulate(async {
        let fixture = fixture(|it| it.limits.refusals_per_minute = count(3));
        let mut client = fixture.connect(WIDE);
        for _ in 0..20 {
            client.send(bad()).await;
            assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
            advance(Duration::from_secs(30)).await;
        }
        client.send(bad().repeat(2)).await;
        for _ in 0..2 {
            assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
        }
        assert!(matches!(
            next(&mut client).await,
            ReceivedFrame::Close(4005, _)
        ));
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_is_refused_too_often_and_does_not_read_is_cut_off() {
    simulate(async {
        let fixture = fixture(|it| it.limits.refusals_per_minute = count(3));
        let start = Instant::now();
        let mut client = fixture.connect(64);
        client.send(bad().repeat(3)).await;
        let end = client.wait_for_end().await;
        let timeout = fixture.shard.relay.live().config.client.write_timeout;
        assert_eq!((end.at - start, end.was_reset), (timeout, true));
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_is_refused_too_often_during_catch_up_is_disconnected_too() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|it| it.limits.refusals_per_minute = count(2));
        let published = fixture.publish((0..2_000).map(|_| event(10))).await;
        let mut from = published.events[0].position;
        from.offset = 0;
        let mut client = fixture.connect(WIDE);
        let request = [resume("r", "project:p1", from), bad(), bad()].concat();
        client.send(request).await;
        settle().await;
        fixture.publish([event(10)]).await;
        let heard = client.rest_after_close().await;
        assert!(matches!(heard.last(), Some(ReceivedFrame::Close(4005, _))));
        let refusals = heard
            .iter()
            .filter(|it| matches!(it, ReceivedFrame::Refused(_)));
        assert_eq!(refusals.count(), 2);
        fixture.check_sums();
        assert_eq!(fixture.tally().queued.get(), 0);
    });
}

#[test]
fn a_token_expiry_does_not_count_as_a_refusal() {
    simulate(async {
        let fixture = fixture(|it| it.limits.refusals_per_minute = count(1));
        let mut client = fixture.connect_until(Some(NOW + Duration::from_secs(1)), WIDE);
        let heard = client.rest_after_close().await;
        assert!(
            matches!(&heard[..], [error, ReceivedFrame::Close(4001, _)] if *error == refused("AUTHENTICATION_FAILED")),
            "{heard:?}"
        );
        fixture.check_nothing_is_left();
    });
}

#[test]
fn the_first_subscribe_is_free_and_one_over_the_rate_has_no_effect() {
    simulate(async {
        let fixture = fixture(|it| it.limits.user_burst = count(1));
        let mut client = fixture.connect(WIDE);
        let id = |id: &str| ReceivedFrame::Subscribed(id.to_owned());
        for (name, heard) in [
            ("first", id("first")),
            ("second", id("second")),
            ("third", refused("RATE_LIMIT_EXCEEDED")),
        ] {
            client
                .send(subscribe(name, &format!("project:{name}")))
                .await;
            assert_eq!(next(&mut client).await, heard);
        }
        assert_eq!(fixture.tally().subscriptions.get(), 2);
        client.send(unsubscribe("u", "project:first")).await;
        assert_eq!(next(&mut client).await, refused("RATE_LIMIT_EXCEEDED"));
        assert_eq!(fixture.tally().subscriptions.get(), 2);
        // The user's other connection shares the bucket, and has a first Subscribe.
        let mut other = fixture.connect(WIDE);
        other.send(subscribe("other", "project:p1")).await;
        assert_eq!(next(&mut other).await, id("other"));
        other.send(bad()).await;
        assert_eq!(next(&mut other).await, refused("RATE_LIMIT_EXCEEDED"));
        advance(Duration::from_mins(1)).await;
        client.send(subscribe("third", "project:third")).await;
        assert_eq!(next(&mut client).await, id("third"));
        drop((client, other));
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_rate_limited_client_gets_pongs_but_a_flood_of_pings_is_refused() {
    simulate(async {
        let fixture = fixture(|it| {
            it.limits.user_burst = count(1);
            it.limits.heartbeat_burst = count(3);
        });
        let mut client = fixture.connect(WIDE);
        client.send(bad().repeat(2)).await;
        assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
        assert_eq!(next(&mut client).await, refused("RATE_LIMIT_EXCEEDED"));
        let pong = ReceivedFrame::Pong(b"p".to_vec());
        for _ in 0..3 {
            client.send(ping(b"p")).await;
            assert_eq!(next(&mut client).await, pong);
        }
        // It is answered all the same (RFC 6455, 5.5.2).
        client.send(ping(b"p")).await;
        assert_eq!(next(&mut client).await, pong);
        assert_eq!(next(&mut client).await, refused("RATE_LIMIT_EXCEEDED"));
        advance(Duration::from_secs(20)).await;
        client.send(ping(b"p")).await;
        assert_eq!(next(&mut client).await, pong);
        client.send(ping(b"p").repeat(200)).await;
        let heard = client.rest_after_close().await;
        assert!(matches!(heard.last(), Some(ReceivedFrame::Close(4005, _))));
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_reload_changes_the_limits_of_open_connections() {
    simulate(async {
        let fixture = fixture(|_| ());
        let mut client = fixture.connect(WIDE);
        client.send(bad()).await;
        assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
        fixture.reload(|it| {
            it.limits.user_burst = count(1);
            it.limits.heartbeat_burst = count(1);
            it.limits.refusals_per_minute = count(4);
        });
        client.send(bad().repeat(2)).await;
        assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
        assert_eq!(next(&mut client).await, refused("RATE_LIMIT_EXCEEDED"));
        client.send(ping(b"").repeat(2)).await;
        let heard = client.rest_after_close().await;
        assert!(
            heard.contains(&refused("RATE_LIMIT_EXCEEDED"))
                && matches!(heard.last(), Some(ReceivedFrame::Close(4005, _))),
            "{heard:?}"
        );
        fixture.check_nothing_is_left();
    });
}

/// Sends a message of 101 bytes, which must end the connection with 1009.
async fn check_101_bytes_are_too_many(fixture: &ConnectionFixture, mut client: FrameClient) {
    client.send(frame(BINARY, true, &[0; 101])).await;
    let heard = client.rest_after_close().await;
    assert!(
        matches!(heard[..], [ReceivedFrame::Close(1009, _)]),
        "{heard:?}"
    );
    client.wait_for_end().await;
    fixture.check_nothing_is_left();
}

#[test]
fn a_lower_limit_on_messages_applies_to_the_first_message_after_the_reload() {
    simulate(async {
        let fixture = fixture(|_| ());
        let mut client = fixture.connect(WIDE);
        client.send(bad()).await;
        assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
        fixture.reload(|it| it.client.message_max = 100);
        check_101_bytes_are_too_many(&fixture, client).await;
    });
}

#[test]
fn a_lower_limit_on_messages_applies_to_the_second_message_if_the_shard_missed_the_reload() {
    simulate(async {
        let fixture = fixture(|_| ());
        let mut client = fixture.connect(WIDE);
        let relay = &fixture.shard.relay;
        let mut live = LiveSettings::clone(&relay.live());
        live.config.client.message_max = 100;
        relay.replace_settings(live);
        client.send(bad()).await;
        assert_eq!(next(&mut client).await, refused("VALIDATION_ERROR"));
        check_101_bytes_are_too_many(&fixture, client).await;
    });
}

#[test]
fn nothing_is_kept_for_a_client_that_has_left_once_its_buckets_are_full() {
    simulate(async {
        let fixture = fixture(|_| ());
        let limits = &fixture.shard.relay.limits;
        for _ in 0..50 {
            let mut client = fixture.connect(WIDE);
            client.send(bad()).await;
            next(&mut client).await;
            drop(client);
        }
        settle().await;
        fixture.check_nothing_is_left();
        // Disconnected, but still counted: it could come back to send more.
        limits.sweep();
        assert!(limits.census.is_empty() && !limits.is_empty());
        advance(Duration::from_mins(2)).await;
        limits.sweep();
        assert!(limits.is_empty());
    });
}
