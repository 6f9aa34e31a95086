//! The message that the book keeps in these tests.

use std::{ops::Deref, sync::Arc};

use sidewire_presence::{ConnectionKey, PresenceKey};
use sidewire_protocol::Topic;

#[derive(Debug, Clone)]
pub(crate) struct Message(Arc<MessageParts>);

#[derive(Debug)]
pub(crate) struct MessageParts {
    /// Grows with each message of the tenant.
    pub(crate) number: u64,
    pub(crate) key: PresenceKey,
    pub(crate) sender: ConnectionKey,
    pub(crate) named: Vec<Topic>,
}

impl Message {
    pub(crate) fn new(parts: MessageParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Message {
    type Target = MessageParts;

    fn deref(&self) -> &MessageParts {
        &self.0
    }
}
