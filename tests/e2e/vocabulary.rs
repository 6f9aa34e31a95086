//! The schema under test, in terms that both bundled schemas share: events and their
//! topics, subscriptions and their confirmations, all as proto3 JSON.

use std::{env, sync::LazyLock};

use serde_json::{Value, json};
use sidewire_protocol::schema::{BundledSchema, Schema};

/// A bundled schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestSchema {
    /// Its events name their topics in annotated fields, and its subscriptions have lists
    /// of their own.
    Tracker,
    /// Its events get their topics from field 18 or from the call, and its subscriptions
    /// have field 16 only.
    Generic,
}

/// Environment variable that selects the schema under test.
const VARIABLE: &str = "SIDEWIRE_TEST_SCHEMA";

/// The kinds for which the tracker's deletions have a field, in the order of the fields.
const DELETION_FIELDS: [(&str, &str); 3] = [
    ("work_item", "workItemId"),
    ("project", "projectId"),
    ("sprint", "sprintId"),
];

/// The kinds for which the tracker's subscription messages have a list.
const LISTS: [(&str, &str); 3] = [
    ("project", "ProjectIds"),
    ("sprint", "SprintIds"),
    ("work_item", "WorkItemIds"),
];

impl TestSchema {
    pub const ALL: [Self; 2] = [Self::Tracker, Self::Generic];

    /// Returns the schema that `SIDEWIRE_TEST_SCHEMA` names, by default the tracker.
    pub fn under_test() -> Self {
        static CHOSEN: LazyLock<TestSchema> = LazyLock::new(|| match env::var(VARIABLE) {
            Err(env::VarError::NotPresent) => TestSchema::Tracker,
            Err(error) => panic!("{VARIABLE}: {error}"),
            Ok(name) => TestSchema::ALL
                .into_iter()
                .find(|schema| schema.name() == name)
                .unwrap_or_else(|| panic!("{VARIABLE}: there is no bundled schema {name:?}")),
        });
        *CHOSEN
    }

