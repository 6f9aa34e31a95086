//! A client that writes its own bytes: handshakes and frames are sent as given, so that
//! they can also be wrong.

use std::{fmt::Write as _, net::SocketAddr};

use serde_json::{Value, json};
use sidewire_testing::{
    http::{Answer, bearer, handshake},
    socket::Socket,
    websocket::{BINARY, CLOSE, FIN, Frame, binary, frame},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::support::{PATIENCE, TestRelay, token};

/// A connection, from the first byte on.
pub struct RawClient(Socket);

impl RawClient {
    /// Connects and sends nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        Self(Socket::connect(address).await.unwrap())
    }

    /// Opens a WebSocket with a valid token. The kernel's buffers for it are small, so that the
    /// relay soon notices if the client does not read.
    pub async fn open_narrow(relay: &TestRelay, tenant: &str, user: &str) -> Self {
        let stream = connect_narrow(relay.addresses.client).await;
        let mut client = Self(Socket::new(stream));
        client
            .send(handshake(&bearer(&token(tenant, user))).as_bytes())
            .await;
        assert_eq!(client.answer().await.status, 101);
        client
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
        timeout(PATIENCE, self.0.try_send(bytes)).await.unwrap()
    }

    /// Sends an envelope in one frame.
    pub async fn say(&mut self, relay: &TestRelay, envelope: Value) {
        self.send(&binary(&relay.envelope(envelope))).await;
    }

    /// Reads the answer to a request. Bytes after it are kept for later.
    pub async fn answer(&mut self) -> Answer {
        read_answer(&mut self.0).await
    }

    /// Reads the next frame.
    pub async fn frame(&mut self) -> Frame {
        self.receive().await.unwrap().expect("a frame arrives")
    }

    /// Reads the next frame; `None` if the relay has ended the stream, or an error if that is in
    /// the middle of a frame.
    pub async fn receive(&mut self) -> Result<Option<Frame>, String> {
        let frame = timeout(PATIENCE, self.0.frame()).await;
        frame.expect("something arrives")
    }

    /// Returns true if the relay has reset the connection.
    pub fn was_reset(&self) -> bool {
        self.0.was_reset()
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
        // After a protocol violation the relay does not wait for the answer.
        let (code, reason) = (close.close_code(), close.close_reason().to_owned());
        let _answered = self.try_send(&frame(FIN | CLOSE, &close.payload)).await;
        self.ended().await;
        (code, reason)
    }

    /// Waits until the relay has closed the socket without sending anything more.
    pub async fn ended(mut self) {
        let ended = timeout(PATIENCE, self.0.ended()).await;
        ended.expect("the socket is closed").unwrap();
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.0.reset_on_drop();
    }
}

/// Connects with small buffers in the kernel.
pub async fn connect_narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

/// Reads the next answer, including a 100.
pub async fn read_answer(socket: &mut Socket<impl AsyncRead + Unpin>) -> Answer {
    let answer = timeout(PATIENCE, socket.next_answer(true)).await;
    answer
        .expect("an answer comes")
        .unwrap()
        .expect("an answer comes")
}

/// Sends one HTTP request as written: `line` and the header lines include their line
/// endings. `Host` and `Content-Length` are added.
pub async fn http(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut head = format!("{line}Host: {address}\r\n{headers}");
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    head.push_str("\r\n");
    let stream = TcpStream::connect(address).await.unwrap();
    http_over(stream, &head, body).await
}

/// Sends a request with this complete head over a stream. The relay may answer and close before
/// it has read everything.
pub async fn http_over<S>(stream: S, head: &str, body: &[u8]) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut socket = Socket::new(stream);
    socket.send(&[head.as_bytes(), body].concat()).await;
    read_answer(&mut socket).await
}

/// Returns the payload of a Close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
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
