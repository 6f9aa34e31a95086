//! The client protocol as pure functions: frames go in; replies, and requests for the hub to carry
//! out, come out. Knows no socket, no clock and no other connection.

use std::{collections::HashSet, hash::Hash, time::Duration};

use prost::Message;
use sidewire_protocol::{
    ErrorCode, MessageId, Position, Topic,
    envelope::{OnlyMessageId, OnlyResumeFrom},
    position::EpochError,
    reply::{ListedIds, MessageRefusal, Reply},
    schema::{
        ControlKind, IdLists, InspectedEnvelope, InspectedPayload, PayloadKind, Schema, WireError,
        WireFault,
    },
    wire,
};

use crate::{auth::Grant, limits::LimitExceeded};

/// Delay after which a client should retry a request that was refused for lack of memory.
const NO_MEMORY_RETRY_AFTER: Duration = Duration::from_secs(10);

/// Delay after which a client should retry a request that was refused because too many wait.
const WAITING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Decides what to do about the frames of a client, by its grant and the limit in force.
#[derive(Debug, Clone, Copy)]
pub struct Conversation<'a> {
    grant: &'a Grant,
    topics_per_subscribe: usize,
}

/// A frame that has been parsed up to its kind and message id, and not been acted on.
#[derive(Debug)]
pub struct ParsedFrame<'a> {
    schema: &'a Schema,
    envelope: Result<InspectedEnvelope<'a>, MessageRefusal>,
}

/// The kind of a message, which decides the limits that it is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
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
pub enum ConversationAction {
    /// Send this reply.
    Reply(Reply),
    /// Carry out this request, then answer it.
    Request(ClientRequest),
}

/// A request that passed all checks. Requests are carried out one after another.
#[derive(Debug, PartialEq)]
pub enum ClientRequest {
    /// Subscribe, then answer with [`TopicsAnswer::subscribe_confirmation`].
    Subscribe(TopicsRequest),
    /// Unsubscribe, then answer with [`TopicsAnswer::unsubscribe_confirmation`].
    Unsubscribe(TopicsRequest),
}

/// The contents of a Subscribe or Unsubscribe.
#[derive(Debug, PartialEq)]
pub struct TopicsRequest {
    /// The topics that it names, without duplicates.
    pub topics: Vec<Topic>,
    /// The position to resume from, if it is a Subscribe that has one. An error means that no
    /// relay can have issued it.
    pub resume_from: Option<Result<Position, EpochError>>,
    /// The part of the request that its answer repeats.
    pub answer: TopicsAnswer,
}

/// The part of a Subscribe or Unsubscribe that its answer repeats.
#[derive(Debug, PartialEq)]
pub struct TopicsAnswer {
    message_id: String,
    lists: Vec<ListedIds>,
    texts: Vec<String>,
}

impl MessageKind {
    /// Returns the kind of a message with this payload.
    pub(super) fn from_payload(payload: Option<PayloadKind>) -> Self {
        match payload {
            Some(PayloadKind::Control(ControlKind::Subscribe)) => Self::Subscribe,
            Some(PayloadKind::Control(ControlKind::Unsubscribe)) => Self::Unsubscribe,
            Some(PayloadKind::Control(ControlKind::Ping)) => Self::Ping,
            _ => Self::Other,
        }
    }
}

impl<'a> Conversation<'a> {
    /// Creates the rules for a client with this grant, which may name up to
    /// `topics_per_subscribe` topics in a message.
    #[must_use]
    pub fn new(grant: &'a Grant, topics_per_subscribe: usize) -> Self {
        Self {
            grant,
            topics_per_subscribe,
        }
    }

    /// Parses a frame and decides what to do about it. `now` is the time in Unix seconds.
    #[must_use]
    pub fn handle_frame(&self, schema: &Schema, frame: &[u8], now: i64) -> ConversationAction {
        self.decide_action(Self::parse_frame(schema, frame), now)
    }

    /// Parses a frame up to its kind and message id.
    #[must_use]
    pub fn parse_frame<'f>(schema: &'f Schema, frame: &'f [u8]) -> ParsedFrame<'f> {
        ParsedFrame {
            schema,
            envelope: inspect_frame(schema, frame),
        }
    }

