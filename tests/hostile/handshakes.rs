//! Invalid and unusual handshakes: each is accepted or refused as the contract says, and
//! the connection of a refused one is closed.

mod headers;
mod lines;
mod syntax;

use std::sync::Arc;

use sidewire_testing::{
    http::KEY,
    socket::Socket,
    websocket::{CLOSE, close},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    campaign::{Attacker, Mutator, connect},
    forge::{Forge, Site},
    http::{Expected, Request},
};

pub(crate) const PROTOBUF: &str = "sidewire.v1.protobuf";

pub(crate) struct Handshake {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    expected: Expected,
    /// True if the client closes its sending side, for heads that may be incomplete.
    ends: bool,
    has_body: bool,
    /// Opcodes of the expected answers to the frames after the head.
    frames: Vec<u8>,
}

impl Handshake {
    pub(crate) fn new(bytes: Vec<u8>, expected: Expected) -> Self {
        Self {
            bytes,
            cuts: vec![],
            expected,
            ends: false,
            has_body: true,
            frames: vec![],
        }
    }
}

/// Returns a valid handshake.
pub(crate) fn good(forge: &Forge) -> Request {
    tokenless().and("Authorization", format!("Bearer {}", forge.site.token))
}

/// Returns a valid handshake without a token.
pub(crate) fn tokenless() -> Request {
    Request::new("GET", "/ws")
        .and("Connection", "Upgrade")
        .and("Upgrade", "websocket")
        .and("Sec-WebSocket-Version", "13")
        .and("Sec-WebSocket-Key", KEY)
}

pub(crate) struct HandshakeAttacker(Arc<Site>);

impl Attacker for HandshakeAttacker {
    const FAMILY: &'static str = "handshakes";
    type Case = Handshake;

    fn mutators() -> Vec<Mutator<Handshake>> {
        let groups = [
            lines::taken(),
            lines::request_lines(),
            headers::upgrades(),
            headers::subprotocols(),
            headers::credentials(),
            syntax::syntax(),
            syntax::sizes(),
            syntax::bodies(),
        ];
        groups.into_iter().flatten().collect()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self(Arc::clone(site))
    }

    async fn attempt(&mut self, case: &Handshake) -> Result<(), String> {
        let mut socket = connect(self.0.client).await?;
        socket.send_cut(&case.bytes, &case.cuts).await;
        if case.ends {
            socket.half_close().await;
        }
        let Some(answer) = socket.answer(case.has_body).await? else {
            return match case.expected.may_be_silent {
                true => Ok(()),
                false => Err("no answer".to_owned()),
            };
        };
        case.expected.check(&answer, case.has_body)?;
        if answer.status != 101 {
            return socket.ended().await;
        }
        if case.ends {
            return Ok(());
        }
        if answer.header("sec-websocket-accept") != Some(&derive_accept_key(KEY.as_bytes())) {
            return Err(format!("accepted with {answer:?}"));
        }
        let offered = String::from_utf8_lossy(&case.bytes).contains(PROTOBUF);
        if offered != (answer.header("sec-websocket-protocol") == Some(PROTOBUF)) {
            return Err(format!("of the subprotocols none or another in {answer:?}"));
        }
        leave(&mut socket, &case.frames).await
    }
}

/// Reads the frames with these opcodes, and closes the connection unless the relay has.
async fn leave(socket: &mut Socket, opcodes: &[u8]) -> Result<(), String> {
    socket.send(&close(1000)).await;
    for wanted in opcodes
        .iter()
        .filter(|opcode| **opcode != CLOSE)
        .chain([&CLOSE])
    {
        match socket.frame().await? {
            Some(frame) if frame.opcode == *wanted => {}
            other => return Err(format!("{other:?}, not opcode {wanted}")),
        }
    }
    socket.ended().await
}

/// Makes a mutator of a valid request, with its expected answer.
fn request(
    name: impl Into<String>,
    expected: Expected,
    change: impl Fn(Request, &mut Forge) -> Request + Send + Sync + 'static,
) -> Mutator<Handshake> {
    Mutator::new(name, move |forge| {
        let good = good(forge);
        Handshake::new(change(good, forge).bytes(), expected.clone())
    })
}

fn is(statuses: &[u16]) -> Expected {
    Expected::status(statuses)
}
