//! The JSON document that lists presence, made in parts.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    vec,
};

use bytes::Bytes;
use serde::Serialize;

use super::super::{
    parameters::cursor_text,
    parts::{DocumentParts, PART_BYTES},
};
use crate::{
    hub::{ListedPresence, PageCursor, PresenceMessage, PresentUser, TopicPage},
    memory::MemoryReservation,
    scheduler::Cost,
};

/// The answer, made while the backend reads it: 1,000 users with messages of 2 KiB each have 4 MB
/// of JSON.
pub(super) struct PresenceAnswer {
    topics: vec::IntoIter<TopicPage<Arc<PresenceMessage>>>,
    /// The users of the topic that has been begun.
    users: vec::IntoIter<PresentUser<Arc<PresenceMessage>>>,
    messages: ListedMessages,
    next: Option<PageCursor>,
    state: AnswerState,
    _memory: MemoryReservation,
}

/// Progress of making the document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AnswerState {
    Start,
    /// Topics with their users. `is_begun` if a topic has been begun.
    Topics {
        is_begun: bool,
    },
    Messages,
    End,
}

/// A user as the answer shows it.
#[derive(Serialize)]
struct UserSummary<'a> {
    user: &'a str,
    connections: usize,
    since: i64,
    lingering: bool,
    messages: Vec<&'a str>,
}

impl PresenceAnswer {
    pub(super) fn new(page: ListedPresence, memory: MemoryReservation) -> Self {
        Self {
            topics: page.topics.into_iter(),
            users: Vec::new().into_iter(),
            messages: ListedMessages::default(),
            next: page.next,
            state: AnswerState::Start,
            _memory: memory,
        }
    }

    /// Writes the next piece of the document.
    fn write_piece(&mut self, part: &mut Vec<u8>) {
        match self.state {
            AnswerState::Start => {
                part.extend_from_slice(br#"{"topics":["#);
                self.state = AnswerState::Topics { is_begun: false };
            }
            AnswerState::Topics { is_begun } => self.write_topics(is_begun, part),
            AnswerState::Messages => self.write_message(part),
            AnswerState::End => {}
        }
    }

    /// Writes a user, or what is between the users of two topics.
    fn write_topics(&mut self, is_begun: bool, part: &mut Vec<u8>) {
        if let Some(user) = self.users.next() {
            self.write_user(&user, part);
            if !self.users.as_slice().is_empty() {
                part.push(b',');
            }
            return;
        }
        if is_begun {
            part.extend_from_slice(b"]}");
        }
        match self.topics.next() {
            Some(page) => {
                part.extend_from_slice(if is_begun { b",{" } else { b"{" });
                write_member("topic", page.topic.as_str(), part);
                part.extend_from_slice(br#","users":["#);
                self.users = page.users.into_iter();
                self.state = AnswerState::Topics { is_begun: true };
            }
            None => {
                part.extend_from_slice(br#"],"messages":{"#);
                self.state = AnswerState::Messages;
            }
        }
    }

    fn write_user(&mut self, present: &PresentUser<Arc<PresenceMessage>>, part: &mut Vec<u8>) {
        for message in &present.messages {
            self.messages.add(message);
        }
        let keys = present.messages.iter();
        let summary = UserSummary {
            user: present.user.as_str(),
            connections: present.connections,
            since: present.since,
            lingering: present.lingers,
            messages: keys.filter_map(|it| self.messages.key_of(it)).collect(),
        };
        // Cannot fail: all its values can be represented in JSON.
        drop(serde_json::to_writer(part, &summary));
    }

    fn write_message(&mut self, part: &mut Vec<u8>) {
        let Some((key, message)) = self.messages.unwritten.pop_front() else {
            part.extend_from_slice(b"},");
            let next = self.next.as_ref().map(cursor_text);
            write_member("next", &next, part);
            part.push(b'}');
            self.state = AnswerState::End;
            return;
        };
        let event = message.event();
        let json = event.schema().envelope_to_json_text(event.envelope());
        // Messages that cannot be rendered have been refused.
        let json = json.unwrap_or_else(|_| "null".to_owned());
        drop(serde_json::to_writer(&mut *part, &*key));
        part.push(b':');
        part.extend_from_slice(json.as_bytes());
        if !self.messages.unwritten.is_empty() {
            part.push(b',');
        }
    }
}

impl DocumentParts for PresenceAnswer {
    fn next_part(&mut self) -> Option<Bytes> {
        if self.is_complete() {
            return None;
        }
        let mut part = Vec::new();
        while part.len() < PART_BYTES && !self.is_complete() {
            self.write_piece(&mut part);
        }
        Some(part.into())
    }

    fn is_complete(&self) -> bool {
        self.state == AnswerState::End
    }

    fn making_cost(bytes: usize) -> Cost {
        Cost::JSON_BYTE.times(bytes)
    }
}

fn write_member(name: &str, value: &(impl Serialize + ?Sized), part: &mut Vec<u8>) {
    part.extend_from_slice(format!("\"{name}\":").as_bytes());
    drop(serde_json::to_writer(part, value));
}

/// The messages of the listed users, each with its key in the answer.
#[derive(Default)]
struct ListedMessages {
    /// By the message's address: a user may be listed on several topics.
    keys: HashMap<*const PresenceMessage, Arc<str>>,
    taken: HashSet<Arc<str>>,
    unwritten: VecDeque<(Arc<str>, Arc<PresenceMessage>)>,
}

impl ListedMessages {
    fn add(&mut self, message: &Arc<PresenceMessage>) {
        let address = Arc::as_ptr(message);
        if self.keys.contains_key(&address) {
            return;
        }
        let mut key = message.event().message_id().to_owned();
        // Clients choose the ids, so two messages may have the same one.
        while self.taken.contains(&*key) {
            key = format!("{key}~{}", self.keys.len());
        }
        let key: Arc<str> = key.into();
        self.taken.insert(Arc::clone(&key));
        self.keys.insert(address, Arc::clone(&key));
        self.unwritten.push_back((key, Arc::clone(message)));
    }

    fn key_of(&self, message: &Arc<PresenceMessage>) -> Option<&str> {
        self.keys.get(&Arc::as_ptr(message)).map(|key| &**key)
    }
}
