//! The answers that frames become, within their bounds.

use std::time::Duration;

use proptest::prelude::*;
use sidewire_protocol::close::CloseReason;

use super::*;
use crate::{
    connection::http_stream::{refusal_frame, translator::FrameTranslator},
    http::HttpProblem,
};

const EPOCH: &str = "0123456789abcdef0123456789abcdef";

fn bounds(wait: u64, events_max: usize) -> PollBounds {
    PollBounds {
        wait: Duration::from_secs(wait),
        events_max,
    }
}

fn translator(framing: Framing, bounds: PollBounds, bytes_max: usize) -> FrameTranslator {
    let head = ResponseHead::with_lines("common: x\r\n");
    let format = PollFormat::new(head, framing, bounds, bytes_max);
    FrameTranslator::new(Box::new(format), "position")
}

fn event(offset: u64) -> Box<[u8]> {
    frame::text_frame(&json(offset))
}

fn json(offset: u64) -> String {
    format!(r#"{{"n":{offset},"position":{{"epoch":"{EPOCH}","offset":"{offset}"}}}}"#)
}

fn confirmation(offset: u64, replayed: Option<u64>) -> Box<[u8]> {
    let epoch = EPOCH.to_owned();
    poll_confirmation(&wire::Position { epoch, offset }, replayed)
}

fn ping(position: &str) -> Box<[u8]> {
    frame::relay_frame(frame::PING, position.as_bytes())
}

/// Writes each list of frames at once, and returns the body that the frames have become.
fn body(bounds: PollBounds, writes: &[&[Box<[u8]>]]) -> Option<String> {
    let mut translator = translator(Framing::UntilClose, bounds, 1_000);
    for write in writes {
        translator.translate(&write.concat());
        translator.flush();
    }
    if !translator.is_complete() {
        return None;
    }
    let response = String::from_utf8(translator.translated().to_vec()).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.ends_with("\r\ncommon: x"), "{head}");
    Some(body.to_owned())
}

fn answer(recovered: bool, events: &[u64], position: u64) -> Option<String> {
    let events = events
        .iter()
        .map(|offset| json(*offset))
        .collect::<Vec<_>>()
        .join(",");
    let position = format!(r#"{{"epoch":"{EPOCH}","offset":"{position}"}}"#);
    Some(format!(
        r#"{{"recovered":{recovered},"events":[{events}],"position":{position}}}"#
    ))
}

#[test]
fn without_a_gap_the_replay_is_the_answer_up_to_the_confirmed_position() {
    let frames = [confirmation(9, Some(2)), event(3), event(5)];
    assert_eq!(body(bounds(25, 100), &[&frames]), answer(true, &[3, 5], 9));
    assert_eq!(body(bounds(25, 100), &[&frames[..2]]), None);
}

#[test]
fn an_answer_that_a_bound_cuts_ends_with_the_position_of_its_last_event() {
    let frames = [confirmation(9, Some(3)), event(3), event(5), event(7)];
    assert_eq!(body(bounds(25, 2), &[&frames]), answer(true, &[3, 5], 5));
    let len = json(3).len();
    for (bytes_max, events) in [
        (len - 1, &[3][..]),
        (len, &[3]),
        (2 * len - 1, &[3]),
        (2 * len, &[3, 5]),
    ] {
        let mut translator = translator(Framing::UntilClose, bounds(25, 100), bytes_max);
        let frames = frames.concat();
        assert!(translator.translate(&frames) < frames.len());
        assert!(translator.is_complete());
        let response = String::from_utf8(translator.translated().to_vec()).unwrap();
        let expected = answer(true, events, *events.last().unwrap()).unwrap();
        assert!(response.ends_with(&expected), "{bytes_max}: {response}");
    }
}

#[test]
fn a_poll_with_nothing_to_replay_waits_for_what_comes_next() {
    let confirmed = [confirmation(9, Some(0))];
    assert_eq!(body(bounds(25, 100), &[&confirmed]), None);
    let together = [event(12), event(13)];
    assert_eq!(
        body(bounds(25, 100), &[&confirmed, &together]),
        answer(true, &[12, 13], 13)
    );
    let first = answer(true, &[12], 12);
    assert_eq!(body(bounds(25, 1), &[&confirmed, &together]), first);
}

#[test]
fn a_poll_that_has_waited_for_long_enough_says_how_far_the_log_was_searched() {
    let confirmed = [confirmation(9, Some(0))];
    let later = [ping(&format!("{EPOCH}:20"))];
    let waited = body(bounds(25, 100), &[&confirmed, &later]);
    assert_eq!(waited, answer(true, &[], 20));
    let unknown = [ping("")];
    let waited = body(bounds(25, 100), &[&confirmed, &unknown]);
    assert_eq!(
        waited,
        answer(true, &[], 9),
        "the position is not known now"
    );
    // The backend was asked for longer than the poll waits.
    let waited = body(bounds(25, 100), &[&unknown, &confirmed]);
    assert_eq!(waited, answer(true, &[], 9));
    assert_eq!(body(bounds(0, 100), &[&confirmed]), answer(true, &[], 9));
}

#[test]
fn a_client_that_has_missed_something_is_told_at_once() {
    let confirmed = [confirmation(9, None)];
    assert_eq!(body(bounds(25, 100), &[&confirmed]), answer(false, &[], 9));
}

/// Returns the document that a response in chunks holds.
fn document(response: &str) -> String {
    let (head, mut rest) = response.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n"),
        "{head}"
    );
    let mut body = String::new();
    loop {
        let (len, chunk) = rest.split_once("\r\n").unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        let (chunk, after) = chunk.split_at(len);
        body.push_str(chunk);
        rest = after.strip_prefix("\r\n").unwrap();
        if len == 0 {
            break;
        }
    }
    assert_eq!(rest, "");
    body
}