    /// Decides what to do about a parsed frame. `now` is the time in Unix seconds.
    #[must_use]
    pub fn decide_action(&self, parsed: ParsedFrame<'_>, now: i64) -> ConversationAction {
        let understand = |envelope: InspectedEnvelope<'_>| {
            let id = envelope.message_id.unwrap_or_default();
            self.handle_payload(parsed.schema, &envelope, now)
                .map_err(|refusal| refusal.for_message(id))
        };
        parsed
            .envelope
            .and_then(understand)
            .unwrap_or_else(|refusal| ConversationAction::Reply(Reply::Error(refusal)))
    }

    fn handle_payload(
        &self,
        schema: &Schema,
        envelope: &InspectedEnvelope<'_>,
        now: i64,
    ) -> Result<ConversationAction, MessageRefusal> {
        let Some(payload) = &envelope.payload else {
            return Err(MessageRefusal::invalid(
                "payload",
                "the envelope has no payload",
            ));
        };
        match payload.kind {
            kind if kind.is_event() || !kind.is_taken_from_clients() => {
                Err(MessageRefusal::invalid(
                    payload.name,
                    format!("a client may not send {}", payload.name),
                ))
            }
            PayloadKind::Control(ControlKind::Subscribe) => {
                self.subscribe_action(schema.subscribe_lists(), envelope, payload)
            }
            PayloadKind::Control(ControlKind::Unsubscribe) => self
                .topics_request(schema.unsubscribe_lists(), envelope, payload)
                .map(|request| ConversationAction::Request(ClientRequest::Unsubscribe(request))),
            PayloadKind::Control(ControlKind::Ping) => pong_action(payload, now),
            PayloadKind::Control(_) | PayloadKind::Event { .. } => Err(MessageRefusal::new(
                ErrorCode::InternalError,
                format!("the relay does not know what to do with {}", payload.name),
            )),
        }
    }

    fn subscribe_action(
        &self,
        lists: &IdLists,
        envelope: &InspectedEnvelope<'_>,
        payload: &InspectedPayload<'_>,
    ) -> Result<ConversationAction, MessageRefusal> {
        let mut request = self.topics_request(lists, envelope, payload)?;
        let fields = OnlyResumeFrom::decode(payload.bytes).map_err(|_| payload_refusal(payload))?;
        request.resume_from = fields.resume_from.as_ref().map(Position::try_from);
        let refused = request
            .topics
            .iter()
            .find_map(|topic| self.topic_refusal(topic));
        match refused {
            Some(refusal) => Err(refusal),
            None => Ok(ConversationAction::Request(ClientRequest::Subscribe(
                request,
            ))),
        }
    }

    /// Collects the topics that the schema's lists and the relay's own list name.
    fn topics_request(
        &self,
        lists: &IdLists,
        envelope: &InspectedEnvelope<'_>,
        payload: &InspectedPayload<'_>,
    ) -> Result<TopicsRequest, MessageRefusal> {
        let max = self.topics_per_subscribe;
        let named = lists
            .named_topics(payload.bytes, max)
            .map_err(|_| payload_refusal(payload))?;
        let count = named.count;
        if count > max {
            let message = format!(
                "{} names {count} topics; the maximum is {max}",
                payload.name
            );
            return Err(MessageRefusal::invalid(payload.name, message));
        }

        let mut topics = Vec::with_capacity(count);
        for (list, ids) in &named.ids {
            for (index, id) in ids.iter().enumerate() {
                let topic = listed_topic(&list.kind, id).map_err(|reason| {
                    let path = format!("{}.{}[{index}]", payload.name, list.name);
                    MessageRefusal::invalid(&path, format!("{path} {reason}"))
                })?;
                topics.push(topic);
            }
        }
        for (index, text) in named.topics.iter().enumerate() {
            let topic = Topic::parse(text).map_err(|error| {
                let path = format!("{}.topics[{index}]", payload.name);
                MessageRefusal::invalid(&path, format!("{path} {error}"))
            })?;
            topics.push(topic);
        }
        let lists = named.ids.into_iter().map(|(list, ids)| ListedIds {
            number: list.number,
            ids: deduplicate(ids),
        });
        Ok(TopicsRequest {
            topics: deduplicate(topics),
            resume_from: None,
            answer: TopicsAnswer {
                message_id: envelope.message_id.unwrap_or_default().to_owned(),
                lists: lists.collect(),
                texts: deduplicate(named.topics),
            },
        })
    }

    /// Returns the refusal if the client may not subscribe to the topic.
    fn topic_refusal(&self, topic: &Topic) -> Option<MessageRefusal> {
        let reason = self.grant.refusal_reason(topic)?;
        Some(MessageRefusal::new(
            ErrorCode::AuthorizationFailed,
            format!("{topic} {reason}"),
        ))
    }
}

impl<'a> ParsedFrame<'a> {
    /// A frame that could not be read.
    #[must_use]
    pub fn from_refusal(schema: &'a Schema, refusal: MessageRefusal) -> Self {
        Self {
            schema,
            envelope: Err(refusal),
        }
    }

    /// Returns the kind of the message.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        let payload = self
            .envelope
            .as_ref()
            .ok()
            .and_then(|it| it.payload.as_ref());
        MessageKind::from_payload(payload.map(|payload| payload.kind))
    }

    /// Returns the reply to a message that exceeds a rate limit and is not carried out.
    #[must_use]
    pub fn rate_limit_reply(&self, exceeded: LimitExceeded) -> ConversationAction {
        let id = match &self.envelope {
            Ok(envelope) => envelope.message_id.unwrap_or_default(),
            Err(refusal) => &refusal.request_message_id,
        };
        ConversationAction::Reply(Reply::Error(rate_limit_refusal(exceeded).for_message(id)))
    }
}

