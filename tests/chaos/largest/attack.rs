//! The actions that an attacker repeats on each of its connections. All bytes to send are
//! prepared in advance, so that the attacker costs little compared with the relay.

use std::{
    convert::Infallible,
    future::pending,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use sidewire_testing::{
    http::{Answer, bearer, handshake},
    process::PATIENCE,
    relay::Relay,
    socket::Socket,
    websocket::{CLOSE, Frame, PONG},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::items::{CONNECTION_TOPICS, loud};

/// Unexpected answers are shown if they are at most this long.
const SHOWN_BYTES: usize = 400;

/// Source address of a trusted proxy's connections.
pub(super) const PROXY: &str = "127.0.0.2";

/// A listener of the relay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listener {
    Client,
    Ingest,
    Ops,
}

/// The action of one connection in one round.
#[derive(Clone)]
pub(super) enum Attack {
    /// Sends a request on a connection that is kept alive, and expects this status.
    Http {
        listener: Listener,
        request: Arc<[u8]>,
        status: u16,
    },
    /// Opens a connection, sends an incomplete request, and waits. Starts again when the
    /// relay ends the connection.
    Held {
        listener: Listener,
        bytes: Arc<[u8]>,
    },
    /// Opens a WebSocket as the next user, and then sends frames.
    WebSocket(WebSocket),
    /// Opens a WebSocket, and then has a backend close the connection, so that the client comes
    /// back.
    Disconnected(WebSocket),
    /// Opens a WebSocket, and then has a backend end its subscriptions to all topics of a kind.
    Revoked(WebSocket, &'static str),
    /// Sends a ClientHello and leaves, either at once or when the relay has answered it.
    Hello { bytes: Arc<[u8]>, is_awaited: bool },
    /// Completes a TLS handshake and opens a WebSocket.
    Tls(Arc<ClientConfig>),
}

/// The data sent on a WebSocket, and the expected result.
#[derive(Clone)]
pub(super) struct WebSocket {
    /// Sent before the request, from a trusted proxy's address.
    pub(super) proxy_header: Option<Arc<[u8]>>,
    pub(super) tokens: Arc<[String]>,
    /// Additional headers, each with its line ending.
    pub(super) headers: String,
    pub(super) is_json: bool,
    pub(super) frames: Arc<[u8]>,
    /// Sent after the frames: the frame of each user, if there are any.
    pub(super) last_frames: Arc<[Vec<u8>]>,
    pub(super) expected: Expected,
}

/// Expected end of a round on a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// This many messages with this payload of the envelope.
    Messages(&'static str, usize),
    /// A message with this payload, among at most this many.
    Any(&'static str, usize),
    /// This many messages with this payload, after a confirmation.
    Replayed(&'static str, usize),
    /// This many WebSocket pongs.
    Pongs(usize),
    /// A Close frame with this code.
    Close(u16),
    /// The request is refused with this status.
    Status(u16),
}

/// Result of a round.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Expected,
    /// The relay refused because of a limit, and said when to retry.
    Limited,
}

/// Addresses of the relay, and the next user.
pub(super) struct Target {
    client: SocketAddr,
    ingest: SocketAddr,
    ops: SocketAddr,
    next: AtomicUsize,
    ingest_key: &'static str,
}

impl Target {
    pub(super) fn new(relay: &Relay, ingest_key: &'static str) -> Self {
        Self {
            client: relay.client,
            ingest: relay.ingest,
            ops: relay.ops,
            next: AtomicUsize::new(0),
            ingest_key,
        }
    }

    fn address(&self, listener: Listener) -> SocketAddr {
        match listener {
            Listener::Client => self.client,
            Listener::Ingest => self.ingest,
            Listener::Ops => self.ops,
        }
    }
}

/// A connection of an attacker, reopened when needed.
#[derive(Default)]
pub(super) struct Lane {
    kept: Option<Socket>,
}

impl Lane {
    /// Runs one round. Returns an error that describes an unexpected result.
    pub(super) async fn round(
        &mut self,
        attack: &Attack,
        target: &Target,
    ) -> Result<Outcome, String> {
        if matches!(attack, Attack::Held { .. }) {
            return self.try_round(attack, target).await;
        }
        timeout(3 * PATIENCE, self.try_round(attack, target))
            .await
            .map_err(|_| "no answer".to_owned())?
    }

    async fn try_round(&mut self, attack: &Attack, target: &Target) -> Result<Outcome, String> {
        match attack {
            Attack::Http {
                listener,
                request,
                status,
            } => {
                let address = target.address(*listener);
                let answer = self.http(address, request).await?;
                judge(&answer, *status)
            }
            Attack::Held { listener, bytes } => self.held(target.address(*listener), bytes).await,
            Attack::WebSocket(it) => {
                let (outcome, _) = it.round(target).await?;
                Ok(outcome)
            }
            Attack::Disconnected(it) => self.disconnected(it, target).await,
            Attack::Revoked(it, kind) => self.revoked(it, kind, target).await,
            Attack::Hello { bytes, is_awaited } => {
                let mut stream = connect(target.client, None).await?;
                stream.write_all(bytes).await.map_err(text)?;
                if !is_awaited {
                    return Ok(Outcome::Expected);
                }
                match stream.read_u8().await {
                    // A record of the handshake.
                    Ok(22) => Ok(Outcome::Expected),
                    other => Err(format!("{other:?} in place of a ServerHello")),
                }
            }
            Attack::Tls(config) => {
                let stream = connect(target.client, None).await?;
                let name = ServerName::try_from("localhost").map_err(text)?;
                let connector = TlsConnector::from(Arc::clone(config));
                let mut stream = connector.connect(name, stream).await.map_err(text)?;
                let request = "GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n";
                stream.write_all(request.as_bytes()).await.map_err(text)?;
                let answer = Socket::new(stream).next_answer(true).await?;
                judge(&answer.ok_or("no answer")?, 426)
            }
        }
    }

    /// Waits until the previous connection ends, and then sends the bytes on a new one.
    async fn held(&mut self, address: SocketAddr, bytes: &[u8]) -> Result<Outcome, String> {
        if let Some(mut socket) = self.kept.take() {
            // A client that times out may receive no answer.
            let Some(answer) = socket.next_answer(true).await? else {
                return Ok(Outcome::Expected);
            };
            socket.ended().await?;
            return judge(&answer, 408);
        }
        let (mut reader, mut writer) = Socket::new(connect(address, None).await?).split();
        tokio::select! {
            biased;
            written = writer.write_all(bytes) => written.map_err(text)?,
            // It may begin to arrive while the rest is sent.
            answer = reader.next_answer(true) => return judge(&answer?.ok_or("no answer")?, 408),
        }
        self.kept = Some(reader.reunite(writer));
        Ok(Outcome::Expected)
    }

    async fn disconnected(&mut self, it: &WebSocket, target: &Target) -> Result<Outcome, String> {
        let (outcome, opened) = it.round(target).await?;
        let Some((user, mut socket)) = opened else {
            return Ok(outcome);
        };
        let answer = self
            .delete(target, user, "connections?reconnect=true")
            .await?;
        if judge(&answer, 200)? == Outcome::Limited {
            return Ok(Outcome::Limited);
        }
        loop {
            match socket.frame().await? {
                Some(frame) if frame.opcode == CLOSE && frame.close_code() == 4006 => {
                    return Ok(Outcome::Expected);
                }
                None | Some(Frame { opcode: CLOSE, .. }) => return Err("no 4006".to_owned()),
                Some(_) => {}
            }
        }
    }

    async fn revoked(
        &mut self,
        it: &WebSocket,
        kind: &str,
        target: &Target,
    ) -> Result<Outcome, String> {
        let (outcome, opened) = it.round(target).await?;
        let Some((user, _socket)) = opened else {
            return Ok(outcome);
        };
        let topics = format!("subscriptions?topic={kind}:*");
        let answer = self.delete(target, user, &topics).await?;
        if judge(&answer, 200)? == Outcome::Limited {
            return Ok(Outcome::Limited);
        }
        let counted: serde_json::Value = serde_json::from_slice(&answer.body).map_err(text)?;
        match counted["revoked"].as_u64() {
            Some(revoked) if revoked >= CONNECTION_TOPICS as u64 => Ok(Outcome::Expected),
            _ => Err(format!("{counted} of {CONNECTION_TOPICS} topics")),
        }
    }

    /// Makes a DELETE call about a user.
    async fn delete(&mut self, target: &Target, user: usize, of: &str) -> Result<Answer, String> {
        let delete = format!(
            "DELETE /v1/tenants/{}/users/user-{user:03}/{of} HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer {}\r\n\r\n",
            loud(user),
            target.ingest_key
        );
        self.http(target.ingest, delete.as_bytes()).await
    }

    /// Sends a request and reads the whole answer.
    async fn http(&mut self, address: SocketAddr, request: &[u8]) -> Result<Answer, String> {
        let socket = match self.kept.take() {
            Some(socket) => socket,
            None => Socket::new(connect(address, None).await?),
        };
        let (mut reader, mut writer) = socket.split();
        let mut is_sent = false;
        let writing = async {
            // If the relay stops reading, it has already answered.
            is_sent = writer.write_all(request).await.is_ok();
            pending::<Infallible>().await
        };
        let has_body = !request.starts_with(b"HEAD ");
        let answer = tokio::select! {
            biased;
            never = writing => match never {},
            answer = reader.next_answer(has_body) => answer?.ok_or("no answer")?,
        };
        if is_sent && answer.header("connection") != Some("close") {
            self.kept = Some(reader.reunite(writer));
        }
        Ok(answer)
    }
}

async fn connect(to: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream, String> {
    let socket = TcpSocket::new_v4().map_err(text)?;
    if let Some(from) = from {
        socket.bind((from, 0).into()).map_err(text)?;
    }
    let stream = socket.connect(to).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    // So many connections would use up the ports if each lingered.
    stream.set_zero_linger().map_err(text)?;
    Ok(stream)
}

fn judge(answer: &Answer, status: u16) -> Result<Outcome, String> {
    match answer.status {
        given if given == status => Ok(Outcome::Expected),
        // When 100 connections send 6 MB each, some take too long.
        408 | 429 | 503 => Ok(Outcome::Limited),
        given => Err(format!(
            "{given} {} in place of {status}",
            shown(&answer.body)
        )),
    }
}

fn shown(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(SHOWN_BYTES + 200)];
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl WebSocket {
    /// Runs one round. As long as all is as expected, also returns the user's number and
    /// the socket.
    async fn round(&self, target: &Target) -> Result<(Outcome, Option<(usize, Socket)>), String> {
        let user = target.next.fetch_add(1, Ordering::Relaxed) % self.tokens.len();
        let from = self.proxy_header.as_ref().and(PROXY.parse().ok());
        let stream = connect(target.client, from).await?;
        let mut socket = Socket::new(stream);
        let mut opening = self.proxy_header.as_deref().unwrap_or_default().to_vec();
        opening.extend(self.request(&self.tokens[user]).into_bytes());
        socket.try_send(&opening).await.map_err(text)?;
        let answer = match socket.next_answer(true).await {
            Ok(Some(answer)) => answer,
            _ if self.expected == Expected::Close(0) => return Ok((Outcome::Expected, None)),
            Ok(None) => return Err("no answer".to_owned()),
            Err(error) => return Err(error),
        };
        let status = match self.expected {
            Expected::Status(status) => status,
            _ => 101,
        };
        let outcome = judge(&answer, status)?;
        if outcome == Outcome::Limited || status != 101 {
            return Ok((outcome, None));
        }
        let (mut reader, mut writer) = socket.split();
        let writing = async {
            // If the relay stops reading, it says why.
            drop(writer.write_all(&self.frames).await);
            if let Some(last) = self.last_frames.get(user) {
                drop(writer.write_all(last).await);
            }
            pending::<Infallible>().await
        };
        let outcome = tokio::select! {
            biased;
            never = writing => match never {},
            outcome = self.answers(&mut reader) => outcome?,
        };
        Ok((outcome, Some((user, reader.reunite(writer)))))
    }

    /// Reads everything that arrives, and reconnects if the relay ends the connection.
    pub(super) async fn listen(&self, target: &Target) -> Infallible {
        loop {
            drop(self.round(target).await);
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the handshake request.
    pub(super) fn request(&self, token: &str) -> String {
        let protocol = if self.is_json {
            "Sec-WebSocket-Protocol: sidewire.v1.json\r\n"
        } else {
            ""
        };
        handshake(&format!("{}{protocol}{}", bearer(token), self.headers))
    }

    async fn answers(
        &self,
        socket: &mut Socket<impl AsyncRead + Unpin>,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::Expected;
        let mut came = 0;
        loop {
            let Some(frame) = socket.frame().await? else {
                return Err(format!("an end behind {came} answers"));
            };
            let payload = &frame.payload;
            if frame.opcode == CLOSE {
                let code = frame.close_code();
                return match self.expected {
                    Expected::Close(expected) if code == expected => Ok(Outcome::Expected),
                    _ if [1001, 4003, 4005].contains(&code) => Ok(Outcome::Limited),
                    _ => Err(format!("closed: {code} {}", shown(payload))),
                };
            }
            let is_error = says(payload, "error");
            let is_limited = is_error && contains(payload, "RATE_LIMIT_EXCEEDED");
            let wanted = match self.expected {
                Expected::Pongs(wanted) if frame.opcode == PONG => wanted,
                Expected::Messages(name, wanted) if says(payload, name) => wanted,
                Expected::Any(name, _) if says(payload, name) => {
                    return Ok(Outcome::Expected);
                }
                Expected::Replayed(name, wanted) if says(payload, name) => wanted,
                Expected::Replayed(..) if says(payload, "subscription_confirmed") => continue,
                // The messages before it are not inspected, but all of them may be refused.
                Expected::Any(_, most) => {
                    outcome = Outcome::Limited;
                    most
                }
                Expected::Close(_) => continue,
                Expected::Messages(_, wanted) | Expected::Pongs(wanted) if is_limited => {
                    outcome = Outcome::Limited;
                    wanted
                }
                expected => {
                    return Err(format!("{} in place of {expected:?}", shown(payload)));
                }
            };
            came += 1;
            if came == wanted {
                return Ok(outcome);
            }
        }
    }
}

/// Payload names, their field numbers, and their names in JSON.
const TOLD: [(&str, u32, &str); 6] = [
    ("work_item_updated", 3, "\"workItemUpdated\""),
    ("subscription_confirmed", 11, "\"subscriptionConfirmed\""),
    ("unsubscribe_confirmed", 13, "\"unsubscribeConfirmed\""),
    ("pong", 15, "\"pong\""),
    ("error", 16, "\"error\""),
    ("authenticated", 20, "\"authenticated\""),
];

/// Returns true if an envelope has this payload. Inspects only its beginning.
fn says(envelope: &[u8], name: &str) -> bool {
    let (_, number, json) = TOLD.iter().find(|it| it.0 == name).unwrap();
    if envelope.starts_with(b"{") {
        return contains(&envelope[..envelope.len().min(300)], json);
    }
    let mut rest = envelope;
    while let Some((key, after)) = varint(rest) {
        let (number_here, wire_type) = (key >> 3, key & 7);
        if number_here == u64::from(*number) {
            return true;
        }
        let Some((value, after)) = varint(after) else {
            return false;
        };
        rest = match wire_type {
            0 => after,
            2 => after.get(value as usize..).unwrap_or_default(),
            _ => return false,
        };
    }
    false
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn contains(bytes: &[u8], part: &str) -> bool {
    let mut windows = bytes.windows(part.len());
    windows.any(|it| it == part.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_is_recognised_by_its_payload() {
        let confirmed = [&b"\x0a\x01m\x40\x07"[..], b"\x5a\x00"].concat();
        assert!(says(&confirmed, "subscription_confirmed"));
        assert!(!says(&confirmed, "error"));
        let json = br#"{"messageId":"m","timestamp":"7","pong":{}}"#;
        assert!(says(json, "pong"));
        assert!(!says(json, "error"));
    }
}
