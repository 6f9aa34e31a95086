//! The relay's end of a stream in memory, with the faults of a socket.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::connection::Transport;

/// The relay's end of a stream; it records whether it was reset.
pub(super) struct RelayEndStream {
    pub(super) stream: DuplexStream,
    pub(super) is_endless: bool,
    /// Data that is accepted and not passed on: a TLS stream accepts everything into a buffer,
    /// where it waits for the kernel.
    pub(super) taken: Option<Vec<u8>>,
    pub(super) was_reset: Rc<Cell<bool>>,
}

impl Transport for RelayEndStream {
    fn reset(&self) {
        self.was_reset.set(true);
    }
}

impl AsyncRead for RelayEndStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for RelayEndStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut()
            .poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(taken) = &mut self.taken {
            assert!(taken.is_empty(), "nothing is written before the flush");
            taken.extend(slices.iter().flat_map(|slice| slice.iter()));
            return Poll::Ready(Ok(taken.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, taken, .. } = &mut *self;
        while let Some(taken) = taken.as_mut().filter(|taken| !taken.is_empty()) {
            let written = ready!(Pin::new(&mut *stream).poll_write(context, taken))?;
            taken.drain(..written);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_endless {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
