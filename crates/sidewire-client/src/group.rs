//! Groups of topics that share one position, and how they are merged and split into
//! Subscribes for a new connection.

use indexmap::IndexSet;

use sidewire_protocol::wire::Position;

/// Upper bounds for one Subscribe, in topics and in bytes of topics: the relay accepts
/// 1,000 topics and frames of 64 KiB.
const SUBSCRIBE_TOPICS_MAX: usize = 1_000;
const SUBSCRIBE_BYTES_MAX: usize = 48 * 1024;

/// Identifies a group. Groups are subscribed in the order of their ids.
pub(super) type GroupId = u64;

/// Missed events that the relay can no longer replay.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EventGap {
    /// Every event up to this position was received.
    pub(super) since: Position,
    pub(super) topics: Vec<String>,
    /// True if events of the implicit topics may be missing too.
    pub(super) implicit: bool,
}

/// The topics of one Subscribe.
#[derive(Debug, Default)]
pub(super) struct TopicGroup {
    pub(super) topics: IndexSet<String>,
    /// True if the group includes the implicit topics. Exactly one group does.
    pub(super) implicit: bool,
    /// Every event up to this position was received; `None` before the first confirmation.
    pub(super) position: Option<Position>,
    /// True while the relay has not answered the Subscribe.
    pub(super) is_asked: bool,
    /// True if the Subscribe listed topics, not only the implicit ones.
    pub(super) is_named: bool,
}

impl TopicGroup {
    /// Returns true if the group can be removed.
    pub(super) fn is_idle(&self) -> bool {
        self.topics.is_empty() && !self.implicit && !self.is_asked
    }

    pub(super) fn offset_in(&self, epoch: &str) -> Option<u64> {
        offset_in(self.position.as_ref()?, epoch)
    }

    /// Returns the gap of the group after a position; `None` if all its topics were unsubscribed
    /// before the relay answered.
    pub(super) fn gap_since(&self, since: Position) -> Option<EventGap> {
        let is_empty = self.topics.is_empty() && !self.implicit;
        (!is_empty).then(|| EventGap {
            since,
            topics: self.topics.iter().cloned().collect(),
            implicit: self.implicit,
        })
    }

    /// Merges in the topics of another group at the same position.
    pub(super) fn absorb_group(&mut self, other: Self) {
        self.topics.extend(other.topics);
        self.implicit |= other.implicit;
    }

    /// Splits the group into groups that each fit into one Subscribe frame. The first one
    /// keeps the implicit topics.
    pub(super) fn split_to_fit(self) -> impl Iterator<Item = Self> {
        let (position, implicit) = (self.position, self.implicit);
        let mut portions = split_topics(self.topics);
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

/// Raises `position` to `to` if it is lower or in another epoch, without allocating a
/// new string for the same epoch.
pub(super) fn raise_position(position: &mut Position, to: &Position) {
    if position.epoch != to.epoch {
        position.epoch.clone_from(&to.epoch);
    } else if position.offset >= to.offset {
        return;
    }
    position.offset = to.offset;
}

/// Returns the sort key for the order of subscribing: positions in `home`'s epoch
/// first, lowest offset first; then other epochs; groups without a position last.
pub(super) fn resume_order(position: Option<&Position>, home: Option<&Position>) -> (u8, u64) {
    match position {
        Some(position) if home.is_some_and(|home| home.epoch == position.epoch) => {
            (0, position.offset)
        }
        Some(position) => (1, position.offset),
        None => (2, 0),
    }
}

/// Merges the groups that have the same position.
pub(super) fn merge_by_position(groups: impl Iterator<Item = TopicGroup>) -> Vec<TopicGroup> {
    let mut merged: Vec<TopicGroup> = Vec::new();
    for group in groups {
        match merged.iter_mut().find(|it| it.position == group.position) {
            Some(same) => same.absorb_group(group),
            None => merged.push(group),
        }
    }
    merged
}

/// Splits topics into sets that each fit into one Subscribe frame.
pub(super) fn split_topics(topics: IndexSet<String>) -> Vec<IndexSet<String>> {
    let mut portions: Vec<IndexSet<String>> = Vec::new();
    let mut bytes = 0;
    for topic in topics {
        // The field's tag and length.
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
