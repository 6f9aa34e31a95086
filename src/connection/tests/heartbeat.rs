//! Clients that are silent, gone, or never finish a message.

use std::{pin::pin, time::Duration};

use futures_util::poll;
use tokio::time::{Instant, advance, sleep, sleep_until};

use crate::connection::{
    testing::{ConnectionFixture, FrameClient, NOW, WIDE, event, settle, simulate},
    wire_testing::{
        BINARY, CONTINUATION, PONG, ReceivedFrame, frame, ping, subscribe, subscribe_envelope,
    },
};

const INTERVAL: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(60);
const MESSAGE: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(1);

/// Creates a shard with the default heartbeats.
fn fixture() -> ConnectionFixture {
    ConnectionFixture::with_settings(|config| {
        config.client.ping_interval = INTERVAL;
        config.client.idle_timeout = IDLE;
        config.client.message_timeout = MESSAGE;
    })
}

fn given_up(reason: &str) -> ReceivedFrame {
    ReceivedFrame::Close(4004, reason.to_owned())
}

/// Answers every ping until the time is over. Returns the number of pings.
async fn answers_pings_until(client: &mut FrameClient, end: Instant) -> u32 {
    let mut pings = 0;
    loop {
        let next = tokio::select! {
            biased;
            next = client.next() => next,
            () = sleep_until(end) => return pings,
        };
        assert_eq!(next, Some(ReceivedFrame::Ping));
        pings += 1;
        client.send(frame(PONG, true, b"")).await;
    }
}

#[test]
fn a_silent_client_is_pinged_after_30_s_and_given_up_after_60_s() {
    simulate(async {
        let fixture = fixture();
        let start = Instant::now();
        let mut client = fixture.connect(WIDE);
        assert_eq!(client.next().await, Some(ReceivedFrame::Ping));
        assert_eq!(start.elapsed(), INTERVAL);
        let heard = client.rest_after_close().await;
        assert_eq!(heard, [given_up("no frame within the idle timeout")]);
        assert_eq!(start.elapsed(), IDLE);
        assert_eq!(fixture.closed("idle"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_answers_pings_stays_and_is_pinged_as_often_as_it_is_silent() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let end = Instant::now() + Duration::from_hours(1) + MOMENT;
        assert_eq!(answers_pings_until(&mut client, end).await, 120);
        assert!(client.is_served());
    });
}

#[test]
fn a_client_that_sends_messages_is_not_pinged() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        for round in 0..100 {
            sleep(INTERVAL - MOMENT).await;
            client
                .send(subscribe(&format!("s{round}"), "project:1"))
                .await;
            let heard = client.next().await;
            assert_eq!(heard, Some(ReceivedFrame::Subscribed(format!("s{round}"))));
        }
        assert_eq!(client.next().await, Some(ReceivedFrame::Ping));
    });
}

#[test]
fn pings_continue_until_the_end_of_a_long_idle_timeout() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.client.ping_interval = INTERVAL;
            config.client.idle_timeout = 10 * INTERVAL;
        });
        let start = Instant::now();
        let mut client = fixture.connect(WIDE);
        for _ in 1..10 {
            assert_eq!(client.next().await, Some(ReceivedFrame::Ping));
        }
        let heard = client.rest_after_close().await;
        assert_eq!(heard, [given_up("no frame within the idle timeout")]);
        assert_eq!(start.elapsed(), 10 * INTERVAL);
    });
}

#[test]
fn a_client_that_answers_at_the_last_moment_stays_connected() {
    simulate(async {
        let fixture = fixture();
        let start = Instant::now();
        let mut client = fixture.connect(WIDE);
        assert_eq!(client.next().await, Some(ReceivedFrame::Ping));
        // The exact moment: the pong is in the stream when the relay checks, or arrives before
        // its final check.
        sleep_until(start + IDLE).await;
        client.send(frame(PONG, true, b"")).await;
        settle().await;
        let end = start + IDLE + INTERVAL + MOMENT;
        assert_eq!(answers_pings_until(&mut client, end).await, 1);
    });
}

