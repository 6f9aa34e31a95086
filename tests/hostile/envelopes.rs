//! Envelopes in valid frames: each gets the one answer that the contract prescribes, and
//! the connection stays open. Many cases share a connection.

mod fields;
mod malformed;
mod taken;
mod topics;

use std::sync::Arc;

use prost::Message;
use sidewire_protocol::wire::ErrorResponse;
use sidewire_testing::{
    protobuf::{self, Envelope},
    socket::Socket,
    websocket::{BINARY, binary},
};

use crate::{
    campaign::{Attacker, Mutator, connect},
    forge::{Forge, Site},
    handshakes::good,
    refusal::Refusal,
};

/// Field numbers of the envelope.
const ID: u32 = 1;
const CREATED: u32 = 2;
const TIMESTAMP: u32 = 8;
const POSITION: u32 = 9;
const SUBSCRIBE: u32 = 10;
const UNSUBSCRIBE: u32 = 12;
const PING: u32 = 14;
const BATCH: u32 = 17;
const EXTRA_TOPICS: u32 = 18;

/// Field numbers of Subscribe.
const PROJECTS: u32 = 1;
const TOPICS: u32 = 16;
const RESUME: u32 = 17;

/// Number of cases after which a new connection is opened, so that topics do not accumulate.
const CASES_PER_CONNECTION: usize = 100;

/// The expected answer.
#[derive(Debug, Clone)]
enum Wanted {
    /// A Pong with this timestamp.
    Pong(i64),
    /// The confirmation of a Subscribe, which says that nothing was recovered.
    Subscribed,
    Unsubscribed,
    /// An ErrorResponse.
    Refused(Refusal),
    /// Any of the three answers.
    Something,
}

impl Wanted {
    /// Returns the error for an envelope that cannot be decoded.
    fn undecodable() -> Self {
        Self::Refused(Refusal::undecodable())
    }

    /// Returns the error for an invalid value in this field.
    fn invalid(field: impl Into<String>) -> Self {
        Self::Refused(Refusal::invalid(field))
    }

    fn unauthorized() -> Self {
        Self::Refused(Refusal::unauthorized())
    }
}

pub(crate) struct Said {
    bytes: Vec<u8>,
    message_id: String,
    wanted: Wanted,
}

pub(crate) struct EnvelopeAttacker {
    site: Arc<Site>,
    connection: Option<Socket>,
    cases: usize,
}

impl Attacker for EnvelopeAttacker {
    const FAMILY: &'static str = "envelopes";
    type Case = Said;

    fn mutators() -> Vec<Mutator<Said>> {
        let groups = [
            taken::good_ones(),
            malformed::malformed(),
            fields::relay_fields(),
            fields::payloads(),
            topics::topics(),
            topics::resumes(),
            malformed::chance(),
        ];
        groups.into_iter().flatten().collect()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            connection: None,
            cases: 0,
        }
    }

    async fn attempt(&mut self, case: &Said) -> Result<(), String> {
        self.cases += 1;
        if self.cases.is_multiple_of(CASES_PER_CONNECTION) {
            self.connection = None;
        }
        let mut socket = match self.connection.take() {
            Some(socket) => socket,
            None => self.open().await?,
        };
        // Answers come in the order of the requests.
        let alive = protobuf::bytes(PING, &protobuf::number(1, self.cases as u64));
        let frames = [binary(&case.bytes), binary(&alive)].concat();
        socket.send(&frames).await;
        case.check(&next(&mut socket).await?)?;
        let pong = next(&mut socket).await?;
        let stamp = pong.pong.as_ref().map(|pong| pong.client_timestamp);
        if stamp != i64::try_from(self.cases).ok() {
            return Err(format!("{pong:?} in place of a sign of life"));
        }
        self.connection = Some(socket);
        Ok(())
    }
}

impl EnvelopeAttacker {
    async fn open(&self) -> Result<Socket, String> {
        let mut socket = connect(self.site.client).await?;
        let forge = Forge::new(&self.site, 0, Self::FAMILY, 0);
        socket.send(&good(&forge).bytes()).await;
        match socket.answer(true).await? {
            Some(answer) if answer.status == 101 => Ok(socket),
            other => Err(format!("not let in: {other:?}")),
        }
    }
}

/// Reads the next envelope, which must be one made by the relay.
async fn next(socket: &mut Socket) -> Result<Envelope, String> {
    let frame = socket.frame().await?.ok_or("the connection has ended")?;
    if frame.opcode != BINARY {
        return Err(format!("{frame:?}"));
    }
    let envelope = Envelope::decode(&frame.payload[..]).map_err(|error| error.to_string())?;
    let is_relays = envelope.message_id.len() == 36 && envelope.timestamp > 0;
    if is_relays && envelope.position.is_none() {
        Ok(envelope)
    } else {
        Err(format!("{envelope:?}"))
    }
}

impl Said {
    fn new(forge: &Forge, fields: &[Vec<u8>], wanted: Wanted) -> Self {
        let id = protobuf::text(ID, &forge.message_id);
        Self::bare([&id[..], &fields.concat()].concat(), forge, wanted)
    }

    /// Makes a case from the bytes of the whole envelope.
    fn bare(bytes: Vec<u8>, forge: &Forge, wanted: Wanted) -> Self {
        Self {
            bytes,
            message_id: forge.message_id.clone(),
            wanted,
        }
    }

    fn check(&self, answer: &Envelope) -> Result<(), String> {
        let id = Some(self.message_id.as_str());
        let as_wanted = match &self.wanted {
            Wanted::Pong(stamp) => {
                answer.pong.as_ref().map(|pong| pong.client_timestamp) == Some(*stamp)
            }
            Wanted::Subscribed => answer.subscribed.as_ref().is_some_and(|it| {
                Some(it.request_message_id.as_str()) == id
                    && it.position.is_some()
                    && (it.recovered, it.replayed) == (false, 0)
            }),
            Wanted::Unsubscribed => {
                answer
                    .unsubscribed
                    .as_ref()
                    .map(|it| it.request_message_id.as_str())
                    == id
            }
            Wanted::Refused(refusal) => {
                let error = answer.error.as_ref();
                error.is_some_and(|error| refusal.is(error, &self.message_id))
            }
            Wanted::Something => is_one(answer),
        };
        if as_wanted {
            Ok(())
        } else {
            Err(format!(
                "{answer:?}, not {:?}, to {:x?}",
                self.wanted, self.bytes
            ))
        }
    }
}

/// Returns true for an answer; an error must have a known code.
fn is_one(answer: &Envelope) -> bool {
    let known = |error: &ErrorResponse| {
        matches!(
            error.error_code.as_str(),
            "VALIDATION_ERROR" | "AUTHORIZATION_FAILED" | "RATE_LIMIT_EXCEEDED"
        )
    };
    answer.pong.is_some()
        || answer.subscribed.is_some()
        || answer.unsubscribed.is_some()
        || answer.error.as_ref().is_some_and(known)
}

/// Makes a mutator of envelopes that begin with their id.
fn said(
    name: impl Into<String>,
    wanted: Wanted,
    fields: impl Fn(&mut Forge) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> Mutator<Said> {
    Mutator::new(name, move |forge| {
        let fields = fields(forge);
        Said::new(forge, &fields, wanted.clone())
    })
}

fn subscribe(fields: &[Vec<u8>]) -> Vec<u8> {
    protobuf::bytes(SUBSCRIBE, &fields.concat())
}

fn ping() -> Vec<u8> {
    protobuf::bytes(PING, b"")
}
