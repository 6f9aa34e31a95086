//! The only owner of a connection's byte stream. tungstenite reads, unmasks, joins fragments and
//! performs the closing handshake; its own frames go into the outbox like all others, and only
//! this type writes to the socket, so that frames cannot interleave. Knows no protocol above
//! WebSocket frames.

mod partial_message;
mod transport;

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, WebSocketContext},
};

use self::partial_message::{PartialMessage, TungsteniteIo};
pub use self::transport::Transport;
use super::frame_walk::FrameCount;
use crate::{
    hub::BegunMessages,
    memory::MemoryExceeded,
    outbox::{Outbox, WriteProgress},
};

/// Converts a configured size, which is at most 1 GiB.
fn saturating_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// A WebSocket over a byte stream.
#[derive(Debug)]
pub(super) struct FrameStream<S> {
    io: S,
    /// Half the size of a `usize`, so that it fits beside the flag below.
    message_bytes_max: u32,
    /// `None` between two messages: most connections are silent most of the time, and this is
    /// their largest part.
    reading: Option<Box<PartialMessage>>,
    /// True once the client has sent its last byte.
    at_end: bool,
    /// Counts the client's frames.
    frames: FrameCount,
    /// What left the outbox in a write that the stream has accepted and not passed on to the
    /// kernel: a TLS stream keeps what it has encrypted. Until then, nothing more is written. In a
    /// box, since hardly any connection has this.
    unflushed: Option<Box<WriteProgress>>,
    outbox: Rc<Outbox>,
}

