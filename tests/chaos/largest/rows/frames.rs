//! The frames of clients, of each kind.

use sidewire_testing::websocket::{self, FIN, frame};

use super::{Row, TOO_MANY_HEARTBEATS, World};
use crate::largest::{
    attack::Expected,
    items::{self, Encoding, FRAMES_PER_HEARTBEAT, HEARTBEATS, MESSAGE_BYTES},
};

pub(super) fn frame_kinds(world: &World) -> Vec<Row> {
    let talk = |frames, expected| world.websocket(Encoding::Protobuf, frames, expected);
    let json = |frames, expected| world.websocket(Encoding::Json, frames, expected);
    let empty = |first: u8, count: usize| frame(first, b"").repeat(count);
    let ping = items::ping(Encoding::Protobuf);
    // A message of empty fragments, the last of which is a Ping.
    let fragments = |count: usize| {
        let first = frame(websocket::BINARY, b"");
        let last = frame(FIN | websocket::CONTINUATION, b"\x72\x00");
        [first, empty(websocket::CONTINUATION, count), last].concat()
    };
    let in_bytes = |message: &[u8]| {
        let mut frames = frame(websocket::BINARY, &message[..1]);
        for byte in &message[1..message.len() - 1] {
            frames.extend(frame(websocket::CONTINUATION, &[*byte]));
        }
        let last = message.last().into_iter().copied().collect::<Vec<_>>();
        frames.extend(frame(FIN | websocket::CONTINUATION, &last));
        frames
    };
    let pings = |count: usize| frame(FIN | websocket::PING, &[b'p'; 125]).repeat(count);
    let too_many = TOO_MANY_HEARTBEATS * FRAMES_PER_HEARTBEAT;
    let just_enough = (HEARTBEATS - 2) * FRAMES_PER_HEARTBEAT;
    let pongs = [empty(FIN | websocket::PONG, just_enough), pings(1)].concat();
    let too_large = vec![0; MESSAGE_BYTES + 1];
    let text = br#"{"ping":{"timestamp":"1"}}"#;
    let largest_text = frame(FIN | websocket::TEXT, &items::ping(Encoding::Json));
    let reason = [&1000_u16.to_be_bytes()[..], &[b'r'; 123]].concat();
    let wrong_reason = [&1000_u16.to_be_bytes()[..], &[0xff; 123]].concat();
    let close = |payload: &[u8]| frame(FIN | websocket::CLOSE, payload);
    vec![
        Row::legal(
            &["frame continuation"],
            "118,784 empty fragments",
            talk(fragments(just_enough), Expected::Messages("pong", 1)),
        ),
        Row::legal(
            &["frame continuation"],
            "64 KiB in fragments of one byte",
            talk(in_bytes(&ping), Expected::Messages("pong", 1)),
        ),
        Row::refused(
            &["frame continuation"],
            "empty fragments without end",
            talk(fragments(too_many), Expected::Close(4005)),
        ),
        Row::legal(
            &["frame binary"],
            "64 KiB",
            talk(
                frame(FIN | websocket::BINARY, &ping),
                Expected::Messages("pong", 1),
            ),
        )
        .beyond(talk(
            frame(FIN | websocket::BINARY, &too_large),
            Expected::Close(1009),
        )),
        Row::refused(
            &["frame binary"],
            "64 KiB where JSON is spoken",
            json(frame(FIN | websocket::BINARY, &ping), Expected::Close(1003)),
        ),
        Row::legal(
            &["frame text"],
            "64 KiB",
            json(largest_text, Expected::Messages("pong", 1)),
        )
        .beyond(json(
            frame(FIN | websocket::TEXT, &too_large),
            Expected::Close(1009),
        )),
        Row::refused(
            &["frame text"],
            "where protobuf is spoken",
            talk(frame(FIN | websocket::TEXT, text), Expected::Close(1003)),
        ),
        Row::legal(
            &["frame ping"],
            "60 of 125 bytes",
            talk(pings(HEARTBEATS), Expected::Pongs(HEARTBEATS)),
        )
        .beyond(talk(
            frame(FIN | websocket::PING, &[0; 126]),
            Expected::Close(1002),
        )),
        Row::refused(
            &["frame ping"],
            "200 of 125 bytes",
            talk(pings(200), Expected::Close(4005)),
        ),
        Row::legal(
            &["frame pong"],
            "118,784 pongs",
            talk(pongs, Expected::Pongs(1)),
        ),
        Row::refused(
            &["frame pong"],
            "pongs without end",
            talk(
                empty(FIN | websocket::PONG, too_many),
                Expected::Close(4005),
            ),
        ),
        Row::legal(
            &["frame close"],
            "a reason of 123 bytes",
            talk(close(&reason), Expected::Close(1000)),
        )
        .beyond(talk(
            close(&[&reason[..], b"r"].concat()),
            Expected::Close(1002),
        )),
        Row::refused(
            &["frame close"],
            "a reason that is no UTF-8",
            talk(close(&wrong_reason), Expected::Close(1007)),
        ),
        Row::refused(
            &["frame reserved"],
            "a kind that there is not",
            talk(frame(FIN | 3, b""), Expected::Close(1002)),
        ),
    ]
}
