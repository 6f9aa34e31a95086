//! A byte stream of which the next bytes have been read already, so that a connection that waits for
//! its next request holds no buffer.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Transport;

/// A byte stream, and what was read from it ahead.
pub(super) struct ReadAheadStream {
    unread: Bytes,
    io: Box<dyn Transport>,
}

impl ReadAheadStream {
    pub(super) fn new(io: Box<dyn Transport>) -> Self {
        Self {
            unread: Bytes::new(),
            io,
        }
    }

    /// Reads ahead, at most `bytes_max` bytes. Ready with false if the client has sent its last byte.
    /// `buffer` is lent by the shard.
    pub(super) fn poll_read_ahead(
        &mut self,
        context: &mut Context<'_>,
        buffer: &RefCell<Box<[u8]>>,
        bytes_max: usize,
    ) -> Poll<io::Result<bool>> {
        let mut buffer = buffer.borrow_mut();
        let bytes_max = bytes_max.min(buffer.len());
        let mut read = ReadBuf::new(buffer.get_mut(..bytes_max).unwrap_or_default());
        ready!(Pin::new(&mut self.io).poll_read(context, &mut read))?;
        self.unread = Bytes::copy_from_slice(read.filled());
        Poll::Ready(Ok(!self.unread.is_empty()))
    }
}

impl AsyncRead for ReadAheadStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            return Pin::new(&mut this.io).poll_read(context, buffer);
        }
        let len = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread.split_to(len));
        if this.unread.is_empty() {
            // Gives the memory back.
            this.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAheadStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

impl Transport for ReadAheadStream {
    fn reset(&self) {
        self.io.reset();
    }

    fn set_dead_peer_timeout(&self, timeout: Duration) {
        self.io.set_dead_peer_timeout(timeout);
    }
}
