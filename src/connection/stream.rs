//! The only owner of a connection's byte stream. tungstenite reads, unmasks, joins fragments and
//! performs the closing handshake; its own frames go into the outbox like all others, and only
//! this type writes to the socket, so that frames cannot interleave. Knows no protocol above
//! WebSocket frames.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext},
};

use super::frame_walk::{FrameCount, FrameWalk};
use crate::{
    hub::{BegunMessageMemory, BegunMessages},
    memory::MemoryExceeded,
    outbox::{FRAMES_PER_WRITE_MAX, Outbox, WriteProgress},
};

/// Size of tungstenite's read buffer, in bytes. tungstenite allocates it in advance and fills it
/// with zeros before each read, so it is tiny; input is read from the socket into the shard's one
/// buffer.
const READ_BUFFER_BYTES: usize = 256;

/// Maximum size of tungstenite's write buffer, in bytes. Its own frames have at most 125 bytes of
/// payload and are passed on at once, so nothing ever stays in this buffer.
const WRITE_BUFFER_BYTES_MAX: usize = 1024;

/// A byte stream that can be reset.
pub trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// Turns the end of the stream into a reset: data that is not sent yet is discarded.
    fn reset(&self);
}

impl Transport for tokio::net::TcpStream {
    fn reset(&self) {
        // Without it the kernel would go on sending what is queued to a client that does not
        // read. It fails only if the socket is dead already.
        drop(self.set_zero_linger());
    }
}

impl<S: Transport> Transport for tokio_rustls::server::TlsStream<S> {
    fn reset(&self) {
        self.get_ref().0.reset();
    }
}

impl<S: Transport> Transport for Box<S> {
    fn reset(&self) {
        S::reset(self);
    }
}

impl Transport for tokio::io::DuplexStream {
    fn reset(&self) {}
}

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
    /// Data that the stream has accepted and not passed on to the kernel: a TLS stream keeps what
    /// it has encrypted. While there is such data, nothing more is written.
    unflushed: Option<UnflushedWrite>,
    outbox: Rc<Outbox>,
}

/// The numbers of frames and events that left the outbox in a write. Small, since every
/// connection has this.
#[derive(Debug, Clone, Copy)]
struct UnflushedWrite {
    frames: u16,
    events: u16,
}

const _: () = assert!(FRAMES_PER_WRITE_MAX <= u16::MAX as usize);

impl From<WriteProgress> for UnflushedWrite {
    fn from(advanced: WriteProgress) -> Self {
        let of = |count| u16::try_from(count).unwrap_or(u16::MAX);
        Self {
            frames: of(advanced.frames),
            events: of(advanced.events),
        }
    }
}

impl From<UnflushedWrite> for WriteProgress {
    fn from(unflushed: UnflushedWrite) -> Self {
        Self {
            frames: unflushed.frames.into(),
            events: unflushed.events.into(),
        }
    }
}

/// The state of a message that is being received, kept also once the closing handshake has begun.
#[derive(Debug)]
struct PartialMessage {
    context: WebSocketContext,
    /// Follows the bytes that the context has consumed.
    walk: FrameWalk,
    /// Bytes that are read from the stream and not yet consumed by tungstenite.
    unread: BytesMut,
    /// The memory reserved for all this, if any is yet.
    memory: Option<BegunMessageMemory>,
}

/// Bytes held for any message besides its content: [`PartialMessage`] itself, and the buffer
/// that tungstenite reads into.
const READING_BYTES: usize = size_of::<PartialMessage>() + READ_BUFFER_BYTES;

impl PartialMessage {
    fn new(message_bytes_max: u32) -> Box<Self> {
        let message_bytes_max = usize::try_from(message_bytes_max).unwrap_or(usize::MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        Box::new(Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            walk: FrameWalk::default(),
            unread: BytesMut::new(),
            memory: None,
        })
    }

    /// Maximum number of bytes that it holds.
    fn held_bytes(&self) -> usize {
        let begun = usize::try_from(self.walk.begun_bytes()).unwrap_or(usize::MAX);
        begun.saturating_add(self.unread.capacity() + READING_BYTES)
    }

    fn get_or_begin(reading: &mut Option<Box<Self>>, message_bytes_max: u32) -> &mut Self {
        reading.get_or_insert_with(|| Self::new(message_bytes_max))
    }

    /// Returns true if a new one would do as well: everything received is parsed, no message is
    /// in progress, and neither side is closing.
    fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.walk.is_between_messages() && self.context.can_write()
    }
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
            Some(unflushed) => unflushed.into(),
            None => ready!(self.poll_write_outbox(context))?,
        };
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        if !matches!(flushed, Poll::Ready(Ok(()))) {
            self.unflushed = Some(advanced.into());
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
            .map_or(0, |unflushed| unflushed.events.into())
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

    /// Resets the connection.
    pub(super) fn reset(&self) {
        self.io.reset();
    }
}

/// The stream that tungstenite sees: reads come from the bytes that are read already, and each
/// write, which is one whole frame, goes into the outbox.
struct TungsteniteIo<'a> {
    unread: &'a mut BytesMut,
    walk: &'a mut FrameWalk,
    frames: &'a mut FrameCount,
    at_end: bool,
    outbox: &'a Outbox,
}

impl Read for TungsteniteIo<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return if self.at_end {
                Ok(0)
            } else {
                Err(io::ErrorKind::WouldBlock.into())
            };
        }
        let len = self.unread.len().min(buffer.len());
        let next = self.unread.get(..len).unwrap_or_default();
        let taken = self.walk.walk(next, self.frames);
        if taken == 0 {
            // The rest is for another turn.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let place = buffer.get_mut(..taken).unwrap_or_default();
        self.unread.copy_to_slice(place);
        if self.unread.is_empty() {
            *self.unread = BytesMut::new();
        }
        Ok(taken)
    }
}

