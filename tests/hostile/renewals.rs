//! Messages that replace the token of an open connection, or try to: what is refused changes
//! nothing, nobody gets the rights of another, and no answer repeats a token.

mod messages;
mod repeated;
mod replay;
mod stage;
mod tokens;

use std::sync::Arc;

use serde_json::json;
use sidewire_testing::protobuf::{self, Envelope};

use self::stage::Stage;
use crate::{
    campaign::{Attacker, Mutator},
    client_events::attacker::Encoding,
    forge::{Forge, Site},
    refusal::Refusal,
};

/// Number of refusals within a minute after which the relay closes a connection: the default.
pub(crate) const REFUSALS_MAX: u32 = 100;

/// The tenant whose users may send few messages.
pub(crate) const PACED_TENANT: &str = "paced";

/// The number of messages that such a user may send.
pub(crate) const PACED_BURST: usize = 10;

/// Number of cases after which new connections are opened: the refusals of all of them together
/// are too few to be disconnected for.
const CASES_PER_STAGE: u64 = 20;

/// The envelope's field for Authenticate, and the field of its token.
const AUTHENTICATE: u32 = 19;
const TOKEN: u32 = 1;

/// What is expected of a case.
#[derive(Debug, Clone)]
enum Wanted {
    /// The token is replaced.
    Renewed,
    Refused(Refusal),
    /// The connection is closed with this code.
    Closed(u16),
    /// The case is several messages, on connections of its own.
    Repeated(repeated::Pattern),
}

impl Wanted {
    /// Expects the refusal of a token.
    fn bad_token() -> Self {
        Self::Refused(Refusal {
            codes: &["AUTHENTICATION_FAILED"],
            ..Refusal::invalid("authenticate.token")
        })
    }

    /// Expects the refusal of a valid token of another user.
    fn foreign_token() -> Self {
        Self::Refused(Refusal::unauthorized())
    }

    /// Expects the refusal of a message that cannot be decoded, of which the id may be repeated.
    fn undecodable() -> Self {
        Self::Refused(Refusal {
            names_request: None,
            ..Refusal::invalid_somewhere()
        })
    }
}

pub(crate) struct Renewal {
    encoding: Encoding,
    /// The envelope, in that encoding; unused where the case is several messages.
    envelope: Vec<u8>,
    message_id: String,
    /// The token, which no answer may repeat.
    token: Vec<u8>,
    wanted: Wanted,
}

impl Renewal {
    /// Makes a case of the bytes of a whole envelope.
    fn binary(forge: &Forge, envelope: Vec<u8>, wanted: Wanted) -> Self {
        Self {
            encoding: Encoding::Binary,
            envelope,
            message_id: forge.message_id.clone(),
            token: Vec::new(),
            wanted,
        }
    }

    /// Makes a case of a message with this token, in either encoding if it is text.
    fn of_token(forge: &mut Forge, token: Vec<u8>, wanted: Wanted) -> Self {
        let encoding = match str::from_utf8(&token).is_ok() && forge.flag() {
            true => Encoding::Json,
            false => Encoding::Binary,
        };
        Self {
            encoding,
            envelope: authenticate(encoding, &forge.message_id, &token),
            token,
            ..Self::binary(forge, Vec::new(), wanted)
        }
    }

    fn told(&self) -> String {
        match self.encoding {
            Encoding::Binary => format!("{:x?}", self.envelope),
            Encoding::Json => String::from_utf8_lossy(&self.envelope).into_owned(),
        }
    }

    /// Checks the answer to a case of one message.
    fn check(&self, answer: &Envelope) -> Result<(), String> {
        let as_wanted = match (&self.wanted, &answer.authenticated, &answer.error) {
            (Wanted::Renewed, Some(renewed), None) => {
                renewed.request_message_id == self.message_id
                    && renewed.revoked_topics.is_empty()
                    && renewed.expires_at > 0
            }
            (Wanted::Refused(refusal), None, Some(error)) => refusal.is(error, &self.message_id),
            _ => false,
        };
        match as_wanted {
            true => Ok(()),
            false => Err(format!("{answer:?}, not {:?}", self.wanted)),
        }
    }
}

/// Returns an Authenticate; in JSON the token must be text.
fn authenticate(encoding: Encoding, id: &str, token: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Binary => {
            let message = protobuf::bytes(AUTHENTICATE, &protobuf::bytes(TOKEN, token));
            [protobuf::text(1, id), message].concat()
        }
        Encoding::Json => {
            let token = str::from_utf8(token).unwrap();
            let message = json!({"messageId": id, "authenticate": {"token": token}});
            message.to_string().into_bytes()
        }
    }
}

pub(crate) struct RenewalAttacker {
    site: Arc<Site>,
    stages: [Option<Stage>; 2],
}

impl Attacker for RenewalAttacker {
    const FAMILY: &'static str = "renewals";
    type Case = Renewal;

    fn mutators() -> Vec<Mutator<Renewal>> {
        let groups = [
            tokens::good_ones(),
            tokens::kinds(),
            tokens::foreign(),
            messages::unusual(),
            messages::malformed(),
            messages::json(),
            repeated::repeated(),
        ];
        groups.into_iter().flatten().collect()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            stages: [None, None],
        }
    }

    async fn attempt(&mut self, case: &Renewal) -> Result<(), String> {
        if let Wanted::Repeated(pattern) = &case.wanted {
            return pattern.run(&self.site, case).await;
        }
        let place = usize::from(case.encoding == Encoding::Json);
        let mut stage = match self.stages[place].take() {
            Some(stage) if stage.cases < CASES_PER_STAGE => stage,
            _ => Stage::open(&self.site, case.encoding).await?,
        };
        let outcome = stage.run(case).await;
        outcome.map_err(|error| format!("{error}, to {}", case.told()))?;
        if !matches!(case.wanted, Wanted::Closed(_)) {
            self.stages[place] = Some(stage);
        }
        Ok(())
    }
}
