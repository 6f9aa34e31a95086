//! The answer to a poll: one JSON document with the events that the client has missed, or with the first
//! that come while it waits.
//!
//! It is sent as it comes, in chunks (RFC 9112, 7.1), so that a large answer takes no memory besides
//! the outbox. What can be said only at the end, the position, is its last member.

use std::mem;

use hyper::{Request, Version, header::CONNECTION};
use sidewire_protocol::{frame, wire};

use super::{
    headers::ResponseHead,
    request::PollBounds,
    translator::{CONFIRMATION, ResponseFormat},
};
use crate::planted::fault;

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n";
const UNTIL_CLOSE: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";

/// How the request wants its answer framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum Framing {
    /// In chunks. Another request may follow.
    KeepAlive,
    /// In chunks, with which the connection ends.
    Chunked,
    /// Until the connection ends, as HTTP/1.0 has it.
    UntilClose,
}

impl Framing {
    /// Returns the framing of the response to a request (RFC 9112, 9.3).
    pub(in crate::connection) fn of_request<B>(request: &Request<B>) -> Self {
        if request.version() < Version::HTTP_11 {
            return Self::UntilClose;
        }
        let options = request.headers().get_all(CONNECTION).into_iter();
        let mut options = options
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        match options.any(|option| option.trim().eq_ignore_ascii_case("close")) {
            true => Self::Chunked,
            false => Self::KeepAlive,
        }
    }
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The Subscribe is not confirmed.
    Unconfirmed,
    /// The replay brings so many more events.
    Replaying { left: u64 },
    /// There was nothing to replay: the first event ends the answer.
    Waiting,
    /// An event has come. Those that came together with it belong to the answer, too.
    Following,
    /// The answer is complete.
    Answered,
    /// The request is refused, or the relay has ended the connection.
    Closed,
}

/// The answer to a poll.
#[derive(Debug)]
pub(in crate::connection) struct PollFormat {
    /// The head of the response, until it is sent.
    head: Option<ResponseHead>,
    framing: Framing,
    /// Number of events that the answer may still have.
    events_left: usize,
    /// Number of bytes that its further events may have; the first may have any.
    bytes_left: u64,
    phase: Phase,
    /// True once the answer waits for nothing.
    wait_is_over: bool,
    recovered: bool,
    /// The position of the confirmation, up to which there is nothing after the replay.
    confirmed: Vec<u8>,
    /// The position up to which the log has been searched, as `<epoch>:<offset>`.
    position: Vec<u8>,
}

impl PollFormat {
    /// Creates an answer within these bounds, with at most `bytes_max` bytes of events unless it has only
    /// one.
    pub(in crate::connection) fn new(
        head: ResponseHead,
        framing: Framing,
        bounds: PollBounds,
        bytes_max: usize,
    ) -> Self {
        Self {
            head: Some(head),
            framing,
            events_left: bounds.events_max,
            bytes_left: bytes_max as u64,
            phase: Phase::Unconfirmed,
            wait_is_over: bounds.wait.is_zero(),
            recovered: false,
            confirmed: Vec::new(),
            position: Vec::new(),
        }
    }

    /// Begins the next part of the answer, of which `more` bytes follow.
    fn begin_part(&mut self, more: u64, body: &mut Vec<u8>) {
        let head = self.head.take();
        let begin = match &head {
            Some(_) => format!("{{\"recovered\":{},\"events\":[", self.recovered),
            None => ",".to_owned(),
        };
        if let Some(head) = head {
            let lines = match self.framing {
                Framing::KeepAlive => CHUNKED.to_owned(),
                Framing::Chunked => format!("{CHUNKED}connection: close\r\n"),
                Framing::UntilClose => UNTIL_CLOSE.to_owned(),
            };
            body.extend(head.with_first_lines(&lines));
        }
        self.begin_chunk(begin.len() as u64 + more, body);
        body.extend(begin.into_bytes());
    }

    fn begin_chunk(&self, len: u64, body: &mut Vec<u8>) {
        if self.framing != Framing::UntilClose {
            body.extend(format!("{len:x}\r\n").into_bytes());
        }
    }

    fn end_chunk(&self, body: &mut Vec<u8>) {
        if self.framing != Framing::UntilClose {
            body.extend(b"\r\n");
        }
    }