impl<S: Transport> FrameStream<S> {
    /// Sets the maximum size, in bytes, of messages that begin from now on.
    pub(super) fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = saturating_u32(message_bytes_max);
    }

    /// Creates a WebSocket after its handshake. `read_ahead` holds the bytes that were read after
    /// the handshake; `message_bytes_max` bounds each frame as well as each message of several.
    pub(super) fn new(
        io: S,
        read_ahead: &[u8],
        message_bytes_max: usize,
        outbox: Rc<Outbox>,
    ) -> Self {
        let mut stream = Self {
            io,
            message_bytes_max: saturating_u32(message_bytes_max),
            reading: None,
            at_end: false,
            frames: FrameCount::default(),
            unflushed: None,
            outbox,
        };
        if !read_ahead.is_empty() {
            stream
                .partial_message()
                .unread
                .extend_from_slice(read_ahead);
        }
        stream
    }

    /// Returns the next message in the bytes that are read already; `None` if more must be read
    /// first, or [another turn](Self::begin_turn) must begin. If it is a ping, its pong is
    /// already in the outbox.
    ///
    /// # Errors
    ///
    /// Returns the error of tungstenite: the end of the connection, or a violation of the protocol,
    /// after which the caller still has to queue a Close frame.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, Error> {
        if self.reading.is_none() && !self.at_end {
            return Ok(None);
        }
        let (context, mut adapter) = self.context_and_io();
        match context.read(&mut adapter) {
            Ok(message) => {
                if message.is_ping() {
                    // Otherwise tungstenite would not answer before the next read.
                    drop(context.flush(&mut adapter));
                }
                Ok(Some(message))
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                self.reading.take_if(|reading| reading.is_idle());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins another turn if frames are left over from the last one. Returns true if there are
    /// any.
    pub(super) fn begin_turn(&mut self) -> bool {
        let has_more = self
            .reading
            .as_ref()
            .is_some_and(|reading| !reading.unread.is_empty());
        if has_more {
            self.frames.begin_turn();
        }
        has_more
    }

    /// Takes the number of received frames that nothing else is charged for.
    pub(super) fn take_uncharged_frames(&mut self) -> u16 {
        self.frames.take_uncharged()
    }

    /// Takes the number of frames received since the last call.
    pub(super) fn take_frame_count(&mut self) -> usize {
        self.frames.take_count()
    }

    /// Returns true if a frame or message of the client is incomplete, or is read and not yet
    /// parsed.
    pub(super) fn is_within_message(&self) -> bool {
        self.reading.is_some()
    }

    /// Reserves memory for a message that is not complete, if there is one. `is_another` says
    /// that a message was completed since the last call.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory for it.
    pub(super) fn reserve_memory(
        &mut self,
        messages: &Rc<BegunMessages>,
        is_another: bool,
    ) -> Result<(), MemoryExceeded> {
        let Some(reading) = &mut self.reading else {
            return Ok(());
        };
        let bytes = reading.held_bytes();
        if is_another {
            reading.memory = None;
        }
        match &reading.memory {
            Some(memory) => memory.grow_to(bytes),
            None => {
                reading.memory = Some(messages.reserve(&self.outbox, bytes)?);
                Ok(())
            }
        }
    }

    /// Drops the message in progress. Anything that follows can only be
    /// [discarded](Self::poll_discard).
    pub(super) fn drop_partial_message(&mut self) {
        self.reading = None;
    }

    fn partial_message(&mut self) -> &mut PartialMessage {
        PartialMessage::get_or_begin(&mut self.reading, self.message_bytes_max)
    }

    /// Returns tungstenite's context, and the adapter that it uses as its stream.
    fn context_and_io(&mut self) -> (&mut WebSocketContext, TungsteniteIo<'_>) {
        let reading = PartialMessage::get_or_begin(&mut self.reading, self.message_bytes_max);
        let adapter = TungsteniteIo {
            unread: &mut reading.unread,
            walk: &mut reading.walk,
            frames: &mut self.frames,
            at_end: self.at_end,
            outbox: &self.outbox,
        };
        (&mut reading.context, adapter)
    }

    /// Reads once from the client. `buffer` is lent by the shard, so that an idle connection
    /// holds none.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &RefCell<Box<[u8]>>,
    ) -> Poll<io::Result<()>> {
        let mut buffer = buffer.borrow_mut();
        let mut read = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut read))?;
        self.at_end = read.filled().is_empty();
        if !self.at_end {
            self.partial_message()
                .unread
                .extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and discards the data. Returns true if more may come.
    pub(super) fn poll_discard(
        &mut self,
        context: &mut Context<'_>,
        buffer: &RefCell<Box<[u8]>>,
    ) -> Poll<io::Result<bool>> {
        ready!(self.poll_read(context, buffer))?;
        self.partial_message().unread = BytesMut::new();
        Poll::Ready(Ok(!self.at_end))
    }

    /// Writes once from the outbox, as much as the kernel accepts: under load many frames leave
    /// in one system call. Ready when the kernel has everything that the stream accepted.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<WriteProgress>> {
        let advanced = match self.unflushed.take() {
            Some(unflushed) => *unflushed,
            None => ready!(self.poll_write_outbox(context))?,
        };
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        if !matches!(flushed, Poll::Ready(Ok(()))) {
            self.unflushed = Some(Box::new(advanced));
        }
        flushed.map_ok(|()| advanced)
    }

    /// Gives the stream as much of the outbox as it accepts.
    fn poll_write_outbox(&mut self, context: &mut Context<'_>) -> Poll<io::Result<WriteProgress>> {
        let io = Pin::new(&mut self.io);
        let taken = ready!(self.outbox.with_next_write(|slices| match slices {
            // The kernel is a little faster with one piece than with a list of one.
            [only] => io.poll_write(context, only),
            several => io.poll_write_vectored(context, several),
        }))?;
        if taken == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(self.outbox.advance_written(taken)))
    }

    /// Returns true if something waits to be written, in the outbox or in the stream.
    pub(super) fn has_unwritten(&self) -> bool {
        self.unflushed.is_some() || !self.outbox.is_empty()
    }

    /// Gives up the data that the stream has accepted and not passed on, and returns the number
    /// of events in it. Afterwards the stream can only be [reset](Self::reset).
    pub(super) fn abandon_unflushed(&mut self) -> u64 {
        self.unflushed
            .take()
            .map_or(0, |unflushed| unflushed.events)
    }

    /// Tells the client that nothing more will be written.
    pub(super) fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    /// Queues a Close frame, unless one is queued already, and begins the closing handshake.
    pub(super) fn queue_close(&mut self, frame: CloseFrame) {
        let (context, mut adapter) = self.context_and_io();
        // The adapter accepts everything, so this fails only if the handshake is already over.
        drop(context.close(&mut adapter, Some(frame)));
        drop(context.flush(&mut adapter));
    }

    /// Returns true if the stream has ended by itself, since what was to be sent is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.io.is_complete()
    }

    /// Resets the connection.
    pub(super) fn reset(&self) {
        self.io.reset();
    }
}

#[cfg(test)]
mod tests;
