//! A byte stream that gathers what is written to it until the task that writes has
//! done all it can, and sends it then: the answers to calls that came together
//! leave in one system call. Knows no HTTP.
//!
//! hyper writes each answer for itself; its own `pipeline_flush` would hold an
//! answer back for as long as half of a next request has come.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// With so much gathered it is sent before more is taken, in bytes.
const GATHERED_MAX: usize = 64 * 1024;

/// The stream. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Gathered(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    stream: TcpStream,
    gathered: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
}

impl Gathered {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Rc::new(RefCell::new(State {
            stream,
            gathered: Vec::new(),
            sent: 0,
        })))
    }

    /// Sends what is gathered.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(context)
    }

    /// The stream underneath, when this is the last clone.
    pub(super) fn into_inner(self) -> Option<TcpStream> {
        Some(Rc::into_inner(self.0)?.into_inner().stream)
    }
}

impl State {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.gathered.get(self.sent..) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.sent = 0;
        self.gathered.clear();
        if self.gathered.capacity() > GATHERED_MAX {
            self.gathered = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        if state.gathered.len() >= GATHERED_MAX {
            ready!(state.poll_send(context))?;
        }
        state.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Does nothing: what is gathered is sent when the task has done all it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_send(context))?;
        Pin::new(&mut state.stream).poll_shutdown(context)
    }
}
