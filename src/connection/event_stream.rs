//! A client without a WebSocket: server-sent events (HTML, 9.2) over one HTTP response. The relay
//! serves it as a connection like all others, that speaks JSON and sends nothing: [`EventStream`]
//! turns the frames that are written to it into events, and answers pings and the Close frame as a
//! WebSocket client would. So subscriptions, replays, limits, backpressure and the drain are the
//! same.

mod request;
mod translator;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use sidewire_protocol::frame::{self, client_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::translator::{Answer, LINES_MAX, NORMAL_CLOSURE, TRANSLATED_MAX};
pub(super) use self::{
    request::{
        EVENT_STREAM_PATH, EventStreamRequest, ResponseHead, common_headers, preflight_response,
    },
    translator::{FrameTranslator, confirmation_frame, refusal_frame},
};
use super::stream::Transport;

/// Number of bytes that a stream takes in addition to its connection: its own state, and what waits
/// to be sent.
pub(super) const EVENT_STREAM_BYTES: usize = 512 + TRANSLATED_MAX + LINES_MAX;

/// Number of bytes that a frame grows by in most cases.
const LINES_BYTES: usize = 64;

/// The byte stream of a client that takes server-sent events: WebSocket frames go in, and events go
/// out.
pub(super) struct EventStream {
    io: Box<dyn Transport>,
    translator: FrameTranslator,
    /// Number of translated bytes that the stream has taken.
    sent: usize,
    /// True if the client has sent something, which it must not.
    has_input: bool,
    /// True once the client has sent its last byte.
    at_end: bool,
}

impl EventStream {
    /// Creates the stream of a response that has not begun. `has_input`: the client has sent more than
    /// its request.
    pub(super) fn new(
        io: Box<dyn Transport>,
        translator: FrameTranslator,
        has_input: bool,
    ) -> Self {
        Self {
            io,
            translator,
            sent: 0,
            has_input,
            at_end: false,
        }
    }

    /// Hands the translated bytes to the stream. Ready when it has taken all of them.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let unsent = self.translator.translated().get(self.sent..);
            let unsent = unsent.unwrap_or_default();
            if unsent.is_empty() {
                self.sent = 0;
                self.translator.clear_translated();
                return Poll::Ready(Ok(()));
            }
            let taken = ready!(Pin::new(&mut self.io).poll_write(context, unsent))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
        }
    }
}

impl AsyncRead for EventStream {
    /// Reads what a WebSocket client would send: its answers, and a Close frame when the client has
    /// gone. What the client really sends ends the connection, since it can say nothing.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let close = || client_frame(frame::CLOSE, &NORMAL_CLOSURE.to_be_bytes());
        // What is answered must have been sent.
        if this.translator.translated().is_empty()
            && let Some(answer) = this.translator.take_answer()
        {
            buffer.put_slice(&match answer {
                Answer::Pong => client_frame(frame::PONG, &[]),
                Answer::Close => close(),
            });
            return Poll::Ready(Ok(()));
        }
        if this.at_end {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if !this.has_input {
            ready!(Pin::new(&mut this.io).poll_read(context, buffer))?;
            this.has_input = buffer.filled().len() > before;
        }
        if this.has_input {
            buffer.set_filled(before);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        this.at_end = true;
        buffer.put_slice(&close());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for EventStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        frames: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[io::IoSlice::new(frames)])
    }

    /// Takes frames. They are handed on by [`Self::poll_flush`].
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        this.translator
            .reserve(slices.iter().map(|slice| slice.len() + LINES_BYTES).sum());
        let mut taken = 0;
        for slice in slices {
            let translated = this.translator.translate(slice);
            taken += translated;
            if translated < slice.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl Transport for EventStream {
    fn reset(&self) {
        self.io.reset();
    }

    fn set_dead_peer_timeout(&self, timeout: Duration) {
        self.io.set_dead_peer_timeout(timeout);
    }
}
