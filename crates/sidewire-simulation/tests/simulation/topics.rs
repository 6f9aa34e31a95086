//! The topics of a simulation, which have the same names in each tenant, and sets of them.

use std::ops::{BitAnd, BitOr, BitOrAssign};

use super::dice::Dice;

/// All topics. Clients can subscribe to the first [`ASKABLE`] of them.
pub(super) const TOPICS: [&str; 16] = [
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
];

/// Number of topics that clients can subscribe to.
pub(super) const ASKABLE: usize = 11;

pub(super) const USERS: usize = 4;

pub(super) const TENANTS: [&str; 4] = ["acme", "beta", "cosy", "dune"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(super) struct TopicBits(u16);

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

    /// Returns the implicit topics of a user.
    pub(super) fn implicit(user: usize) -> Self {
        Self::of(ASKABLE + user) | Self::of(TOPICS.len() - 1)
    }

    /// Returns random topics that can be subscribed to.
    pub(super) fn drawn(dice: &Dice, count: usize) -> Self {
        (0..count).fold(Self::NONE, |set, _| set | Self::of(dice.below(ASKABLE)))
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
