//! The connections of a tenant: the attacker, a witness of another user, and two clients that must
//! receive nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use sidewire_testing::socket::Socket;

use super::{
    ATTACKER, Case, PayloadType, Wanted,
    attacker::{Encoding, read_answers},
    heard::{Heard, absent},
    payload_types::BundledSchema,
};
use crate::{
    campaign::connect,
    forge::{Site, token_of},
    handshakes::tokenless,
};

/// The topics of the attacker and the witness, of which payloads name the first.
const SHARED: [&str; 2] = ["project:shared", "work_item:shared"];

/// Topics that the attacker may subscribe to and does not.
const ELSEWHERE: [&str; 2] = ["project:elsewhere", "work_item:elsewhere"];

/// The grant of the attacker. Everything else is outside of it.
const GRANT: [&str; 3] = ["project:shared", "project:elsewhere", "work_item:*"];

/// The grant of the others.
const ANY: [&str; 2] = ["project:*", "work_item:*"];

/// Counts the tenants of the run: each stage has its own.
static TENANTS: AtomicU64 = AtomicU64::new(0);

pub(super) struct Stage {
    pub(super) cases: u64,
    schema: BundledSchema,
    encoding: Encoding,
    attacker: Socket,
    witness: Socket,
    /// A user of another topic, and one of the attacker's name in another tenant.
    silent: [Socket; 2],
}

impl Stage {
    pub(super) async fn open(
        site: &Site,
        schema: BundledSchema,
        encoding: Encoding,
    ) -> Result<Self, String> {
        let tenant = format!("stage-{}", TENANTS.fetch_add(1, Ordering::Relaxed));
        let foreign = format!("{tenant}-foreign");
        let all = [SHARED, ELSEWHERE].concat();
        let join = async |encoding: Encoding, token: String, topics: &[&str]| {
            let mut socket = connect(schema.client(site)).await?;
            let handshake = tokenless()
                .and("Authorization", format!("Bearer {token}"))
                .and("Sec-WebSocket-Protocol", encoding.subprotocol());
            socket.send(&handshake.bytes()).await;
            socket.send(&encoding.subscribe(topics)).await;
            match (socket.answer(true).await?, socket.frame().await?) {
                (Some(answer), Some(_)) if answer.status == 101 => Ok::<_, String>(socket),
                other => Err(format!("not let in: {other:?}")),
            }
        };
        let binary = Encoding::Binary;
        Ok(Self {
            cases: 0,
            schema,
            encoding,
            attacker: join(encoding, token_of(&tenant, ATTACKER, &GRANT), &SHARED).await?,
            witness: join(binary, token_of(&tenant, "wendy", &ANY), &all).await?,
            silent: [
                join(binary, token_of(&tenant, "oscar", &ANY), &ELSEWHERE).await?,
                join(binary, token_of(&foreign, ATTACKER, &ANY), &all).await?,
            ],
        })
    }

    /// Runs a case: what the attacker is answered, and what the others receive.
    pub(super) async fn run(&mut self, case: &Case) -> Result<(), String> {
        self.cases += 1;
        let marker = format!("marker-{}", self.cases);
        let event = self.schema.event();
        let frames = [
            self.encoding.frame(&case.envelope),
            self.encoding.ping(self.cases),
            self.encoding.event(event, &marker, "shared"),
        ];
        self.attacker.send(&frames.concat()).await;
        let error = read_answers(&mut self.attacker, self.encoding, self.cases).await?;
        case.check_answer(error.as_ref())?;
        let heard = self.hear_until(&marker, case).await?;
        case.check_heard(heard.as_ref())?;
        if case.payload.presence.is_some() {
            self.end_presence(case).await?;
        }
        self.check_silence().await
    }

    /// Returns what the witness receives because of the case. Events of one client come in order;
    /// presence may come before or after the marker.
    async fn hear_until(&mut self, marker: &str, case: &Case) -> Result<Option<Heard>, String> {
        let event = self.schema.event();
        let mut heard = None;
        let mut is_marked = false;
        let comes = matches!(case.wanted, Wanted::Relayed(_));
        while !is_marked || comes && heard.is_none() {
            let next = self.hear().await?;
            if next.id == marker && !is_marked {
                next.check(event, &event.project("shared"))?;
                is_marked = true;
            } else if heard.is_none() && (!is_marked || case.payload.presence.is_some()) {
                heard = Some(next);
            } else {
                return Err(format!("the witness received {next:x?}"));
            }
        }
        Ok(heard)
    }

    async fn hear(&mut self) -> Result<Heard, String> {
        let frame = self.witness.frame().await?;
        Heard::from_frame(&frame.ok_or("the witness was closed")?)
    }

    /// Withdraws the presence of the case; if it set none, that of a message which is then sent.
    async fn end_presence(&mut self, case: &Case) -> Result<(), String> {
        let payload: &PayloadType = case.payload;
        let kept = match &case.wanted {
            Wanted::Relayed(kept) => kept.clone(),
            _ => {
                let id = format!("present-{}", self.cases);
                let message = self.encoding.event(payload, &id, "shared");
                self.attacker.send(&message).await;
                let heard = self.hear().await?;
                if heard.id != id {
                    return Err(format!("the witness received {heard:x?}, not {id}"));
                }
                heard.check(payload, &payload.project("shared"))?;
                payload.project("shared")
            }
        };
        let frames = [
            self.encoding.frame(&case.withdrawal),
            self.encoding.ping(self.cases),
        ];
        self.attacker.send(&frames.concat()).await;
        if let Some(error) = read_answers(&mut self.attacker, self.encoding, self.cases).await? {
            return Err(format!("the withdrawal was answered with {error:?}"));
        }
        let heard = self.hear().await?;
        if heard.id.len() != 36 {
            return Err(format!("not made by the relay: {heard:x?}"));
        }
        heard.check(payload, &absent(payload, &kept)?)
    }

    /// Checks that the others have received nothing.
    async fn check_silence(&mut self) -> Result<(), String> {
        for socket in &mut self.silent {
            socket.send(&Encoding::Binary.ping(self.cases)).await;
        }
        for socket in &mut self.silent {
            if let Some(error) = read_answers(socket, Encoding::Binary, self.cases).await? {
                return Err(format!("one that is silent was answered with {error:?}"));
            }
        }
        Ok(())
    }
}
