//! A TCP connection to the relay that can send anything, and reads HTTP answers and
//! WebSocket frames.

use std::{io::ErrorKind, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::yield_now,
};

/// The opcodes (RFC 6455, 5.2).
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xa;

/// The FIN bit of a message's last frame.
pub(crate) const FIN: u8 = 0x80;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Returns a frame's header, which may announce more than follows.
pub(crate) fn header(first: u8, is_masked: bool, len: u64) -> Vec<u8> {
    let (short, long) = match len {
        0..=125 => (u8::try_from(len).unwrap(), vec![]),
        126..=0xffff => (126, u16::try_from(len).unwrap().to_be_bytes().to_vec()),
        _ => (127, len.to_be_bytes().to_vec()),
    };
    let (bit, mask) = if is_masked {
        (0x80, &MASK[..])
    } else {
        (0, &[][..])
    };
    [&[first, bit | short], &long[..], mask].concat()
}

pub(crate) fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = MASK.into_iter().cycle();
    payload
        .iter()
        .zip(mask)
        .map(|(byte, bit)| byte ^ bit)
        .collect()
}

/// Returns a valid client frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, true, payload.len() as u64);
    frame.extend(masked(payload));
    frame
}

/// Returns a whole message in one frame.
pub(crate) fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

/// Returns a Close frame with this code.
pub(crate) fn close(code: u16) -> Vec<u8> {
    frame(FIN | CLOSE, &code.to_be_bytes())
}

/// A frame from the relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Returns the code of a Close frame, 1005 if it has none.
    pub(crate) fn close_code(&self) -> u16 {
        let code = self.payload.first_chunk::<2>();
        code.map_or(1005, |code| u16::from_be_bytes(*code))
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(given, _)| given.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

pub(crate) struct Socket {
    stream: TcpStream,
    /// Bytes that were read but not yet parsed.
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, String> {
        let connected = TcpStream::connect(address).await;
        let stream = connected.map_err(|error| format!("cannot connect: {error}"))?;
        stream.set_nodelay(true).unwrap();
        // So many connections would use up the ports if each lingered.
        stream.set_zero_linger().unwrap();
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends the bytes. If the relay no longer reads, its answer says why.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes).await);
    }

    /// Sends the bytes in pieces, cut at these positions.
    pub(crate) async fn send_cut(&mut self, bytes: &[u8], cuts: &[usize]) {
        let mut sent = 0;
        for cut in cuts.iter().copied().chain([bytes.len()]) {
            self.send(&bytes[sent..cut]).await;
            sent = cut;
            yield_now().await;
        }
    }

    /// Closes the sending side.
    pub(crate) async fn half_close(&mut self) {
        drop(self.stream.shutdown().await);
    }

    /// Reads more bytes. Returns true if there were any; a reset counts as an end.
    async fn more(&mut self) -> Result<bool, String> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(read) => Ok(read > 0),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(format!("cannot read: {error}")),
        }
    }

    /// Reads the next HTTP answer; `None` if the connection ends before it begins.
    pub(crate) async fn answer(&mut self, has_body: bool) -> Result<Option<Answer>, String> {
        loop {
            let Some(mut answer) = self.head().await? else {
                return Ok(None);
            };
            if answer.status == 100 {
                continue;
            }
            let length = answer.header("content-length").unwrap_or("0").parse();
            let length: usize = length.map_err(|_| format!("no length in {answer:?}"))?;
            if has_body {
                answer.body = self.take(length).await?;
            }
            return Ok(Some(answer));
        }
    }

    async fn head(&mut self) -> Result<Option<Answer>, String> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&self.buffer) {
                Ok(httparse::Status::Complete(len)) => {
                    let answer = Answer {
                        status: response.code.unwrap(),
                        headers: response.headers.iter().map(owned).collect(),
                        body: Vec::new(),
                    };
                    self.buffer.drain(..len);
                    return Ok(Some(answer));
                }
                Ok(httparse::Status::Partial) => {}
                Err(error) => return Err(format!("{error} in {:?}", self.rest())),
            }
            if !self.more().await? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(format!("only {:?}", self.rest())),
                };
            }
        }
    }

    async fn take(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < len {
            if !self.more().await? {
                return Err(format!("cut short: {:?}", self.rest()));
            }
        }
        Ok(self.buffer.drain(..len).collect())
    }

    /// Reads the next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Result<Option<Frame>, String> {
        if self.buffer.is_empty() && !self.more().await? {
            return Ok(None);
        }
        let head = self.take(2).await?;
        let [first, second] = head[..] else {
            unreachable!("two bytes were taken");
        };
        if first & 0xf0 != FIN || second & 0x80 != 0 {
            return Err(format!("a frame that begins {head:x?}"));
        }
        let len = match second {
            126 => self.length::<2>().await?,
            127 => self.length::<8>().await?,
            short => usize::from(short),
        };
        Ok(Some(Frame {
            opcode: first & 0xf,
            payload: self.take(len).await?,
        }))
    }

    async fn length<const BYTES: usize>(&mut self) -> Result<usize, String> {
        let bytes = self.take(BYTES).await?;
        Ok(bytes
            .into_iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(byte)))
    }

    /// Waits for the end of the connection, before which nothing may arrive.
    pub(crate) async fn ended(&mut self) -> Result<(), String> {
        if self.buffer.is_empty() && !self.more().await? {
            return Ok(());
        }
        Err(format!("what was to end says {:?}", self.rest()))
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer[..self.buffer.len().min(200)]).into_owned()
    }
}

fn owned(header: &httparse::Header<'_>) -> (String, String) {
    let value = String::from_utf8_lossy(header.value).into_owned();
    (header.name.to_owned(), value)
}
