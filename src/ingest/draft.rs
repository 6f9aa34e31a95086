//! From an envelope's bytes to an event that may be appended: what the relay
//! demands of an envelope that comes from a backend.

use std::{collections::HashSet, mem, sync::Arc};

use super::json::{Checked, check_small, check_work};
use crate::{
    config::Limits,
    event::{Draft, DraftParts},
    http::Problem,
    protocol::{MessageId, Topic, topic::TENANT_KIND},
    relay::Relay,
    schema::{Inspected, PayloadKind, Schema},
};

/// An envelope that the relay would take from a backend.
#[derive(Debug)]
pub struct Admissible<'a> {
    /// The envelope.
    pub inspected: Inspected<'a>,
    /// The topics of the event: those of its annotated fields, then those of field 18,
    /// then those of the call, each once.
    pub topics: Vec<Topic>,
    /// The message id; `None` where the relay has to make one.
    pub message_id: Option<MessageId>,
}

impl<'a> Admissible<'a> {
    /// Checks an envelope from a backend. `more_topics` are those of the call. Both
    /// ingest and `sidewire route` decide by this function.
    ///
    /// # Errors
    ///
    /// When the relay does not take the envelope as an event.
    pub fn check(
        schema: &'a Schema,
        limits: &Limits,
        envelope: &'a [u8],
        more_topics: &[Topic],
    ) -> Result<Self, Problem> {
        let mut inspected = schema
            .inspect(envelope)
            .map_err(|error| Problem::invalid(error.to_string()).with_field(error.field()))?;
        check_payload(&inspected)?;
        if inspected.has_position {
            return Err(refuse("position", "is the relay's to set"));
        }
        let topics = topics(
            mem::take(&mut inspected.topics),
            &inspected.extra_topics,
            more_topics,
            limits.topics_per_event,
        )?;
        let message_id = inspected
            .message_id
            .map(MessageId::parse)
            .transpose()
            .map_err(|error| refuse("message_id", error))?;
        Ok(Self {
            inspected,
            topics,
            message_id,
        })
    }
}

/// An envelope that was read.
pub(super) struct ReadEvent {
    pub(super) draft: Draft,
    pub(super) checked: Checked,
    /// What the look at its JSON took, in topics.
    pub(super) check_work: usize,
}

/// The envelope as an event. `more_topics` are those of the call.
pub(super) fn draft(
    relay: &Relay,
    envelope: &[u8],
    more_topics: &[Topic],
) -> Result<ReadEvent, Problem> {
    let live = relay.live();
    let Admissible {
        inspected,
        topics,
        message_id,
    } = Admissible::check(&live.schema, &live.config.limits, envelope, more_topics)?;
    let topics: Arc<[Topic]> = topics.into();
    let append_message_id = message_id.is_none();
    let message_id = match message_id {
        Some(id) => id,
        None => fresh_message_id(relay)?,
    };
    let kept: Vec<_> = inspected.kept().collect();
    // An id that the relay has made comes back from nobody.
    let fingerprint = (!append_message_id).then(|| {
        let key = relay.publisher.fingerprint_key();
        key.fingerprint(&message_id, &kept, &topics)
    });
    let draft = Draft::new(DraftParts {
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
    let json_max = live.config.limits.json_max;
    let is_in_doubt = inspected.json_is_in_doubt(json_max);
    Ok(ReadEvent {
        checked: check_small(&live, &draft, is_in_doubt)?,
        check_work: check_work(envelope.len(), is_in_doubt),
        draft: draft.known_by(fingerprint),
    })
}

fn check_payload(envelope: &Inspected<'_>) -> Result<(), Problem> {
    match &envelope.payload {
        None => Err(refuse("payload", "is not set")),
        Some(payload) => match payload.kind {
            PayloadKind::Event { .. } => Ok(()),
            PayloadKind::Control(_) => Err(refuse(payload.name, "is not an event")),
        },
    }
}

/// What the event relates to: by its annotated fields, by field 18, by the call.
fn topics(
    mut topics: Vec<Topic>,
    field_18: &[&str],
    more_topics: &[Topic],
    topics_max: usize,
) -> Result<Vec<Topic>, Problem> {
    if !field_18.is_empty() || !more_topics.is_empty() {
        let mut seen: HashSet<_> = topics.iter().cloned().collect();
        let extra = field_18.iter().enumerate().map(|(index, text)| {
            parse_topic(text).map_err(|reason| refuse(&format!("topics[{index}]"), reason))
        });
        for topic in extra.chain(more_topics.iter().cloned().map(Ok)) {
            let topic = topic?;
            if seen.insert(topic.clone()) {
                topics.push(topic);
            }
        }
    }
    if topics.is_empty() {
        return Err(Problem::invalid(
            "the event relates to no topic: none of its annotated fields holds an id, and no topic is given",
        ));
    }
    if topics.len() > topics_max {
        let count = topics.len();
        return Err(Problem::invalid(format!(
            "the event relates to {count} topics and may relate to {topics_max}"
        )));
    }
    Ok(topics)
}

/// A topic that an event may relate to: no wildcard but `tenant:*`, and of that
/// kind nothing else.
pub(super) fn parse_topic(text: &str) -> Result<Topic, String> {
    let topic = Topic::parse(text).map_err(|error| error.to_string())?;
    let is_everyone = topic.is_everyone();
    if topic.is_wildcard() && !is_everyone {
        Err("has the id `*`, which stands for no single topic".to_owned())
    } else if topic.kind() == TENANT_KIND && !is_everyone {
        Err("is of the kind tenant, which has the one topic tenant:*".to_owned())
    } else {
        Ok(topic)
    }
}

fn fresh_message_id(relay: &Relay) -> Result<MessageId, Problem> {
    let id = relay.random.uuid_v7(&relay.clock).to_string();
    MessageId::parse(&id).map_err(|error| refuse("message_id", error))
}

fn refuse(field: &str, reason: impl std::fmt::Display) -> Problem {
    Problem::invalid(format!("{field} {reason}")).with_field(Some(field))
}
