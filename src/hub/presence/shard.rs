//! What a shard has for the presence of all its tenants.

use std::{cell::Cell, sync::Arc};

use sidewire_presence::PresenceKey;
use sidewire_protocol::{clock::Clock, random::RandomSource};

use super::{
    LingeringConnections, PresenceMailbox, PresenceMessage, PresenceSettings, book::PresenceContext,
};
use crate::{
    hub::{
        shard::{ShardHub, ShardTenant},
        subscribers::ConnectionId,
        tenant::Tenant,
    },
    outbox::Outbox,
};

/// A shard's part in presence, besides that of its tenants.
#[derive(Debug)]
pub(in crate::hub) struct ShardPresence {
    /// The mailboxes of all shards.
    pub(super) mailboxes: Arc<[PresenceMailbox]>,
    pub(super) clock: Clock,
    pub(super) lingering: LingeringConnections,
    pub(super) settings: Cell<PresenceSettings>,
}

impl ShardPresence {
    pub(in crate::hub) fn new(mailboxes: Arc<[PresenceMailbox]>, clock: Clock) -> Self {
        Self {
            mailboxes,
            clock,
            lingering: LingeringConnections::default(),
            settings: Cell::default(),
        }
    }
}

impl ShardHub {
    /// Sets what the shard needs to know of the configuration for presence.
    pub fn configure_presence(&self, settings: PresenceSettings) {
        self.presence().settings.set(settings);
    }

    /// Returns the shard's own mailbox.
    pub(in crate::hub) fn presence_mailbox(&self) -> Option<&PresenceMailbox> {
        self.presence().mailboxes.get(self.id())
    }

    pub(super) fn presence_context<'a>(&'a self, tenant: &'a Arc<Tenant>) -> PresenceContext<'a> {
        PresenceContext {
            tenant,
            mailboxes: &self.presence().mailboxes,
            account: self.memory(),
        }
    }

    /// Notes that a connection has to be sent what it sees of a key. `last` is what it was sent
    /// before.
    pub(super) fn owe_presence(
        &self,
        here: &ShardTenant,
        connection: (ConnectionId, &Outbox),
        key: &PresenceKey,
        last: Option<&Arc<PresenceMessage>>,
    ) {
        let owed_max = self.presence().settings.get().owed_max;
        here.presence_backlogs.owe(connection, key, last, owed_max);
    }

    pub(super) fn random(&self) -> &RandomSource {
        self.registry().random()
    }
}
