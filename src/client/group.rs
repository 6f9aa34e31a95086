//! Topics that were asked for together and stand at one position, and how they are
//! put together and taken apart for a new connection.

use indexmap::IndexSet;

use crate::protocol::wire::Position;

/// The most topics and bytes of topics that go into one Subscribe: the relay
/// takes 1,000 topics and frames of 64 KiB.
const SUBSCRIBE_TOPICS_MAX: usize = 1_000;
const SUBSCRIBE_BYTES_MAX: usize = 48 * 1024;

/// Names a group. They are asked for in the order of their ids.
pub(super) type GroupId = u64;

/// Events were missed that the relay cannot bring any more.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gap {
    /// Everything up to here was had.
    pub(super) since: Position,
    pub(super) topics: Vec<String>,
    /// Whether the implicit topics have the gap too.
    pub(super) implicit: bool,
}

/// The topics of one Subscribe.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) topics: IndexSet<String>,
    /// Whether the implicit topics belong to it. They do to exactly one group.
    pub(super) implicit: bool,
    /// Everything up to here was had; none before the first confirmation.
    pub(super) position: Option<Position>,
    /// Whether an answer is owed.
    pub(super) is_asked: bool,
    /// Whether the Subscribe named any of its topics.
    pub(super) is_named: bool,
}

impl Group {
    /// Whether nobody would miss it.
    pub(super) fn is_idle(&self) -> bool {
        self.topics.is_empty() && !self.implicit && !self.is_asked
    }

    pub(super) fn offset_in(&self, epoch: &str) -> Option<u64> {
        offset_in(self.position.as_ref()?, epoch)
    }

    pub(super) fn gap(&self, since: Position) -> Gap {
        Gap {
            since,
            topics: self.topics.iter().cloned().collect(),
            implicit: self.implicit,
        }
    }

    /// Takes the topics of a group that stands where this one does.
    pub(super) fn join(&mut self, other: Self) {
        self.topics.extend(other.topics);
        self.implicit |= other.implicit;
    }

    /// In portions that the relay takes in one frame; the first one has the implicit
    /// topics.
    pub(super) fn split(self) -> impl Iterator<Item = Self> {
        let (position, implicit) = (self.position, self.implicit);
        let mut portions = portions(self.topics);
        if portions.is_empty() && implicit {
            portions.push(IndexSet::new());
        }
        portions
            .into_iter()
            .enumerate()
            .map(move |(place, topics)| Self {
                topics,
                implicit: implicit && place == 0,
                position: position.clone(),
                ..Self::default()
            })
    }
}

pub(super) fn offset_in(position: &Position, epoch: &str) -> Option<u64> {
    (position.epoch == epoch).then_some(position.offset)
}

/// Sets a position that stands lower, without a new string for the epoch.
pub(super) fn move_on(position: &mut Position, to: &Position) {
    if position.epoch != to.epoch {
        position.epoch.clone_from(&to.epoch);
    } else if position.offset >= to.offset {
        return;
    }
    position.offset = to.offset;
}

/// Those of `home`'s epoch come first, the lowest of them at the head, those
/// without a position last.
pub(super) fn rank(position: Option<&Position>, home: Option<&Position>) -> (u8, u64) {
    match position {
        Some(position) if home.is_some_and(|home| home.epoch == position.epoch) => {
            (0, position.offset)
        }
        Some(position) => (1, position.offset),
        None => (2, 0),
    }
}

/// One group for each position.
pub(super) fn merged(groups: impl Iterator<Item = Group>) -> Vec<Group> {
    let mut merged: Vec<Group> = Vec::new();
    for group in groups {
        match merged.iter_mut().find(|it| it.position == group.position) {
            Some(same) => same.join(group),
            None => merged.push(group),
        }
    }
    merged
}

/// The topics in portions that the relay takes in one frame.
pub(super) fn portions(topics: IndexSet<String>) -> Vec<IndexSet<String>> {
    let mut portions: Vec<IndexSet<String>> = Vec::new();
    let mut bytes = 0;
    for topic in topics {
        // Tag and length go with it.
        bytes += topic.len() + 4;
        match portions.last_mut() {
            Some(last) if last.len() < SUBSCRIBE_TOPICS_MAX && bytes <= SUBSCRIBE_BYTES_MAX => {
                last.insert(topic);
            }
            _ => {
                bytes = topic.len() + 4;
                portions.push(IndexSet::from([topic]));
            }
        }
    }
    portions
}
