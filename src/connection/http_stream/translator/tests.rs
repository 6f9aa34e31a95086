//! The translation into server-sent events, and how frames may be divided.

use proptest::prelude::*;
use sidewire_protocol::{ErrorCode, reply::MessageRefusal, wire};

use super::*;
use crate::connection::http_stream::{ResponseHead, event_confirmation, event_format::EventFormat};

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

fn translator() -> FrameTranslator {
    let head = ResponseHead::with_lines("common: x\r\n");
    FrameTranslator::new(Box::new(EventFormat::new(head)), "position")
}

fn event(offset: u64, text: &str) -> String {
    let position = format!(r#""position":{{"epoch":"{EPOCH}","offset":"{offset}"}}"#);
    format!(r#"{{"text":"{text}",{position}}}"#)
}

/// Translates the frames in pieces of these lengths, repeated, sending everything in between.
fn translated(frames: &[u8], pieces: &[usize]) -> String {
    let mut translator = translator();
    let (mut rest, mut sent) = (frames, Vec::new());
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let (piece, _) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
        let taken = translator.translate(piece);
        rest = &rest[taken..];
        sent.extend(translator.translated());
        translator.clear_translated();
    }
    String::from_utf8(sent).unwrap()
}

fn in_one_piece(frames: &[u8]) -> String {
    translated(frames, &[frames.len()])
}

fn confirmation() -> Box<[u8]> {
    let position = wire::Position {
        epoch: EPOCH.to_owned(),
        offset: 7,
    };
    event_confirmation("{}", Some(&position))
}

/// Removes the head from the stream.
fn body(stream: &str) -> &str {
    let (head, body) = stream.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.ends_with("\r\ncommon: x"), "{head}");
    body
}

#[test]
fn each_kind_of_frame_becomes_an_event() {
    let event = event(8, "x");
    let frames = [
        confirmation(),
        frame::text_frame(r#"{"typing":{}}"#),
        frame::text_frame(&event),
        frame::relay_frame(frame::PING, format!("{EPOCH}:9").as_bytes()),
        frame::relay_frame(frame::PING, b""),
        event_confirmation("{}", None),
        frame::close_frame(1001, "retry_after_ms=70"),
    ];
    let close = r#"{"code":1001,"reason":"retry_after_ms=70","retry_after_ms":70}"#;
    let expected = format!(
        "id: {EPOCH}:7\ndata: {{}}\n\n\
         data: {{\"typing\":{{}}}}\n\n\
         data: {event}\nid: {EPOCH}:8\n\n\
         :\nid: {EPOCH}:9\n\n\
         :\n\n\
         data: {{}}\n\n\
         retry: 70\nevent: close\ndata: {close}\n\n"
    );
    assert_eq!(body(&in_one_piece(&frames.concat())), expected);
}

#[test]
fn the_end_of_a_client_that_has_gone_is_no_event() {
    let frames = [frame::text_frame("{}"), frame::close_frame(1000, "")];
    assert_eq!(body(&in_one_piece(&frames.concat())), "data: {}\n\n");
}

#[test]
fn the_time_to_come_back_depends_on_the_close_code() {
    for (code, reason, retry) in [
        (4003, "too slow", 0),
        (4001, "token expired", 1000),
        (1001, "retry_after_ms=x", 1000),
    ] {
        let lines = in_one_piece(&frame::close_frame(code, reason));
        assert!(lines.contains(&format!("retry: {retry}\n")), "{lines}");
    }
}

#[test]
fn a_ping_and_a_close_frame_are_answered_once() {
    let mut translator = translator();
    for (frame, answer) in [
        (frame::relay_frame(frame::PING, b""), Answer::Pong),
        (frame::close_frame(1001, ""), Answer::Close),
    ] {
        assert_eq!(translator.translate(&frame), frame.len());
        assert_eq!(translator.take_answer(), Some(answer));
        assert_eq!(translator.take_answer(), None);
    }
}

#[test]
fn a_refusal_takes_the_place_of_the_response_and_nothing_follows() {
    let refusal = MessageRefusal::new(ErrorCode::AuthorizationFailed, "no");
    let refusal = refusal_frame(HttpProblem::from_refusal(&refusal));
    let close = frame::close_frame(4005, "too many messages were refused");
    let lines = in_one_piece(&[refusal, close].concat());
    let head = "HTTP/1.1 403 Forbidden\r\ncommon: x\r\n";
    assert!(lines.starts_with(head) && lines.ends_with('}'), "{lines}");
}

#[test]
fn no_more_frames_are_taken_while_enough_wait_to_be_sent() {
    let mut translator = translator();
    let frame = frame::text_frame(&event(1, &"x".repeat(5 * TRANSLATED_MAX)));
    let mut taken = 0;
    while taken < frame.len() {
        let now = translator.translate(&frame[taken..]);
        assert!(now > 0 && translator.translated().len() <= TRANSLATED_MAX + LINES_MAX);
        taken += now;
        assert_eq!(translator.translate(&frame[taken..]), 0);
        translator.clear_translated();
    }
}

proptest! {
    #[test]
    fn it_does_not_matter_how_frames_are_divided(
        lengths in prop::collection::vec(0_usize..40_000, 1..5),
        pieces in prop::collection::vec(1_usize..200, 1..20),
    ) {
        let frames: Vec<_> = lengths
            .iter()
            .zip(1..)
            .flat_map(|(len, offset)| {
                let event = frame::text_frame(&event(offset, &"y".repeat(*len)));
                [event, frame::relay_frame(frame::PING, b"a:1")]
            })
            .collect();
        let frames = [confirmation()].into_iter().chain(frames).collect::<Vec<_>>().concat();
        prop_assert_eq!(translated(&frames, &pieces), in_one_piece(&frames));
    }
}
