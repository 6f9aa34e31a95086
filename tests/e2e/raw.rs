//! A client that writes its bytes itself: handshakes and frames as they are, so
//! that they can also be wrong.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Answer, PATIENCE, TestRelay, read_next_answer, token};

/// The key of RFC 6455, 1.3, and what is to be accepted for it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The opcodes (RFC 6455, 5.2).
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xa;

/// The bit of a message's last frame.
pub const FIN: u8 = 0x80;

/// A handshake with these header lines, each with its end, beside the needed ones.
pub fn handshake(headers: &str) -> String {
    handshake_to("/ws", headers)
}

/// The same, to this path and query.
pub fn handshake_to(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// The header line that carries a token.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A frame that a client may send: masked, with its length in the shortest form.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, true, payload.len() as u64);
    frame.extend(masked(payload));
    frame
}

/// A frame without a mask.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, false, payload.len() as u64);
    frame.extend(payload);
    frame
}

/// A whole message in one frame.
pub fn binary(payload: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, payload)
}

/// The payload of a Close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame's header, which may promise more than follows.
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

/// The payload as it goes out behind a masked header.
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
    /// Read and not yet looked at.
    unread: Vec<u8>,
}

/// A frame of the relay's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl RawClient {
    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends these bytes, and gives what they are answered with.
    pub async fn ask(address: SocketAddr, request: &[u8]) -> (Answer, Self) {
        let mut client = Self::silent(address).await;
        client.send(request).await;
        let answer = client.answer().await;
        (answer, client)
    }

    /// Opens a WebSocket with a good token.
    pub async fn open(relay: &TestRelay, tenant: &str, user: &str) -> Self {
        let request = handshake(&bearer(&token(tenant, user)));
        Self::open_with(relay, request.as_bytes()).await
    }

    /// Opens a WebSocket with this handshake, and what may stand behind it.
    pub async fn open_with(relay: &TestRelay, request: &[u8]) -> Self {
        let (answer, client) = Self::ask(relay.addresses.client, request).await;
        assert_eq!(answer.status, 101, "{}", answer.text());
        client
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// The same where the relay may have gone.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .unwrap()
    }

    /// Sends an envelope in one frame.
    pub async fn say(&mut self, relay: &TestRelay, envelope: Value) {
        self.send(&binary(&relay.envelope(envelope))).await;
    }

    /// The answer to a request. What stands behind it is kept for later.
    pub async fn answer(&mut self) -> Answer {
        let answer = read_next_answer(&mut self.stream, &mut self.unread);
        timeout(PATIENCE, answer).await.unwrap()
    }

    /// The next frame.
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

    /// The next envelope, as JSON without what each has anew. A relay-made one
    /// must have these.
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

    /// Asserts that nothing waits: the answer to a Ping is the next frame.
    pub async fn nothing_more(&mut self, relay: &TestRelay) {
        self.say(relay, json!({"ping": {"timestamp": "5"}})).await;
        let pong = self.envelope(relay).await;
        assert_eq!(pong["pong"]["clientTimestamp"], "5", "{pong}");
    }

    /// Waits for the Close frame, which must be the next, answers it, and sees the
    /// socket closed. The code and the reason; 1005 where there is none.
    pub async fn closed(mut self) -> (u16, String) {
        let close = self.frame().await;
        assert_eq!(close.opcode, CLOSE, "{close:?}");
        // After a breach of the protocol nobody waits for it.
        let _answered = self.try_send(&frame(FIN | CLOSE, &close.payload)).await;
        self.ended().await;
        let (code, reason) = match close.payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), reason),
            None => (1005, &[][..]),
        };
        let reason = String::from_utf8(reason.to_vec()).unwrap();
        (code, reason)
    }

    /// Waits until the relay has closed the socket, and has said nothing more.
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

/// A query string of these pairs, all percent-encoded.
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
