//! The topics of a simulation, which have the same names in each tenant, and sets of them.

use std::ops::{BitAnd, BitOr, BitOrAssign};

use super::dice::Dice;

/// All topics. Events relate to the first [`EVENT_TOPICS`] of them; the others are wildcards.
/// Clients can subscribe to the wildcards and to the first [`EXACT`] topics.
pub(super) const TOPICS: [&str; 19] = [
    "project:p0",
    "project:p1",
    "project:p2",
    "sprint:s0",
    "sprint:s1",
    "work_item:w0",
    "work_item:w1",
    "work_item:w2",
    "work_item:w3",
    "room:r0",
    "room:r1",
    "user:u0",
    "user:u1",
    "user:u2",
    "user:u3",
    "tenant:*",
    "project:*",
    "work_item:*",
    "room:*",
];

/// Number of exact topics that clients can subscribe to.
pub(super) const EXACT: usize = 11;

/// Number of topics that events can relate to.
pub(super) const EVENT_TOPICS: usize = 16;

pub(super) const USERS: usize = 4;

pub(super) const TENANTS: [&str; 4] = ["acme", "beta", "cosy", "dune"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(super) struct TopicBits(u32);

impl TopicBits {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn of(index: usize) -> Self {
        Self(1 << index)
    }

    /// Returns the set with the topic of this name.
    pub(super) fn named(name: &str) -> Self {
        let index = TOPICS.iter().position(|topic| *topic == name);
        Self::of(index.unwrap_or_else(|| panic!("nobody has spoken of {name}")))
    }

    /// Returns the set of these topics, none of which may be there twice.
    pub(super) fn of_distinct(names: &[String]) -> Self {
        let set: Self = names.iter().map(String::as_str).collect();
        assert_eq!(set.indices().count(), names.len(), "{names:?}");
        set
    }

    /// Returns the implicit topics of a user.
    pub(super) fn implicit(user: usize) -> Self {
        Self::of(EXACT + user) | Self::of(EVENT_TOPICS - 1)
    }

    /// Returns random topics that can be subscribed to.
    pub(super) fn drawn(dice: &Dice, count: usize) -> Self {
        let wildcards = TOPICS.len() - EVENT_TOPICS;
        (0..count).fold(Self::NONE, |set, _| {
            let index = match dice.below(EXACT + wildcards) {
                exact if exact < EXACT => exact,
                wildcard => wildcard - EXACT + EVENT_TOPICS,
            };
            set | Self::of(index)
        })
    }

    /// Returns the topics that can be subscribed to.
    pub(super) fn all_to_ask_for() -> Self {
        let all = (0..TOPICS.len()).filter(|index| !(EXACT..EVENT_TOPICS).contains(index));
        all.fold(Self::NONE, |set, index| set | Self::of(index))
    }

    /// Returns the subscriptions that end if a backend ends those to these topics: the wildcards
    /// that cover one of them too, and for a wildcard all of its kind.
    pub(super) fn subscriptions_ended(self) -> Self {
        let kind_of = |name: &'static str| name.split_once(':').unwrap();
        let is_ended = |index: &usize| {
            let (kind, id) = kind_of(TOPICS[*index]);
            self.names()
                .map(kind_of)
                .any(|(ended, its)| ended == kind && (id == "*" || its == "*" || its == id))
        };
        let ended = Self::all_to_ask_for().indices().filter(is_ended);
        ended.fold(Self::NONE, |set, index| set | Self::of(index))
    }

    /// Returns true if clients can subscribe to the topic of this name.
    pub(super) fn can_be_asked_for(name: &str) -> bool {
        TOPICS[..EXACT].contains(&name) || TOPICS[EVENT_TOPICS..].contains(&name)
    }

    /// Returns the topics of an event and the wildcards that bring it.
    pub(super) fn with_wildcards(self) -> Self {
        let is_brought_by = |wildcard: &str| {
            let kind = wildcard.split_once(':').unwrap().0;
            self.names()
                .any(|name| name.split_once(':').unwrap().0 == kind)
        };
        let wildcards = (EVENT_TOPICS..TOPICS.len()).filter(|index| is_brought_by(TOPICS[*index]));
        wildcards.fold(self, |set, index| set | Self::of(index))
    }

    /// Returns the topics that are not wildcards.
    pub(super) fn exact(self) -> Self {
        Self(self.0 & ((1 << EVENT_TOPICS) - 1))
    }

    /// Returns the exact topics that are subscribed to, with the wildcards that bring them.
    pub(super) fn covered_by(self, subscribed: Self) -> Self {
        let topics = self.exact().indices().map(Self::of);
        let topics = topics.map(Self::with_wildcards);
        let covered = topics.filter(|topic| topic.meets(subscribed));
        covered.fold(Self::NONE, |set, topic| set | topic)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn meets(self, other: Self) -> bool {
        !(self & other).is_empty()
    }

    pub(super) fn less(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn indices(self) -> impl Iterator<Item = usize> {
        (0..TOPICS.len()).filter(move |index| self.meets(Self::of(*index)))
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        self.indices().map(|index| TOPICS[index])
    }
}

impl BitOr for TopicBits {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TopicBits {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for TopicBits {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl<'a> FromIterator<&'a str> for TopicBits {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        names
            .into_iter()
            .fold(Self::NONE, |set, name| set | Self::named(name))
    }
}
