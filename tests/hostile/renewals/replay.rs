//! Tokens in the middle of a replay, which is complete and in order nevertheless.

use serde_json::json;
use sidewire_protocol::wire::Position;
use sidewire_testing::{
    protobuf::{self, Envelope},
    relay::INGEST_KEY,
    websocket::binary,
};

use super::{
    Renewal, authenticate,
    repeated::is_too_early,
    stage::{join, next},
};
use crate::{
    campaign::connect,
    client_events::{ATTACKER, attacker::Encoding},
    forge::{Site, TENANT},
    http::Request,
};

/// Number of events of a replay.
const EVENTS: usize = 50;

/// Sends a bad token and a good one behind a Subscribe that resumes.
pub(super) async fn renew(site: &Site, case: &Renewal) -> Result<(), String> {
    let from = publish(site, &case.message_id).await?;
    let position = [
        protobuf::text(1, &from.epoch),
        protobuf::number(2, from.offset),
    ];
    let subscribe = [
        protobuf::text(16, &format!("project:{}", case.message_id)),
        protobuf::bytes(17, &position.concat()),
    ];
    let encoding = Encoding::Binary;
    let frames = [
        protobuf::bytes(10, &subscribe.concat()),
        authenticate(encoding, "bad", &case.token),
        protobuf::bytes(14, b""),
        authenticate(encoding, "good", site.token.as_bytes()),
    ];
    let frames = frames.map(|envelope| binary(&envelope));
    let mut socket = join(site, encoding, &site.token, "project:none").await?;
    socket.send(&frames.concat()).await;
    let mut seen = Seen::default();
    while !seen.is_complete() {
        let envelope = next(&mut socket, encoding, &case.token).await?;
        if !seen.take(&envelope) {
            return Err(format!("received {envelope:?}; in all {seen:?}"));
        }
    }
    Ok(())
}

/// What a client that resumes has received.
#[derive(Debug, Default)]
struct Seen {
    is_confirmed: bool,
    offsets: Vec<u64>,
    /// The number of tokens that were answered.
    answers: usize,
    is_alive: bool,
}

impl Seen {
    fn is_complete(&self) -> bool {
        self.is_confirmed && self.offsets.len() == EVENTS && self.answers == 2 && self.is_alive
    }

    /// Takes the next envelope. Returns false if it should not have come.
    fn take(&mut self, envelope: &Envelope) -> bool {
        if let Some(confirmed) = &envelope.subscribed {
            self.is_confirmed = true;
            return confirmed.recovered && confirmed.replayed == EVENTS as u64;
        }
        if let Some(position) = &envelope.position {
            let last = self.offsets.last().copied().unwrap_or_default();
            self.offsets.push(position.offset);
            return self.is_confirmed && last < position.offset;
        }
        if let Some(error) = &envelope.error {
            self.answers += 1;
            return match error.request_message_id.as_str() {
                "bad" => error.error_code == "AUTHENTICATION_FAILED",
                id => id == "good" && is_too_early(error),
            };
        }
        if let Some(renewed) = &envelope.authenticated {
            self.answers += 1;
            return renewed.request_message_id == "good" && renewed.revoked_topics.is_empty();
        }
        self.is_alive = true;
        envelope.pong.is_some()
    }
}

/// Publishes events about a project, and returns the position before them.
async fn publish(site: &Site, project: &str) -> Result<Position, String> {
    let event = json!({"workItemDeleted": {"projectId": project, "userId": ATTACKER}});
    let body = json!({"messages": vec![event; EVENTS]});
    let target = format!("/v1/tenants/{TENANT}/events:batch");
    let request = Request::new("POST", target)
        .and("Authorization", format!("Bearer {INGEST_KEY}"))
        .and("Content-Type", "application/json")
        .with_body(body.to_string());
    let mut backend = connect(site.ingest).await?;
    backend.send(&request.bytes()).await;
    let answer = backend
        .answer(true)
        .await?
        .ok_or("no answer to a backend")?;
    let first = &answer.json()["results"][0]["position"];
    let offset = first["offset"].as_str().map(str::parse::<u64>);
    match (first["epoch"].as_str(), offset) {
        (Some(epoch), Some(Ok(offset))) => Ok(Position {
            epoch: epoch.to_owned(),
            offset: offset - 1,
        }),
        _ => Err(format!("published: {answer:?}")),
    }
}
