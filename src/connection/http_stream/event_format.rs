//! Server-sent events (HTML, 9.2.5): each message is an event.

use serde::Serialize;
use sidewire_protocol::{
    close::{CloseReason, RETRY_AFTER_PREFIX},
    frame, wire,
};

use super::{
    headers::ResponseHead,
    translator::{NORMAL_CLOSURE, ResponseFormat},
};

/// The first lines of the response.
const FIRST_LINES: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";

/// Time after which a client should reconnect if the relay did not say how long to wait, in
/// milliseconds.
const RETRY_MS: u32 = 1000;

/// The close code of clients that were too slow, which may come back at once.
const TOO_SLOW: u16 = CloseReason::TooSlow.code();

/// The body of an event stream.
#[derive(Debug)]
pub(super) struct EventFormat {
    /// The head of the response, until it is sent.
    head: Option<ResponseHead>,
    /// True if the response is a refusal, behind which nothing may come.
    is_refused: bool,
}

#[derive(Serialize)]
struct CloseEvent<'a> {
    code: u16,
    reason: &'a str,
    retry_after_ms: u32,
}

impl EventFormat {
    pub(super) fn new(head: ResponseHead) -> Self {
        Self {
            head: Some(head),
            is_refused: false,
        }
    }

    fn begin(&mut self, body: &mut Vec<u8>) {
        if let Some(head) = self.head.take() {
            body.extend(head.with_first_lines(FIRST_LINES));
        }
    }
}

impl ResponseFormat for EventFormat {
    fn begin_message(&mut self, _len: u64, body: &mut Vec<u8>) {
        self.begin(body);
        body.extend(b"data: ");
    }

    fn end_message(&mut self, position: Option<&[u8]>, body: &mut Vec<u8>) {
        body.push(b'\n');
        write_id(position.unwrap_or_default(), body);
        body.push(b'\n');
    }

    fn begin_confirmation(&mut self, body: &mut Vec<u8>) {
        self.begin(body);
    }

    fn confirm(&mut self, _confirmation: &[u8], _body: &mut Vec<u8>) {
        debug_assert!(
            false,
            "the confirmation of an event stream is sent as it stands"
        );
    }

    fn ping(&mut self, position: &[u8], body: &mut Vec<u8>) {
        self.begin(body);
        body.extend(b":\n");
        write_id(position, body);
        body.push(b'\n');
    }

    fn refuse(&mut self, response: &[u8], body: &mut Vec<u8>) {
        // Nothing is written before the Subscribe is answered, so the head is still here.
        if let Some(head) = self.head.take() {
            body.extend(head.of_refusal(response));
            self.is_refused = true;
        }
    }

    fn close(&mut self, payload: &[u8], body: &mut Vec<u8>) {
        let Some((code, reason)) = payload.split_first_chunk() else {
            return;
        };
        let code = u16::from_be_bytes(*code);
        // With the normal code the client has gone, and the relay only agrees.
        if self.is_refused || code == NORMAL_CLOSURE {
            return;
        }
        self.begin(body);
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
        body.extend(lines.into_bytes());
    }
}

fn write_id(position: &[u8], body: &mut Vec<u8>) {
    if !position.is_empty() {
        body.extend(b"id: ");
        body.extend(position);
        body.push(b'\n');
    }
}

/// Returns the frame of the confirmation of the Subscribe. `position` is where a client that has it can
/// resume from; `None` if a replay follows.
pub(in crate::connection) fn event_confirmation(
    json: &str,
    position: Option<&wire::Position>,
) -> Box<[u8]> {
    let id = position.map(|position| format!("id: {}:{}\n", position.epoch, position.offset));
    let id = id.unwrap_or_default();
    frame::binary_frame(format!("{id}data: {json}\n\n").as_bytes())
}