    /// Ends the answer: the log has been searched up to the position.
    fn end(&mut self, body: &mut Vec<u8>) {
        if self.head.is_some() {
            self.begin_part(0, body);
            self.end_chunk(body);
        }
        let position = str::from_utf8(&self.position).unwrap_or_default();
        let (epoch, offset) = position.split_once(':').unwrap_or_default();
        let end = format!("],\"position\":{{\"epoch\":\"{epoch}\",\"offset\":\"{offset}\"}}}}");
        self.begin_chunk(end.len() as u64, body);
        body.extend(end.into_bytes());
        self.end_chunk(body);
        if self.framing != Framing::UntilClose {
            body.extend(b"0\r\n\r\n");
        }
        self.phase = Phase::Answered;
    }

    /// Ends the answer if there is nothing to replay and nothing to wait for.
    fn end_if_over(&mut self, body: &mut Vec<u8>) {
        if self.wait_is_over && self.phase == Phase::Waiting {
            self.end(body);
        }
    }
}

impl ResponseFormat for PollFormat {
    fn begin_message(&mut self, len: u64, body: &mut Vec<u8>) {
        if self.head.is_none() && len > self.bytes_left {
            // The next answer begins with it.
            return self.end(body);
        }
        self.begin_part(len, body);
        self.bytes_left = self.bytes_left.saturating_sub(len);
    }

    fn end_message(&mut self, position: Option<&[u8]>, body: &mut Vec<u8>) {
        self.end_chunk(body);
        self.events_left = self.events_left.saturating_sub(1);
        self.position.clear();
        self.position.extend(position.unwrap_or_default());
        match &mut self.phase {
            Phase::Replaying { left } => {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.position = mem::take(&mut self.confirmed);
                    return self.end(body);
                }
            }
            phase => *phase = Phase::Following,
        }
        if self.events_left == 0 || self.bytes_left == 0 {
            if fault!(SkipsBehindTheBound) {
                self.position.clone_from(&self.confirmed);
            }
            self.end(body);
        }
    }

    fn begin_confirmation(&mut self, _body: &mut Vec<u8>) {
        debug_assert!(false, "the confirmation of a poll is not sent");
    }

    fn confirm(&mut self, confirmation: &[u8], body: &mut Vec<u8>) {
        let text = str::from_utf8(confirmation).unwrap_or_default();
        let (position, replayed) = text.split_once(' ').unwrap_or_default();
        debug_assert!(position.contains(':'), "{text} is no confirmation");
        self.confirmed = position.as_bytes().to_vec();
        self.position.clone_from(&self.confirmed);
        self.recovered = replayed.parse::<u64>().is_ok();
        self.phase = match replayed.parse() {
            Ok(left @ 1..) => Phase::Replaying { left },
            _ => Phase::Waiting,
        };
        // A client that has missed something must know at once.
        self.wait_is_over |= !self.recovered;
        self.end_if_over(body);
    }

    /// The relay pings a client that has waited for long enough.
    fn ping(&mut self, position: &[u8], body: &mut Vec<u8>) {
        self.wait_is_over = true;
        if self.phase == Phase::Waiting && !position.is_empty() {
            self.position = position.to_vec();
        }
        self.end_if_over(body);
    }

    fn refuse(&mut self, response: &[u8], body: &mut Vec<u8>) {
        if let Some(head) = self.head.take() {
            body.extend(head.of_refusal(response));
            self.phase = Phase::Closed;
        }
    }

    /// Ends the answer with the events that it has. Without any, a refusal has come before.
    fn close(&mut self, _payload: &[u8], body: &mut Vec<u8>) {
        if self.head.is_none() && self.phase != Phase::Closed {
            self.end(body);
        }
        self.phase = Phase::Closed;
    }

    fn flush(&mut self, body: &mut Vec<u8>) {
        if self.phase == Phase::Following {
            self.end(body);
        }
    }

    fn is_complete(&self) -> bool {
        self.phase == Phase::Answered
    }
}

/// Returns the frame of the confirmation of a Subscribe: the position, and the number of events that
/// are replayed, if the client resumes without a gap.
pub(in crate::connection) fn poll_confirmation(
    position: &wire::Position,
    replayed: Option<u64>,
) -> Box<[u8]> {
    let replayed = replayed.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let text = format!("{}:{} {replayed}", position.epoch, position.offset);
    frame::relay_frame(CONFIRMATION, text.as_bytes())
}

#[cfg(test)]
mod tests {
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
}
