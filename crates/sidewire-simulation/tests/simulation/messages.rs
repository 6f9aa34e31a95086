//! Envelopes as backends write them and clients read them: an independent implementation of the
//! contract on the protobuf library, which shares nothing with the tested code.

use prost::Message;
use serde_json::{Value, json};

use super::{
    client_messages::{WirePresence, WireTyping},
    dice::Dice,
    schemas::BLOWN_UP,
    topics::TopicBits,
};

/// The position of an event. Epochs of different logs are only compared for equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EventPlace {
    pub(super) epoch: u128,
    pub(super) offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WirePosition {
    #[prost(string, tag = "1")]
    pub(super) epoch: String,
    #[prost(uint64, tag = "2")]
    pub(super) offset: u64,
}

impl WirePosition {
    pub(super) fn place(&self) -> EventPlace {
        assert_eq!(self.epoch.len(), 32, "an epoch is {:?}", self.epoch);
        EventPlace {
            epoch: u128::from_str_radix(&self.epoch, 16).expect("an epoch is hexadecimal"),
            offset: self.offset,
        }
    }
}

impl From<EventPlace> for WirePosition {
    fn from(place: EventPlace) -> Self {
        Self {
            epoch: format!("{:032x}", place.epoch),
            offset: place.offset,
        }
    }
}

/// Subscribe, Unsubscribe and their confirmations, which use the same field numbers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WireTopics {
    #[prost(string, repeated, tag = "1")]
    pub(super) projects: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) sprints: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) work_items: Vec<String>,
    #[prost(string, repeated, tag = "16")]
    pub(super) topics: Vec<String>,
    /// `resume_from` in requests, `position` in confirmations.
    #[prost(message, optional, tag = "17")]
    pub(super) position: Option<WirePosition>,
    #[prost(bool, tag = "18")]
    pub(super) recovered: bool,
    #[prost(string, tag = "19")]
    pub(super) request: String,
    #[prost(uint64, tag = "20")]
    pub(super) replayed: u64,
}

impl WireTopics {
    /// Returns a message with these topics, each at random in the list of its kind or in full.
    pub(super) fn drawn(topics: TopicBits, dice: &Dice) -> Self {
        let mut drawn = Self::default();
        for name in topics.names() {
            let (kind, id) = name.split_once(':').unwrap();
            let id = id.to_owned();
            match kind {
                _ if id == "*" => drawn.topics.push(name.to_owned()),
                "project" if dice.percent(60) => drawn.projects.push(id),
                "sprint" if dice.percent(60) => drawn.sprints.push(id),
                "work_item" if dice.percent(60) => drawn.work_items.push(id),
                _ => drawn.topics.push(name.to_owned()),
            }
        }
        drawn
    }

    /// Returns the full names of all topics.
    fn names(&self) -> impl Iterator<Item = String> {
        let listed = [
            ("project", &self.projects),
            ("sprint", &self.sprints),
            ("work_item", &self.work_items),
        ];
        let listed = listed
            .into_iter()
            .flat_map(|(kind, ids)| ids.iter().map(move |id| format!("{kind}:{id}")));
        listed.chain(self.topics.iter().cloned())
    }

    pub(super) fn all(&self) -> TopicBits {
        self.names()
            .fold(TopicBits::NONE, |set, name| set | TopicBits::named(&name))
    }

    /// Returns the topics of a message that says which subscriptions a backend has ended. It names
    /// each in full and once.
    pub(super) fn revoked(&self) -> TopicBits {
        let bare = Self {
            topics: self.topics.clone(),
            ..Self::default()
        };
        assert_eq!(*self, bare, "a client is told of ended subscriptions");
        TopicBits::of_distinct(&self.topics)
    }

    /// Returns true if a client may subscribe to each topic.
    pub(super) fn may_be_asked_for(&self) -> bool {
        self.names().all(|name| TopicBits::can_be_asked_for(&name))
    }

