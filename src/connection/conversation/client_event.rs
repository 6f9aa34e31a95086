//! Checks events that clients send to other clients.

use std::time::Duration;

use prost::encoding::bytes;
use sidewire_protocol::{
    ErrorCode, Topic, UserName,
    reply::MessageRefusal,
    schema::{InspectLimits, InspectedEnvelope, InspectedPayload, Schema},
};

use super::{no_payload_refusal, parsed_frame::frame_refusal};
use crate::{auth::Grant, config::Config, planted::fault};

/// Bytes of JSON that the relay may add to a client event besides what it adds to every event:
/// the name of the sender's field, and the user's id with each byte escaped.
const SENDER_JSON_BYTES_MAX: usize = 2 * 1024;

/// Delay after which a client should send a presence message again that exceeded a bound.
const PRESENCE_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Bytes of a field's tag and length, at most.
const FIELD_HEADER_BYTES_MAX: usize = 16;

/// Limits of client events.
#[derive(Debug, Clone, Copy)]
pub struct ClientEventLimits {
    /// True if clients may send events.
    pub is_enabled: bool,
    /// Most bytes of an event, as the client sends it.
    pub bytes: usize,
    /// Most bytes of a presence message, as the client sends it.
    pub presence_bytes: usize,
    /// Most topics of an event.
    pub topics: usize,
    /// Most bytes of JSON of an event.
    pub json: usize,
}

impl From<&Config> for ClientEventLimits {
    fn from(config: &Config) -> Self {
        Self {
            is_enabled: config.client.events,
            bytes: config.limits.client_event_max,
            presence_bytes: config.presence.message_max,
            topics: config.limits.topics_per_event,
            json: config.limits.json_max,
        }
    }
}

/// What a presence message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceChange {
    /// The user is present on the topics that it names.
    Present,
    /// The client withdraws its earlier message.
    Withdrawn,
}

/// An event that a client sends to others, as far as its content can be checked.
#[derive(Debug, PartialEq)]
pub struct ClientEventRequest {
    /// The message id of the client; empty if it gave none.
    pub message_id: String,
    /// The number of the payload's field in the envelope.
    pub payload_number: u32,
    /// The name of that field.
    pub payload: String,
    /// What the event means, if it is a presence message.
    pub presence: Option<PresenceChange>,
    /// The topics that it names, without duplicates.
    pub topics: Vec<Topic>,
    /// The payload's field of the envelope, with the sender in it.
    pub field: Vec<u8>,
    /// True if its JSON may be too long, or may not exist.
    pub json_is_in_doubt: bool,
}

impl ClientEventRequest {
    /// Inspects a client's envelope and makes the request, however long that takes.
    ///
    /// # Errors
    ///
    /// When the relay does not accept the event, whoever sends it.
    pub fn from_envelope(
        schema: &Schema,
        envelope: &[u8],
        user: &UserName,
        limits: ClientEventLimits,
    ) -> Result<Self, MessageRefusal> {
        let within = InspectLimits {
            topics: limits.topics,
            decoded_bytes: usize::MAX,
        };
        let inspected = schema
            .inspect_from_client(envelope, within)
            .map_err(|error| frame_refusal(envelope, &error))?;
        let made = match &inspected.payload {
            Some(payload) => Self::from_inspected(schema, &inspected, payload, user, limits),
            None => Err(no_payload_refusal()),
        };
        let id = inspected.message_id.unwrap_or_default();
        made.map_err(|refusal| refusal.for_message(id))
    }

    /// Makes the request from an envelope that has been inspected.
    pub(super) fn from_inspected(
        schema: &Schema,
        inspected: &InspectedEnvelope<'_>,
        payload: &InspectedPayload<'_>,
        user: &UserName,
        limits: ClientEventLimits,
    ) -> Result<Self, MessageRefusal> {
        let presence = presence_change(schema, payload);
        if inspected.topics.is_empty() && presence != Some(PresenceChange::Withdrawn) {
            let message = format!("{} names no topic, so it would reach nobody", payload.name);
            return Err(MessageRefusal::invalid(payload.name, message));
        }
        let mut field = Vec::with_capacity(
            payload.bytes.len() + user.as_str().len() + 2 * FIELD_HEADER_BYTES_MAX,
        );
        if fault!(SkipsTheStamp) {
            bytes::encode(payload.number, &payload.bytes.to_vec(), &mut field);
        } else {
            schema.append_client_event(payload, user.as_str(), &mut field);
        }
        let json_max = limits.json.saturating_sub(SENDER_JSON_BYTES_MAX);
        Ok(Self {
            message_id: inspected.message_id.unwrap_or_default().to_owned(),
            payload_number: payload.number,
            payload: payload.name.to_owned(),
            presence,
            topics: inspected.topics.clone(),
            field,
            json_is_in_doubt: inspected.json_is_in_doubt(json_max),
        })
    }

    /// Checks that the grant covers each of the topics.
    ///
    /// # Errors
    ///
    /// Returns the refusal if it does not.
    pub fn check_grant(&self, grant: &Grant) -> Result<(), MessageRefusal> {
        if self.presence == Some(PresenceChange::Withdrawn) {
            // It reaches those who saw the earlier message, whatever it names.
            return Ok(());
        }
        for topic in &self.topics {
            let reason = if topic.is_implicit() {
                "is of a kind to which clients cannot send events"
            } else if !grant.allows(topic) {
                "is not granted by the token"
            } else {
                continue;
            };
            return Err(self.refusal(ErrorCode::AuthorizationFailed, format!("{topic} {reason}")));
        }
        Ok(())
    }

    /// Returns the refusal of the event for this reason.
    #[must_use]
    pub fn refusal(&self, code: ErrorCode, message: impl Into<String>) -> MessageRefusal {
        MessageRefusal {
            field: Some(self.payload.clone()),
            ..MessageRefusal::new(code, message)
        }
        .for_message(&self.message_id)
    }
}

fn presence_change(schema: &Schema, payload: &InspectedPayload<'_>) -> Option<PresenceChange> {
    let is_absent = || schema.is_absent(payload);
    schema
        .is_presence(payload.number)
        .then(|| match is_absent() {
            true => PresenceChange::Withdrawn,
            false => PresenceChange::Present,
        })
}

/// Returns the refusal of a presence message that exceeds a bound.
pub(in crate::connection) fn presence_refusal(
    payload: &str,
    message: impl Into<String>,
) -> MessageRefusal {
    MessageRefusal {
        field: Some(payload.to_owned()),
        retry_after: Some(PRESENCE_RETRY_AFTER),
        ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message)
    }
}

/// Checks what can be told about a client event before it is read: `sent_len` is its size in
/// bytes, as the client sent it.
pub(super) fn check_size(
    payload: &str,
    is_presence: bool,
    sent_len: usize,
    limits: ClientEventLimits,
) -> Result<(), MessageRefusal> {
    if !limits.is_enabled {
        let message = "this relay takes no events from clients (client.events)";
        return Err(MessageRefusal::invalid(payload, message));
    }
    if is_presence && sent_len > limits.presence_bytes {
        let message = format!(
            "the presence message has {sent_len} bytes; the maximum is {} (presence.message_max)",
            limits.presence_bytes
        );
        return Err(presence_refusal(payload, message));
    }
    if sent_len > limits.bytes {
        let message = format!(
            "the event has {sent_len} bytes; the maximum is {} (limits.client_event_max)",
            limits.bytes
        );
        return Err(MessageRefusal::invalid(payload, message));
    }
    Ok(())
}
