//! Frames that are invalid for a client or look like it: each is answered, or ends its
//! connection with the right code. Each case has a connection of its own.

mod controls;
mod headers;
mod messages;

use std::sync::Arc;

use prost::Message;
use sidewire_testing::{
    protobuf::{self, Envelope},
    socket::Socket,
    websocket::{BINARY, CLOSE, PONG, binary, close},
};

use crate::{
    campaign::{Attacker, Mutator, connect},
    forge::{Forge, Site},
    handshakes::good,
};

/// Maximum bytes of a message: the default of `client.message_max`.
const MESSAGE_MAX: u64 = 64 * 1024;

const OPCODES: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// End of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// A Close frame with one of these codes.
    Closed(Vec<u16>),
    /// The connection stays open: a Ping gets its Pong.
    Alive,
    /// The client ends the connection in the middle of a frame, and the relay sends nothing.
    Cut,
}

pub(crate) struct Frames {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    /// The payloads of the pings; the last of them is always answered.
    pings: Vec<Vec<u8>>,
    /// Number of envelopes that are answered.
    envelopes: usize,
    ends: Vec<End>,
    /// True if the bytes are random, so that any of them may be answered.
    is_chance: bool,
}

impl Frames {
    fn new(bytes: Vec<u8>, ends: Vec<End>) -> Self {
        Self {
            bytes,
            cuts: vec![],
            pings: vec![],
            envelopes: 0,
            ends,
            is_chance: false,
        }
    }

    /// Makes a case of random bytes, which the client ends.
    fn chance(bytes: Vec<u8>) -> Self {
        Self {
            is_chance: true,
            ..Self::new(bytes, vec![End::Cut])
        }
    }

    /// Makes a case that is closed with this code.
    fn closed(bytes: Vec<u8>, code: u16) -> Self {
        Self::new(bytes, vec![End::Closed(vec![code])])
    }

    /// Makes a case that leaves the connection unchanged.
    fn harmless(bytes: Vec<u8>) -> Self {
        Self::new(bytes, vec![End::Alive])
    }

    /// Makes a case that is answered with this many envelopes.
    fn answered(bytes: Vec<u8>, envelopes: usize) -> Self {
        Self {
            envelopes,
            ..Self::harmless(bytes)
        }
    }
}

/// Frames that the relay sent.
#[derive(Debug, Default)]
struct Seen {
    pongs: Vec<Vec<u8>>,
    envelopes: usize,
}

/// The timestamp of the Ping that checks whether the connection is open.
const ALIVE: u64 = 0x5157_3157;

pub(crate) struct FrameAttacker(Arc<Site>);

impl Attacker for FrameAttacker {
    const FAMILY: &'static str = "frames";
    type Case = Frames;

    fn mutators() -> Vec<Mutator<Frames>> {
        let groups = [
            headers::lengths(),
            headers::headers(),
            messages::fragments(),
            controls::controls(),
            controls::closes(),
            messages::texts(),
            messages::streams(),
        ];
        groups.into_iter().flatten().collect()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self(Arc::clone(site))
    }

    async fn attempt(&mut self, case: &Frames) -> Result<(), String> {
        let mut socket = connect(self.0.client).await?;
        let forge = Forge::new(&self.0, 0, Self::FAMILY, 0);
        socket.send(&good(&forge).bytes()).await;
        socket.send_cut(&case.bytes, &case.cuts).await;
        if case.ends.contains(&End::Cut) {
            socket.half_close().await;
        } else if case.ends.contains(&End::Alive) {
            let ping = protobuf::bytes(14, &protobuf::number(1, ALIVE));
            socket.send(&binary(&ping)).await;
        }
        match socket.answer(true).await? {
            Some(answer) if answer.status == 101 => {}
            // A client that leaves at once may be gone before it is admitted.
            None if case.ends.contains(&End::Cut) => return Ok(()),
            other => return Err(format!("not let in: {other:?}")),
        }
        let (seen, end) = watch(&mut socket).await?;
        case.check(&seen, &end)
    }
}

/// Reads frames up to the end of the connection or the answer to the final Ping. Makes sure
/// that the connection ends.
async fn watch(socket: &mut Socket) -> Result<(Seen, End), String> {
    let mut seen = Seen::default();
    loop {
        let Some(frame) = socket.frame().await? else {
            return Ok((seen, End::Cut));
        };
        match frame.opcode {
            PONG => seen.pongs.push(frame.payload),
            CLOSE => {
                socket.send(&close(1000)).await;
                socket.ended().await?;
                return Ok((seen, End::Closed(vec![frame.close_code()])));
            }
            BINARY if is_sign_of_life(&frame.payload)? => {
                leave(socket).await?;
                return Ok((seen, End::Alive));
            }
            BINARY => seen.envelopes += 1,
            _ => return Err(format!("{frame:?}")),
        }
    }
}

fn is_sign_of_life(payload: &[u8]) -> Result<bool, String> {
    let envelope = Envelope::decode(payload).map_err(|error| error.to_string())?;
    let timestamp = envelope.pong.map(|pong| pong.client_timestamp);
    Ok(timestamp == Some(ALIVE.cast_signed()))
}

async fn leave(socket: &mut Socket) -> Result<(), String> {
    socket.send(&close(1000)).await;
    match socket.frame().await? {
        Some(frame) if frame.opcode == CLOSE && frame.close_code() == 1000 => socket.ended().await,
        other => Err(format!("{other:?} to a Close")),
    }
}

impl Frames {
    fn check(&self, seen: &Seen, end: &End) -> Result<(), String> {
        if self.is_chance {
            return Ok(());
        }
        let ended_well = self.ends.iter().any(|wanted| match (wanted, end) {
            (End::Closed(codes), End::Closed(code)) => code.iter().all(|code| codes.contains(code)),
            (wanted, end) => wanted == end,
        });
        // Messages before a protocol violation may go unanswered.
        let answered = *end != End::Alive
            || seen.envelopes == self.envelopes && seen.pongs.last() == self.pings.last();
        let all_asked_for = seen.envelopes <= self.envelopes
            && seen.pongs.iter().all(|pong| self.pings.contains(pong));
        if ended_well && answered && all_asked_for {
            Ok(())
        } else {
            Err(format!("{end:?} after {seen:?}, not {:?}", self.ends))
        }
    }
}

fn mutator(
    name: impl Into<String>,
    make: impl Fn(&mut Forge) -> Frames + Send + Sync + 'static,
) -> Mutator<Frames> {
    Mutator::new(name, make)
}

/// Returns an envelope that is answered with another.
fn ping(forge: &mut Forge) -> Vec<u8> {
    protobuf::bytes(14, &protobuf::number(1, forge.number() >> 40))
}
