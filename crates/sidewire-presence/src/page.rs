//! The users who are present on some topics, for the HTTP call that lists them.

use std::{cmp::Reverse, collections::BTreeSet};

use sidewire_protocol::{Topic, UserName};

use crate::{PresenceBook, places::Place};

/// A part of the users who are present on some topics.
#[derive(Debug)]
pub struct PresencePage<M> {
    /// The topics that this page comes to, in the order in which they were asked for.
    pub topics: Vec<TopicPage<M>>,
    /// Where the next page begins, or `None` if this is the last one.
    pub next: Option<PageCursor>,
}

/// The users on one topic.
#[derive(Debug)]
pub struct TopicPage<M> {
    /// The topic.
    pub topic: Topic,
    /// Its users, by name; none if the topic is unknown.
    pub users: Vec<PresentUser<M>>,
}

/// A user who is present on a topic.
#[derive(Debug)]
pub struct PresentUser<M> {
    /// The user.
    pub user: UserName,
    /// The number of connections with a message on the topic, those that have ended included.
    pub connections: usize,
    /// Since when the first of them has been present, in Unix seconds.
    pub since: i64,
    /// All of the messages linger.
    pub lingers: bool,
    /// The messages on the topic, newest first.
    pub messages: Vec<M>,
}

/// How far a listing has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageCursor {
    /// The topic of the last user.
    pub topic: Topic,
    /// The last user.
    pub user: UserName,
}

impl<M: Clone> PresenceBook<M> {
    /// Lists up to `limit` users, at least one, of these topics, as the book is now: in the order
    /// of the topics, and then by name. Begins behind `after`, with its topic; if that is none of
    /// the topics, at the start.
    #[must_use]
    pub fn page(
        &self,
        topics: &[Topic],
        after: Option<&PageCursor>,
        limit: usize,
    ) -> PresencePage<M> {
        let begun = after.and_then(|after| topics.iter().position(|topic| *topic == after.topic));
        let mut after = after.filter(|_| begun.is_some()).cloned();
        let mut page = PresencePage {
            topics: Vec::new(),
            next: None,
        };
        let mut room = limit.max(1);
        for topic in topics.iter().skip(begun.unwrap_or(0)) {
            let behind = after.as_ref().filter(|after| after.topic == *topic);
            let mut names = self.users_on(topic, behind.map(|after| after.user.clone()));
            let listed: Vec<_> = names.by_ref().take(room).collect();
            if let Some(last) = listed.last() {
                after = Some(PageCursor::new(topic, last));
            }
            room -= listed.len();
            let is_complete = names.next().is_none();
            if is_complete || !listed.is_empty() {
                let users = listed
                    .into_iter()
                    .map(|user| self.present_user(topic, user));
                page.topics.push(TopicPage {
                    topic: topic.clone(),
                    users: users.collect(),
                });
            }
            if !is_complete {
                page.next = after;
                break;
            }
        }
        page
    }

    /// The users on the topic after this one, by name.
    fn users_on(&self, topic: &Topic, after: Option<UserName>) -> impl Iterator<Item = &UserName> {
        let topic = topic.clone();
        let after = Place {
            topic: topic.clone(),
            user: after,
        };
        let places = self.places.after(&after);
        let of_topic = places.take_while(move |place| place.topic == topic);
        of_topic.filter_map(|place| place.user.as_ref())
    }

    fn present_user(&self, topic: &Topic, user: &UserName) -> PresentUser<M> {
        let entries = self.keys_of(user).flat_map(|(_, entries)| entries.iter());
        let mut entries: Vec<_> = entries
            .filter(|entry| entry.topics.contains(topic))
            .collect();
        entries.sort_by_key(|entry| Reverse(entry.order));
        let connections: BTreeSet<_> = entries.iter().map(|entry| entry.connection).collect();
        PresentUser {
            user: user.clone(),
            connections: connections.len(),
            since: entries.iter().map(|entry| entry.since).min().unwrap_or(0),
            lingers: entries.iter().all(|entry| entry.lingers),
            messages: entries.iter().map(|entry| entry.message.clone()).collect(),
        }
    }
}

impl PageCursor {
    fn new(topic: &Topic, user: &UserName) -> Self {
        Self {
            topic: topic.clone(),
            user: user.clone(),
        }
    }
}