#[test]
fn an_answer_in_chunks_has_their_lengths() {
    let mut translator = translator(Framing::KeepAlive, bounds(25, 100), 1_000);
    let frames = [confirmation(9, Some(2)), event(3), event(5)].concat();
    assert_eq!(translator.translate(&frames), frames.len());
    let response = String::from_utf8(translator.translated().to_vec()).unwrap();
    assert_eq!(Some(document(&response)), answer(true, &[3, 5], 9));
}

proptest! {
    #[test]
    fn however_events_are_divided_an_answer_has_whole_ones_and_the_position_of_the_last(
        lengths in prop::collection::vec(0_usize..20_000, 1..8),
        pieces in prop::collection::vec(1_usize..30_000, 1..20),
    ) {
        let mut translator = translator(Framing::KeepAlive, bounds(25, 100), 1 << 20);
        let events: Vec<_> = (1_u64..)
            .zip(&lengths)
            .map(|(offset, len)| {
                let position = format!(r#"{{"epoch":"{EPOCH}","offset":"{offset}"}}"#);
                format!(r#"{{"n":"{}","position":{position}}}"#, "x".repeat(*len))
            })
            .collect();
        let frames = events.iter().map(|json| frame::text_frame(json));
        let frames: Vec<_> = [confirmation(0, Some(0))].into_iter().chain(frames).collect();
        let (frames, mut response) = (frames.concat(), Vec::new());
        let (mut rest, mut pieces) = (frames.as_slice(), pieces.iter().cycle());
        while !translator.is_complete() && !rest.is_empty() {
            let (piece, _) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
            rest = &rest[translator.translate(piece)..];
            translator.flush();
            response.extend(translator.translated());
            translator.clear_translated();
        }
        prop_assert!(translator.is_complete());
        let json: serde_json::Value =
            serde_json::from_str(&document(str::from_utf8(&response).unwrap())).unwrap();
        let got = json["events"].as_array().unwrap();
        prop_assert!(!got.is_empty());
        for (got, sent) in got.iter().zip(&events) {
            prop_assert_eq!(&got.to_string(), sent);
        }
        prop_assert_eq!(&json["position"]["offset"], &got.len().to_string());
    }
}

#[test]
fn a_connection_that_ends_is_answered_with_its_events_or_with_the_refusal() {
    let problem = HttpProblem::unauthenticated("expired");
    let close = frame::close_frame(CloseReason::TokenExpired.code(), "token expired");
    let end = [refusal_frame(problem), close].concat();
    for (frames, expected) in [
        (
            vec![confirmation(9, Some(3)), event(3)],
            answer(true, &[3], 3),
        ),
        (vec![confirmation(9, Some(3))], None),
    ] {
        let mut translator = translator(Framing::UntilClose, bounds(25, 100), 1_000);
        translator.translate(&[frames.concat(), end.clone()].concat());
        assert!(!translator.is_complete(), "the Close frame is answered");
        let response = String::from_utf8(translator.translated().to_vec()).unwrap();
        match expected {
            Some(answer) => assert!(response.ends_with(&answer), "{response}"),
            None => {
                let head = "HTTP/1.1 401 Unauthorized\r\ncommon: x\r\n";
                assert!(
                    response.starts_with(head) && response.ends_with('}'),
                    "{response}"
                );
            }
        }
    }
}
