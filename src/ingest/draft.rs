//! Turns the bytes of an envelope from a backend into a draft of an event, and checks all that
//! the relay requires of it.

use std::{collections::HashSet, mem, sync::Arc};

use sidewire_protocol::{
    MessageId, Topic,
    schema::{InspectLimits, InspectedEnvelope, PayloadKind, Schema, WireFault},
    topic::TENANT_KIND,
};

use super::json::{JsonCheck, check_small_json};
use crate::{
    config::LimitsSection,
    event::{EventDraft, EventDraftParts},
    http::HttpProblem,
    relay::Relay,
    scheduler::Cost,
};

/// An envelope that the relay would accept from a backend.
#[derive(Debug)]
pub struct AdmissibleEnvelope<'a> {
    /// The envelope.
    pub inspected: InspectedEnvelope<'a>,
    /// The topics of the event: those of its annotated fields, then those of field 18, then
    /// those of the call, without repeats.
    pub topics: Vec<Topic>,
    /// The message id; `None` if the relay has to generate one.
    pub message_id: Option<MessageId>,
}

impl<'a> AdmissibleEnvelope<'a> {
    /// Checks an envelope from a backend. `more_topics` are those of the call. Both ingest and
    /// `sidewire route` use this function.
    ///
    /// # Errors
    ///
    /// If the relay would refuse the envelope as an event.
    pub fn check(
        schema: &'a Schema,
        limits: &LimitsSection,
        envelope: &'a [u8],
        more_topics: &[Topic],
    ) -> Result<Self, HttpProblem> {
        let read = ReadLimits::NONE;
        let checked = Self::check_within(schema, limits, envelope, more_topics, read)?;
        checked.ok_or_else(|| HttpProblem::bad_request("the envelope cannot be decoded"))
    }

    /// Checks an envelope as [`check`](Self::check) does. Returns `None` if it is larger than
    /// `read` allows.
    fn check_within(
        schema: &'a Schema,
        limits: &LimitsSection,
        envelope: &'a [u8],
        more_topics: &[Topic],
        read: ReadLimits,
    ) -> Result<Option<Self>, HttpProblem> {
        if envelope.len() > read.bytes {
            return Ok(None);
        }
        let within = InspectLimits {
            topics: limits.topics_per_event,
            decoded_bytes: read.decoded_bytes,
        };
        let inspection =
            schema
                .inspect_within(envelope, within)
                .map_err(|error| match error.fault() {
                    WireFault::TooManyTopics => too_many_topics(limits.topics_per_event),
                    _ => HttpProblem::bad_request(error.to_string()).with_field(error.field()),
                })?;
        let Some(mut inspected) = inspection else {
            return Ok(None);
        };
        check_payload(&inspected)?;
        if inspected.has_position {
            return Err(invalid_field(
                "position",
                "is set by the relay and must be left out",
            ));
        }
        let topics = event_topics(
            mem::take(&mut inspected.topics),
            &inspected.extra_topics,
            more_topics,
            limits.topics_per_event,
        )?;
        let message_id = inspected
            .message_id
            .map(MessageId::parse)
            .transpose()
            .map_err(|error| invalid_field("message_id", error))?;
        Ok(Some(Self {
            inspected,
            topics,
            message_id,
        }))
    }
}

/// Maximum sizes of an envelope that is read at once, on the calling thread.
#[derive(Clone, Copy)]
pub(super) struct ReadLimits {
    /// Bytes of any envelope.
    bytes: usize,
    /// Bytes of an envelope that has to be decoded to find its topics.
    decoded_bytes: usize,
}

impl ReadLimits {
    /// No limit.
    pub(super) const NONE: Self = Self {
        bytes: usize::MAX,
        decoded_bytes: usize::MAX,
    };

    /// No limit for envelopes that need no decoding; others are not read.
    pub(super) const UNDECODED: Self = Self {
        bytes: usize::MAX,
        decoded_bytes: 0,
    };

    /// Limits for reading on the shard. A field has at least 2 bytes and takes 24 ns, and 90 ns
    /// more if it is decoded, so an envelope at either limit takes 0.5 to 0.8 ms.
    pub(super) const ON_SHARD: Self = Self {
        bytes: 64 * 1024,
        decoded_bytes: 8 * 1024,
    };
}

/// Cost of a field of a decoded envelope, in steps.
const STEPS_PER_DECODED_FIELD: usize = 4;

/// An event read from an envelope.
pub(super) struct ParsedEvent {
    pub(super) draft: EventDraft,
    pub(super) checked: JsonCheck,
    /// Cost of reading it, without its bytes and topics.
    pub(super) cost: Cost,
}

