//! A byte stream that buffers writes until the writing task has done all it can, and then
//! sends them: answers to calls that arrived together leave in one system call. Knows nothing
//! about HTTP.
//!
//! hyper writes each answer separately; its own `pipeline_flush` would hold an answer back
//! while the next request has only partly arrived.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::scheduler::{AwaitedQuantum, Cost, TenantWork};

/// Size of the buffer, in bytes. A full buffer is sent before more is accepted.
const GATHERED_MAX: usize = 64 * 1024;

/// Once a call has this many bytes, each further read waits until it is scheduled: without
/// that, 100 backends that send bodies of 8 MiB made a turn of the shard last 10 ms and more.
/// Most calls are shorter. The limit also matters for unread bodies: hyper closes the connection
/// if it does not find the rest of the body at once.
pub(super) const SMALL_CALL_BYTES: usize = 16 * 1024;

/// A stream that buffers writes. Clones share it.
#[derive(Debug)]
pub(super) struct GatheringStream<S>(Rc<RefCell<GatheringState<S>>>);

#[derive(Debug)]
struct GatheringState<S> {
    stream: S,
    gathered: Vec<u8>,
    /// Number of buffered bytes already sent.
    sent: usize,
    /// The flow that reads of large calls are scheduled in and charged to.
    work: Rc<TenantWork>,
    /// Number of bytes read since the last write.
    read: usize,
    awaited: AwaitedQuantum,
}

impl<S> Clone for GatheringStream<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> GatheringStream<S> {
    pub(super) fn new(stream: S, work: &Rc<TenantWork>) -> Self {
        Self(Rc::new(RefCell::new(GatheringState {
            stream,
            gathered: Vec::new(),
            sent: 0,
            work: Rc::clone(work),
            read: 0,
            awaited: AwaitedQuantum::default(),
        })))
    }

    /// Sends the buffered bytes.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_send(context)
    }
}

impl<S: AsyncWrite + Unpin> GatheringState<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.gathered.get(self.sent..) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.sent = 0;
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GatheringStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let GatheringState {
            stream,
            work,
            read,
            awaited,
            ..
        } = &mut *self.0.borrow_mut();
        let is_large = *read >= SMALL_CALL_BYTES;
        if is_large {
            ready!(work.poll_quantum(awaited, context));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(context, buffer))?;
        let now = buffer.filled().len() - before;
        *read += now;
        if is_large {
            work.charge(Cost::BYTE.times(now));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatheringStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        state.read = 0;
        if state.gathered.len() >= GATHERED_MAX {
            ready!(state.poll_send(context))?;
        }
        // A longer write is accepted in part: it belongs to an answer that is made as fast as
        // it is sent.
        let room = GATHERED_MAX - state.gathered.len();
        let bytes = bytes.get(..room).unwrap_or(bytes);
        state.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Does nothing: the buffer is sent when the task has done all it can.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        ready!(state.poll_send(context))?;
        Pin::new(&mut state.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::scheduler::WorkQueue;

    /// Reads what has arrived, without waiting.
    async fn arrived(theirs: &mut tokio::io::DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 20];
        tokio::select! {
            biased;
            read = theirs.read(&mut bytes) => bytes.truncate(read.unwrap()),
            () = std::future::ready(()) => bytes.clear(),
        }
        bytes
    }

    #[tokio::test]
    async fn answers_are_written_together_when_they_are_sent_and_not_before() {
        let (ours, mut theirs) = duplex(1000);
        let mut stream =
            GatheringStream::new(ours, &Rc::new(Rc::<WorkQueue>::default().tenantless_work()));
        for answer in [b"one ", b"two "] {
            stream.write_all(answer).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut theirs).await, b"");
        poll_fn(|context| stream.poll_send(context)).await.unwrap();
        assert_eq!(arrived(&mut theirs).await, b"one two ");
    }

    #[tokio::test]
    async fn answers_to_a_peer_that_does_not_read_are_bounded_and_none_is_lost() {
        let (ours, mut theirs) = duplex(100);
        let stream =
            GatheringStream::new(ours, &Rc::new(Rc::<WorkQueue>::default().tenantless_work()));
        let answer = [b'a'; 1000];
        let mut writing = stream.clone();
        let write = tokio::task::LocalSet::new();
        write.spawn_local(async move {
            for _ in 0..200 {
                writing.write_all(&answer).await.unwrap();
            }
            writing.shutdown().await.unwrap();
        });
        let read = async {
            let mut sum = 0;
            loop {
                assert!(stream.0.borrow().gathered.len() <= GATHERED_MAX);
                match arrived(&mut theirs).await.len() {
                    0 if sum == 200 * answer.len() => return,
                    read => sum += read,
                }
                tokio::task::yield_now().await;
            }
        };
        write.run_until(read).await;
        write.await;
    }
}
