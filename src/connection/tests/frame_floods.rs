//! Clients that send meaningless WebSocket frames: pongs that nobody asked for, and messages in
//! tiny fragments.

use std::{cell::Cell, rc::Rc, time::Duration};

use tokio::{
    task::{spawn_local, yield_now},
    time::advance,
};

use crate::{
    config::LimitsSection,
    connection::{
        testing::{ConnectionFixture, WIDE, simulate},
        wire_testing::{
            BINARY, CONTINUATION, PONG, ReceivedFrame, frame, ping, ping_message,
            subscribe_envelope,
        },
    },
};

/// More frames than the budget of a connection covers, including its refusals.
const FLOOD_FRAMES: usize = 400_000;

/// Maximum number of frames that are taken from a connection in one turn.
const FRAMES_PER_TURN: usize = 64;

/// Creates a shard with the limits of the default configuration.
fn fixture() -> ConnectionFixture {
    ConnectionFixture::with_settings(|config| config.limits = LimitsSection::default())
}

fn pong() -> Vec<u8> {
    frame(PONG, true, b"")
}

/// A message in fragments of `size` bytes.
fn in_fragments(message: &[u8], size: usize) -> Vec<u8> {
    let count = message.len().div_ceil(size);
    let frames = message.chunks(size).enumerate().flat_map(|(index, piece)| {
        let opcode = if index == 0 { BINARY } else { CONTINUATION };
        frame(opcode, index + 1 == count, piece)
    });
    frames.collect()
}

/// A Subscribe of exactly `len` bytes, filled up with an unknown field.
fn subscribe_of_len(id: &str, len: usize) -> Vec<u8> {
    let mut message = subscribe_envelope(id, "project:1");
    // Field 100, length-delimited, with a length of three bytes.
    message.extend([0xa2, 0x06]);
    prost::encoding::encode_varint((len - message.len() - 3) as u64, &mut message);
    message.resize(len, 7);
    message
}

fn check_closed_for(flood: Vec<u8>) {
    simulate(async move {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        client.send(flood).await;
        let heard = client.rest_after_close().await;
        let (last, refusals) = heard.split_last().unwrap();
        assert!(matches!(last, ReceivedFrame::Close(4005, _)), "{last:?}");
        let refused = ReceivedFrame::Refused("RATE_LIMIT_EXCEEDED".to_owned());
        assert_eq!(refusals, vec![refused; 100]);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_client_that_sends_endless_pongs_is_closed() {
    check_closed_for(pong().repeat(FLOOD_FRAMES));
}

#[test]
fn a_client_that_sends_endless_empty_fragments_is_closed() {
    let first = frame(BINARY, false, b"");
    let others = frame(CONTINUATION, false, b"").repeat(FLOOD_FRAMES);
    check_closed_for([first, others].concat());
}

#[test]
fn ordinary_pongs_pings_and_fragments_are_never_refused() {
    simulate(async {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let largest = subscribe_of_len("bytes", 64 * 1024);
        client.send(in_fragments(&largest, 1)).await;
        assert_eq!(
            client.next_frames(1).await,
            [ReceivedFrame::Subscribed("bytes".to_owned())]
        );
        let large = in_fragments(&subscribe_of_len("kib", 64 * 1024), 1024);
        for second in 0..600 {
            advance(Duration::from_secs(1)).await;
            client.send([pong(), ping(b"p")].concat()).await;
            assert_eq!(
                client.next_frames(1).await,
                [ReceivedFrame::Pong(b"p".to_vec())]
            );
            if second % 2 == 0 {
                client.send(&large).await;
                assert_eq!(
                    client.next_frames(1).await,
                    [ReceivedFrame::Subscribed("kib".to_owned())]
                );
            }
        }
    });
}

/// Checks that the relay does other work between a client's frames. `last` is answered.
fn check_taken_in_turns(frames: Vec<u8>, last: Vec<u8>) {
    simulate(async move {
        let fixture = fixture();
        let mut client = fixture.connect(WIDE);
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        client.send([frames, last].concat()).await;
        turns.set(0);
        assert!(matches!(
            client.next().await,
            Some(ReceivedFrame::Answered(_))
        ));
        let turns = turns.get();
        assert!(turns >= 10_000 / FRAMES_PER_TURN, "{turns} turns");
    });
}

#[test]
fn a_flood_of_pongs_is_interleaved_with_other_connections() {
    check_taken_in_turns(pong().repeat(10_000), ping_message());
}

#[test]
fn a_flood_of_fragments_is_interleaved_with_other_connections() {
    let first = frame(BINARY, false, b"");
    let others = frame(CONTINUATION, false, b"").repeat(10_000);
    let mut last = ping_message();
    // The last fragment of the message, which holds all of it.
    last[0] = 0x80 | CONTINUATION;
    check_taken_in_turns([first, others].concat(), last);
}
