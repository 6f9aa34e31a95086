//! Checks the events of other clients that a connection receives, and keeps its view of who is
//! present, as the contract says that clients keep it.

use std::collections::BTreeMap;

use super::connection::ConnectionChecker;
use crate::{
    client_messages::{WirePresence, WireTyping},
    history::{History, Timestamp},
    record::{ConnectionRecord, RequestKind},
    topics::TopicBits,
};

/// What a connection has received of other clients.
#[derive(Default)]
pub(super) struct HeardClients {
    /// The index of the last event of each connection, among its requests.
    last_typing: BTreeMap<usize, usize>,
    /// The index of the newest presence message of each connection.
    last_presence: BTreeMap<usize, usize>,
    /// The last presence message of each user that the client has not forgotten.
    pub(super) view: BTreeMap<String, SeenMessage>,
}

/// A presence message that a client sees.
#[derive(Debug, Clone)]
pub(super) struct SeenMessage {
    /// The connection that sent it, and the message's index among the requests of that.
    pub(super) connection: usize,
    pub(super) index: usize,
    topics: TopicBits,
}

/// The client's message that a connection has received.
struct SourceMessage<'a> {
    connection: usize,
    index: usize,
    sender: &'a ConnectionRecord,
    what: &'a RequestKind,
}

impl<'a> ConnectionChecker<'a> {
    pub(super) fn typing(&mut self, id: &str, typing: &WireTyping, when: Timestamp) {
        let source = self.source_of(id);
        let RequestKind::Typing(sent) = source.what else {
            panic!("{self}: {typing:?} was sent as {:?}", source.what);
        };
        let user = user_name(source.sender);
        let stamped = WireTyping {
            user,
            ..sent.clone()
        };
        assert_eq!(*typing, stamped, "{self}: an event has changed");
        self.check_reaches(sent.topics(), &source, when);
        let last = self
            .clients
            .last_typing
            .insert(source.connection, source.index);
        assert!(
            last.is_none_or(|last| last < source.index),
            "{self} hears {id} out of order or twice"
        );
    }

    pub(super) fn presence(
        &mut self,
        id: &str,
        presence: &WirePresence,
        when: Timestamp,
        history: &History,
    ) {
        self.check_replay_is_over();
        // The client that stayed to the end no longer looks when the others leave.
        let has_ended = self
            .connection
            .end
            .is_some_and(|(end, _)| end.moment < when.moment);
        if presence.is_absent() {
            history.count("absent");
            if !has_ended {
                self.clients.view.remove(&presence.user);
            }
            return;
        }
        history.count("presence");
        let source = self.source_of(id);
        let RequestKind::Presence(sent) = source.what else {
            panic!("{self}: {presence:?} was sent as {:?}", source.what);
        };
        let user = user_name(source.sender);
        let stamped = WirePresence {
            user: user.clone(),
            ..sent.clone()
        };
        assert_eq!(*presence, stamped, "{self}: a presence message has changed");
        self.check_reaches(sent.topics(), &source, when);
        let last = self
            .clients
            .last_presence
            .insert(source.connection, source.index);
        assert!(
            last.is_none_or(|last| last <= source.index),
            "{self} is shown {id} after a newer message"
        );
        if !has_ended {
            let seen = SeenMessage {
                connection: source.connection,
                index: source.index,
                topics: sent.topics(),
            };
            self.clients.view.insert(user, seen);
        }
    }

    /// Forgets the users whose last message names none of the remaining topics.
    pub(super) fn forget_unsubscribed(&mut self) {
        let remaining = self.topics();
        self.clients
            .view
            .retain(|_, seen| seen.topics.meets(remaining));
    }

    fn source_of(&self, id: &str) -> SourceMessage<'a> {
        let connection = id
            .split_once('.')
            .and_then(|(number, _)| number.parse().ok());
        let connection: usize = connection.unwrap_or_else(|| panic!("{self}: nobody sent {id}"));
        assert_ne!(connection, self.number, "{self} hears its own {id}");
        let sender = &self.connections[connection];
        assert_eq!(
            sender.tenant, self.connection.tenant,
            "{self}: not its tenant's"
        );
        let index = sender.sent.iter().position(|it| it.id == id);
        let index = index.unwrap_or_else(|| panic!("{self}: nobody sent {id}"));
        SourceMessage {
            connection,
            index,
            sender,
            what: &sender.sent[index].what,
        }
    }

    /// Checks that the message names a topic of this connection and of the one that sent it, only
    /// topics that this one was granted, and that no replay is under way.
    fn check_reaches(&self, named: TopicBits, source: &SourceMessage<'_>, when: Timestamp) {
        self.check_replay_is_over();
        let sent = source.sender.sent[source.index].sent.moment;
        assert!(
            source
                .sender
                .may_be_granted(named.exact(), sent, when.moment),
            "{self} hears {:?}, which its sender may not send",
            source.what
        );
        let shared = named.covered_by(source.sender.possible_topics());
        assert!(
            shared.meets(self.topics()),
            "{self} hears {:?} without a topic of it",
            source.what
        );
    }
}

pub(super) fn user_name(connection: &ConnectionRecord) -> String {
    format!("u{}", connection.user)
}
