//! The client protocol as a pure state machine: frames go in; replies, and requests for the hub
//! to carry out, come out. Knows no socket, no clock and no other connection.

use std::{collections::HashSet, hash::Hash, time::Duration};

use prost::Message;

use crate::{
    auth::Grant,
    limits::Exceeded,
    protocol::{
        ErrorCode, MessageId, Position, Topic,
        position::EpochError,
        reply::{ListedIds, Refusal, Reply},
        wire,
    },
    schema::{Control, Fault, IdLists, Inspected, Payload, PayloadKind, Schema, WireError},
};

/// Delay after which a client should retry a request that was refused for lack of memory.
const NO_MEMORY_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Delay after which a client should retry a request that was refused because too many wait.
const WAITING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The protocol state of a client: its grant and its limit of topics.
#[derive(Debug)]
pub struct Conversation {
    grant: Grant,
    topics_per_subscribe: usize,
}

/// A frame that has been parsed up to its kind and message id, and not been acted on.
#[derive(Debug)]
pub struct Heard<'a> {
    schema: &'a Schema,
    envelope: Result<Inspected<'a>, Refusal>,
}

/// The kind of a message, which decides the limits that it is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Subscribe.
    Subscribe,
    /// An Unsubscribe.
    Unsubscribe,
    /// A Ping, or a ping of the WebSocket.
    Ping,
    /// Anything else, including messages that cannot be parsed.
    Other,
}

/// The action that a frame requires.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send this reply.
    Reply(Reply),
    /// Subscribe, then answer with [`TopicsRequest::subscribed`].
    Subscribe(TopicsRequest),
    /// Unsubscribe, then answer with [`TopicsRequest::unsubscribed`].
    Unsubscribe(TopicsRequest),
}

/// A Subscribe or Unsubscribe that passed all checks.
#[derive(Debug, PartialEq)]
pub struct TopicsRequest {
    message_id: String,
    lists: Vec<ListedIds>,
    texts: Vec<String>,
    topics: Vec<Topic>,
    resume_from: Option<wire::Position>,
}

impl Kind {
    /// Returns the kind of a message with this payload.
    pub(super) fn of(payload: Option<PayloadKind>) -> Self {
        match payload {
            Some(PayloadKind::Control(Control::Subscribe)) => Self::Subscribe,
            Some(PayloadKind::Control(Control::Unsubscribe)) => Self::Unsubscribe,
            Some(PayloadKind::Control(Control::Ping)) => Self::Ping,
            _ => Self::Other,
        }
    }
}

impl Conversation {
    /// Creates the state of a client with this grant that may name up to `topics_per_subscribe`
    /// topics in a message.
    #[must_use]
    pub fn new(grant: Grant, topics_per_subscribe: usize) -> Self {
        Self {
            grant,
            topics_per_subscribe,
        }
    }

    /// Sets how many topics a message may name from now on.
    pub fn bound_topics(&mut self, topics_per_subscribe: usize) {
        self.topics_per_subscribe = topics_per_subscribe;
    }

    /// Parses a frame and decides what to do about it. `now` is the time in Unix seconds.
    #[must_use]
    pub fn receive(&self, schema: &Schema, frame: &[u8], now: i64) -> Action {
        self.act(Self::hear(schema, frame), now)
    }

    /// Parses a frame up to its kind and message id.
    #[must_use]
    pub fn hear<'a>(schema: &'a Schema, frame: &'a [u8]) -> Heard<'a> {
        Heard {
            schema,
            envelope: inspect(schema, frame),
        }
    }

