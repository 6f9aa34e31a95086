//! Turns the relay's WebSocket frames into the body of an HTTP response. Knows frames; what a message
//! becomes is up to the [`ResponseFormat`].

use std::{fmt::Debug, mem};

use sidewire_protocol::frame::{self, HEADER_BYTES_MAX, payload_len};

use crate::{event::PositionFinder, http::HttpProblem};

/// Number of translated bytes from which on no more frames are taken until these are sent. A
/// client that does not read holds so many bytes in addition to its outbox.
pub(super) const TRANSLATED_MAX: usize = 16 * 1024;

/// Maximum number of bytes that a format adds before and behind a message, the head of the response
/// included.
pub(super) const LINES_MAX: usize = 1024;

/// First byte of a frame with a refusal of the request, which is a whole HTTP response. The opcode
/// is one that WebSockets do not use.
const REFUSAL: u8 = frame::FIN | 0x3;

/// First byte of a frame with the confirmation of the Subscribe, as its format has it, if that is not
/// sent as it stands. Another such opcode.
pub(super) const CONFIRMATION: u8 = frame::FIN | 0x4;

/// The close code of a client that has ended the connection.
pub(super) const NORMAL_CLOSURE: u16 = 1000;

/// The body of a response, to which the parts are appended that a client is sent.
pub(super) trait ResponseFormat: Debug {
    /// Begins a message of `len` bytes, which follow.
    fn begin_message(&mut self, len: u64, body: &mut Vec<u8>);

    /// Ends a message that has this position, written as `<epoch>:<offset>`.
    fn end_message(&mut self, position: Option<&[u8]>, body: &mut Vec<u8>);

    /// Begins a confirmation of the Subscribe, which follows as it is sent.
    fn begin_confirmation(&mut self, body: &mut Vec<u8>);

    /// Takes a confirmation that is not sent as it stands.
    fn confirm(&mut self, confirmation: &[u8], body: &mut Vec<u8>);

    /// Takes the position up to which the client has everything; empty if that is not known now.
    fn ping(&mut self, position: &[u8], body: &mut Vec<u8>);

    /// Takes a refusal of the request, which is a whole HTTP response.
    fn refuse(&mut self, response: &[u8], body: &mut Vec<u8>);

    /// Ends the body, because the connection ends. `payload` is that of the Close frame.
    fn close(&mut self, payload: &[u8], body: &mut Vec<u8>);

    /// Takes note that all frames that the relay has written so far are translated as a whole.
    fn flush(&mut self, body: &mut Vec<u8>) {
        let _ = body;
    }

    /// Returns true if the response has ended by itself, which ends the connection.
    fn is_complete(&self) -> bool {
        false
    }
}

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
    format: Box<dyn ResponseFormat>,
    part: FramePart,
    translated: Vec<u8>,
    /// Payload of the present frame: of a control frame all of it, of a message its last bytes if
    /// the rest of it is sent already.
    kept: Vec<u8>,
    /// Where in `translated` the payload of the present message begins.
    payload_start: usize,
    answer: Option<Answer>,
    finder: PositionFinder,
}

impl FrameTranslator {
    /// Creates the translator of a response that has not begun. `field` is the name of the field
    /// `position` in the envelope's JSON. If a reload changes it, it is not found until the client
    /// sends another request.
    pub(super) fn new(format: Box<dyn ResponseFormat>, field: &str) -> Self {
        Self {
            format,
            part: FramePart::START,
            translated: Vec::new(),
            kept: Vec::new(),
            payload_start: 0,
            answer: None,
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
            && is_sent(first)
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

    /// Takes note that all that the relay has written so far is translated. Within a message that means
    /// nothing: the rest of it follows.
    pub(super) fn flush(&mut self) {
        if matches!(self.part, FramePart::Header { .. }) {
            self.format.flush(&mut self.translated);
        }
    }

    /// Returns true if the response has ended by itself.
    pub(super) fn is_complete(&self) -> bool {
        self.format.is_complete()
    }

    /// Makes room for the translation of this many bytes.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.translated
            .reserve_exact(bytes.min(TRANSLATED_MAX + LINES_MAX));
    }

    /// Translates the next bytes of the frames. Returns how many, which is less than all if enough
    /// bytes wait to be sent, or the response is complete.
    pub(super) fn translate(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while self.translated.len() < TRANSLATED_MAX && !rest.is_empty() && !self.is_complete() {
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
        match first {
            frame::TEXT => self.format.begin_message(left, &mut self.translated),
            frame::BINARY => self.format.begin_confirmation(&mut self.translated),
            _ => {}
        }
        self.payload_start = self.translated.len();
        self.part = FramePart::Payload { first, left };
        if left == 0 {
            self.end_payload(first);
        }
    }

    fn read_payload<'a>(&mut self, first: u8, left: u64, bytes: &'a [u8]) -> &'a [u8] {
        let is_sent = is_sent(first);
        let room = match is_sent {
            true => TRANSLATED_MAX - self.translated.len(),
            false => bytes.len(),
        };
        let len = room.min(usize::try_from(left).unwrap_or(usize::MAX));
        let (now, rest) = bytes.split_at_checked(len).unwrap_or((bytes, &[]));
        match is_sent {
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
        let (format, body) = (&mut self.format, &mut self.translated);
        match first {
            frame::TEXT => self.end_message(kept),
            frame::PING => {
                format.ping(&kept, body);
                self.answer = Some(Answer::Pong);
            }
            frame::CLOSE => {
                format.close(&kept, body);
                self.answer = Some(Answer::Close);
            }
            REFUSAL => format.refuse(&kept, body),
            CONFIRMATION => format.confirm(&kept, body),
            // A confirmation that is sent as it stands. There is nothing else.
            _ => {}
        }
    }

    /// Ends a message. `kept` is the end of what is sent already.
    fn end_message(&mut self, mut kept: Vec<u8>) {
        let unsent = self.translated.get(self.payload_start..);
        let unsent = unsent.unwrap_or_default();
        let position = if kept.is_empty() {
            self.finder.find(unsent)
        } else {
            kept.extend(unsent);
            self.finder.find(&kept)
        };
        self.format
            .end_message(position.as_deref(), &mut self.translated);
    }
}

/// Returns true for the frames of which the payload is sent.
fn is_sent(first: u8) -> bool {
    matches!(first, frame::TEXT | frame::BINARY)
}

/// Returns the frame of a refusal of the request.
pub(in crate::connection) fn refusal_frame(problem: HttpProblem) -> Box<[u8]> {
    frame::relay_frame(REFUSAL, &problem.with_connection_close().into_http1())
}

#[cfg(test)]
mod tests;
