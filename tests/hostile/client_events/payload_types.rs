//! The messages that clients may send to each other, in both bundled schemas.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sidewire_testing::protobuf;

use crate::forge::Site;

/// A bundled schema, each of which has a relay of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BundledSchema {
    Tracker,
    Generic,
}

/// A payload that clients may send.
#[derive(Debug)]
pub(crate) struct PayloadType {
    pub(crate) schema: BundledSchema,
    pub(crate) name: &'static str,
    pub(crate) json_name: &'static str,
    pub(crate) number: u32,
    /// The number of the field that receives the sender.
    pub(crate) sender: u32,
    /// The number of the field that names a project, or a whole topic.
    topic: u32,
    /// Most bytes of an envelope with it.
    pub(crate) bytes_max: usize,
    pub(crate) presence: Option<PresenceField>,
}

/// The field that says whether a user is present.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PresenceField {
    pub(crate) number: u32,
    pub(crate) present: u64,
    pub(crate) absent: u64,
}

pub(crate) static TYPING: PayloadType = PayloadType {
    schema: BundledSchema::Tracker,
    name: "user_typing",
    json_name: "userTyping",
    number: 45,
    sender: 1,
    topic: 4,
    bytes_max: 16 * 1024,
    presence: None,
};

pub(crate) static USER_PRESENCE: PayloadType = PayloadType {
    schema: BundledSchema::Tracker,
    name: "user_presence",
    json_name: "userPresence",
    number: 7,
    sender: 1,
    topic: 5,
    bytes_max: 2 * 1024,
    presence: Some(PresenceField {
        number: 2,
        present: 1,
        absent: 4,
    }),
};

pub(crate) static MESSAGE: PayloadType = PayloadType {
    schema: BundledSchema::Generic,
    name: "message",
    json_name: "message",
    number: 33,
    sender: 4,
    topic: 5,
    bytes_max: 16 * 1024,
    presence: None,
};

pub(crate) static PRESENCE: PayloadType = PayloadType {
    schema: BundledSchema::Generic,
    name: "presence",
    json_name: "presence",
    number: 34,
    sender: 4,
    topic: 5,
    bytes_max: 2 * 1024,
    presence: Some(PresenceField {
        number: 6,
        present: 0,
        absent: 1,
    }),
};

/// All of them.
pub(crate) static ALL: [&PayloadType; 4] = [&TYPING, &USER_PRESENCE, &MESSAGE, &PRESENCE];

impl BundledSchema {
    /// Returns the address for clients of its relay.
    pub(crate) fn client(self, site: &Site) -> SocketAddr {
        match self {
            Self::Tracker => site.client,
            Self::Generic => site.generic,
        }
    }

    /// Returns the payload that is not remembered.
    pub(crate) fn event(self) -> &'static PayloadType {
        match self {
            Self::Tracker => &TYPING,
            Self::Generic => &MESSAGE,
        }
    }
}

impl PayloadType {
    /// Returns the field that names a project's topic.
    pub(crate) fn project(&self, id: &str) -> Vec<u8> {
        match self.schema {
            BundledSchema::Tracker => protobuf::text(self.topic, id),
            BundledSchema::Generic => protobuf::text(self.topic, &format!("project:{id}")),
        }
    }

    /// Returns the path of that field, when it is the payload's field of this index.
    pub(crate) fn topic_path(&self, index: usize) -> String {
        match self.schema {
            BundledSchema::Tracker => format!("{}.project_id", self.name),
            BundledSchema::Generic => format!("{}.topics[{index}]", self.name),
        }
    }

    /// Returns the JSON of a payload that names a project's topic.
    pub(crate) fn project_json(&self, id: &str) -> Value {
        match self.schema {
            BundledSchema::Tracker => json!({"projectId": id}),
            BundledSchema::Generic => json!({"topics": [format!("project:{id}")]}),
        }
    }

    /// Returns the field that says that the user is absent; empty if it is no presence payload.
    pub(crate) fn absent(&self) -> Vec<u8> {
        self.presence.map_or_else(Vec::new, |presence| {
            protobuf::number(presence.number, presence.absent)
        })
    }

    /// Returns the JSON of the payload that withdraws an earlier one.
    pub(crate) fn absent_json(&self) -> Value {
        match self.schema {
            BundledSchema::Tracker => json!({"status": "PRESENCE_STATUS_OFFLINE"}),
            BundledSchema::Generic => json!({"absent": true}),
        }
    }

    /// Returns true if it is another payload of the same schema.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.schema == other.schema && self.number != other.number
    }

    /// Returns the envelope's field with this payload.
    pub(crate) fn field(&self, payload: &[u8]) -> Vec<u8> {
        protobuf::bytes(self.number, payload)
    }
}
