//! Turns the relay's WebSocket frames into server-sent events (HTML, 9.2.5).

use std::sync::Arc;

use serde::Serialize;
use sidewire_protocol::{
    Position,
    close::{CloseReason, RETRY_AFTER_PREFIX},
    frame::{self, HEADER_BYTES_MAX, payload_len},
};

use crate::{event::position_at_end, http::HttpProblem};

/// Number of translated bytes from which on no more frames are taken until these are sent. A
/// client that does not read holds so many bytes in addition to its outbox.
pub(super) const TRANSLATED_MAX: usize = 16 * 1024;

/// First byte of a frame with a refusal of the request, which is a whole HTTP response. The opcode
/// is one that WebSockets do not use.
const REFUSAL: u8 = frame::FIN | 0x3;

/// Time after which a client should reconnect if the relay did not say how long to wait, in
/// milliseconds.
const RETRY_MS: u32 = 1000;

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
pub(super) struct FrameTranslator {
    /// The head of the response, until it is sent.
    head: Option<Box<ResponseHead>>,
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
    position_name: Arc<str>,
}

#[derive(Debug)]
struct ResponseHead {
    head: Vec<u8>,
    /// Header lines that a refusal has too.
    cors: Vec<u8>,
}

#[derive(Serialize)]
struct CloseEvent<'a> {
    code: u16,
    reason: &'a str,
    retry_after_ms: u32,
}

impl FrameTranslator {
    pub(super) fn new(head: Vec<u8>, cors: Vec<u8>, position_name: &str) -> Self {
        Self {
            head: Some(Box::new(ResponseHead { head, cors })),
            part: FramePart::START,
            translated: Vec::new(),
            kept: Vec::new(),
            payload_start: 0,
            answer: None,
            is_refused: false,
            position_name: position_name.into(),
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
            let surplus = self.kept.len().saturating_sub(position_at_end::BYTES_MAX);
            self.kept.drain(..surplus);
        }
        self.payload_start = 0;
        self.translated = Vec::new();
    }

    /// Returns what a WebSocket client would send now, once.
    pub(super) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
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
        let (FramePart::Header { bytes: header, len }, Some((byte, rest))) =
            (&mut self.part, bytes.split_first())
        else {
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
            && let Some(response) = self.head.take()
        {
            self.translated.extend(response.head);
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
        let payload = std::mem::take(&mut self.kept);
        match first {
            frame::TEXT => self.end_message(payload),
            frame::PING => {
                self.translated.extend(b":\n");
                self.write_id(&payload);
                self.translated.push(b'\n');
                self.answer = Some(Answer::Pong);
            }
            frame::CLOSE => {
                if !self.is_refused {
                    self.write_close(&payload);
                }
                self.answer = Some(Answer::Close);
            }
            REFUSAL => {
                // If the response has begun, the Close frame that follows must do.
                if let Some(response) = self.head.take() {
                    self.write_refusal(&payload, &response.cors);
                }
            }
            // A confirmation has all of its lines; there is nothing else.
            _ => {}
        }
    }

    /// Ends the event of a message, and names its position if it has one.
    fn end_message(&mut self, mut end: Vec<u8>) {
        let payload = self.translated.get(self.payload_start..);
        end.extend(payload.unwrap_or_default());
        self.translated.push(b'\n');
        if let Some((epoch, offset)) = position_at_end::find(&end, &self.position_name) {
            self.write_id(&[epoch, b":", offset].concat());
        }
        self.translated.push(b'\n');
    }

    fn write_id(&mut self, position: &[u8]) {
        if !position.is_empty() {
            self.translated.extend([b"id: ", position, b"\n"].concat());
        }
    }

    fn write_close(&mut self, payload: &[u8]) {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return;
        };
        let code = u16::from_be_bytes(*code);
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

    /// Writes a refusal in place of the response, with the header lines of that.
    fn write_refusal(&mut self, refusal: &[u8], cors: &[u8]) {
        let status_line = refusal.iter().position(|byte| *byte == b'\n');
        let (status, rest) = refusal.split_at(status_line.map_or(0, |end| end + 1));
        self.translated.extend([status, cors, rest].concat());
        self.is_refused = true;
    }
}

/// Returns true for the frames of which the payload is sent.
fn is_message(first: u8) -> bool {
    matches!(first, frame::TEXT | frame::BINARY)
}

/// Returns the frame of a confirmation, as which it has lines of its own: `position` is where the
/// client can resume from when it has it.
pub(in crate::connection) fn confirmation_frame(json: &str, position: &Position) -> Box<[u8]> {
    frame::binary_frame(format!("id: {position}\ndata: {json}\n\n").as_bytes())
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
        FrameTranslator::new(
            b"HEAD\r\n\r\n".to_vec(),
            b"cors: x\r\n".to_vec(),
            "position",
        )
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

    #[test]
    fn each_kind_of_frame_becomes_an_event() {
        let position = Position {
            epoch: EPOCH.parse().unwrap(),
            offset: 7,
        };
        let event = event(8, "x");
        let frames = [
            confirmation_frame("{}", &position),
            frame::text_frame(r#"{"typing":{}}"#),
            frame::text_frame(&event),
            frame::relay_frame(frame::PING, position.to_string().as_bytes()),
            frame::relay_frame(frame::PING, b""),
            frame::close_frame(1001, "retry_after_ms=70"),
        ];
        let close = r#"{"code":1001,"reason":"retry_after_ms=70","retry_after_ms":70}"#;
        let expected = format!(
            "HEAD\r\n\r\n\
             id: {EPOCH}:7\ndata: {{}}\n\n\
             data: {{\"typing\":{{}}}}\n\n\
             data: {event}\nid: {EPOCH}:8\n\n\
             :\nid: {EPOCH}:7\n\n\
             :\n\n\
             retry: 70\nevent: close\ndata: {close}\n\n"
        );
        assert_eq!(in_one_piece(&frames.concat()), expected);
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
        let lines = in_one_piece(&[refusal.clone(), close.clone()].concat());
        assert!(
            lines.starts_with("HTTP/1.1 403 Forbidden\r\ncors: x\r\n"),
            "{lines}"
        );
        assert!(lines.ends_with('}'), "{lines}");
        assert!(!lines.contains("HEAD") && !lines.contains("event: close"));
        // If the response has begun, only the Close frame can tell.
        let begun = [frame::text_frame("{}"), refusal, close].concat();
        let lines = in_one_piece(&begun);
        assert!(
            lines.starts_with("HEAD\r\n\r\ndata: {}\n\nretry: "),
            "{lines}"
        );
    }

    #[test]
    fn no_more_frames_are_taken_while_enough_wait_to_be_sent() {
        let mut translator = translator();
        let frame = frame::text_frame(&event(1, &"x".repeat(5 * TRANSLATED_MAX)));
        let mut taken = 0;
        while taken < frame.len() {
            let now = translator.translate(&frame[taken..]);
            assert!(now > 0 && translator.translated().len() < TRANSLATED_MAX + 256);
            taken += now;
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
            let frames = frames.concat();
            prop_assert_eq!(translated(&frames, &pieces), in_one_piece(&frames));
        }
    }
}
