//! Frames never interleave, whatever the sizes of the pieces in which the client reads them.

use crate::connection::{
    testing::{ConnectionFixture, WIDE, event, settle, simulate},
    wire_testing::{
        BINARY, CONTINUATION, ReceivedFrame, frame, ping, subscribe, subscribe_envelope,
    },
};

/// Buffers that hold less than a frame, and about one.
const TIGHT: [usize; 3] = [16, 17, 64];

fn offsets(heard: &[ReceivedFrame]) -> Vec<u64> {
    heard
        .iter()
        .filter_map(|it| match it {
            ReceivedFrame::Event(offset) => Some(*offset),
            _ => None,
        })
        .collect()
}

#[test]
fn a_client_that_reads_a_byte_at_a_time_sees_whole_frames_in_order() {
    for buffer in TIGHT {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let mut client = fixture.connect(buffer);
            client.piece = 1;
            fixture.publish((0..10).map(|_| event(70))).await;
            // A Subscribe in fragments, with pings in between.
            let envelope = subscribe_envelope("s1", "project:p1");
            let (start, end) = envelope.split_at(9);
            for part in [
                frame(BINARY, false, start),
                ping(b"one"),
                frame(CONTINUATION, false, b""),
                ping(b"two"),
                frame(CONTINUATION, true, end),
                subscribe("s2", "project:p2"),
            ] {
                client.send(&part).await;
            }
            fixture.publish((0..10).map(|_| event(3))).await;
            // 20 events, 2 confirmations, and the second pong at least.
            let mut heard = client.next_frames(23).await;
            settle().await;
            while client.read_some(64).await > 0 {
                heard.extend(client.next_read());
                settle().await;
            }
            assert_eq!(offsets(&heard), (1..=20).collect::<Vec<_>>());
            let pongs: Vec<_> = heard
                .iter()
                .filter(|it| matches!(it, ReceivedFrame::Pong(_)))
                .collect();
            assert_eq!(pongs.last(), Some(&&ReceivedFrame::Pong(b"two".to_vec())));
            assert!(pongs.len() <= 2);
            let confirmed = |id: &str| {
                let confirmed = ReceivedFrame::Subscribed(id.to_owned());
                heard.iter().position(|it| *it == confirmed).unwrap()
            };
            assert!(confirmed("s1") < confirmed("s2"));
            fixture.check_sums();
        });
    }
}

#[test]
fn a_pong_is_written_before_queued_frames_and_after_a_begun_one() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        fixture.publish([event(500), event(500), event(500)]).await;
        settle().await;
        // 64 bytes of the first event are being written, and there is no room for more.
        client.send(ping(b"now")).await;
        let heard = client.next_frames(4).await;
        assert_eq!(heard[1], ReceivedFrame::Pong(b"now".to_vec()));
        assert_eq!(offsets(&heard), [1, 2, 3]);
    });
}

#[test]
fn a_burst_of_pings_is_answered_in_full_while_the_kernel_takes_the_pongs() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        let pings: Vec<_> = (0..100).map(|number| ping(&[number])).collect();
        client.send(pings.concat()).await;
        let heard = client.next_frames(100).await;
        let pongs: Vec<_> = (0..100)
            .map(|number| ReceivedFrame::Pong(vec![number]))
            .collect();
        assert_eq!(heard, pongs);
        // No input is left unparsed, and no task runs in circles.
        client.send(subscribe("s", "project:p1")).await;
        let heard = client.next_frames(1).await;
        assert_eq!(heard, [ReceivedFrame::Subscribed("s".to_owned())]);
    });
}

#[test]
fn at_most_one_pong_waits_and_it_answers_the_last_ping() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(64);
        fixture.publish([event(500)]).await;
        settle().await;
        for number in 0..100_u8 {
            client.send(ping(&[number; 40])).await;
            settle().await;
        }
        let heard = client.next_frames(2).await;
        assert_eq!(
            heard,
            [ReceivedFrame::Event(1), ReceivedFrame::Pong(vec![99; 40])]
        );
        settle().await;
        assert_eq!(client.read_some(1).await, 0);
    });
}

#[test]
fn a_begun_pong_is_finished_and_the_newest_follows() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(16);
        for number in 0..20_u8 {
            client.send(ping(&[number; 20])).await;
            settle().await;
        }
        // 16 bytes of the first pong were written when the others came.
        let heard = client.next_frames(2).await;
        assert_eq!(
            heard,
            [0, 19].map(|number| ReceivedFrame::Pong(vec![number; 20]))
        );
        settle().await;
        assert_eq!(client.read_some(1).await, 0);
    });
}

#[test]
fn a_batch_or_event_beyond_the_outbox_limits_reaches_an_idle_client_whole() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(1000);
        let limits = &fixture.shard.relay.live().config.limits;
        assert_eq!((limits.outbox_frames, limits.outbox_bytes), (1000, 1 << 20));

        fixture.publish((0..1500).map(|_| event(10))).await;
        let heard = client.next_frames(1500).await;
        assert_eq!(offsets(&heard), (1..=1500).collect::<Vec<_>>());

        fixture.publish([event(3 << 20)]).await;
        assert_eq!(client.next_frames(1).await, [ReceivedFrame::Event(1501)]);

        fixture.publish((0..8).map(|_| event(1 << 20))).await;
        let heard = client.next_frames(8).await;
        assert_eq!(offsets(&heard), (1502..=1509).collect::<Vec<_>>());
        settle().await;
        assert_eq!(fixture.tally().written.get(), 1509);
        assert_eq!(fixture.event_bytes(), 0);
    });
}

#[test]
fn under_load_frames_are_written_together_and_in_order() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        for _ in 0..5 {
            fixture.publish((0..500).map(|_| event(1))).await;
        }
        let heard = client.next_frames(2500).await;
        assert_eq!(offsets(&heard), (1..=2500).collect::<Vec<_>>());
    });
}

#[test]
fn events_posted_before_a_connection_writes_leave_in_one_write() {
    const CLIENTS: u64 = 50;
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| fixture.connect(WIDE)).collect();
        settle().await;
        let posts = (0..10).map(|_| fixture.publish([event(1)]));
        futures_util::future::join_all(posts).await;
        for client in &mut clients {
            let heard = client.next_frames(10).await;
            assert_eq!(offsets(&heard), (1..=10).collect::<Vec<_>>());
        }
        settle().await;
        assert_eq!(fixture.tally().frames_written.get(), 10 * CLIENTS);
        assert_eq!(fixture.tally().writes.get(), CLIENTS);
    });
}
