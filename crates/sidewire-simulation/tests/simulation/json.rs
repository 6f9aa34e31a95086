//! Envelopes as JSON clients read and write them: an independent implementation of proto3's JSON
//! mapping, which shares nothing with the tested code.

use serde_json::{Map, Value, json};

use super::{
    client_messages::{WirePresence, WireTyping},
    messages::{
        CommentDeleted, ErrorReply, WireAuthenticated, WireEnvelope, WirePing, WirePosition,
        WireTopics,
    },
    schemas::BLOWN_UP,
};

impl WireEnvelope {
    /// Parses the text of a frame. Panics on unknown members.
    pub(super) fn from_json(text: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(text).expect("JSON");
        let mut members = JsonMembers::of(&value);
        let envelope = Self {
            message_id: members.text("messageId"),
            timestamp: members.signed("timestamp"),
            position: members.message("position", position),
            subscribed: members.message("subscriptionConfirmed", |it| topics(it, "subscribed")),
            unsubscribed: members.message("unsubscribeConfirmed", |it| topics(it, "unsubscribed")),
            pong: members.message("pong", pong),
            error: members.message("error", error),
            authenticated: members.message("authenticated", authenticated),
            event: members.message("commentDeleted", event),
            typing: members.message("userTyping", WireTyping::from_json),
            presence: members.message("userPresence", WirePresence::from_json),
            ..Self::default()
        };
        members.end();
        envelope
    }

    /// Returns the envelope as a client sends it.
    pub(super) fn to_client_json(&self) -> Value {
        let mut json = json!({"messageId": self.message_id});
        if let Some(asked) = &self.subscribe {
            json["subscribe"] = asked.to_client_json();
        }
        if let Some(asked) = &self.unsubscribe {
            json["unsubscribe"] = asked.to_client_json();
        }
        if let Some(ping) = &self.ping {
            json["ping"] = json!({"timestamp": ping.timestamp.to_string()});
        }
        if self.event.is_some() {
            json["commentDeleted"] = json!({});
        }
        if let Some(presented) = &self.authenticate {
            json["authenticate"] = json!({"token": presented.token});
        }
        if let Some(typing) = &self.typing {
            json["userTyping"] = typing.to_json();
        }
        if let Some(presence) = &self.presence {
            json["userPresence"] = presence.to_json();
        }
        if let Some(forged) = &self.position {
            json["position"] = json!({"epoch": forged.epoch});
        }
        json
    }
}

impl WireTopics {
    fn to_client_json(&self) -> Value {
        let mut json = json!({
            "projectIds": self.projects,
            "sprint_ids": self.sprints,
            "workItemIds": self.work_items,
            "topics": self.topics,
        });
        if let Some(from) = &self.position {
            json["resumeFrom"] = json!({"epoch": from.epoch, "offset": from.offset.to_string()});
        }
        json
    }
}

fn position(mut members: JsonMembers) -> WirePosition {
    let position = WirePosition {
        epoch: members.text("epoch"),
        offset: members.unsigned("offset"),
    };
    members.end();
    position
}

fn topics(mut members: JsonMembers, done: &str) -> WireTopics {
    let topics = WireTopics {
        projects: members.texts(&format!("{done}ProjectIds")),
        sprints: members.texts(&format!("{done}SprintIds")),
        work_items: members.texts(&format!("{done}WorkItemIds")),
        topics: members.texts("topics"),
        position: members.message("position", position),
        recovered: members.take("recovered") == Value::Bool(true),
        request: members.text("requestMessageId"),
        replayed: members.unsigned("replayed"),
    };
    members.end();
    topics
}

fn pong(mut members: JsonMembers) -> WirePing {
    members.signed("timestamp");
    let pong = WirePing {
        timestamp: 0,
        client_timestamp: members.signed("clientTimestamp"),
        position: members.message("position", position),
    };
    members.end();
    pong
}

fn error(mut members: JsonMembers) -> ErrorReply {
    members.text("fieldName");
    let retry_after_ms = members.take("retryAfterMs");
    let error = ErrorReply {
        code: members.text("errorCode"),
        message: members.text("errorMessage"),
        request: members.text("requestMessageId"),
        retry_after_ms: retry_after_ms.as_str().map(|it| it.parse().unwrap()),
    };
    members.end();
    error
}

fn authenticated(mut members: JsonMembers) -> WireAuthenticated {
    let authenticated = WireAuthenticated {
        expires_at: members.signed("expiresAt"),
        revoked_topics: members.texts("revokedTopics"),
        request: members.text("requestMessageId"),
    };
    members.end();
    authenticated
}

fn event(mut members: JsonMembers) -> CommentDeleted {
    let blown = members.texts("blown");
    assert!(blown.iter().all(|value| value == BLOWN_UP));
    let event = CommentDeleted {
        comment: members.text("commentId"),
        work_item: members.text("workItemId"),
        user: members.text("userId"),
        project: members.optional("projectId"),
        blown: vec![0; blown.len()],
        added_1: members.optional("added1"),
        added_2: members.optional("added2"),
    };
    members.end();
    event
}

/// The members of an object that have not been read yet.
pub(super) struct JsonMembers(Map<String, Value>);

impl JsonMembers {
    fn of(value: &Value) -> Self {
        Self(value.as_object().expect("an object").clone())
    }

    pub(super) fn take(&mut self, name: &str) -> Value {
        self.0.remove(name).unwrap_or_default()
    }

    pub(super) fn optional(&mut self, name: &str) -> Option<String> {
        let value = self.0.remove(name)?;
        Some(value.as_str().expect("a string").to_owned())
    }

    pub(super) fn text(&mut self, name: &str) -> String {
        self.optional(name).unwrap_or_default()
    }

    /// Reads a 64-bit number, which is a string, or 0 if it is left out.
    fn unsigned(&mut self, name: &str) -> u64 {
        self.optional(name).map_or(0, |it| it.parse().unwrap())
    }

    fn signed(&mut self, name: &str) -> i64 {
        self.optional(name).map_or(0, |it| it.parse().unwrap())
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        let value = self.take(name);
        let texts = value.as_array().into_iter().flatten();
        texts
            .map(|it| it.as_str().expect("a string").to_owned())
            .collect()
    }

    fn message<T>(&mut self, name: &str, read: impl FnOnce(Self) -> T) -> Option<T> {
        let value = self.0.remove(name)?;
        Some(read(Self::of(&value)))
    }

    pub(super) fn end(self) {
        assert!(self.0.is_empty(), "nobody knows {:?}", self.0);
    }
}