    /// Decides what to do about a parsed frame. `now` is the time in Unix seconds.
    #[must_use]
    pub fn act(&self, heard: Heard<'_>, now: i64) -> Action {
        let understand = |envelope: Inspected<'_>| {
            let id = envelope.message_id.unwrap_or_default();
            self.understand(heard.schema, &envelope, now)
                .map_err(|refusal| refusal.of(id))
        };
        heard
            .envelope
            .and_then(understand)
            .unwrap_or_else(|refusal| Action::Reply(Reply::Error(refusal)))
    }

    fn understand(
        &self,
        schema: &Schema,
        envelope: &Inspected<'_>,
        now: i64,
    ) -> Result<Action, Refusal> {
        let Some(payload) = &envelope.payload else {
            return Err(Refusal::invalid("payload", "the envelope has no payload"));
        };
        match payload.kind {
            kind if !kind.is_taken_from_clients() => Err(Refusal::invalid(
                payload.name,
                format!("a client may not send {}", payload.name),
            )),
            PayloadKind::Control(Control::Subscribe) => {
                self.subscribe(schema.subscribe_lists(), envelope, payload)
            }
            PayloadKind::Control(Control::Unsubscribe) => {
                self.unsubscribe(schema.unsubscribe_lists(), envelope, payload)
            }
            PayloadKind::Control(Control::Ping) => pong(payload, now),
            PayloadKind::Control(_) | PayloadKind::Event { .. } => Err(Refusal::new(
                ErrorCode::InternalError,
                format!("the relay does not know what to do with {}", payload.name),
            )),
        }
    }

    fn subscribe(
        &self,
        lists: &IdLists,
        envelope: &Inspected<'_>,
        payload: &Payload<'_>,
    ) -> Result<Action, Refusal> {
        let fields = wire::Subscribe::decode(payload.bytes).map_err(|_| undecoded(payload))?;
        let mut request = self.topics_request(envelope, payload, lists, &fields.topics)?;
        request.resume_from = fields.resume_from;
        let refused = request.topics.iter().find_map(|topic| self.refuse(topic));
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(Action::Subscribe(request)),
        }
    }

    fn unsubscribe(
        &self,
        lists: &IdLists,
        envelope: &Inspected<'_>,
        payload: &Payload<'_>,
    ) -> Result<Action, Refusal> {
        let fields = wire::Unsubscribe::decode(payload.bytes).map_err(|_| undecoded(payload))?;
        self.topics_request(envelope, payload, lists, &fields.topics)
            .map(Action::Unsubscribe)
    }

    /// Collects the topics that the schema's lists and the relay's own list name.
    fn topics_request(
        &self,
        envelope: &Inspected<'_>,
        payload: &Payload<'_>,
        lists: &IdLists,
        texts: &[String],
    ) -> Result<TopicsRequest, Refusal> {
        let listed = lists.ids(payload.bytes).map_err(|_| undecoded(payload))?;
        let count = texts.len() + listed.iter().map(|(_, ids)| ids.len()).sum::<usize>();
        let max = self.topics_per_subscribe;
        if count > max {
            let message = format!(
                "{} names {count} topics; the maximum is {max}",
                payload.name
            );
            return Err(Refusal::invalid(payload.name, message));
        }

        let mut topics = Vec::with_capacity(count);
        for (list, ids) in &listed {
            for (index, id) in ids.iter().enumerate() {
                let topic = listed_topic(&list.kind, id).map_err(|reason| {
                    let path = format!("{}.{}[{index}]", payload.name, list.name);
                    Refusal::invalid(&path, format!("{path} {reason}"))
                })?;
                topics.push(topic);
            }
        }
        for (index, text) in texts.iter().enumerate() {
            let topic = Topic::parse(text).map_err(|error| {
                let path = format!("{}.topics[{index}]", payload.name);
                Refusal::invalid(&path, format!("{path} {error}"))
            })?;
            topics.push(topic);
        }
        Ok(TopicsRequest {
            message_id: envelope.message_id.unwrap_or_default().to_owned(),
            lists: listed
                .into_iter()
                .map(|(list, ids)| ListedIds {
                    number: list.number,
                    ids: each_once(ids),
                })
                .collect(),
            texts: each_once(texts.iter().map(String::as_str)),
            topics: each_once(topics),
            resume_from: None,
        })
    }

    /// Returns the refusal if the client may not subscribe to the topic.
    fn refuse(&self, topic: &Topic) -> Option<Refusal> {
        let reason = self.grant.refusal(topic)?;
        Some(Refusal::new(
            ErrorCode::AuthorizationFailed,
            format!("{topic} {reason}"),
        ))
    }
}

impl<'a> Heard<'a> {
    /// A frame that could not be read.
    #[must_use]
    pub fn refused(schema: &'a Schema, refusal: Refusal) -> Self {
        Self {
            schema,
            envelope: Err(refusal),
        }
    }

    /// Returns the kind of the message.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let payload = self
            .envelope
            .as_ref()
            .ok()
            .and_then(|it| it.payload.as_ref());
        Kind::of(payload.map(|payload| payload.kind))
    }

    /// Returns the reply to a message that exceeds a rate limit and is not carried out.
    #[must_use]
    pub fn too_many(&self, exceeded: Exceeded) -> Action {
        let id = match &self.envelope {
            Ok(envelope) => envelope.message_id.unwrap_or_default(),
            Err(refusal) => &refusal.request_message_id,
        };
        Action::Reply(Reply::Error(too_many(exceeded).of(id)))
    }
}

/// Returns the refusal of a message that exceeds a rate limit.
#[must_use]
pub(super) fn too_many(exceeded: Exceeded) -> Refusal {
    Refusal {
        retry_after: Some(exceeded.retry_after),
        ..Refusal::new(ErrorCode::RateLimitExceeded, exceeded.to_string())
    }
}

/// Returns the refusal of a message that there is no memory to decode.
#[must_use]
pub(super) fn no_memory_to_read() -> Refusal {
    let message = "the relay has no memory to read this message (limits.memory_max)";
    Refusal {
        retry_after: Some(NO_MEMORY_RETRY_AFTER),
        ..Refusal::new(ErrorCode::RateLimitExceeded, message)
    }
}

impl TopicsRequest {
    /// The topics that it names, without duplicates.
    #[must_use]
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// The position to resume from, if the Subscribe has one.
    #[must_use]
    pub fn resume_from(&self) -> Option<Result<Position, EpochError>> {
        self.resume_from.as_ref().map(Position::try_from)
    }