    /// Returns the schema's name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Generic => "generic",
        }
    }

    pub fn compile(self) -> Schema {
        BundledSchema::by_name(self.name())
            .unwrap()
            .compile()
            .unwrap()
    }

    /// Returns an event like [`created`], with this text.
    pub fn item_created(self, item: &str, project: &str, text: &str) -> Value {
        match self {
            Self::Tracker => json!({"workItemCreated": {
                "workItem": {"id": item, "projectId": project, "title": text},
                "userId": "ann",
            }}),
            Self::Generic => {
                let data = json!({"id": item, "project": project, "title": text});
                let topics = [format!("work_item:{item}"), format!("project:{project}")];
                json!({
                    "event": {"type": "item.created", "data": data, "userId": "ann"},
                    "topics": topics,
                })
            }
        }
    }

    /// Returns the same event with the field names of the .proto.
    pub fn item_created_spelt_otherwise(self, item: &str, project: &str, text: &str) -> Value {
        match self {
            Self::Tracker => json!({"work_item_created": {
                "user_id": "ann",
                "work_item": {"title": text, "project_id": project, "id": item},
            }}),
            Self::Generic => {
                let mut event = self.item_created(item, project, text);
                let payload = event["event"].as_object_mut().unwrap();
                let user = payload.remove("userId").unwrap();
                payload.insert("user_id".to_owned(), user);
                event
            }
        }
    }

    /// Returns the JSON name of the envelope's member that holds the payload of [`created`].
    pub fn created_member(self) -> &'static str {
        match self {
            Self::Tracker => "workItemCreated",
            Self::Generic => "event",
        }
    }

    /// Returns the .proto name of the envelope's field that holds the payload of [`created`].
    pub fn created_name(self) -> &'static str {
        match self {
            Self::Tracker => "work_item_created",
            Self::Generic => "event",
        }
    }

    /// Returns an event with these topics, in this order.
    pub fn about(self, topics: &[&str]) -> Value {
        match self {
            Self::Tracker => {
                let mut fields = DELETION_FIELDS.iter();
                let mut event = json!({"workItemDeleted": {}});
                let mut others = Vec::new();
                for topic in topics {
                    let (kind, id) = topic.split_once(':').unwrap();
                    match fields.find(|(of, _)| *of == kind) {
                        Some((_, field)) => event["workItemDeleted"][field] = json!(id),
                        None => others.push(*topic),
                    }
                }
                also(event, &others)
            }
            Self::Generic => also(json!({"event": {"type": "item.deleted"}}), topics),
        }
    }

    /// Returns an event without topics, made by this user: its call has to name one.
    pub fn edited_by(self, user: &str) -> Value {
        match self {
            Self::Tracker => json!({"userTyping": {"userId": user}}),
            Self::Generic => json!({"event": {"type": "edited", "userId": user}}),
        }
    }

    /// Returns a message that clients send, or a backend in their place, when somebody
    /// types. Its topic comes from an annotated field in every schema.
    pub fn typing(self, project: &str) -> Value {
        match self {
            Self::Tracker => json!({"userTyping": {"projectId": project, "isTyping": true}}),
            Self::Generic => {
                let topic = format!("project:{project}");
                json!({"message": {"type": "typing", "topics": [topic]}})
            }
        }
    }

    /// Returns the path of [`typing`]'s topic field, as in errors.
    pub fn typing_path(self) -> &'static str {
        match self {
            Self::Tracker => "user_typing.project_id",
            Self::Generic => "message.topics[0]",
        }
    }

    /// Returns [`typing`] with an empty id in addition to the project's.
    pub fn beside_an_empty_id(self, project: &str) -> Value {
        match self {
            Self::Tracker => json!({"userTyping": {"projectId": project, "workItemId": ""}}),
            Self::Generic => {
                let topic = format!("project:{project}");
                json!({"message": {"topics": ["", topic]}})
            }
        }
    }

    /// Returns a payload like that of [`typing`], with an empty id as its only id.
    pub fn without_id(self) -> Value {
        match self {
            Self::Tracker => json!({"userTyping": {"projectId": ""}}),
            Self::Generic => json!({"message": {"topics": [""]}}),
        }
    }

    /// Returns a payload like that of [`typing`], with a field that the schema does not know.
    pub fn unreadable(self) -> Value {
        match self {
            Self::Tracker => json!({"userTyping": {"x": 1}}),
            Self::Generic => json!({"message": {"x": 1}}),
        }
    }

    /// Returns the JSON name of the envelope's member that holds the payload of [`typing`].
    pub fn typing_member(self) -> &'static str {
        match self {
            Self::Tracker => "userTyping",
            Self::Generic => "message",
        }
    }

    /// Returns the body of a Subscribe or an Unsubscribe for these topics, in the schema's
    /// lists where one exists for the kind.
    pub fn topics(self, topics: &[&str]) -> Value {
        self.listed(topics, |list| {
            let (first, rest) = list.split_at(1);
            first.to_lowercase() + rest
        })
    }

    /// Returns the path of the first project in a Subscribe of [`topics`], as in errors.
    pub fn project_path(self) -> &'static str {
        match self {
            Self::Tracker => "subscribe.project_ids[0]",
            Self::Generic => "subscribe.topics[0]",
        }
    }

    /// Returns the topics part of the confirmation of a Subscribe of [`topics`].
    pub fn subscribed(self, topics: &[&str]) -> Value {
        self.listed(topics, |list| format!("subscribed{list}"))
    }

    /// Returns the topics part of the confirmation of an Unsubscribe of [`topics`].
    pub fn unsubscribed(self, topics: &[&str]) -> Value {
        self.listed(topics, |list| format!("unsubscribed{list}"))
    }

    fn listed(self, topics: &[&str], name: impl Fn(&str) -> String) -> Value {
        let lists: &[(&str, &str)] = match self {
            Self::Tracker => &LISTS,
            Self::Generic => &[],
        };
        let mut body = json!({});
        for topic in topics {
            let (kind, id) = topic.split_once(':').unwrap();
            let (member, text) = match lists.iter().find(|(of, _)| *of == kind) {
                Some((_, list)) => (name(list), id),
                None => ("topics".to_owned(), *topic),
            };
            push(&mut body[member], text);
        }
        body
    }
}

