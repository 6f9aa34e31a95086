//! Clients that read slowly, or not at all: what happens to them and when, and that no other
//! client is affected.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::connection::{
    testing::{ConnectionFixture, WIDE, event, settle, simulate},
    wire_testing::{BINARY, ReceivedFrame, frame, ping, subscribe},
};

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

fn small_outbox() -> ConnectionFixture {
    ConnectionFixture::with_settings(|config| config.limits.outbox_frames = 10)
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_at_the_write_deadline_and_harms_no_other() {
    simulate(async {
        let fixture = small_outbox();
        let mut neighbour = fixture.connect(WIDE);
        let mut client = fixture.connect(64);
        let start = Instant::now();
        for _ in 0..20 {
            fixture.publish([event(100)]).await;
        }
        assert!(fixture.event_bytes() > 0);
        let end = client.wait_for_end().await;
        assert_eq!(end.at - start, WRITE_TIMEOUT);
        assert!(end.was_reset);

        // The first is being written; the next 9 fill the outbox; the next finds it full. After
        // that the connection receives nothing.
        let tally = fixture.tally();
        assert_eq!(tally.matched.get(), 20 + 11);
        assert_eq!(tally.dropped_slow.get(), 11);
        assert_eq!(tally.dropped_closed.get(), 0);
        assert_eq!(fixture.closed("too_slow"), 1);
        assert_eq!(fixture.event_bytes(), 0);
        for offset in 1..=20 {
            assert_eq!(neighbour.next().await, Some(ReceivedFrame::Event(offset)));
        }
        fixture.publish([event(1)]).await;
        assert_eq!(neighbour.next().await, Some(ReceivedFrame::Event(21)));
        drop(neighbour);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn the_queue_of_a_slow_client_is_freed_long_before_it_is_cut_off() {
    simulate(async {
        let fixture = small_outbox();
        let _client = fixture.connect(64);
        for _ in 0..11 {
            fixture.publish([event(1000)]).await;
        }
        settle().await;
        let begun = fixture.event_bytes();
        assert!(
            (1000..2000).contains(&begun),
            "only the begun frame: {begun}"
        );
        assert_eq!(fixture.tally().queued.get(), 1);
        assert_eq!(fixture.tally().dropped_slow.get(), 10);
        fixture.check_sums();
    });
}

#[test]
fn a_client_that_reads_again_in_time_gets_the_begun_frame_and_4003() {
    simulate(async {
        let fixture = small_outbox();
        let mut client = fixture.connect(64);
        for _ in 0..20 {
            fixture.publish([event(100)]).await;
        }
        sleep(WRITE_TIMEOUT - Duration::from_millis(1)).await;
        let heard = client.rest_after_close().await;
        let reason = "too slow: the outbox was full".to_owned();
        assert_eq!(
            heard,
            [ReceivedFrame::Event(1), ReceivedFrame::Close(4003, reason)]
        );
        assert_eq!(fixture.tally().written.get(), 1);
        assert_eq!(fixture.tally().dropped_slow.get(), 10);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_even_if_its_outbox_is_not_full() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        sleep(Duration::from_secs(3)).await;
        let start = Instant::now();
        fixture.publish([event(100), event(100)]).await;
        let end = client.wait_for_end().await;
        assert_eq!((end.at - start, end.was_reset), (WRITE_TIMEOUT, true));
        assert_eq!(fixture.tally().dropped_closed.get(), 2);
        assert_eq!(fixture.closed("reset"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn the_write_deadline_restarts_with_each_frame_and_not_with_each_byte() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        let start = Instant::now();
        fixture.publish((0..3).map(|_| event(200))).await;
        // A frame in 9 seconds.
        sleep(Duration::from_secs(9)).await;
        assert_eq!(client.next().await, Some(ReceivedFrame::Event(1)));
        settle().await;
        // From then on a byte a second.
        let dripping = async {
            loop {
                sleep(Duration::from_secs(1)).await;
                client.read_some(1).await;
                settle().await;
                if !client.is_served() {
                    break Instant::now();
                }
            }
        };
        let end = dripping.await;
        assert_eq!(end - start, Duration::from_secs(9) + WRITE_TIMEOUT);
        assert_eq!(fixture.tally().written.get(), 1);
        assert_eq!(fixture.tally().dropped_closed.get(), 2);
    });
}

#[test]
fn a_client_that_never_reads_its_answers_is_not_read_from_and_is_cut_off() {
    for message in [
        subscribe("s", "project:p"),
        frame(BINARY, true, b"\xff"),
        frame(BINARY, true, b""),
    ] {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let mut client = fixture.connect(4096);
            let start = Instant::now();
            let len = message.len();
            let sent = client.flood(message, Duration::ZERO);
            settle().await;
            let taken = sent.get();
            // As many as have answers waiting, and those of one read.
            assert!(taken < 2000 * len + 2 * 65_536, "{taken}");
            sleep(WRITE_TIMEOUT / 2).await;
            assert_eq!(sent.get(), taken, "it is read from though it reads nothing");
            let end = client.wait_for_end().await;
            assert_eq!((end.at - start, end.was_reset), (WRITE_TIMEOUT, true));
            fixture.check_nothing_is_left();
        });
    }
}

#[test]
fn a_client_that_only_pings_and_never_reads_is_cut_off() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        let start = Instant::now();
        let pinging = async {
            while client.is_served() {
                if client.send_some(&ping(&[1; 50])).await == 0 {
                    sleep(Duration::from_millis(100)).await;
                }
                settle().await;
                // A ping costs no time of the simulation.
                sleep(Duration::from_millis(1)).await;
            }
        };
        pinging.await;
        let end = client.wait_for_end().await;
        // The first pong fits; the second is partly written.
        let late = end.at - start - WRITE_TIMEOUT;
        assert!(late < Duration::from_millis(10), "{late:?}");
        assert!(end.was_reset);
    });
}

#[test]
fn five_thousand_subscribes_at_once_get_five_thousand_answers() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(4096);
        let all: Vec<u8> = (0..5000)
            .flat_map(|number| subscribe(&number.to_string(), &format!("project:{number}")))
            .collect();
        let mut unsent = &all[..];
        // It sends for as long as the relay accepts it.
        loop {
            settle().await;
            match client.send_some(unsent).await {
                0 => break,
                sent => unsent = &unsent[sent..],
            }
        }
        assert!(!unsent.is_empty(), "the relay has stopped reading");
        // Then it reads, and sends the rest as the relay accepts it.
        let mut heard = 0;
        while heard < 5000 {
            settle().await;
            let sent = client.send_some(unsent).await;
            unsent = &unsent[sent..];
            client.read_some(2000).await;
            while let Some(answer) = client.next_read() {
                assert_eq!(answer, ReceivedFrame::Subscribed(heard.to_string()));
                heard += 1;
            }
        }
        assert_eq!(fixture.tally().subscriptions.get(), 5000);
    });
}

