//! Presence: which users are present on which topics of a tenant, by the last message that each of
//! their connections sent.
//!
//! A [`PresenceBook`] holds the presence of one tenant. Connections change it with
//! [`set`](PresenceBook::set), [`withdraw`](PresenceBook::withdraw) and so on. Each shard then
//! takes the changes as [`Transition`]s, at its own pace, and offers them to its connections. What
//! a connection sees follows from the [`Entry`] lists alone, by [`seen`]; what it is sent, from
//! what it saw before and sees now, by [`update_after_change`].
//!
//! All of this is data: no I/O, no locks, no clock. The message itself is opaque.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

mod book;
mod entry;
mod limits;
mod page;
mod pending;
mod places;
mod snapshot;
#[cfg(test)]
mod testing;
mod transition;
mod view;

pub use book::{NewMessage, PresenceBook};
pub use entry::{ConnectionKey, Entry, EntryList, PresenceKey, seen};
pub use limits::{ENTRY_BYTES, FURTHER_TOPIC_BYTES, PresenceLimits, PresenceRefusal, entry_bytes};
pub use page::{PageCursor, PresencePage, PresentUser, TopicPage};
pub use snapshot::{AppliedKey, SnapshotCursor, SnapshotPart};
pub use transition::Transition;
pub use view::{ViewUpdate, update_after_change, update_after_unsubscribe};