impl Write for TungsteniteIo<'_> {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        const OPCODE: u8 = 0x0f;
        const CLOSE: u8 = 0x8;
        const PONG: u8 = 0xa;
        let bytes = Box::from(frame);
        match frame.first().map(|first| first & OPCODE) {
            Some(CLOSE) => self.outbox.push_close(bytes),
            Some(PONG) => self.outbox.set_pong(bytes),
            _ => self.outbox.push_reply(bytes),
        }
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use bytes::Bytes;

    use crate::{
        connection::wire_testing::{BINARY, CONTINUATION, frame, ping},
        outbox::{OutboxLimits, OutboxPool},
    };

    const MESSAGE_BYTES_MAX: usize = 10_000;

    fn stream(read_ahead: &[u8]) -> (FrameStream<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        let limits = OutboxLimits {
            frames: 10,
            bytes: 1000,
        };
        let outbox = Rc::new(Outbox::new(&OutboxPool::new(limits)));
        let stream = FrameStream::new(ours, read_ahead, MESSAGE_BYTES_MAX, outbox);
        (stream, theirs)
    }

    #[test]
    fn all_of_tungstenites_limits_are_set() {
        let reading = PartialMessage::new(saturating_u32(MESSAGE_BYTES_MAX));
        let config = reading.context.get_config();
        assert_eq!(config.read_buffer_size, READ_BUFFER_BYTES);
        assert_eq!(config.write_buffer_size, 0);
        assert_eq!(config.max_write_buffer_size, WRITE_BUFFER_BYTES_MAX);
        assert_eq!(config.max_message_size, Some(MESSAGE_BYTES_MAX));
        assert_eq!(config.max_frame_size, Some(MESSAGE_BYTES_MAX));
        assert!(!config.accept_unmasked_frames);
    }

    #[tokio::test]
    async fn read_bytes_are_held_only_until_they_are_taken() {
        let buffer = RefCell::new(vec![0; 64 * 1024].into());
        let message = frame(BINARY, true, &[1; 900]);
        let burst = [message.clone(), ping(b"p"), message].concat();
        let (first, second) = burst.split_at(1000);
        let (mut stream, mut client) = stream(first);
        client.write_all(second).await.unwrap();
        let mut messages = Vec::new();
        loop {
            while let Some(message) = stream.next_message().unwrap() {
                messages.push(message);
            }
            let held = stream.reading.as_ref();
            assert_eq!(held.map_or(0, |reading| reading.unread.capacity()), 0);
            if messages.len() == 3 {
                break;
            }
            poll_fn(|cx| stream.poll_read(cx, &buffer)).await.unwrap();
        }
        assert_eq!(messages[2], Message::Binary(Bytes::from(vec![1; 900])));
    }

    /// Returns all messages that are read already.
    fn messages(stream: &mut FrameStream<DuplexStream>) -> Vec<Message> {
        std::iter::from_fn(|| stream.next_message().unwrap()).collect()
    }

    #[test]
    fn tungstenite_releases_its_buffer_after_a_large_message() {
        let (mut stream, _client) = stream(&frame(BINARY, true, &[1; MESSAGE_BYTES_MAX]));
        let message = messages(&mut stream).remove(0);
        // The message is a part of the buffer into which it was read.
        let Message::Binary(payload) = message else {
            panic!("{message:?}");
        };
        assert_eq!(payload.len(), MESSAGE_BYTES_MAX);
        assert!(payload.is_unique(), "its buffer is held on to");
    }

    #[test]
    fn a_read_buffer_exists_only_within_a_message() {
        let message = frame(BINARY, false, &[1; 300]);
        let (mut stream, _client) = stream(&[&message[..], &ping(b"p")].concat());
        assert!(matches!(messages(&mut stream)[..], [Message::Ping(_)]));
        assert!(stream.reading.is_some());
        let rest = frame(CONTINUATION, true, &[2]);
        stream.partial_message().unread.extend_from_slice(&rest);
        assert!(matches!(&messages(&mut stream)[..], [Message::Binary(it)] if it.len() == 301));
        assert!(stream.reading.is_none());
    }

    proptest! {
        #[test]
        fn messages_are_read_whatever_their_sizes_and_pieces(
            sizes in prop::collection::vec((0..MESSAGE_BYTES_MAX, 0..3_usize), 1..8),
            pieces in prop::collection::vec(1..5000_usize, 1..20),
        ) {
            let (mut bytes, mut sent) = (Vec::new(), Vec::new());
            for (number, (size, fragments)) in sizes.into_iter().enumerate() {
                let payload = vec![u8::try_from(number).unwrap(); size];
                let (start, end) = payload.split_at(size / 2);
                match fragments {
                    0 => bytes.extend(frame(BINARY, true, &payload)),
                    _ => {
                        bytes.extend(frame(BINARY, false, start));
                        if fragments == 2 {
                            bytes.extend(ping(b"between"));
                        }
                        bytes.extend(frame(CONTINUATION, true, end));
                    }
                }
                sent.push(Message::Binary(payload.into()));
            }
            let (mut stream, _client) = stream(b"");
            let (mut rest, mut received) = (&bytes[..], Vec::new());
            for piece in pieces.into_iter().cycle() {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                stream.partial_message().unread.extend_from_slice(now);
                received.extend(messages(&mut stream));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            received.retain(|message| !message.is_ping());
            prop_assert_eq!(received, sent);
        }
    }
}
