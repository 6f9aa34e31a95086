//! A message that is being received, and the stream from which tungstenite reads it.

use std::io::{self, Read, Write};

use bytes::{Buf, BytesMut};
use sidewire_protocol::frame;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

use crate::{
    connection::frame_walk::{FrameCount, FrameWalk},
    hub::BegunMessageMemory,
    outbox::Outbox,
};

/// Size of tungstenite's read buffer, in bytes. tungstenite allocates it in advance and fills it
/// with zeros before each read, so it is tiny; input is read from the socket into the shard's one
/// buffer.
pub(super) const READ_BUFFER_BYTES: usize = 256;

/// Maximum size of tungstenite's write buffer, in bytes. Its own frames have at most 125 bytes of
/// payload and are passed on at once, so nothing ever stays in this buffer.
pub(super) const WRITE_BUFFER_BYTES_MAX: usize = 1024;

/// The state of a message that is being received, kept also once the closing handshake has begun.
#[derive(Debug)]
pub(super) struct PartialMessage {
    pub(super) context: WebSocketContext,
    /// Follows the bytes that the context has consumed.
    pub(super) walk: FrameWalk,
    /// Bytes that are read from the stream and not yet consumed by tungstenite.
    pub(super) unread: BytesMut,
    /// The memory reserved for all this, if any is yet.
    pub(super) memory: Option<BegunMessageMemory>,
}

/// Bytes held for any message besides its content: [`PartialMessage`] itself, and the buffer
/// that tungstenite reads into.
const READING_BYTES: usize = size_of::<PartialMessage>() + READ_BUFFER_BYTES;

impl PartialMessage {
    pub(super) fn new(message_bytes_max: u32) -> Box<Self> {
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
    pub(super) fn held_bytes(&self) -> usize {
        let begun = usize::try_from(self.walk.begun_bytes()).unwrap_or(usize::MAX);
        begun.saturating_add(self.unread.capacity() + READING_BYTES)
    }

    pub(super) fn get_or_begin(
        reading: &mut Option<Box<Self>>,
        message_bytes_max: u32,
    ) -> &mut Self {
        reading.get_or_insert_with(|| Self::new(message_bytes_max))
    }

    /// Returns true if a new one would do as well: everything received is parsed, no message is
    /// in progress, and neither side is closing.
    pub(super) fn is_idle(&self) -> bool {
        self.unread.is_empty() && self.walk.is_between_messages() && self.context.can_write()
    }
}

/// The stream that tungstenite sees: reads come from the bytes that are read already, and each
/// write, which is one whole frame, goes into the outbox.
pub(super) struct TungsteniteIo<'a> {
    pub(super) unread: &'a mut BytesMut,
    pub(super) walk: &'a mut FrameWalk,
    pub(super) frames: &'a mut FrameCount,
    pub(super) at_end: bool,
    pub(super) outbox: &'a Outbox,
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
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        let bytes = Box::from(written);
        match written.first() {
            Some(&frame::CLOSE) => self.outbox.push_close(bytes),
            Some(&frame::PONG) => self.outbox.set_pong(bytes),
            _ => self.outbox.push_reply(bytes),
        }
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
