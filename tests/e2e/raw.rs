//! A client that writes its own bytes: handshakes and frames are sent as given, so that
//! they can also be wrong.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Answer, PATIENCE, TestRelay, read_next_answer, token};

/// The key of RFC 6455, 1.3, and the expected `Sec-WebSocket-Accept`.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The opcodes (RFC 6455, 5.2).
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// The FIN bit of a message's last frame.
pub const FIN: u8 = 0x80;

/// Returns a handshake with these header lines, each with its line ending, and the required ones.
pub fn handshake(headers: &str) -> String {
    handshake_to("/ws", headers)
}

/// Returns a handshake to this path and query.
pub fn handshake_to(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// Returns the header line that carries a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Returns a valid client frame: masked, with its length in the shortest form.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, true, payload.len() as u64);
    frame.extend(masked(payload));
    frame
}

/// Returns a frame without a mask.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, false, payload.len() as u64);
    frame.extend(payload);
    frame
}

/// Returns a whole message in one frame.
pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

/// Returns the payload of a Close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Returns a frame's header, which may announce more than follows.
pub fn header(first: u8, is_masked: bool, len: u64) -> Vec<u8> {
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut header = vec![first];
    match len {
        0..=125 => header.push(mask_bit | len as u8),
        126..=0xffff => {
            header.push(mask_bit | 126);
            header.extend((len as u16).to_be_bytes());
        }
        _ => {
            header.push(mask_bit | 127);
            header.extend(len.to_be_bytes());
        }
    }
    if is_masked {
        header.extend(MASK);
    }
    header
}

/// Returns the payload as it is sent after a masked header.
pub fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = MASK.iter().cycle();
    payload
        .iter()
        .zip(mask)
        .map(|(it, mask)| it ^ mask)
        .collect()
}

/// A connection, from the first byte on.
pub struct RawClient {
    stream: TcpStream,
    /// Bytes that were read but not yet parsed.
    unread: Vec<u8>,
}

/// A frame from the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl RawClient {
    /// Connects and sends nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends these bytes, and returns the answer.
    pub async fn ask(address: SocketAddr, request: &[u8]) -> (Answer, Self) {
        let mut client = Self::silent(address).await;
        client.send(request).await;
        let answer = client.answer().await;
        (answer, client)
    }

    /// Opens a WebSocket with a valid token.
    pub async fn open(relay: &TestRelay, tenant: &str, user: &str) -> Self {
        let request = handshake(&bearer(&token(tenant, user)));
        Self::open_with(relay, request.as_bytes()).await
    }

    /// Opens a WebSocket with this handshake, and any bytes that follow it.
    pub async fn open_with(relay: &TestRelay, request: &[u8]) -> Self {
        let (answer, client) = Self::ask(relay.addresses.client, request).await;
        assert_eq!(answer.status, 101, "{}", answer.text());
        client
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes to a relay that may have closed the connection.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .unwrap()
    }

    /// Sends an envelope in one frame.
    pub async fn say(&mut self, relay: &TestRelay, envelope: Value) {
        self.send(&binary(&relay.envelope(envelope))).await;
    }

    /// Reads the answer to a request. Bytes after it are kept for later.
    pub async fn answer(&mut self) -> Answer {
        let answer = read_next_answer(&mut self.stream, &mut self.unread);
        timeout(PATIENCE, answer).await.unwrap()
    }

    /// Reads the next frame.
    pub async fn frame(&mut self) -> Frame {
        let [first, second] = *self.take(2).await else {
            unreachable!("two were asked for")
        };
        assert_eq!(second & 0x80, 0, "a server's frames have no mask");
        assert_eq!(first & 0xf0, FIN, "no fragments and no reserved bits");
        let len = match second {
            126 => u64::from(u16::from_be_bytes(
                (*self.take(2).await).try_into().unwrap(),
            )),
            127 => u64::from_be_bytes((*self.take(8).await).try_into().unwrap()),
            short => short.into(),
        };
        let payload = self.take(usize::try_from(len).unwrap()).await.into_vec();
        Frame {
            opcode: first & 0x0f,
            payload,
        }
    }

    /// Reads the next envelope as JSON, without its id and timestamp. An envelope made by
    /// the relay must have both.
    pub async fn envelope(&mut self, relay: &TestRelay) -> Value {
        let frame = self.frame().await;
        assert_eq!(frame.opcode, BINARY, "{frame:?}");
        let mut envelope = relay.json(&frame.payload);
        let members = envelope.as_object_mut().unwrap();
        for fresh in ["messageId", "timestamp"] {
            assert!(members.remove(fresh).is_some(), "{fresh} is missing");
        }
        envelope
    }

    /// Asserts that nothing is queued: the next frame must be the answer to a Ping.
    pub async fn nothing_more(&mut self, relay: &TestRelay) {
        self.say(relay, json!({"ping": {"timestamp": "5"}})).await;
        let pong = self.envelope(relay).await;
        assert_eq!(pong["pong"]["clientTimestamp"], "5", "{pong}");
    }

    /// Waits for the Close frame, which must be the next, answers it, and waits until the
    /// socket is closed. Returns the code and the reason; the code is 1005 if there is
    /// none.
    pub async fn closed(mut self) -> (u16, String) {
        let close = self.frame().await;
        assert_eq!(close.opcode, CLOSE, "{close:?}");
        // After a protocol violation the relay does not wait for the answer.
        let _answered = self.try_send(&frame(FIN | CLOSE, &close.payload)).await;
        self.ended().await;
        let (code, reason) = match close.payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), reason),
            None => (1005, &[][..]),
        };
        let reason = String::from_utf8(reason.to_vec()).unwrap();
        (code, reason)
    }

    /// Waits until the relay has closed the socket without sending anything more.
    pub async fn ended(mut self) {
        assert_eq!(self.unread, b"", "nothing more is said");
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        let read = read.expect("the socket is closed");
        assert_eq!(read.unwrap_or(0), 0, "{:02x?}", self.unread);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    async fn take(&mut self, count: usize) -> Box<[u8]> {
        while self.unread.len() < count {
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
            let read = read.expect("something arrives").unwrap();
            assert_ne!(read, 0, "it ended after {:02x?}", self.unread);
        }
        self.unread.drain(..count).collect()
    }
}

/// Returns a query string of these pairs, all percent-encoded.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = String::from("?");
    for (name, value) in pairs {
        write!(query, "{name}=").unwrap();
        for byte in value.bytes() {
            write!(query, "%{byte:02X}").unwrap();
        }
        query.push('&');
    }
    query
}