/// Appends to a list, which is created if it is missing.
fn push(list: &mut Value, text: &str) {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().unwrap().push(json!(text));
}

/// Returns an event of the schema under test: `item-1` was created in this project. Its
/// topics are `work_item:item-1` and `project:…`, in this order.
pub fn created(project: &str) -> Value {
    item_created("item-1", project, "")
}

/// Returns the same event for this item and with this text.
pub fn item_created(item: &str, project: &str, text: &str) -> Value {
    TestSchema::under_test().item_created(item, project, text)
}

/// Returns the same event in JSON with another spelling.
pub fn item_created_spelt_otherwise(item: &str, project: &str, text: &str) -> Value {
    TestSchema::under_test().item_created_spelt_otherwise(item, project, text)
}

/// Returns an event for `project:p1` alone without field 18, and the topics that its call
/// has to name.
pub fn created_by_call() -> (Value, &'static [&'static str]) {
    match TestSchema::under_test() {
        TestSchema::Tracker => {
            let event = json!({"workItemCreated": {"workItem": {"projectId": "p1"}}});
            (event, &[])
        }
        TestSchema::Generic => {
            let event = json!({"event": {"type": "item.created"}});
            (event, &["project:p1"])
        }
    }
}

/// Returns true if the envelope contains the event of [`created`].
pub fn is_created(envelope: &Value) -> bool {
    envelope[TestSchema::under_test().created_member()].is_object()
}

/// Returns an event with these topics, in this order.
pub fn about(topics: &[&str]) -> Value {
    TestSchema::under_test().about(topics)
}

/// Returns an event without topics: its call has to name one.
pub fn edited_by(user: &str) -> Value {
    TestSchema::under_test().edited_by(user)
}

/// Returns a message that a user is typing in a project; clients and backends may send it.
pub fn typing(project: &str) -> Value {
    TestSchema::under_test().typing(project)
}

/// Returns the event with more topics, in the envelope's field 18.
pub fn also<T: AsRef<str>>(mut event: Value, topics: &[T]) -> Value {
    for topic in topics {
        push(&mut event["topics"], topic.as_ref());
    }
    event
}

/// Returns the envelope with this message_id.
pub fn named(id: &str, mut envelope: Value) -> Value {
    envelope["messageId"] = json!(id);
    envelope
}

/// Returns the body of a Subscribe or an Unsubscribe for these topics.
pub fn topics(topics: &[&str]) -> Value {
    TestSchema::under_test().topics(topics)
}

/// Returns a Subscribe for these topics.
pub fn subscribe(topics: &[&str]) -> Value {
    json!({"subscribe": TestSchema::under_test().topics(topics)})
}

/// Returns an Unsubscribe for these topics.
pub fn unsubscribe(topics: &[&str]) -> Value {
    json!({"unsubscribe": TestSchema::under_test().topics(topics)})
}

/// Returns the topics part of a Subscribe's confirmation.
pub fn subscribed(topics: &[&str]) -> Value {
    TestSchema::under_test().subscribed(topics)
}

/// Returns the topics part of an Unsubscribe's confirmation.
pub fn unsubscribed(topics: &[&str]) -> Value {
    TestSchema::under_test().unsubscribed(topics)
}

/// Returns the topics part of a confirmation, without its other members.
pub fn topics_of(confirmed: &Value) -> Value {
    let mut topics = confirmed.clone();
    let members = topics.as_object_mut().unwrap();
    for other in ["position", "recovered", "requestMessageId", "replayed"] {
        members.remove(other);
    }
    topics
}

/// Returns true if the tracker schema is under test. Otherwise prints why the test is about
/// that schema alone.
#[must_use]
pub fn only_with_tracker(reason: &str) -> bool {
    let is_tracker = TestSchema::under_test() == TestSchema::Tracker;
    if !is_tracker {
        eprintln!("not run with this schema, only with tracker: {reason}");
    }
    is_tracker
}