    /// Returns true if the other message has the same topics in the same order.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.projects == other.projects
            && self.sprints == other.sprints
            && self.work_items == other.work_items
            && self.topics == other.topics
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WirePing {
    #[prost(int64, tag = "1")]
    pub(super) timestamp: i64,
    #[prost(int64, tag = "2")]
    pub(super) client_timestamp: i64,
    /// The position in a Pong.
    #[prost(message, optional, tag = "3")]
    pub(super) position: Option<WirePosition>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireAuthenticate {
    #[prost(string, tag = "1")]
    pub(super) token: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireAuthenticated {
    #[prost(int64, tag = "1")]
    pub(super) expires_at: i64,
    #[prost(string, repeated, tag = "2")]
    pub(super) revoked_topics: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) request: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ErrorReply {
    #[prost(string, tag = "1")]
    pub(super) code: String,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(string, tag = "3")]
    pub(super) request: String,
    #[prost(uint64, optional, tag = "5")]
    pub(super) retry_after_ms: Option<u64>,
}

/// CommentDeleted, the payload that the simulation publishes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CommentDeleted {
    #[prost(string, tag = "1")]
    pub(super) comment: String,
    #[prost(string, tag = "2")]
    pub(super) work_item: String,
    #[prost(string, tag = "3")]
    pub(super) user: String,
    #[prost(string, optional, tag = "4")]
    pub(super) project: Option<String>,
    /// Values of an enum with a single value, which has a long name.
    #[prost(int32, repeated, tag = "50")]
    pub(super) blown: Vec<i32>,
    /// A field of the schema since the first reload.
    #[prost(string, optional, tag = "101")]
    pub(super) added_1: Option<String>,
    /// A field of the schema since the second reload.
    #[prost(string, optional, tag = "102")]
    pub(super) added_2: Option<String>,
}

impl CommentDeleted {
    /// Returns the payload as JSON shows it under a schema of this revision.
    pub(super) fn under(&self, revision: usize) -> Self {
        Self {
            added_1: self.added_1.clone().filter(|_| revision >= 1),
            added_2: self.added_2.clone().filter(|_| revision >= 2),
            ..self.clone()
        }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireEnvelope {
    #[prost(string, tag = "1")]
    pub(super) message_id: String,
    #[prost(int64, tag = "8")]
    pub(super) timestamp: i64,
    #[prost(message, optional, tag = "7")]
    pub(super) presence: Option<WirePresence>,
    #[prost(message, optional, tag = "9")]
    pub(super) position: Option<WirePosition>,
    #[prost(message, optional, tag = "10")]
    pub(super) subscribe: Option<WireTopics>,
    #[prost(message, optional, tag = "11")]
    pub(super) subscribed: Option<WireTopics>,
    #[prost(message, optional, tag = "12")]
    pub(super) unsubscribe: Option<WireTopics>,
    #[prost(message, optional, tag = "13")]
    pub(super) unsubscribed: Option<WireTopics>,
    #[prost(message, optional, tag = "14")]
    pub(super) ping: Option<WirePing>,
    #[prost(message, optional, tag = "15")]
    pub(super) pong: Option<WirePing>,
    #[prost(message, optional, tag = "16")]
    pub(super) error: Option<ErrorReply>,
    #[prost(string, repeated, tag = "18")]
    pub(super) topics: Vec<String>,
    #[prost(message, optional, tag = "19")]
    pub(super) authenticate: Option<WireAuthenticate>,
    #[prost(message, optional, tag = "20")]
    pub(super) authenticated: Option<WireAuthenticated>,
    #[prost(message, optional, tag = "38")]
    pub(super) event: Option<CommentDeleted>,
    #[prost(message, optional, tag = "45")]
    pub(super) typing: Option<WireTyping>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WireBatch {
    #[prost(message, repeated, tag = "1")]
    pub(super) messages: Vec<WireEnvelope>,
}

impl WireEnvelope {
    /// Returns the event as proto3 JSON.
    pub(super) fn to_json(&self) -> Value {
        let event = self.event.as_ref().unwrap();
        let mut json = json!({"commentDeleted": {
            "commentId": event.comment,
            "workItemId": event.work_item,
            "userId": event.user,
        }});
        if !event.blown.is_empty() {
            let names = vec![BLOWN_UP; event.blown.len()];
            json["commentDeleted"]["blown"] = json!(names);
        }
        if let Some(project) = &event.project {
            json["commentDeleted"]["project_id"] = json!(project);
        }
        if !self.message_id.is_empty() {
            json["messageId"] = json!(self.message_id);
        }
        if self.timestamp != 0 {
            json["timestamp"] = json!(self.timestamp.to_string());
        }
        if !self.topics.is_empty() {
            json["topics"] = json!(self.topics);
        }
        json
    }
}