/// Reads an envelope as an event. Returns `None` if it is larger than `read` allows.
/// `more_topics` are those of the call.
pub(super) fn read_draft(
    relay: &Relay,
    envelope: &[u8],
    more_topics: &[Topic],
    read: ReadLimits,
) -> Result<Option<ParsedEvent>, HttpProblem> {
    let live = relay.live();
    let limits = &live.config.limits;
    let checked =
        AdmissibleEnvelope::check_within(&live.schema, limits, envelope, more_topics, read)?;
    let Some(AdmissibleEnvelope {
        inspected,
        topics,
        message_id,
    }) = checked
    else {
        return Ok(None);
    };
    let steps = match inspected.was_decoded {
        true => inspected.fields.saturating_mul(STEPS_PER_DECODED_FIELD),
        false => inspected.fields,
    };
    let topics: Arc<[Topic]> = topics.into();
    let append_message_id = message_id.is_none();
    let message_id = match message_id {
        Some(id) => id,
        None => fresh_message_id(relay)?,
    };
    let kept: Vec<_> = inspected.kept_bytes().collect();
    // No backend repeats an id that the relay has generated, so it needs no fingerprint.
    let fingerprint = (!append_message_id).then(|| {
        let key = relay.publisher.fingerprint_key();
        key.fingerprint(&message_id, &kept, &topics)
    });
    let draft = EventDraft::new(EventDraftParts {
        kept: &kept,
        message_id,
        append_message_id,
        append_timestamp: inspected
            .timestamp
            .is_none()
            .then(|| relay.clock.unix_seconds()),
        topics,
        schema: Arc::clone(&live.schema),
    });
    let (checked, check_cost) = check_small_json(&live, &draft, &inspected);
    Ok(Some(ParsedEvent {
        checked,
        cost: Cost::STEP.times(steps) + check_cost,
        draft: draft.with_fingerprint(fingerprint),
    }))
}

/// Upper bound of the cost of refusing an envelope.
pub(super) fn refused_cost(envelope: &[u8]) -> Cost {
    // Each field has at least two bytes.
    Cost::STEP.times(envelope.len() / 2)
}

fn check_payload(envelope: &InspectedEnvelope<'_>) -> Result<(), HttpProblem> {
    match &envelope.payload {
        None => Err(invalid_field("payload", "is not set")),
        Some(payload) => match payload.kind {
            PayloadKind::Event { .. } => Ok(()),
            PayloadKind::Control(_) => Err(invalid_field(payload.name, "is not an event")),
        },
    }
}

/// Merges the topics of the annotated fields, of field 18 and of the call.
fn event_topics(
    mut topics: Vec<Topic>,
    field_18: &[&str],
    more_topics: &[Topic],
    topics_max: usize,
) -> Result<Vec<Topic>, HttpProblem> {
    if !field_18.is_empty() || !more_topics.is_empty() {
        let mut seen: HashSet<_> = topics.iter().cloned().collect();
        let extra = field_18.iter().enumerate().map(|(index, text)| {
            parse_topic(text).map_err(|reason| invalid_field(&format!("topics[{index}]"), reason))
        });
        for topic in extra.chain(more_topics.iter().cloned().map(Ok)) {
            let topic = topic?;
            if seen.insert(topic.clone()) {
                topics.push(topic);
            }
            if topics.len() > topics_max {
                return Err(too_many_topics(topics_max));
            }
        }
    }
    if topics.is_empty() {
        return Err(HttpProblem::bad_request(
            "the event relates to no topic: none of its annotated fields holds an id, and no topic is given",
        ));
    }
    Ok(topics)
}

pub(super) fn too_many_topics(topics_max: usize) -> HttpProblem {
    HttpProblem::bad_request(format!(
        "the event relates to more than {topics_max} topics (limits.topics_per_event)"
    ))
}

/// Parses a topic that an event may relate to. Refuses wildcards except `tenant:*`, and other
/// topics of kind `tenant`.
pub(super) fn parse_topic(text: &str) -> Result<Topic, String> {
    let topic = Topic::parse(text).map_err(|error| error.to_string())?;
    let is_everyone = topic.is_everyone();
    if topic.is_wildcard() && !is_everyone {
        Err("has the id `*`, which does not name a single topic".to_owned())
    } else if topic.kind() == TENANT_KIND && !is_everyone {
        Err("is of the kind tenant, and the only topic of that kind is tenant:*".to_owned())
    } else {
        Ok(topic)
    }
}

fn fresh_message_id(relay: &Relay) -> Result<MessageId, HttpProblem> {
    let id = relay.random.uuid_v7(&relay.clock).to_string();
    MessageId::parse(&id).map_err(|error| invalid_field("message_id", error))
}

fn invalid_field(field: &str, reason: impl std::fmt::Display) -> HttpProblem {
    HttpProblem::bad_request(format!("{field} {reason}")).with_field(Some(field))
}
