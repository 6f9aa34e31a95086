//! The client's end of a WebSocket: the handshake, and frames as bytes.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use sidewire_testing::websocket::{FIN, Frame, frame, take_frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pipe::PipeStream;

pub(super) struct ClientSocket {
    wire: PipeStream,
    /// Bytes that wait until the link accepts them.
    unsent: Vec<u8>,
    unparsed: Vec<u8>,
    /// Maximum number of bytes of a read.
    piece_bytes: usize,
}

/// The result of a read.
pub(super) enum SocketRead {
    Frame(Frame),
    /// No complete frame yet.
    Part,
    Ended {
        is_torn: bool,
    },
    Reset {
        is_torn: bool,
    },
}

impl ClientSocket {
    pub(super) fn new(wire: PipeStream, piece_bytes: usize) -> Self {
        Self {
            wire,
            unsent: Vec::new(),
            unparsed: Vec::new(),
            piece_bytes,
        }
    }

    /// Sends the handshake and returns the status of the answer, 0 if there was none.
    pub(super) async fn shake_hands(&mut self, token: &str, subprotocol: &str) -> u16 {
        self.unsent = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: {subprotocol}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .into_bytes();
        loop {
            let end = self.unparsed.windows(4).position(|it| it == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.unparsed.drain(..end + 4).collect();
                let head = str::from_utf8(&head).unwrap();
                let status = head.get(9..12).unwrap().parse().unwrap();
                assert!(status != 101 || head.contains(subprotocol), "{head}");
                return status;
            }
            if poll_fn(|context| self.poll_bytes(context)).await.is_err() {
                return 0;
            }
        }
    }

    /// Queues a message in a single frame.
    pub(super) fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.unsent.extend(frame(FIN | opcode, payload));
    }

    /// Sends queued bytes and reads once. While stalled, only sends and never returns.
    pub(super) async fn next(&mut self, is_stalled: bool) -> SocketRead {
        if is_stalled {
            return poll_fn(|context| {
                self.poll_send(context);
                Poll::Pending
            })
            .await;
        }
        if let Some(frame) = take_frame(&mut self.unparsed).unwrap() {
            return SocketRead::Frame(frame);
        }
        let read = poll_fn(|context| self.poll_bytes(context)).await;
        let is_torn = !self.unparsed.is_empty();
        match read {
            Ok(()) => match take_frame(&mut self.unparsed).unwrap() {
                Some(frame) => SocketRead::Frame(frame),
                None => SocketRead::Part,
            },
            Err(SocketOver::Ended) => SocketRead::Ended { is_torn },
            Err(SocketOver::Reset) => SocketRead::Reset { is_torn },
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.wire).poll_write(context, &self.unsent) {
                Poll::Ready(Ok(sent)) => drop(self.unsent.drain(..sent)),
                // Data that has arrived may still be read; the end shows after it.
                Poll::Ready(Err(_)) => self.unsent.clear(),
                Poll::Pending => break,
            }
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Result<(), SocketOver>> {
        self.poll_send(context);
        let mut bytes = vec![0; self.piece_bytes];
        let mut buffer = ReadBuf::new(&mut bytes);
        match Pin::new(&mut self.wire).poll_read(context, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(_)) => Poll::Ready(Err(SocketOver::Reset)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                Poll::Ready(Err(SocketOver::Ended))
            }
            Poll::Ready(Ok(())) => {
                self.unparsed.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(()))
            }
        }
    }
}

enum SocketOver {
    Ended,
    Reset,
}
