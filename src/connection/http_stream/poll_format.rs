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
mod tests;
