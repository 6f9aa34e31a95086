//! Invalid and unusual calls of backends: each is answered as the contract says. Many cases
//! share a connection.

mod batches;
mod envelopes;
mod heads;
mod json;
mod syntax;
mod taken;

use std::sync::Arc;

use serde_json::Value;
use sidewire_testing::socket::Socket;

use crate::{
    campaign::{Attacker, Mutator, connect},
    forge::{Forge, INGEST_TENANT, Site},
    http::{Expected, Request},
};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(crate) struct Call {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
    expected: Expected,
    /// True if the caller closes its sending side, for requests that may be incomplete.
    ends: bool,
    /// True if the relay must accept nothing more on this connection.
    closes: bool,
    has_body: bool,
}

impl Call {
    fn new(bytes: Vec<u8>, expected: Expected) -> Self {
        Self {
            bytes,
            cuts: vec![],
            expected,
            ends: false,
            closes: false,
            has_body: true,
        }
    }
}

pub(crate) struct IngestAttacker {
    site: Arc<Site>,
    connection: Option<Socket>,
}

impl Attacker for IngestAttacker {
    const FAMILY: &'static str = "ingest";
    type Case = Call;

    fn mutators() -> Vec<Mutator<Call>> {
        let groups = [
            taken::taken(),
            heads::callers(),
            heads::paths(),
            heads::methods(),
            heads::types(),
            heads::queries(),
            envelopes::envelopes(),
            json::json(),
            batches::batches(),
            syntax::lengths(),
            syntax::syntax(),
        ];
        groups.into_iter().flatten().collect()
    }

    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            connection: None,
        }
    }

    async fn attempt(&mut self, case: &Call) -> Result<(), String> {
        let mut socket = match self.connection.take() {
            Some(socket) => socket,
            None => connect(self.site.ingest).await?,
        };
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
        if answer.status == 200 {
            check_taken(&answer.body)?;
        }
        let closes = answer.header("connection") == Some("close");
        if case.closes || closes {
            socket.half_close().await;
            return socket.ended().await;
        }
        if !case.ends {
            self.connection = Some(socket);
        }
        Ok(())
    }
}

/// An accepted event has a position.
fn check_taken(body: &[u8]) -> Result<(), String> {
    let told = || String::from_utf8_lossy(body).into_owned();
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| format!("{error}: {}", told()))?;
    let results = answer["results"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![answer]);
    let has_place = |result: &Value| {
        let offset = result["position"]["offset"].as_str().map(str::parse::<u64>);
        let topics = result["topics"].as_array().map(Vec::len);
        matches!(offset, Some(Ok(1..))) && topics.is_some_and(|count| count > 0)
    };
    if !results.is_empty() && results.iter().all(has_place) {
        Ok(())
    } else {
        Err(format!("taken as {}", told()))
    }
}

fn is(statuses: &[u16]) -> Expected {
    Expected::status(statuses)
}

fn target(tenant: &str, call: &str) -> String {
    format!("/v1/tenants/{tenant}/{call}")
}

/// Returns a valid call.
fn good(forge: &mut Forge) -> Request {
    posted("events", forge).with_body(forge.event())
}

/// Returns a valid call without a body.
fn posted(call: &str, forge: &mut Forge) -> Request {
    Request::new("POST", target(INGEST_TENANT, call))
        .and("Authorization", format!("Bearer {}", forge.ingest_key()))
        .and("Content-Type", PROTOBUF)
}

/// Makes a mutator of a valid call, with its expected answer.
fn call(
    name: impl Into<String>,
    expected: Expected,
    change: impl Fn(Request, &mut Forge) -> Request + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| {
        let good = good(forge);
        Call::new(change(good, forge).bytes(), expected.clone())
    })
}

/// Makes a mutator of a call after which the connection is closed by either side.
fn last(
    name: impl Into<String>,
    expected: Expected,
    change: impl Fn(Request, &mut Forge) -> Request + Send + Sync + 'static,
) -> Mutator<Call> {
    Mutator::new(name, move |forge| {
        let good = good(forge);
        Call {
            closes: true,
            ..Call::new(change(good, forge).bytes(), expected.clone())
        }
    })
}

fn chunked(request: Request, body: &[u8], pieces: usize, forge: &mut Forge) -> Request {
    let cuts = forge.cuts(body.len(), pieces);
    let mut bytes = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([body.len()]).filter(|end| *end > 0) {
        // An empty chunk would be the last.
        if end > start {
            bytes.extend(format!("{:x}\r\n", end - start).bytes());
            bytes.extend(&body[start..end]);
            bytes.extend(b"\r\n");
            start = end;
        }
    }
    bytes.extend(b"0\r\n\r\n");
    let request = request
        .without("Content-Length")
        .and("Transfer-Encoding", "chunked");
    request.followed_by(bytes)
}

fn as_json(forge: &mut Forge, text: &str) -> Request {
    posted("events", forge)
        .set("Content-Type", JSON)
        .with_body(text)
}

fn json_event(id: usize) -> String {
    format!(
        r#"{{"workItemCreated":{{"workItem":{{"id":"i","projectId":"p{id}"}},"userId":"ann"}}}}"#
    )
}