#[test]
fn events_to_a_client_do_not_count_as_its_sign_of_life() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        for _ in 0..59 {
            sleep(Duration::from_secs(1)).await;
            fixture.publish([event(10)]).await;
        }
        let heard = client.rest_after_close().await;
        assert_eq!(
            heard
                .iter()
                .filter(|it| **it == ReceivedFrame::Ping)
                .count(),
            1
        );
        let last = given_up("no frame within the idle timeout");
        assert_eq!(heard.last(), Some(&last));
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_slow_reader_under_backpressure_is_not_given_up_as_idle() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.client.ping_interval = INTERVAL;
            config.client.idle_timeout = IDLE;
            config.limits.outbox_frames = 100;
            config.limits.outbox_bytes = 1 << 20;
        });
        let mut client = fixture.connect(64);
        fixture.publish((0..90).map(|_| event(1000))).await;
        // A frame in 5 s is more than the write deadline asks for; until half of them
        // are gone, 40 times that, the relay reads nothing.
        for offset in 1..=40 {
            sleep(Duration::from_secs(5)).await;
            assert_eq!(client.next().await, Some(ReceivedFrame::Event(offset)));
        }
        assert!(client.is_served());
    });
}

#[test]
fn a_message_that_trickles_in_is_given_up_despite_signs_of_life() {
    simulate(async {
        let fixture = fixture();
        let start = Instant::now();
        let mut client = fixture.connect(WIDE);
        client.send(frame(BINARY, false, b"a")).await;
        for _ in 0..29 {
            sleep(Duration::from_secs(1)).await;
            client.send(frame(CONTINUATION, false, b"a")).await;
        }
        let heard = client.rest_after_close().await;
        assert_eq!(heard, [given_up("a message was not completed in time")]);
        assert_eq!(start.elapsed(), MESSAGE);
        assert_eq!(fixture.closed("unfinished"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn pings_between_fragments_do_not_extend_the_time_for_a_message() {
    simulate(async {
        let fixture = fixture();
        let start = Instant::now();
        let mut client = fixture.connect(WIDE);
        client.send(frame(BINARY, false, b"a")).await;
        for _ in 0..29 {
            sleep(Duration::from_secs(1)).await;
            client.send(ping(b"")).await;
        }
        let heard = client.rest_after_close().await;
        let last = given_up("a message was not completed in time");
        assert_eq!(heard.last(), Some(&last));
        assert_eq!(start.elapsed(), MESSAGE);
    });
}

#[test]
fn each_message_has_its_own_time_however_the_bytes_are_split() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let envelope = subscribe_envelope("s", "project:1");
        let message = frame(BINARY, true, &envelope);
        let (start, end) = message.split_at(message.len() / 2);
        client.send(start).await;
        for _ in 0..10 {
            sleep(MESSAGE - MOMENT).await;
            // The end of one message and the beginning of the next in one piece.
            client.send([end, start].concat()).await;
            assert_eq!(
                client.next().await,
                Some(ReceivedFrame::Subscribed("s".to_owned()))
            );
        }
        client.send(end).await;
        assert_eq!(
            client.next().await,
            Some(ReceivedFrame::Subscribed("s".to_owned()))
        );
        // Between two messages no deadline but that of the pings can expire.
        let end = Instant::now() + 2 * MESSAGE + MOMENT;
        assert_eq!(answers_pings_until(&mut client, end).await, 2);
    });
}

#[test]
fn a_shorter_interval_applies_to_open_connections_from_the_reload_on() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.client.ping_interval = Duration::from_hours(1);
            config.client.idle_timeout = Duration::from_hours(2);
        });
        let start = Instant::now();
        let mut client = fixture.connect(WIDE);
        sleep(2 * IDLE).await;
        fixture.reload(|config| {
            config.client.ping_interval = INTERVAL;
            config.client.idle_timeout = 4 * IDLE;
        });
        assert_eq!(client.next().await, Some(ReceivedFrame::Ping));
        assert_eq!(start.elapsed(), 2 * IDLE, "it has been silent for longer");
        client.send(frame(PONG, true, b"")).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Ping));
        assert_eq!(start.elapsed(), 2 * IDLE + INTERVAL);
    });
}

