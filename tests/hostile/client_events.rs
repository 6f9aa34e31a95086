//! Client events and presence messages that try to be what they are not: each reaches exactly the
//! clients that the contract names, with nothing of the envelope but its id and its payload and
//! with the name of its sender, or it reaches nobody and its client gets the one prescribed error.

pub(crate) mod attacker;
mod fields;
pub(crate) mod heard;
mod json;
pub(crate) mod payload_types;
mod presence;
mod senders;
mod stage;
mod topics;

use std::{collections::HashMap, sync::Arc};

use sidewire_protocol::wire::ErrorResponse;
use sidewire_testing::protobuf;

use self::{
    attacker::Encoding,
    heard::Heard,
    payload_types::{BundledSchema, PayloadType},
    stage::Stage,
};
use crate::{
    campaign::{Attacker, Mutator},
    forge::{Forge, Site},
    refusal::Refusal,
};

/// The user who attacks.
pub(crate) const ATTACKER: &str = "mallory";

/// Number of cases after which new connections are opened, in a new tenant.
const CASES_PER_STAGE: u64 = 100;

/// What is expected of a case.
#[derive(Debug, Clone)]
enum Wanted {
    /// The others receive the event, with these fields of its payload and the sender.
    Relayed(Vec<u8>),
    /// Nobody receives or is answered anything.
    Nothing,
    /// The client is refused, and nobody receives anything.
    Refused(Refusal),
    /// Any of these. What is received has the name of its sender.
    Something,
}

pub(crate) struct Case {
    payload: &'static PayloadType,
    encoding: Encoding,
    /// The envelope, in that encoding.
    envelope: Vec<u8>,
    message_id: String,
    /// True if the relay makes the event's id.
    is_unnamed: bool,
    wanted: Wanted,
    /// The envelope that then withdraws the presence of the client, if the payload is presence.
    withdrawal: Vec<u8>,
}

pub(crate) struct ClientEventAttacker {
    site: Arc<Site>,
    stages: HashMap<(BundledSchema, Encoding), Stage>,
}

impl Attacker for ClientEventAttacker {
    const FAMILY: &'static str = "clients";
    type Case = Case;

    fn mutators() -> Vec<Mutator<Case>> {
        let of = |payload: &&'static PayloadType| {
            let groups = [
                fields::taken(payload),
                fields::relay_fields(payload),
                fields::refused(payload),
                senders::forged(payload),
                senders::malformed(payload),
                topics::topics(payload),
                presence::presence(payload),
                json::taken(payload),
                json::refused(payload),
            ];
            groups.into_iter().flatten()
        };
        payload_types::ALL.iter().flat_map(of).collect()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            stages: HashMap::new(),
        }
    }

    async fn attempt(&mut self, case: &Case) -> Result<(), String> {
        let place = (case.payload.schema, case.encoding);
        let mut stage = match self.stages.remove(&place) {
            Some(stage) if stage.cases < CASES_PER_STAGE => stage,
            _ => Stage::open(&self.site, place.0, place.1).await?,
        };
        let outcome = stage.run(case).await;
        outcome.map_err(|error| format!("{error}, to {}", case.told()))?;
        self.stages.insert(place, stage);
        Ok(())
    }
}

impl Case {
    /// Makes a case of a binary envelope that begins with its id.
    fn new(
        payload: &'static PayloadType,
        forge: &Forge,
        fields: &[Vec<u8>],
        wanted: Wanted,
    ) -> Self {
        let id = protobuf::text(1, &forge.message_id);
        Self::bare(payload, forge, [id, fields.concat()].concat(), wanted)
    }

    /// Makes a case from the bytes of the whole envelope.
    fn bare(
        payload: &'static PayloadType,
        forge: &Forge,
        envelope: Vec<u8>,
        wanted: Wanted,
    ) -> Self {
        Self {
            payload,
            encoding: Encoding::Binary,
            envelope,
            message_id: forge.message_id.clone(),
            is_unnamed: false,
            wanted,
            withdrawal: payload.field(&payload.absent()),
        }
    }

    fn check_answer(&self, error: Option<&ErrorResponse>) -> Result<(), String> {
        let as_wanted = match (&self.wanted, error) {
            (Wanted::Refused(refusal), Some(error)) => refusal.is(error, &self.message_id),
            (Wanted::Refused(_), None) => false,
            (Wanted::Something, _) => true,
            (_, error) => error.is_none(),
        };
        if as_wanted {
            Ok(())
        } else {
            Err(format!("{error:?}, not {:?}", self.wanted))
        }
    }

    /// Checks what another client has received.
    fn check_heard(&self, heard: Option<&Heard>) -> Result<(), String> {
        match (&self.wanted, heard) {
            (Wanted::Relayed(kept), Some(heard)) => {
                let is_named = match self.is_unnamed {
                    true => heard.id.len() == 36,
                    false => heard.id == self.message_id,
                };
                if !is_named {
                    return Err(format!("the wrong id in {heard:x?}"));
                }
                heard.check(self.payload, kept)
            }
            (Wanted::Something, Some(heard)) => heard.check_sender(self.payload),
            (Wanted::Relayed(_), None) => Err("the witness received nothing".to_owned()),
            (_, None) => Ok(()),
            (_, Some(heard)) => Err(format!("the witness received {heard:x?}")),
        }
    }

    fn told(&self) -> String {
        match self.encoding {
            Encoding::Binary => format!("{:x?}", self.envelope),
            Encoding::Json => String::from_utf8_lossy(&self.envelope).into_owned(),
        }
    }
}

/// Makes a mutator of payloads that are relayed as they are, but for the sender.
fn relayed(
    payload: &'static PayloadType,
    name: &str,
    make: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Case> {
    Mutator::new(format!("{}: {name}", payload.name), move |forge| {
        let bytes = make(forge);
        let field = payload.field(&bytes);
        Case::new(payload, forge, &[field], Wanted::Relayed(bytes))
    })
}

/// Makes a mutator of payloads that are refused.
fn refused(
    payload: &'static PayloadType,
    name: &str,
    refusal: Refusal,
    make: impl Fn(&mut Forge) -> Vec<u8> + Send + Sync + 'static,
) -> Mutator<Case> {
    Mutator::new(format!("{}: {name}", payload.name), move |forge| {
        let field = payload.field(&make(forge));
        let wanted = Wanted::Refused(refusal.clone());
        Case::new(payload, forge, &[field], wanted)
    })
}
