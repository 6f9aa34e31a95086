//! An admitted client, and its entries in metrics and limits until it is gone. Knows no stream.

use std::{net::IpAddr, rc::Rc};

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::{
    auth::Identity,
    hub::Membership,
    limits::{Limit, Place, UserKey},
    memory::{MemoryExceeded, MemoryUse},
    ops::Closed,
    outbox::{Advanced, Outbox},
    protocol::Encoding,
    relay::Shard,
};

/// Bytes that a connection takes besides its subscriptions, its messages and its queued frames:
/// for its task, its outbox, and its entries in the hub and in the limits. Measured with 18,000
/// idle connections with one subscription each: 1,801 bytes.
pub const CONNECTION_BYTES: usize = 2 * 1024;

/// A client that passed the handshake. From here on events are queued for it.
#[derive(Debug)]
pub struct Admitted {
    pub(super) identity: Identity,
    pub(super) membership: Membership,
    pub(super) outbox: Rc<Outbox>,
    pub(super) account: Account,
}

impl Admitted {
    /// Admits the client with this identity, which connects from `peer` and uses `encoding`.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there are too many connections, if the tenant is new and
    /// there are too many tenants, or if there is no memory for the connection.
    pub fn new(
        shard: &Rc<Shard>,
        identity: Identity,
        who: UserKey,
        peer: IpAddr,
        encoding: Encoding,
    ) -> Result<Self, Limit> {
        let place = shard.relay.limits.connect(who, peer)?;
        let outbox = Rc::new(Outbox::speaking(encoding, &shard.outboxes));
        let membership = shard
            .hub
            .join(&identity.tenant, &identity.user, Rc::clone(&outbox))
            .map_err(|_| Limit::Tenants)?;
        let memory = shard.relay.publisher.memory();
        memory
            .try_hold(MemoryUse::ClientConnections, CONNECTION_BYTES)
            .map_err(|MemoryExceeded| Limit::Memory)?;
        Ok(Self {
            membership,
            account: Account::open(shard, &outbox, place),
            identity,
            outbox,
        })
    }
}

/// Counts the connection when it opens and when it closes, and what happens to its events.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) shard: Rc<Shard>,
    pub(super) outbox: Rc<Outbox>,
    /// Its slot among the connections of its user.
    place: Place,
    /// Reason for the end of the connection, as far as it is known.
    pub(super) closed: Closed,
    /// Lets the shutdown of the relay wait for the end of the connection.
    _let_in: TaskTrackerToken,
}

impl Account {
    fn open(shard: &Rc<Shard>, outbox: &Rc<Outbox>, place: Place) -> Self {
        shard.hub.tally().connections.add(1);
        shard.hub.tally().connections_opened.add(1);
        Self {
            shard: Rc::clone(shard),
            outbox: Rc::clone(outbox),
            place,
            closed: Closed::Lost,
            _let_in: shard.relay.clients.token(),
        }
    }

    /// The user of the connection.
    pub(super) fn who(&self) -> &UserKey {
        self.place.who()
    }

    /// Counts a write, which without TLS is a system call, and the frames and events that it
    /// wrote.
    pub(super) fn wrote(&self, advanced: Advanced) {
        let tally = self.shard.hub.tally();
        tally.writes.add(1);
        tally.frames_written.add(advanced.frames);
        tally.written.add(advanced.events);
        tally.queued.sub(advanced.events);
    }

    /// Counts a read, which without TLS is a system call.
    pub(super) fn read(&self) {
        self.shard.hub.tally().reads.add(1);
    }

    /// Counts this many dropped events, by the reason known so far.
    pub(super) fn discarded(&self, events: u64) {
        let tally = self.shard.hub.tally();
        if self.closed.is_too_slow() {
            tally.dropped_slow.add(events);
        } else {
            tally.dropped_closed.add(events);
        }
        tally.queued.sub(events);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.discarded(self.outbox.abandon());
        let memory = self.shard.relay.publisher.memory();
        memory.release(MemoryUse::ClientConnections, CONNECTION_BYTES);
        self.shard.hub.tally().connections.sub(1);
        self.shard.relay.metrics.closed(self.closed);
        let UserKey { tenant, user } = self.place.who();
        tracing::debug!(%tenant, %user, reason = self.closed.label(), "connection closed");
    }
}
