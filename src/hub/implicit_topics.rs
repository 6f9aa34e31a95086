//! The topics that a connection has without subscribing, and whether they have been resumed.

use sidewire_protocol::{Topic, topic::TopicSet};

/// The implicit topics of a connection. Kept in a box, since they matter only when it resumes and
/// when it leaves.
#[derive(Debug)]
pub(super) struct ImplicitTopics {
    /// The topic of the connection's user.
    pub(super) user: Topic,
    /// The offset from which on events of the implicit topics have been delivered.
    pub(super) from: u64,
    /// True once they have been resumed, which happens only once.
    pub(super) is_resumed: bool,
    /// The topics that the connection's token subscribed to, until they are resumed with the
    /// implicit topics.
    pub(super) claimed: Vec<Topic>,
}

impl ImplicitTopics {
    /// Creates those of a new connection, at the offset that its shard has delivered.
    pub(super) fn new(user: Topic, from: u64) -> Self {
        Self {
            user,
            from,
            is_resumed: false,
            claimed: Vec::new(),
        }
    }

    /// Returns true if every connection of the user has the topic without subscribing.
    pub(super) fn contains(&self, topic: &Topic) -> bool {
        *topic == self.user || topic.is_everyone()
    }

    /// Removes topics that the connection has unsubscribed from, so that they are not resumed.
    pub(super) fn forget_claimed(&mut self, topics: &[Topic]) {
        if !self.claimed.is_empty() {
            let removed: TopicSet = topics.iter().cloned().collect();
            self.claimed.retain(|topic| !removed.contains(topic));
        }
    }
}