/// Returns the refusal of a message that exceeds a rate limit.
#[must_use]
pub(super) fn rate_limit_refusal(exceeded: LimitExceeded) -> MessageRefusal {
    MessageRefusal {
        retry_after: Some(exceeded.retry_after),
        ..MessageRefusal::new(ErrorCode::RateLimitExceeded, exceeded.to_string())
    }
}

/// Returns the refusal of a message that there is no memory to decode.
#[must_use]
pub(super) fn no_memory_refusal() -> MessageRefusal {
    let message = "the relay has no memory to read this message (limits.memory_max)";
    MessageRefusal {
        retry_after: Some(NO_MEMORY_RETRY_AFTER),
        ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message)
    }
}

impl ClientRequest {
    /// Returns the contents of the request.
    #[must_use]
    pub fn contents(&self) -> &TopicsRequest {
        match self {
            Self::Subscribe(contents) | Self::Unsubscribe(contents) => contents,
        }
    }
}

impl TopicsAnswer {
    /// Returns the confirmation of a Subscribe that took effect at this position. `replayed` is
    /// the number of events that will be replayed; `None` unless the client resumes without a
    /// gap.
    #[must_use]
    pub fn subscribe_confirmation(self, position: Position, replayed: Option<u64>) -> Reply {
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
    pub fn unsubscribe_confirmation(self) -> Reply {
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
    pub fn too_many_waiting_reply(&self, waiting_max: usize) -> Reply {
        let message =
            format!("at most {waiting_max} Subscribes and Unsubscribes may wait during a replay");
        Reply::Error(MessageRefusal {
            retry_after: Some(WAITING_RETRY_AFTER),
            ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message)
                .for_message(&self.message_id)
        })
    }

    /// Returns the refusal of a Subscribe that would take the connection over `topics_max`
    /// topics.
    #[must_use]
    pub fn too_many_topics_reply(&self, topics_max: usize) -> Reply {
        let message = format!("a connection may have at most {topics_max} topics");
        Reply::Error(MessageRefusal::invalid("subscribe", message).for_message(&self.message_id))
    }

    /// Returns the refusal when the relay has no memory for more subscriptions.
    #[must_use]
    pub fn no_memory_reply(&self) -> Reply {
        let message = "the relay has no memory for more subscriptions (limits.memory_max)";
        Reply::Error(MessageRefusal {
            retry_after: Some(NO_MEMORY_RETRY_AFTER),
            ..MessageRefusal::new(ErrorCode::RateLimitExceeded, message)
                .for_message(&self.message_id)
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
fn deduplicate<T, U>(items: Vec<T>) -> Vec<U>
where
    T: Eq + Hash + Clone + Into<U>,
{
    let mut seen = HashSet::with_capacity(items.len());
    items
        .into_iter()
        .filter(|item| seen.insert(item.clone()))
        .map(Into::into)
        .collect()
}

fn inspect_frame<'a>(
    schema: &'a Schema,
    frame: &'a [u8],
) -> Result<InspectedEnvelope<'a>, MessageRefusal> {
    let envelope = schema
        .inspect_unrouted(frame)
        .map_err(|error| frame_refusal(frame, &error))?;
    match envelope.message_id.map(MessageId::parse) {
        // The refusal does not echo the id, because the id is what is invalid.
        Some(Err(error)) => Err(MessageRefusal::invalid(
            "message_id",
            format!("message_id {error}"),
        )),
        Some(Ok(_)) | None => Ok(envelope),
    }
}

/// Returns the refusal of a frame that the walk refused. If only its content is at fault, the
/// refusal still has the message id.
fn frame_refusal(frame: &[u8], error: &WireError) -> MessageRefusal {
    let refusal = MessageRefusal {
        field: error.field().map(str::to_owned),
        ..MessageRefusal::new(ErrorCode::ValidationError, error.to_string())
    };
    let is_content = matches!(
        error.fault(),
        WireFault::SecondPayload
            | WireFault::Repeated
            | WireFault::Reserved
            | WireFault::Topic(_)
            | WireFault::Wildcard
            | WireFault::TenantTopic
    );
    if !is_content {
        return refusal;
    }
    let id = OnlyMessageId::decode(frame).unwrap_or_default().message_id;
    match MessageId::parse(&id) {
        Ok(id) => refusal.for_message(id.as_str()),
        Err(_) => refusal,
    }
}

/// Returns the refusal of a payload that cannot be decoded. The walk has accepted it, so this is
/// not expected to happen.
fn payload_refusal(payload: &InspectedPayload<'_>) -> MessageRefusal {
    MessageRefusal::invalid(payload.name, format!("{} cannot be decoded", payload.name))
}

fn pong_action(
    payload: &InspectedPayload<'_>,
    now: i64,
) -> Result<ConversationAction, MessageRefusal> {
    let ping = wire::Ping::decode(payload.bytes).map_err(|_| payload_refusal(payload))?;
    Ok(ConversationAction::Reply(Reply::Pong(wire::Pong {
        timestamp: now,
        client_timestamp: ping.timestamp,
        position: None,
    })))
}

#[cfg(test)]
mod tests;
