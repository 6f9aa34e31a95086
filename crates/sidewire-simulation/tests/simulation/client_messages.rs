//! The events that clients send to other clients, as clients write and read them.

use prost::Message;
use serde_json::{Value, json};

use super::{
    dice::Dice,
    json::JsonMembers,
    topics::{EXACT, TOPICS, TopicBits},
};

/// The statuses of a presence message, by number. The last one says that the user is not there.
const STATUSES: [&str; 5] = [
    "PRESENCE_STATUS_UNSPECIFIED",
    "PRESENCE_STATUS_ONLINE",
    "PRESENCE_STATUS_AWAY",
    "PRESENCE_STATUS_BUSY",
    "PRESENCE_STATUS_OFFLINE",
];

/// UserTyping, which is relayed and not remembered.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(super) struct WireTyping {
    #[prost(string, tag = "1")]
    pub(super) user: String,
    #[prost(string, tag = "2")]
    pub(super) work_item: String,
    #[prost(bool, tag = "3")]
    pub(super) is_typing: bool,
    #[prost(string, optional, tag = "4")]
    pub(super) project: Option<String>,
}

/// UserPresence, which the relay remembers.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub(super) struct WirePresence {
    #[prost(string, tag = "1")]
    pub(super) user: String,
    #[prost(int32, tag = "2")]
    pub(super) status: i32,
    #[prost(string, optional, tag = "3")]
    pub(super) viewing: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) editing: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) project: Option<String>,
}

impl WireTyping {
    /// Returns a message about some of these topics, or of any others.
    pub(super) fn drawn(likely: TopicBits, dice: &Dice) -> Self {
        let project = topic_id("project", likely, dice);
        let work_item = topic_id("work_item", likely, dice).filter(|_| dice.percent(70));
        Self {
            user: forged_user(dice),
            work_item: work_item.unwrap_or_default(),
            is_typing: dice.percent(70),
            project,
        }
    }

    /// Returns the topics that it names, and the wildcards that match them.
    pub(super) fn topics(&self) -> TopicBits {
        let work_item = (!self.work_item.is_empty()).then_some(self.work_item.as_str());
        named([
            ("work_item", work_item),
            ("project", self.project.as_deref()),
        ])
    }

    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({"userId": self.user, "work_item_id": self.work_item});
        if self.is_typing {
            json["isTyping"] = json!(true);
        }
        if let Some(project) = &self.project {
            json["projectId"] = json!(project);
        }
        json
    }

    pub(super) fn from_json(mut members: JsonMembers) -> Self {
        let typing = Self {
            user: members.text("userId"),
            work_item: members.text("workItemId"),
            is_typing: members.take("isTyping") == Value::Bool(true),
            project: members.optional("projectId"),
        };
        members.end();
        typing
    }
}

impl WirePresence {
    /// Returns a message about some of these topics, or of any others. One in four withdraws.
    pub(super) fn drawn(likely: TopicBits, dice: &Dice) -> Self {
        let some = |percent: u64, id: Option<String>| id.filter(|_| dice.percent(percent));
        Self {
            user: forged_user(dice),
            status: i32::try_from(dice.weighted(&[1, 6, 3, 2, 4])).unwrap(),
            viewing: some(60, topic_id("work_item", likely, dice)),
            editing: some(30, topic_id("work_item", likely, dice)),
            project: topic_id("project", likely, dice),
        }
    }

    /// Returns true if it says that the user is not there.
    pub(super) fn is_absent(&self) -> bool {
        self.status as usize == STATUSES.len() - 1
    }

    /// Returns the topics that it names, and the wildcards that match them.
    pub(super) fn topics(&self) -> TopicBits {
        named([
            ("work_item", self.viewing.as_deref()),
            ("work_item", self.editing.as_deref()),
            ("project", self.project.as_deref()),
        ])
    }

    pub(super) fn to_json(&self) -> Value {
        let mut json = json!({"user_id": self.user, "status": STATUSES[self.status as usize]});
        for (name, id) in [
            ("viewingItemId", &self.viewing),
            ("editing_item_id", &self.editing),
            ("projectId", &self.project),
        ] {
            if let Some(id) = id {
                json[name] = json!(id);
            }
        }
        json
    }

    pub(super) fn from_json(mut members: JsonMembers) -> Self {
        let status = members.optional("status");
        let status = status.map_or(0, |name| {
            STATUSES
                .iter()
                .position(|it| **it == *name)
                .expect("a status")
        });
        let presence = Self {
            user: members.text("userId"),
            status: i32::try_from(status).unwrap(),
            viewing: members.optional("viewingItemId"),
            editing: members.optional("editingItemId"),
            project: members.optional("projectId"),
        };
        members.end();
        presence
    }
}

/// Returns a name that a client gives itself; the relay replaces it.
fn forged_user(dice: &Dice) -> String {
    (*dice.pick(&["", "u0", "u1", "somebody"])).to_owned()
}

/// Returns the id of a topic of this kind, mostly of one of the likely ones.
fn topic_id(kind: &str, likely: TopicBits, dice: &Dice) -> Option<String> {
    let of_kind = |name: &&str| name.split_once(':').is_some_and(|(its, _)| its == kind);
    let likely: Vec<_> = likely.exact().names().filter(of_kind).collect();
    let all: Vec<_> = TOPICS[..EXACT].iter().copied().filter(of_kind).collect();
    let from = match likely.is_empty() || dice.percent(20) {
        true => all,
        false => likely,
    };
    let (_, id) = dice.pick(&from).split_once(':')?;
    Some(id.to_owned())
}

fn named<const N: usize>(ids: [(&str, Option<&str>); N]) -> TopicBits {
    let named = ids
        .into_iter()
        .filter_map(|(kind, id)| Some(format!("{kind}:{}", id?)));
    let named = named.fold(TopicBits::NONE, |set, name| set | TopicBits::named(&name));
    named.with_wildcards()
}
