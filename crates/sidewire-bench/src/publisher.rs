//! A backend: one connection that sends calls, pipelined if the load demands it, and
//! receives their answers. Knows nothing about the content of calls.

use std::{collections::VecDeque, io, ops::Range};

use super::{
    BenchError,
    link::{ReadBuffer, ReadOutcome, TargetLink},
    target::{Framing, PostCall, TargetProtocol},
};

/// The floor's answer to an event that it queued.
const QUEUED: u8 = 0x06;

/// The most headers of an answer, many more than a relay's answer has.
const HEADERS_MAX: usize = 32;

/// A connection to the ingest listener.
#[derive(Debug)]
pub(super) struct BenchPublisher {
    pub(super) link: TargetLink,
    pub(super) is_connected: bool,
    framing: Framing,
    out: Vec<u8>,
    written: usize,
    /// The event numbers of each call that is not answered yet.
    awaited: VecDeque<Range<usize>>,
}

/// The answer to a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnsweredCall {
    pub(super) events: Range<usize>,
    /// The status and body of a refusal.
    pub(super) refusal: Option<(u16, String)>,
}

impl BenchPublisher {
    pub(super) fn new(link: TargetLink, speech: &TargetProtocol) -> Self {
        Self {
            link,
            is_connected: false,
            framing: match speech {
                TargetProtocol::Relay(_) => Framing::Http,
                TargetProtocol::Floor(framing) => *framing,
            },
            out: Vec::new(),
            written: 0,
            awaited: VecDeque::new(),
        }
    }

    /// Returns true if all calls are answered.
    pub(super) fn is_idle(&self) -> bool {
        self.awaited.is_empty()
    }

    /// Queues a call and numbers its events from `first`.
    pub(super) fn queue_call(&mut self, call: &PostCall, first: usize) {
        call.write_call(&mut self.out, first);
        self.awaited.push_back(first..first + call.event_count());
    }

    /// Writes as much of the queued calls as possible without waiting.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if self.written < self.out.len() {
            let rest = self.out.get(self.written..).unwrap_or_default();
            self.written += self.link.write(rest)?;
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        Ok(())
    }

    /// Reads all available answers.
    pub(super) fn read_answers(
        &mut self,
        buffer: &mut ReadBuffer,
        answered: &mut Vec<AnsweredCall>,
    ) -> Result<(), BenchError> {
        loop {
            let came = self.link.read(buffer).map_err(BenchError::PublisherLost)?;
            let (mut bytes, is_full) = match came {
                ReadOutcome::Bytes { bytes, is_full } => (bytes, is_full),
                ReadOutcome::Nothing => return Ok(()),
                ReadOutcome::End => {
                    let end = io::ErrorKind::UnexpectedEof.into();
                    return Err(BenchError::PublisherLost(end));
                }
            };
            while let Some((refusal, rest)) = parse_answer(self.framing, bytes)? {
                let events = self.awaited.pop_front().ok_or(BenchError::NotAnAnswer)?;
                answered.push(AnsweredCall { events, refusal });
                bytes = rest;
            }
            self.link.keep_rest(bytes);
            if !is_full {
                return Ok(());
            }
        }
    }
}

type CallRefusal = Option<(u16, String)>;

/// Parses the first answer. Returns its refusal and the bytes after it, or `None` while
/// the answer is incomplete.
fn parse_answer(
    framing: Framing,
    bytes: &[u8],
) -> Result<Option<(CallRefusal, &[u8])>, BenchError> {
    match (framing, bytes) {
        (_, []) => Ok(None),
        (Framing::Raw, [QUEUED, rest @ ..]) => Ok(Some((None, rest))),
        (Framing::Raw, _) => Err(BenchError::NotAnAnswer),
        (Framing::Http, _) => parse_http_answer(bytes),
    }
}

fn parse_http_answer(bytes: &[u8]) -> Result<Option<(CallRefusal, &[u8])>, BenchError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| BenchError::NotAnAnswer)?;
    let httparse::Status::Complete(head_bytes) = parsed else {
        return Ok(None);
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| str::from_utf8(header.value).ok()?.parse().ok());
    let body_bytes: usize = length.ok_or(BenchError::NotAnAnswer)?;
    let after_head = bytes.get(head_bytes..).unwrap_or_default();
    let Some((body, rest)) = after_head.split_at_checked(body_bytes) else {
        return Ok(None);
    };
    let refusal = match response.code {
        Some(200..300) => None,
        code => Some((
            code.unwrap_or_default(),
            String::from_utf8_lossy(body).into_owned(),
        )),
    };
    Ok(Some((refusal, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_answers_are_taken_one_at_a_time() {
        let first = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".as_slice();
        let second = b"HTTP/1.1 503 No\r\ncontent-length: 3\r\nx: y\r\n\r\nfull".as_slice();
        let both = [first, second].concat();
        let (refusal, rest) = parse_http_answer(&both).unwrap().unwrap();
        assert_eq!((refusal, rest), (None, second));
        let (refusal, rest) = parse_http_answer(rest).unwrap().unwrap();
        assert_eq!(refusal, Some((503, "ful".to_owned())));
        assert_eq!(rest, b"l");
        for len in 0..first.len() {
            assert!(parse_http_answer(&first[..len]).unwrap().is_none(), "{len}");
        }
    }

    #[test]
    fn an_invalid_answer_is_an_error() {
        assert!(parse_http_answer(b"220 mail ready\r\n").is_err());
        assert!(parse_http_answer(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(parse_answer(Framing::Raw, b"\x15").is_err());
        assert!(matches!(
            parse_answer(Framing::Raw, &[QUEUED, QUEUED]),
            Ok(Some((None, [QUEUED])))
        ));
    }
}
