//! Which users are on which topics, in order.

use std::{
    collections::{
        BTreeMap,
        btree_map::Entry::{Occupied, Vacant},
    },
    ops::Bound,
};

use sidewire_protocol::{Topic, UserName};

/// A user on a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) topic: Topic,
    /// `None` comes before every user of the topic, and is only used to search from.
    pub(crate) user: Option<UserName>,
}

impl Place {
    pub(crate) fn new(topic: &Topic, user: &UserName) -> Self {
        Self {
            topic: topic.clone(),
            user: Some(user.clone()),
        }
    }

    /// A place before all users on the topics of a subscription, which may be a wildcard.
    pub(crate) fn before_all(subscription: &Topic) -> Option<Self> {
        let topic = if subscription.is_wildcard() {
            // No id comes before this one, since control characters are not allowed.
            Topic::new(subscription.kind(), " ").ok()?
        } else {
            subscription.clone()
        };
        Some(Self { topic, user: None })
    }
}

/// Counts the entries of each user on each topic.
#[derive(Debug, Default)]
pub(crate) struct Places(BTreeMap<Place, u32>);

impl Places {
    /// Counts one more entry. Returns true if it is the first.
    pub(crate) fn add(&mut self, place: Place) -> bool {
        let entries = self.0.entry(place).or_default();
        *entries += 1;
        *entries == 1
    }

    /// Counts one entry less. Returns true if it was the last.
    pub(crate) fn remove(&mut self, place: Place) -> bool {
        match self.0.entry(place) {
            Occupied(mut entries) if *entries.get() > 1 => {
                *entries.get_mut() -= 1;
                false
            }
            Occupied(entries) => {
                entries.remove();
                true
            }
            Vacant(_) => false,
        }
    }

    pub(crate) fn contains(&self, place: &Place) -> bool {
        self.0.contains_key(place)
    }

    /// The places after this one, in order.
    pub(crate) fn after<'p>(&'p self, place: &Place) -> impl Iterator<Item = &'p Place> + use<'p> {
        let range = (Bound::Excluded(place), Bound::Unbounded);
        self.0.range(range).map(|(place, _)| place)
    }
}
