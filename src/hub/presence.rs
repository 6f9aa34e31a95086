//! The presence of tenants: what clients say about who is present, kept while they are connected,
//! and shown to the other clients of its topics. The rules are those of [`sidewire_presence`];
//! this module applies them to connections.
//!
//! A tenant has one book for the whole process (`book`), behind a lock of its own. A change is
//! made in the book at once, and each shard that has connections of the tenant is told by its
//! [`PresenceMailbox`] (`mailbox`). The shard applies the changes when the scheduler serves the
//! tenant (`changes`): it offers each connection what it sees now. What a connection has no room
//! for is noted in its backlog (`backlog`), together with the topics of which it has not been sent
//! the users yet. When a connection has ended, its messages linger for a while (`linger`).

mod backlog;
mod book;
mod changes;
mod linger;
mod mailbox;
mod member;
mod message;
mod shard;

pub use sidewire_presence::{PageCursor, PresenceLimits, PresenceRefusal, PresentUser, TopicPage};

pub(super) use self::{
    backlog::PresenceBacklogs, book::TenantPresence, linger::LingeringConnections,
    mailbox::PresenceMailbox, shard::ShardPresence,
};
pub use self::{backlog::PresenceProgress, book::PresenceRefused, message::PresenceMessage};

use std::{sync::Arc, time::Duration};

/// A listing of who is present on some topics, with the messages.
pub type ListedPresence = sidewire_presence::PresencePage<Arc<PresenceMessage>>;

/// The settings of presence that a shard needs of itself.
#[derive(Debug, Clone, Copy)]
pub struct PresenceSettings {
    /// Time for which the messages of a connection that has ended are still shown.
    pub linger: Duration,
    /// Most messages that a connection may be owed.
    pub owed_max: usize,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self {
            linger: Duration::from_secs(5),
            owed_max: 1_000,
        }
    }
}
