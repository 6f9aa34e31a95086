//! Tests of what a stream reads, and of what it holds meanwhile.

use std::future::poll_fn;

use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::{
    partial_message::{READ_BUFFER_BYTES, WRITE_BUFFER_BYTES_MAX},
    *,
};
use bytes::Bytes;

use crate::{
    connection::wire_testing::{BINARY, CONTINUATION, frame, ping},
    outbox::{OutboxLimits, OutboxPool},
};

const MESSAGE_BYTES_MAX: usize = 10_000;

fn stream(read_ahead: &[u8]) -> (FrameStream<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1 << 20);
    let limits = OutboxLimits {
        frames: 10,
        bytes: 1000,
    };
    let outbox = Rc::new(Outbox::new(&OutboxPool::new(limits)));
    let stream = FrameStream::new(ours, read_ahead, MESSAGE_BYTES_MAX, outbox);
    (stream, theirs)
}

#[test]
fn all_of_tungstenites_limits_are_set() {
    let reading = PartialMessage::new(saturating_u32(MESSAGE_BYTES_MAX));
    let config = reading.context.get_config();
    assert_eq!(config.read_buffer_size, READ_BUFFER_BYTES);
    assert_eq!(config.write_buffer_size, 0);
    assert_eq!(config.max_write_buffer_size, WRITE_BUFFER_BYTES_MAX);
    assert_eq!(config.max_message_size, Some(MESSAGE_BYTES_MAX));
    assert_eq!(config.max_frame_size, Some(MESSAGE_BYTES_MAX));
    assert!(!config.accept_unmasked_frames);
}

#[tokio::test]
async fn read_bytes_are_held_only_until_they_are_taken() {
    let buffer = RefCell::new(vec![0; 64 * 1024].into());
    let message = frame(BINARY, true, &[1; 900]);
    let burst = [message.clone(), ping(b"p"), message].concat();
    let (first, second) = burst.split_at(1000);
    let (mut stream, mut client) = stream(first);
    client.write_all(second).await.unwrap();
    let mut messages = Vec::new();
    loop {
        while let Some(message) = stream.next_message().unwrap() {
            messages.push(message);
        }
        let held = stream.reading.as_ref();
        assert_eq!(held.map_or(0, |reading| reading.unread.capacity()), 0);
        if messages.len() == 3 {
            break;
        }
        poll_fn(|cx| stream.poll_read(cx, &buffer)).await.unwrap();
    }
    assert_eq!(messages[2], Message::Binary(Bytes::from(vec![1; 900])));
}

/// Returns all messages that are read already.
fn messages(stream: &mut FrameStream<DuplexStream>) -> Vec<Message> {
    std::iter::from_fn(|| stream.next_message().unwrap()).collect()
}

#[test]
fn tungstenite_releases_its_buffer_after_a_large_message() {
    let (mut stream, _client) = stream(&frame(BINARY, true, &[1; MESSAGE_BYTES_MAX]));
    let message = messages(&mut stream).remove(0);
    // The message is a part of the buffer into which it was read.
    let Message::Binary(payload) = message else {
        panic!("{message:?}");
    };
    assert_eq!(payload.len(), MESSAGE_BYTES_MAX);
    assert!(payload.is_unique(), "its buffer is held on to");
}

#[test]
fn a_read_buffer_exists_only_within_a_message() {
    let message = frame(BINARY, false, &[1; 300]);
    let (mut stream, _client) = stream(&[&message[..], &ping(b"p")].concat());
    assert!(matches!(messages(&mut stream)[..], [Message::Ping(_)]));
    assert!(stream.reading.is_some());
    let rest = frame(CONTINUATION, true, &[2]);
    stream.partial_message().unread.extend_from_slice(&rest);
    assert!(matches!(&messages(&mut stream)[..], [Message::Binary(it)] if it.len() == 301));
    assert!(stream.reading.is_none());
}

proptest! {
    #[test]
    fn messages_are_read_whatever_their_sizes_and_pieces(
        sizes in prop::collection::vec((0..MESSAGE_BYTES_MAX, 0..3_usize), 1..8),
        pieces in prop::collection::vec(1..5000_usize, 1..20),
    ) {
        let (mut bytes, mut sent) = (Vec::new(), Vec::new());
        for (number, (size, fragments)) in sizes.into_iter().enumerate() {
            let payload = vec![u8::try_from(number).unwrap(); size];
            let (start, end) = payload.split_at(size / 2);
            match fragments {
                0 => bytes.extend(frame(BINARY, true, &payload)),
                _ => {
                    bytes.extend(frame(BINARY, false, start));
                    if fragments == 2 {
                        bytes.extend(ping(b"between"));
                    }
                    bytes.extend(frame(CONTINUATION, true, end));
                }
            }
            sent.push(Message::Binary(payload.into()));
        }
        let (mut stream, _client) = stream(b"");
        let (mut rest, mut received) = (&bytes[..], Vec::new());
        for piece in pieces.into_iter().cycle() {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            stream.partial_message().unread.extend_from_slice(now);
            received.extend(messages(&mut stream));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        received.retain(|message| !message.is_ping());
        prop_assert_eq!(received, sent);
    }
}