#[test]
fn a_reload_with_shorter_times_keeps_a_client_that_answers_the_next_ping() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.client.ping_interval = Duration::from_hours(1);
            config.client.idle_timeout = Duration::from_hours(2);
        });
        let (mut alive, mut gone) = (fixture.connect(WIDE), fixture.connect(WIDE));
        // Longer than they will be allowed to be silent.
        sleep(10 * IDLE).await;
        let start = Instant::now();
        fixture.reload(|config| {
            config.client.ping_interval = INTERVAL;
            config.client.idle_timeout = IDLE;
        });
        let end = start + 2 * IDLE + MOMENT;
        assert_eq!(answers_pings_until(&mut alive, end).await, 5);
        let heard = gone.remaining_frames().await;
        assert_eq!(heard.first(), Some(&ReceivedFrame::Ping));
        let last = given_up("no frame within the idle timeout");
        assert_eq!(heard.last(), Some(&last));
        assert_eq!(fixture.closed("idle"), 1);
    });
}

/// Longer than every deadline.
const PAUSE: Duration = Duration::from_secs(70);

/// The process does not run for a while: the deadline passes and its alarms have rung before
/// anything of the relay runs, as happens if the event loop learns of the time first and of input
/// and output afterwards.
async fn pause(fixture: &ConnectionFixture) {
    let mut pause = pin!(advance(PAUSE));
    // This moves the clock at once and then yields to other tasks.
    assert!(poll!(pause.as_mut()).is_pending());
    fixture.shard.hub.nudge_all();
    pause.await;
    settle().await;
}

#[test]
fn a_message_completed_during_a_pause_is_accepted() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let (begin, rest) = (subscribe("s", "project:1"), subscribe("s", "project:1"));
        client.send(&begin[..10]).await;
        settle().await;
        client.send(&rest[10..]).await;
        pause(&fixture).await;
        let heard = client.next().await;
        assert_eq!(heard, Some(ReceivedFrame::Subscribed("s".to_owned())));
        assert!(client.is_served());
    });
}

#[test]
fn a_message_that_is_still_incomplete_after_a_pause_ends_the_connection() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let message = subscribe("s", "project:1");
        client.send(&message[..10]).await;
        settle().await;
        client.send(&message[10..15]).await;
        let start = Instant::now();
        pause(&fixture).await;
        let heard = client.next().await;
        assert!(
            matches!(heard, Some(ReceivedFrame::Close(4004, _))),
            "{heard:?}"
        );
        assert_eq!(start.elapsed(), PAUSE);
        // It answers the Close, which the relay takes as the rest of the message.
        client.wait_for_end().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_trickles_cannot_delay_the_final_check_of_its_message() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let start = Instant::now();
        client.send(&frame(BINARY, false, b"")).await;
        client.flood(ping(b"").repeat(10), MOMENT);
        let code = loop {
            if let ReceivedFrame::Close(code, _) = client.next().await.expect("it is closed") {
                break code;
            }
        };
        assert_eq!((code, start.elapsed()), (4004, MESSAGE));
    });
}

#[test]
fn writing_continues_to_a_client_that_made_room_during_a_pause() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(1024);
        fixture.publish([event(1500)]).await;
        settle().await;
        assert_eq!(client.read_some(2000).await, 1024);
        pause(&fixture).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Event(1)));
        assert!(client.is_served());
        fixture.check_sums();
    });
}

#[test]
fn a_token_expires_at_the_next_ping_if_the_clock_has_moved_past_its_end() {
    simulate(async {
        let fixture = fixture();
        let start = Instant::now();
        let mut client = fixture.connect_until(Some(NOW + Duration::from_hours(1)), WIDE);
        fixture.shard.relay.clock.set_forward(2 * 60 * 60);
        assert_eq!(
            client.rest_after_close().await,
            [
                ReceivedFrame::Refused("AUTHENTICATION_FAILED".to_owned()),
                ReceivedFrame::Close(4001, "token expired".to_owned()),
            ]
        );
        assert_eq!(start.elapsed(), INTERVAL);
        assert_eq!(fixture.closed("token_expired"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_token_expires_after_a_clock_change_even_if_the_client_is_never_silent() {
    simulate(async {
        let fixture = fixture();
        let start = Instant::now();
        let mut client = fixture.connect_until(Some(NOW + Duration::from_hours(1)), WIDE);
        client.flood(ping(b"x"), Duration::from_secs(1));
        fixture.shard.relay.clock.set_forward(2 * 60 * 60);
        let code = loop {
            if let ReceivedFrame::Close(code, _) = client.next().await.expect("it is closed") {
                break code;
            }
        };
        assert_eq!(code, 4001);
        assert!(start.elapsed() <= INTERVAL, "{:?}", start.elapsed());
    });
}
