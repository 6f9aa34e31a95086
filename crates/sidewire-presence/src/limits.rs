//! The bounds of presence, and what an entry counts for.

use sidewire_protocol::Topic;

/// What an entry on one topic needs in memory, besides the message and the topic's text, in bytes.
/// A test measures it.
pub const ENTRY_BYTES: usize = 400;

/// What each topic of a message after the first needs in memory besides its text, in bytes.
pub const FURTHER_TOPIC_BYTES: usize = 200;

/// The bounds of a tenant's presence. They are judged when a message comes, for the state that it
/// would lead to. Lower ones leave what is there as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceLimits {
    /// Maximum number of messages of one user. Those that linger count.
    pub messages_per_user: usize,
    /// Maximum number of users with a message on one topic.
    pub users_per_topic: usize,
    /// Maximum size of a tenant's messages together, each counted by [`entry_bytes`].
    pub bytes_per_tenant: usize,
}

/// The bound that a message would exceed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceRefusal {
    /// The user has [`PresenceLimits::messages_per_user`] messages.
    #[error("the user has too many presence messages")]
    UserMessages,
    /// The topic has [`PresenceLimits::users_per_topic`] users.
    #[error("too many users are present on {0}")]
    TopicUsers(Topic),
    /// The tenant has no room for the message in [`PresenceLimits::bytes_per_tenant`].
    #[error("the tenant has too much presence")]
    TenantBytes,
}

/// What a message counts for in its tenant's bytes: its size, the topics that it names, and what
/// the book needs to keep it.
#[must_use]
pub fn entry_bytes(message_bytes: usize, named: &[Topic]) -> usize {
    let texts: usize = named.iter().map(|topic| topic.as_str().len()).sum();
    let further = named.len().saturating_sub(1) * FURTHER_TOPIC_BYTES;
    message_bytes + ENTRY_BYTES + texts + further
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::topic;

    #[test]
    fn a_message_counts_with_its_topics_and_the_room_to_keep_it() {
        assert_eq!(entry_bytes(50, &[topic("a:123")]), 50 + 400 + 5);
        let three = [topic("a:1"), topic("a:22"), topic("a:333")];
        assert_eq!(entry_bytes(50, &three), 50 + 400 + 12 + 2 * 200);
    }
}
