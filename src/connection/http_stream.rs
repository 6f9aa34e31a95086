//! Clients without a WebSocket: server-sent events (HTML, 9.2), and polls. The relay serves such a
//! client as a connection like all others, that speaks JSON and sends nothing: [`HttpStream`] turns
//! the frames that are written to it into the body of a response, and answers pings and the Close
//! frame as a WebSocket client would. So subscriptions, replays, limits, backpressure and the drain
//! are the same.

mod event_format;
mod headers;
mod poll_format;
mod request;
mod translator;

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use sidewire_protocol::frame::{self, client_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::{
    event_format::EventFormat,
    translator::{Answer, FrameTranslator, LINES_MAX, NORMAL_CLOSURE, TRANSLATED_MAX},
};
pub(super) use self::{
    event_format::event_confirmation,
    headers::{ResponseHead, common_headers, preflight_response},
    poll_format::{Framing, PollFormat, poll_confirmation},
    request::{EVENT_STREAM_PATH, EventsRequest, POLL_PATH, PollBounds},
    translator::refusal_frame,
};
use super::{read_ahead::ReadAheadStream, stream::Transport};

/// Number of bytes that a stream takes in addition to its connection: its own state, and what waits
/// to be sent.
pub(super) const HTTP_STREAM_BYTES: usize = 512 + TRANSLATED_MAX + LINES_MAX;

/// Number of bytes that a frame grows by in most cases.
const LINES_BYTES: usize = 64;

/// Where a byte stream is left when its response is complete, if another request may follow.
pub(super) type ReturnedStream = Rc<Cell<Option<ReadAheadStream>>>;

/// The byte stream of a client without a WebSocket: WebSocket frames go in, and the body of a response
/// goes out.
pub(super) struct HttpStream {
    /// `None` once it is returned.
    io: Option<ReadAheadStream>,
    /// Where it is returned if another request may follow.
    returned: Option<ReturnedStream>,
    translator: FrameTranslator,
    /// Number of translated bytes that the stream has taken.
    sent: usize,
    /// True if the client has sent something, which it must not.
    has_input: bool,
    /// True once the client has sent its last byte.
    at_end: bool,
}

impl HttpStream {
    /// Creates the stream of server-sent events. `field` is the name of the field `position` in the
    /// envelope's JSON. `has_input`: the client has sent more than its request.
    pub(super) fn of_events(
        io: ReadAheadStream,
        head: ResponseHead,
        field: &str,
        has_input: bool,
    ) -> Self {
        let format = Box::new(EventFormat::new(head));
        Self::new(io, None, FrameTranslator::new(format, field), has_input)
    }

    /// Creates the stream of a poll.
    pub(super) fn of_poll(
        io: ReadAheadStream,
        format: PollFormat,
        field: &str,
        has_input: bool,
        returned: ReturnedStream,
    ) -> Self {
        let translator = FrameTranslator::new(Box::new(format), field);
        Self::new(io, Some(returned), translator, has_input)
    }

    fn new(
        io: ReadAheadStream,
        returned: Option<ReturnedStream>,
        translator: FrameTranslator,
        has_input: bool,
    ) -> Self {
        Self {
            io: Some(io),
            returned,
            translator,
            sent: 0,
            has_input,
            at_end: false,
        }
    }

    fn io(&mut self) -> io::Result<&mut ReadAheadStream> {
        let returned = || io::ErrorKind::NotConnected.into();
        self.io.as_mut().ok_or_else(returned)
    }

    /// Hands the translated bytes to the stream. Ready when it has taken all of them.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(io) = &mut self.io else {
                return Poll::Ready(Ok(()));
            };
            let unsent = self.translator.translated().get(self.sent..);
            let unsent = unsent.unwrap_or_default();
            if unsent.is_empty() {
                self.sent = 0;
                self.translator.clear_translated();
                return Poll::Ready(Ok(()));
            }
            let taken = ready!(Pin::new(io).poll_write(context, unsent))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
        }
    }

    /// Sends the rest of a complete response, and returns the byte stream unless the client has sent
    /// more. Ready with an error, with which the connection ends.
    fn poll_complete(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let sent = ready!(self.poll_send(context));
        let sent = match (sent, &mut self.io) {
            (Ok(()), Some(io)) => ready!(Pin::new(io).poll_flush(context)),
            (sent, _) => sent,
        };
        if let Some(returned) = self.returned.take()
            && sent.is_ok()
            && !self.has_input
        {
            returned.set(self.io.take());
        }
        Poll::Ready(io::ErrorKind::ConnectionAborted.into())
    }

    /// Reads what the client sends, which says nothing. Ready when it has gone.
    fn poll_gone(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.has_input {
            ready!(Pin::new(self.io()?).poll_read(context, buffer))?;
            self.has_input = buffer.filled().len() > before;
            buffer.set_filled(before);
        }
        match self.has_input {
            // The next request of a client that does not wait for the answer to its first.
            true if self.returned.is_some() => Poll::Pending,
            true => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for HttpStream {
    /// Reads what a WebSocket client would send: its answers, and a Close frame when the client has
    /// gone. What the client really sends ends an event stream.
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.translator.is_complete() {
            return this.poll_complete(context).map(Err);
        }
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
        ready!(this.poll_gone(context, buffer))?;
        this.at_end = true;
        buffer.put_slice(&close());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpStream {
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
        if this.translator.is_complete() {
            return this.poll_complete(context).map(Err);
        }
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
        this.translator.flush();
        ready!(this.poll_send(context))?;
        match &mut this.io {
            Some(io) => Pin::new(io).poll_flush(context),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Some(io) => Pin::new(io).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Transport for HttpStream {
    fn reset(&self) {
        if let Some(io) = &self.io {
            io.reset();
        }
    }

    fn set_dead_peer_timeout(&self, timeout: Duration) {
        if let Some(io) = &self.io {
            io.set_dead_peer_timeout(timeout);
        }
    }

    fn is_complete(&self) -> bool {
        self.translator.is_complete()
    }
}
