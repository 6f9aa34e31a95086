//! The connection that sends tokens, and a witness of another user of its tenant.

use std::sync::atomic::{AtomicU64, Ordering};

use sidewire_testing::{protobuf::Envelope, socket::Socket, websocket::CLOSE};

use super::{Renewal, Wanted};
use crate::{
    campaign::connect,
    client_events::{ATTACKER, attacker::Encoding, heard::Heard, payload_types::TYPING},
    forge::{Site, TENANT, token_of},
    handshakes::tokenless,
    tokens::contains,
};

/// A topic outside of the attacker's grant.
const DENIED: &str = "secret:1";

/// Counts the stages of the run: each has its own topic.
static STAGES: AtomicU64 = AtomicU64::new(0);

pub(super) struct Stage {
    pub(super) cases: u64,
    project: String,
    encoding: Encoding,
    attacker: Socket,
    witness: Socket,
}

impl Stage {
    pub(super) async fn open(site: &Site, encoding: Encoding) -> Result<Self, String> {
        let project = format!("stage-{}", STAGES.fetch_add(1, Ordering::Relaxed));
        let topic = format!("project:{project}");
        let witness = token_of(TENANT, "wendy", &[&topic]);
        Ok(Self {
            cases: 0,
            attacker: join(site, encoding, &site.token, &topic).await?,
            witness: join(site, Encoding::Binary, &witness, &topic).await?,
            encoding,
            project,
        })
    }

    /// Runs a case, and checks that the connection is what it was.
    pub(super) async fn run(&mut self, case: &Renewal) -> Result<(), String> {
        self.cases += 1;
        let frame = self.encoding.frame(&case.envelope);
        self.attacker.send(&frame).await;
        if let Wanted::Closed(code) = case.wanted {
            return is_closed(&mut self.attacker, code).await;
        }
        let answer = next(&mut self.attacker, self.encoding, &case.token).await?;
        case.check(&answer)?;
        self.check_unchanged().await
    }

    /// Checks that the attacker still follows its topic, under its own name and with its grant.
    async fn check_unchanged(&mut self) -> Result<(), String> {
        let marker = format!("marker-{}", self.cases);
        let frames = [
            self.encoding.event(&TYPING, &marker, &self.project),
            self.encoding.subscribe(&[DENIED]),
            self.encoding.ping(self.cases),
        ];
        self.attacker.send(&frames.concat()).await;
        let error = self.next().await?.error.ok_or("a topic was not denied")?;
        if error.error_code != "AUTHORIZATION_FAILED" {
            return Err(format!("a topic was refused with {error:?}"));
        }
        let pong = self.next().await?.pong.ok_or("no sign of life")?;
        if u64::try_from(pong.client_timestamp) != Ok(self.cases) {
            return Err(format!("{pong:?} in place of a sign of life"));
        }
        let frame = self
            .witness
            .frame()
            .await?
            .ok_or("the witness was closed")?;
        let heard = Heard::from_frame(&frame)?;
        if heard.id != marker {
            return Err(format!("the witness received {heard:x?}, not {marker}"));
        }
        heard.check(&TYPING, &TYPING.project(&self.project))?;
        let back = Encoding::Binary.event(&TYPING, &marker, &self.project);
        self.witness.send(&back).await;
        let heard = self.next().await?;
        match heard.message_id == marker {
            true => Ok(()),
            false => Err(format!("{ATTACKER} received {heard:?}, not {marker}")),
        }
    }

    async fn next(&mut self) -> Result<Envelope, String> {
        next(&mut self.attacker, self.encoding, b"").await
    }
}

/// Connects a client with this token, which subscribes to this topic.
pub(super) async fn join(
    site: &Site,
    encoding: Encoding,
    token: &str,
    topic: &str,
) -> Result<Socket, String> {
    let mut socket = connect(site.client).await?;
    let handshake = tokenless()
        .and("Authorization", format!("Bearer {token}"))
        .and("Sec-WebSocket-Protocol", encoding.subprotocol());
    socket.send(&handshake.bytes()).await;
    socket.send(&encoding.subscribe(&[topic])).await;
    match (socket.answer(true).await?, socket.frame().await?) {
        (Some(answer), Some(_)) if answer.status == 101 => Ok(socket),
        other => Err(format!("not let in: {other:?}")),
    }
}

/// Reads the next envelope, which may repeat no part of this token.
pub(super) async fn next(
    socket: &mut Socket,
    encoding: Encoding,
    token: &[u8],
) -> Result<Envelope, String> {
    let frame = socket.frame().await?.ok_or("the connection has ended")?;
    let mut parts = token.split(|byte| *byte == b'.');
    if parts.any(|part| part.len() > 20 && contains(&frame.payload, part)) {
        return Err(format!("the token is repeated: {frame:?}"));
    }
    encoding.answer(&frame)
}

/// Reads a Close frame with this code.
pub(super) async fn is_closed(socket: &mut Socket, code: u16) -> Result<(), String> {
    match socket.frame().await? {
        Some(frame) if frame.opcode == CLOSE && frame.close_code() == code => Ok(()),
        other => Err(format!("{other:?}, not closed with {code}")),
    }
}
