//! Turns the relay's WebSocket frames into server-sent events (HTML, 9.2.5).

use std::mem;

use serde::Serialize;
use sidewire_protocol::{
    close::{CloseReason, RETRY_AFTER_PREFIX},
    frame::{self, HEADER_BYTES_MAX, payload_len},
    wire,
};

use super::ResponseHead;
use crate::{event::PositionFinder, http::HttpProblem};

/// Number of translated bytes from which on no more frames are taken until these are sent. A
/// client that does not read holds so many bytes in addition to its outbox.
pub(super) const TRANSLATED_MAX: usize = 16 * 1024;

/// Maximum number of bytes behind the payload of an event: its `id`, and an empty line.
pub(super) const LINES_MAX: usize = 128;

/// First byte of a frame with a refusal of the request, which is a whole HTTP response. The opcode
/// is one that WebSockets do not use.
const REFUSAL: u8 = frame::FIN | 0x3;

/// Time after which a client should reconnect if the relay did not say how long to wait, in
/// milliseconds.
const RETRY_MS: u32 = 1000;

/// The close code of a client that has ended the connection.
pub(super) const NORMAL_CLOSURE: u16 = 1000;

/// The close code of clients that were too slow, which may come back at once.
const TOO_SLOW: u16 = CloseReason::TooSlow.code();

/// What a WebSocket client would send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Pong,
    Close,
}

/// Where in a frame the translation is.
#[derive(Debug, Clone, Copy)]
enum FramePart {
    Header {
        bytes: [u8; HEADER_BYTES_MAX],
        len: usize,
    },
    Payload {
        first: u8,
        /// Number of bytes that follow.
        left: u64,
    },
}

impl FramePart {
    const START: Self = Self::Header {
        bytes: [0; HEADER_BYTES_MAX],
        len: 0,
    };
}

/// Translates frames, which may come in pieces.
#[derive(Debug)]
pub(in crate::connection) struct FrameTranslator {
    /// The head of the response, until it is sent.
    head: Option<ResponseHead>,
    part: FramePart,
    translated: Vec<u8>,
    /// Payload of the present frame: of a control frame all of it, of a message its last bytes if
    /// the rest of it is sent already.
    kept: Vec<u8>,
    /// Where in `translated` the payload of the present message begins.
    payload_start: usize,
    answer: Option<Answer>,
    /// True if the response is a refusal, behind which nothing may come.
    is_refused: bool,
    /// True once the Subscribe is confirmed. Events before that are no positions to resume from: what
    /// the replay brings lies before them.
    is_confirmed: bool,
    finder: PositionFinder,
}

#[derive(Serialize)]
struct CloseEvent<'a> {
    code: u16,
    reason: &'a str,
    retry_after_ms: u32,
}

impl FrameTranslator {
    /// Creates the translator of a response that has not begun. `field` is the name of the field
    /// `position` in the envelope's JSON. If a reload changes it, it is not found until the client
    /// reconnects.
    pub(in crate::connection) fn new(head: ResponseHead, field: &str) -> Self {
        Self {
            head: Some(head),
            part: FramePart::START,
            translated: Vec::new(),
            kept: Vec::new(),
            payload_start: 0,
            answer: None,
            is_refused: false,
            is_confirmed: false,
            finder: PositionFinder::new(field),
        }
    }

    /// Returns the bytes to send.
    pub(super) fn translated(&self) -> &[u8] {
        &self.translated
    }

    /// Drops the translated bytes, which have been sent, and their memory.
    pub(super) fn clear_translated(&mut self) {
        if let FramePart::Payload { first, .. } = self.part
            && is_message(first)
        {
            // The position may be divided between two writes.
            let payload = self.translated.get(self.payload_start..);
            self.kept.extend(payload.unwrap_or_default());
            let surplus = self.kept.len().saturating_sub(self.finder.bytes_max());
            self.kept.drain(..surplus);
        }
        self.payload_start = 0;
        self.translated = Vec::new();
    }