    /// Returns the confirmation of a Subscribe that took effect at this position. `replayed` is
    /// the number of events that will be replayed; `None` unless the client resumes without a
    /// gap.
    #[must_use]
    pub fn subscribed(self, position: Position, replayed: Option<u64>) -> Reply {
        Reply::SubscriptionConfirmed {
            lists: self.lists,
            fields: wire::SubscriptionConfirmed {
                topics: self.texts,
                position: Some(position.into()),
                recovered: replayed.is_some(),
                request_message_id: self.message_id,
                replayed: replayed.unwrap_or(0),
            },
        }
    }

    /// Returns the confirmation of an Unsubscribe.
    #[must_use]
    pub fn unsubscribed(self) -> Reply {
        Reply::UnsubscribeConfirmed {
            lists: self.lists,
            fields: wire::UnsubscribeConfirmed {
                topics: self.texts,
                request_message_id: self.message_id,
            },
        }
    }

    /// Returns the refusal when `waiting_max` requests already wait for a replay to end.
    #[must_use]
    pub fn too_many_wait(&self, waiting_max: usize) -> Reply {
        let message =
            format!("at most {waiting_max} Subscribes and Unsubscribes may wait during a replay");
        Reply::Error(Refusal {
            retry_after: Some(WAITING_RETRY_AFTER),
            ..Refusal::new(ErrorCode::RateLimitExceeded, message).of(&self.message_id)
        })
    }

    /// Returns the refusal of a Subscribe that would take the connection over `topics_max`
    /// topics.
    #[must_use]
    pub fn over_the_cap(&self, topics_max: usize) -> Reply {
        let message = format!("a connection may have at most {topics_max} topics");
        Reply::Error(Refusal::invalid("subscribe", message).of(&self.message_id))
    }

    /// Returns the refusal when the relay has no memory for more subscriptions.
    #[must_use]
    pub fn no_memory(&self) -> Reply {
        let message = "the relay has no memory for more subscriptions (limits.memory_max)";
        Reply::Error(Refusal {
            retry_after: Some(NO_MEMORY_RETRY_AFTER),
            ..Refusal::new(ErrorCode::RateLimitExceeded, message).of(&self.message_id)
        })
    }
}

/// Returns the topic for an id in one of the schema's lists, where `*` is not an id.
fn listed_topic(kind: &str, id: &str) -> Result<Topic, String> {
    let topic = Topic::new(kind, id).map_err(|error| error.to_string())?;
    if topic.is_wildcard() {
        return Err("is `*`, which is not an id".to_owned());
    }
    Ok(topic)
}

/// Removes duplicates and keeps the order of first appearance.
fn each_once<T, U>(items: impl IntoIterator<Item = T>) -> Vec<U>
where
    T: Eq + Hash + Clone + Into<U>,
{
    let mut seen = HashSet::new();
    items
        .into_iter()
        .filter(|item| seen.insert(item.clone()))
        .map(Into::into)
        .collect()
}

fn inspect<'a>(schema: &'a Schema, frame: &'a [u8]) -> Result<Inspected<'a>, Refusal> {
    let envelope = schema
        .inspect_unrouted(frame)
        .map_err(|error| undecodable(frame, &error))?;
    match envelope.message_id.map(MessageId::parse) {
        // The refusal does not echo the id, because the id is what is invalid.
        Some(Err(error)) => Err(Refusal::invalid(
            "message_id",
            format!("message_id {error}"),
        )),
        Some(Ok(_)) | None => Ok(envelope),
    }
}

/// Returns the refusal of a frame that the walk refused. If only its content is at fault, the
/// refusal still has the message id.
fn undecodable(frame: &[u8], error: &WireError) -> Refusal {
    let refusal = Refusal {
        field: error.field().map(str::to_owned),
        ..Refusal::new(ErrorCode::ValidationError, error.to_string())
    };
    let is_content = matches!(
        error.fault(),
        Fault::SecondPayload
            | Fault::Repeated
            | Fault::Reserved
            | Fault::Topic(_)
            | Fault::Wildcard
            | Fault::TenantTopic
    );
    if !is_content {
        return refusal;
    }
    let id = OnlyMessageId::decode(frame).unwrap_or_default().message_id;
    match MessageId::parse(&id) {
        Ok(id) => refusal.of(id.as_str()),
        Err(_) => refusal,
    }
}

/// An envelope that is decoded only for its message id.
#[derive(Clone, PartialEq, Message)]
struct OnlyMessageId {
    #[prost(string, tag = "1")]
    message_id: String,
}

/// Returns the refusal of a payload that cannot be decoded. The walk has accepted it, so this is
/// not expected to happen.
fn undecoded(payload: &Payload<'_>) -> Refusal {
    Refusal::invalid(payload.name, format!("{} cannot be decoded", payload.name))
}

fn pong(payload: &Payload<'_>, now: i64) -> Result<Action, Refusal> {
    let ping = wire::Ping::decode(payload.bytes).map_err(|_| undecoded(payload))?;
    Ok(Action::Reply(Reply::Pong(wire::Pong {
        timestamp: now,
        client_timestamp: ping.timestamp,
        position: None,
    })))
}

#[cfg(test)]
mod tests;