#[test]
fn a_client_with_many_pending_answers_still_has_room_for_events() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(256);
        let sent = client.flood(subscribe("s", "project:p"), Duration::ZERO);
        settle().await;
        let taken = sent.get();
        assert!(taken > 10_000, "the relay has much to answer: {taken}");
        fixture.publish([event(10)]).await;
        fixture.publish([event(10)]).await;
        let mut events = 0;
        while events < 2 {
            match client.next().await.expect("it stays open") {
                ReceivedFrame::Event(_) => events += 1,
                ReceivedFrame::Subscribed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn frames_that_a_stream_has_buffered_count_as_written_only_once_flushed() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_encrypted(64);
        fixture.publish([event(100), event(100)]).await;
        settle().await;
        assert_eq!(fixture.tally().written.get(), 0);
        assert_eq!(fixture.tally().queued.get(), 2);
        fixture.check_sums();
        // Later frames wait until the accepted data is flushed.
        fixture.publish([event(100)]).await;
        settle().await;
        assert_eq!(fixture.tally().queued.get(), 3);
        for offset in 1..=3 {
            assert_eq!(client.next().await, Some(ReceivedFrame::Event(offset)));
        }
        assert_eq!(fixture.tally().written.get(), 3);
        assert_eq!(fixture.tally().queued.get(), 0);
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_of_a_buffering_stream_that_reads_nothing_is_cut_off_in_time() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect_encrypted(64);
        let start = Instant::now();
        // The outbox is empty from the first write on.
        fixture.publish([event(100), event(100)]).await;
        let end = client.wait_for_end().await;
        assert_eq!(end.at - start, WRITE_TIMEOUT);
        assert!(end.was_reset);
        assert_eq!(fixture.closed("reset"), 1);
        assert_eq!(fixture.tally().written.get(), 0);
        assert_eq!(fixture.tally().dropped_closed.get(), 2);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn unflushed_frames_of_a_client_that_leaves_are_dropped_and_counted_once() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let client = fixture.connect_encrypted(64);
        fixture.publish([event(100), event(100)]).await;
        settle().await;
        fixture.publish([event(100)]).await;
        drop(client);
        settle().await;
        assert_eq!(fixture.tally().written.get(), 0);
        assert_eq!(fixture.tally().dropped_closed.get(), 3);
        fixture.check_nothing_is_left();
    });
}
