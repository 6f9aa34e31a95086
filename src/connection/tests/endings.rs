//! Endings caused by the client: Close, violations of the protocol, streams that end.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::connection::{
    run_connection,
    testing::{ConnectionFixture, NOW, WIDE, event, settle, simulate},
    wire_testing::{
        BINARY, CLOSE, CONTINUATION, PING, ReceivedFrame, TEXT, close, frame, subscribe,
        subscribe_envelope,
    },
};

const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

fn codes(heard: &[ReceivedFrame]) -> Vec<u16> {
    heard
        .iter()
        .map(|it| match it {
            ReceivedFrame::Close(code, _) => *code,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_clients_close_is_answered_with_its_code_and_the_stream_ends() {
    for code in [1000, 1001, 3000, 4999] {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let start = Instant::now();
            let mut client = fixture.connect(WIDE);
            client.send(close(code)).await;
            assert_eq!(codes(&client.remaining_frames().await), [code]);
            let end = client.wait_for_end().await;
            assert_eq!((end.at, end.was_reset), (start, false));
            assert_eq!(fixture.closed("client"), 1);
            fixture.check_nothing_is_left();
        });
    }
}

#[test]
fn a_clients_close_drops_its_queued_events() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        fixture.publish([event(100), event(100)]).await;
        client.send(close(1000)).await;
        settle().await;
        let heard = client.remaining_frames().await;
        assert_eq!(
            heard,
            [
                ReceivedFrame::Event(1),
                ReceivedFrame::Close(1000, String::new())
            ]
        );
        assert_eq!(fixture.tally().dropped_closed.get(), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_violation_is_answered_with_its_code_even_if_the_client_keeps_sending() {
    let unmasked = vec![0x82, 0x01, 0x00];
    let reserved_bit = vec![0xc2, 0x80, 0, 0, 0, 0];
    let too_big = frame(BINARY, true, &vec![0; 65_537]);
    let breaches = [
        ("unmasked", unmasked, 1002, "protocol_error"),
        ("reserved bit", reserved_bit, 1002, "protocol_error"),
        ("opcode", frame(0x3, true, b""), 1002, "protocol_error"),
        (
            "continuation",
            frame(CONTINUATION, true, b""),
            1002,
            "protocol_error",
        ),
        (
            "fragmented ping",
            frame(PING, false, b""),
            1002,
            "protocol_error",
        ),
        (
            "long ping",
            frame(PING, true, &[0; 126]),
            1002,
            "protocol_error",
        ),
        (
            "one byte of code",
            frame(CLOSE, true, b"\x03"),
            1002,
            "protocol_error",
        ),
        ("bad UTF-8", frame(TEXT, true, b"\xff"), 1007, "bad_utf8"),
        ("too big", too_big, 1009, "too_big"),
        ("text", frame(TEXT, true, b"{}"), 1003, "wrong_frame_type"),
    ];
    for (name, breach, code, reason) in breaches {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let start = Instant::now();
            let mut client = fixture.connect(64);
            let goes_on = [breach, vec![0x55; 10_000]].concat();
            client.flood(goes_on, Duration::from_millis(100));
            let heard = client.remaining_frames().await;
            assert_eq!(codes(&heard), [code], "{name}");
            let end = client.wait_for_end().await;
            assert_eq!(fixture.closed(reason), 1, "{name}");
            assert!(end.at - start <= CLOSE_ANSWER_TIMEOUT, "{name}");
            fixture.check_nothing_is_left();
        });
    }
}

#[test]
fn a_client_that_keeps_sending_after_a_violation_is_dropped_after_two_seconds() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let start = Instant::now();
        let mut client = fixture.connect(1024);
        let sending = async {
            while client.is_served() {
                client.send_some(&[0xff; 1000]).await;
                sleep(Duration::from_millis(100)).await;
            }
        };
        sending.await;
        assert_eq!(client.wait_for_end().await.at - start, CLOSE_ANSWER_TIMEOUT);
        assert_eq!(codes(&client.remaining_frames().await), [1002]);
    });
}

