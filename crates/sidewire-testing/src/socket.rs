//! A connection to the relay that can send anything, and reads HTTP answers and WebSocket
//! frames.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::yield_now,
};

use crate::{
    http::{Answer, take_answer},
    websocket::{Frame, take_frame},
};

/// Minimum room for a read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// A connection from its first byte on. Errors are texts that say what was received.
#[derive(Debug)]
pub struct Socket<S = TcpStream> {
    stream: S,
    /// Bytes that were read but not yet parsed.
    unread: Vec<u8>,
    was_reset: bool,
}

impl Socket {
    /// Connects and sends nothing.
    pub async fn connect(address: SocketAddr) -> Result<Self, String> {
        let connected = TcpStream::connect(address).await;
        let stream = connected.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).unwrap();
        Ok(Self::new(stream))
    }

    /// Lets the connection end with a reset when it is dropped.
    pub fn reset_on_drop(&self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Divides the connection, to send and read at the same time.
    pub fn split(self) -> (Socket<OwnedReadHalf>, OwnedWriteHalf) {
        let (reader, writer) = self.stream.into_split();
        let socket = Socket {
            stream: reader,
            unread: self.unread,
            was_reset: self.was_reset,
        };
        (socket, writer)
    }
}

impl Socket<OwnedReadHalf> {
    /// Joins the halves of a connection.
    pub fn reunite(self, writer: OwnedWriteHalf) -> Socket {
        Socket {
            stream: self.stream.reunite(writer).unwrap(),
            unread: self.unread,
            was_reset: self.was_reset,
        }
    }
}

impl<S> Socket<S> {
    /// Talks over a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            was_reset: false,
        }
    }

    /// Returns true if the connection was reset.
    pub fn was_reset(&self) -> bool {
        self.was_reset
    }
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    /// Sends the bytes. If the relay no longer reads, its answer says why.
    pub async fn send(&mut self, bytes: &[u8]) {
        drop(self.try_send(bytes).await);
    }

    /// Sends the bytes.
    pub async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends the bytes in pieces, cut at these positions.
    pub async fn send_cut(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut sent = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            self.send(&bytes[sent..cut]).await;
            sent = cut;
            yield_now().await;
        }
    }

    /// Closes the sending side.
    pub async fn half_close(&mut self) {
        drop(self.stream.shutdown().await);
    }
}

impl<S: AsyncRead + Unpin> Socket<S> {
    /// Reads the next HTTP answer that is not a 100; `None` if the connection ends before it
    /// begins.
    pub async fn answer(&mut self, has_body: bool) -> Result<Option<Answer>, String> {
        loop {
            match self.next_answer(has_body).await? {
                Some(answer) if answer.status == 100 => {}
                other => return Ok(other),
            }
        }
    }

    /// Reads the next HTTP answer, including a 100; `None` if the connection ends before it
    /// begins.
    pub async fn next_answer(&mut self, has_body: bool) -> Result<Option<Answer>, String> {
        self.take(|unread| take_answer(unread, has_body)).await
    }

    /// Reads the next frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Result<Option<Frame>, String> {
        self.take(take_frame).await
    }

    /// Waits for the end of the connection, before which nothing may arrive.
    pub async fn ended(&mut self) -> Result<(), String> {
        if self.unread.is_empty() && !self.read_more().await? {
            return Ok(());
        }
        Err(format!(
            "expected the end of the connection, received {:?}",
            self.begin_of_unread()
        ))
    }

    /// Returns what is read next as soon as `take` finds it at the start of the unread bytes;
    /// `None` if the connection ends before it begins.
    async fn take<T>(
        &mut self,
        take: impl Fn(&mut Vec<u8>) -> Result<Option<T>, String>,
    ) -> Result<Option<T>, String> {
        loop {
            if let Some(taken) = take(&mut self.unread)? {
                return Ok(Some(taken));
            }
            if !self.read_more().await? {
                return match self.unread.is_empty() {
                    true => Ok(None),
                    false => Err(format!("cut short: {:?}", self.begin_of_unread())),
                };
            }
        }
    }

    /// Reads more bytes. Returns true if there were any; a reset counts as an end.
    async fn read_more(&mut self) -> Result<bool, String> {
        self.unread.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.unread).await {
            Ok(read) => Ok(read > 0),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.was_reset = true;
                Ok(false)
            }
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }

    fn begin_of_unread(&self) -> String {
        String::from_utf8_lossy(&self.unread[..self.unread.len().min(200)]).into_owned()
    }
}