    /// Returns what a WebSocket client would send now, once.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
    }

    /// Makes room for the translation of this many bytes.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.translated
            .reserve_exact(bytes.min(TRANSLATED_MAX + LINES_MAX));
    }

    /// Translates the next bytes of the frames. Returns how many, which is less than all if enough
    /// bytes wait to be sent.
    pub(super) fn translate(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while self.translated.len() < TRANSLATED_MAX && !rest.is_empty() {
            rest = match self.part {
                FramePart::Header { .. } => self.read_header(rest),
                FramePart::Payload { first, left } => self.read_payload(first, left, rest),
            };
        }
        bytes.len() - rest.len()
    }

    fn read_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let FramePart::Header { bytes: header, len } = &mut self.part else {
            return bytes;
        };
        // Nearly all headers come as a whole.
        if *len == 0
            && let [first, second, rest @ ..] = bytes
            && let Some((left, extended)) = payload_len(*second, rest)
        {
            self.begin_payload(*first, left);
            return rest.get(extended..).unwrap_or_default();
        }
        let Some((byte, rest)) = bytes.split_first() else {
            return bytes;
        };
        if let Some(place) = header.get_mut(*len) {
            *place = *byte;
        }
        *len += 1;
        if let [first, second, extended @ ..] = header.get(..*len).unwrap_or_default()
            && let Some((left, _)) = payload_len(*second, extended)
        {
            let first = *first;
            self.begin_payload(first, left);
        }
        rest
    }

    fn begin_payload(&mut self, first: u8, left: u64) {
        if first != REFUSAL
            && let Some(head) = self.head.take()
        {
            self.translated.extend(head.of_stream());
        }
        if first == frame::TEXT {
            self.translated.extend(b"data: ");
        }
        self.payload_start = self.translated.len();
        self.part = FramePart::Payload { first, left };
        if left == 0 {
            self.end_payload(first);
        }
    }

    fn read_payload<'a>(&mut self, first: u8, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let is_message = is_message(first);
        let room = match is_message {
            true => TRANSLATED_MAX - self.translated.len(),
            false => bytes.len(),
        };
        let len = room.min(usize::try_from(left).unwrap_or(usize::MAX));
        let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
        match is_message {
            true => self.translated.extend(now),
            false => self.kept.extend(now),
        }
        let left = left - now.len() as u64;
        self.part = FramePart::Payload { first, left };
        if left == 0 {
            self.end_payload(first);
        }
        rest
    }

    fn end_payload(&mut self, first: u8) {
        self.part = FramePart::START;
        let kept = mem::take(&mut self.kept);
        match first {
            frame::TEXT => self.end_message(kept),
            frame::PING => {
                self.translated.extend(b":\n");
                self.write_id(&kept);
                self.translated.push(b'\n');
                self.answer = Some(Answer::Pong);
            }
            frame::CLOSE => {
                if !self.is_refused {
                    self.write_close(&kept);
                }
                self.answer = Some(Answer::Close);
            }
            // Nothing is written before the Subscribe is answered, so the head is still here.
            REFUSAL => {
                if let Some(head) = self.head.take() {
                    self.translated.extend(head.of_refusal(&kept));
                    self.is_refused = true;
                }
            }
            // A confirmation, which has all of its lines. There is nothing else.
            _ => self.is_confirmed = true,
        }
    }

    /// Ends the event of a message, and names its position if it has one. `kept` is the end of what
    /// is sent already.
    fn end_message(&mut self, mut kept: Vec<u8>) {
        let unsent = self.translated.get(self.payload_start..);
        let unsent = unsent.unwrap_or_default();
        let position = if kept.is_empty() {
            self.finder.find(unsent)
        } else {
            kept.extend(unsent);
            self.finder.find(&kept)
        };
        self.translated.push(b'\n');
        if self.is_confirmed {
            self.write_id(&position.unwrap_or_default());
        }
        self.translated.push(b'\n');
    }

    fn write_id(&mut self, position: &[u8]) {
        if !position.is_empty() {
            self.translated.extend(b"id: ");
            self.translated.extend(position);
            self.translated.push(b'\n');
        }
    }

    fn write_close(&mut self, payload: &[u8]) {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return;
        };
        let code = u16::from_be_bytes(*code);
        if code == NORMAL_CLOSURE {
            // The client has gone, and the relay only agrees.
            return;
        }
        let reason = str::from_utf8(reason).unwrap_or_default();
        let told = reason.strip_prefix(RETRY_AFTER_PREFIX);
        let retry_after_ms = match told.and_then(|told| told.parse().ok()) {
            Some(told) => told,
            None if code == TOO_SLOW => 0,
            None => RETRY_MS,
        };
        let event = CloseEvent {
            code,
            reason,
            retry_after_ms,
        };
        let data = serde_json::to_string(&event).unwrap_or_default();
        let lines = format!("retry: {retry_after_ms}\nevent: close\ndata: {data}\n\n");
        self.translated.extend(lines.into_bytes());
    }
}

/// Returns true for the frames of which the payload is sent.
fn is_message(first: u8) -> bool {
    matches!(first, frame::TEXT | frame::BINARY)
}

/// Returns the frame of the confirmation of the Subscribe. `position` is where a client that has it can
/// resume from; `None` if a replay follows.
pub(in crate::connection) fn confirmation_frame(
    json: &str,
    position: Option<&wire::Position>,
) -> Box<[u8]> {
    let id = position.map(|position| format!("id: {}:{}\n", position.epoch, position.offset));
    let id = id.unwrap_or_default();
    frame::binary_frame(format!("{id}data: {json}\n\n").as_bytes())
}

/// Returns the frame of a refusal of the request.
pub(in crate::connection) fn refusal_frame(problem: HttpProblem) -> Box<[u8]> {
    frame::relay_frame(REFUSAL, &problem.with_connection_close().into_http1())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sidewire_protocol::{ErrorCode, reply::MessageRefusal};

    use super::*;

    const EPOCH: &str = "0123456789abcdef0123456789abcdef";

    fn translator() -> FrameTranslator {
        FrameTranslator::new(ResponseHead::with_lines("common: x\r\n"), "position")
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
        confirmation_frame("{}", Some(&position))
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
            confirmation_frame("{}", None),
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
    fn an_event_before_the_confirmation_is_no_position_to_resume_from() {
        let event = event(8, "x");
        let frames = [frame::text_frame(&event), confirmation()];
        let expected = format!("data: {event}\n\nid: {EPOCH}:7\ndata: {{}}\n\n");
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
}