#[test]
fn a_client_that_stops_sending_after_a_violation_still_gets_the_close() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let start = Instant::now();
        // Less room than the Close needs.
        let mut client = fixture.connect(8);
        client.send(&[0xff, 0x80, 0, 0, 0, 0]).await;
        client.half_close().await;
        settle().await;
        assert_eq!(codes(&client.remaining_frames().await), [1002]);
        assert_eq!(client.wait_for_end().await.at, start);
    });
}

#[test]
fn a_violation_with_a_long_queue_ends_with_the_begun_frame_and_the_close() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        fixture.publish((0..400).map(|_| event(100))).await;
        client.send(&[0xff, 0x80, 0, 0, 0, 0]).await;
        settle().await;
        assert_eq!(fixture.tally().dropped_closed.get(), 399);
        let heard = client.remaining_frames().await;
        assert_eq!(heard[0], ReceivedFrame::Event(1));
        assert_eq!(codes(&heard[1..]), [1002]);
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_stream_that_ends_without_a_close_ends_the_connection_at_once() {
    let whole = subscribe("s", "project:p");
    let begun = subscribe_envelope("s", "project:p");
    let beginnings = [
        Vec::new(),
        whole[..1].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        frame(BINARY, false, &begun),
    ];
    for beginning in beginnings {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let start = Instant::now();
            let mut client = fixture.connect(WIDE);
            client.send(&beginning).await;
            client.half_close().await;
            assert_eq!(client.remaining_frames().await, []);
            let end = client.wait_for_end().await;
            assert_eq!((end.at, end.was_reset), (start, false));
            assert_eq!(fixture.closed("lost"), 1);
            fixture.check_nothing_is_left();
        });
    }
}

#[test]
fn messages_sent_before_the_stream_ended_are_handled() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        client.send(subscribe("s", "project:p")).await;
        client.send(close(1000)).await;
        client.half_close().await;
        assert_eq!(codes(&client.remaining_frames().await), [1000]);
        assert_eq!(fixture.closed("client"), 1);
    });
}

#[test]
fn a_stream_that_cannot_be_shut_down_is_given_up_at_the_write_deadline() {
    for expires_at in [None, Some(NOW + Duration::from_secs(5))] {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let start = Instant::now();
            let mut client = fixture.connect_endlessly(expires_at);
            client.half_close().await;
            let end = client.wait_for_end().await;
            assert_eq!(end.at - start, Duration::from_secs(10));
            assert_eq!(fixture.closed("lost"), 1);
            fixture.check_nothing_is_left();
        });
    }
}

#[test]
fn the_queued_events_of_a_client_that_leaves_are_dropped() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let client = fixture.connect(64);
        fixture.publish([event(100), event(100)]).await;
        drop(client);
        settle().await;
        assert_eq!(fixture.tally().dropped_closed.get(), 2);
        assert_eq!(fixture.closed("lost"), 1);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_fragmented_message_has_the_same_limit_as_one_in_a_single_frame() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        client.send(frame(BINARY, false, &[0; 1000])).await;
        let mut fragments = 1;
        while client.is_served() && fragments < 1000 {
            client.send(frame(CONTINUATION, false, &[0; 1000])).await;
            fragments += 1;
            settle().await;
            if client.read_some(1000).await > 0 {
                break;
            }
        }
        assert_eq!(fragments, 66, "64 KiB are 65.5 fragments");
        assert_eq!(client.next_read().map(|it| codes(&[it])), Some(vec![1009]));
    });
}

#[test]
fn an_admitted_connection_that_is_never_served_leaves_nothing_behind() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let admitted = fixture.admit(None);
        fixture.publish([event(1)]).await;
        assert_eq!(fixture.tally().queued.get(), 1);
        drop(admitted);
        assert_eq!(fixture.closed("lost"), 1);
        fixture.check_nothing_is_left();
    });
}

/// The state that exists while a client is connected, besides its entries in the hub, its outbox
/// and tokio's own.
const CONVERSATION_BYTES_MAX: usize = 616;

#[tokio::test(flavor = "local")]
async fn an_idle_connection_is_small() {
    let fixture = ConnectionFixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let shard = Rc::clone(&fixture.shard);
    let talk = run_connection(shard, fixture.admit(None), stream, Bytes::new(), ());
    let size = size_of_val(&talk);
    assert!(size <= CONVERSATION_BYTES_MAX, "{size}");
}
