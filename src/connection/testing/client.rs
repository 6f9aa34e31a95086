//! The other end of a connection: it sends bytes, and parses what it receives by itself.

use std::{cell::Cell, future::poll_fn, io, pin::Pin, rc::Rc, task::Poll, time::Duration};

use serde_json::Value;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf,
        WriteHalf,
    },
    task::{JoinHandle, spawn_local},
    time::{Instant, sleep},
};

use crate::connection::wire_testing::{ReceivedFrame, close, decode, take_frame};

/// The end of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::connection) struct ObservedEnd {
    /// Time at which the relay released it.
    pub(in crate::connection) at: Instant,
    /// True if it was reset.
    pub(in crate::connection) was_reset: bool,
}

/// The other end of a connection.
pub(in crate::connection) struct FrameClient {
    pub(super) read: ReadHalf<DuplexStream>,
    pub(super) write: Option<WriteHalf<DuplexStream>>,
    pub(super) unparsed: Vec<u8>,
    /// Number of bytes that it reads at a time.
    pub(in crate::connection) piece: usize,
    pub(super) task: JoinHandle<Instant>,
    pub(super) was_reset: Rc<Cell<bool>>,
}

impl FrameClient {
    /// Sends, and waits until the relay has room for it.
    pub(in crate::connection) async fn send(&mut self, frame: impl AsRef<[u8]>) {
        self.try_send(frame).await.unwrap();
    }

    /// Sends, and waits until the relay has room for it. Fails if the relay accepts no more.
    pub(in crate::connection) async fn try_send(
        &mut self,
        frame: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.write.as_mut().unwrap().write_all(frame.as_ref()).await
    }

    /// Sends as much as the relay has room for now, and returns how much that was.
    pub(in crate::connection) async fn send_some(&mut self, bytes: &[u8]) -> usize {
        let write = self.write.as_mut().unwrap();
        let sent = poll_fn(|cx| Poll::Ready(Pin::new(&mut *write).poll_write(cx, bytes))).await;
        match sent {
            Poll::Ready(Ok(sent)) => sent,
            // The relay has closed the stream: everything is discarded.
            Poll::Ready(Err(_)) => bytes.len(),
            Poll::Pending => 0,
        }
    }

    /// Sends the same again and again, as fast as the relay accepts it except for a pause after
    /// each, while the client does other things, until the relay has closed the stream. (Time
    /// does not pass while a task that makes no pause is never kept waiting.) The returned cell
    /// counts the bytes that were accepted.
    pub(in crate::connection) fn flood(
        &mut self,
        bytes: Vec<u8>,
        pause: Duration,
    ) -> Rc<Cell<usize>> {
        let mut write = self.write.take().unwrap();
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        spawn_local(async move {
            loop {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let Ok(taken) = write.write(rest).await else {
                        return;
                    };
                    count.set(count.get() + taken);
                    rest = &rest[taken..];
                }
                if !pause.is_zero() {
                    sleep(pause).await;
                }
            }
        });
        sent
    }

    /// Closes its sending side.
    pub(in crate::connection) async fn half_close(&mut self) {
        self.write.as_mut().unwrap().shutdown().await.unwrap();
    }

    /// Reads what is available, at most `max` bytes. The whole frames in it are returned by
    /// [`Self::next_read`].
    pub(in crate::connection) async fn read_some(&mut self, max: usize) -> usize {
        let mut bytes = vec![0; max];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = &mut self.read;
        let _read =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut *read).poll_read(cx, &mut buffer))).await;
        self.unparsed.extend_from_slice(buffer.filled());
        buffer.filled().len()
    }

    /// Returns the next whole frame of what is read already.
    pub(in crate::connection) fn next_read(&mut self) -> Option<ReceivedFrame> {
        take_frame(&mut self.unparsed).map(decode)
    }

    /// Reads until there is a whole frame; `None` if the stream ends, with `unparsed` holding the
    /// start of an incomplete frame.
    pub(in crate::connection) async fn next(&mut self) -> Option<ReceivedFrame> {
        loop {
            if let Some(heard) = self.next_read() {
                return Some(heard);
            }
            let mut bytes = [0; 4096];
            let piece = self.piece.min(bytes.len());
            match self.read.read(&mut bytes[..piece]).await.unwrap() {
                0 => return None,
                read => self.unparsed.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Returns the payload of the next frame as JSON.
    pub(in crate::connection) async fn next_json(&mut self) -> Value {
        loop {
            if let Some(frame) = take_frame(&mut self.unparsed) {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
            let mut bytes = [0; 4096];
            let read = self.read.read(&mut bytes).await.unwrap();
            assert_ne!(read, 0, "the stream ends");
            self.unparsed.extend_from_slice(&bytes[..read]);
        }
    }

    /// Returns the next `count` frames.
    pub(in crate::connection) async fn next_frames(&mut self, count: usize) -> Vec<ReceivedFrame> {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(self.next().await.expect("it goes on"));
        }
        heard
    }

    /// Returns all frames until the stream ends, which must not be in the middle of one.
    pub(in crate::connection) async fn remaining_frames(&mut self) -> Vec<ReceivedFrame> {
        let mut heard = Vec::new();
        while let Some(next) = self.next().await {
            heard.push(next);
        }
        assert!(!self.is_torn(), "the stream ends in the middle of a frame");
        heard
    }

    /// Returns all frames until the stream ends, and answers the relay's Close.
    pub(in crate::connection) async fn rest_after_close(&mut self) -> Vec<ReceivedFrame> {
        let mut heard = Vec::new();
        while let Some(next) = self.next().await {
            if let ReceivedFrame::Close(code, _) = next {
                self.send(close(code)).await;
            }
            heard.push(next);
        }
        heard
    }

    /// Returns true if what was read ends in the middle of a frame.
    pub(in crate::connection) fn is_torn(&self) -> bool {
        !self.unparsed.is_empty()
    }

    /// Returns true if the relay still serves the connection.
    pub(in crate::connection) fn is_served(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits, and does nothing else, until the relay releases the connection.
    pub(in crate::connection) async fn wait_for_end(&mut self) -> ObservedEnd {
        let at = (&mut self.task).await.unwrap();
        ObservedEnd {
            at,
            was_reset: self.was_reset.get(),
        }
    }
}
