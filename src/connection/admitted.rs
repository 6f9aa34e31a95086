//! A client that was let in, and what is counted of it until it is gone. Knows no
//! stream.

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

/// What a connection takes beside its subscriptions, its messages and what is queued for
/// it, in bytes: its task, its entries in the hub and in the limits, its outbox. Measured
/// with 18,000 idle connections with one subscription each, at 1,801 bytes.
pub const CONNECTION_BYTES: usize = 2 * 1024;

/// A client whose handshake is accepted. From here on events are queued for it.
#[derive(Debug)]
pub struct Admitted {
    pub(super) identity: Identity,
    pub(super) membership: Membership,
    pub(super) outbox: Rc<Outbox>,
    pub(super) account: Account,
}

impl Admitted {
    /// Lets the client in, who is `who`, connects from `peer` and speaks in `encoding`.
    ///
    /// # Errors
    ///
    /// When there are too many connections, when its tenant is new and there is no place
    /// for another, and when there is no memory for it.
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

/// Counts the connection when it opens and when it closes, and what becomes of
/// its events.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) shard: Rc<Shard>,
    pub(super) outbox: Rc<Outbox>,
    /// Whose connection it is.
    place: Place,
    /// Why it ends, as far as is known.
    pub(super) closed: Closed,
    /// By this the end of the relay knows that the connection has ended.
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

    /// Whose connection it is.
    pub(super) fn who(&self) -> &UserKey {
        self.place.who()
    }

    /// One write, which is a system call where there is no TLS, has taken so much.
    pub(super) fn wrote(&self, advanced: Advanced) {
        let tally = self.shard.hub.tally();
        tally.writes.add(1);
        tally.frames_written.add(advanced.frames);
        tally.written.add(advanced.events);
        tally.queued.sub(advanced.events);
    }

    /// One read, which is a system call where there is no TLS, has brought something.
    pub(super) fn read(&self) {
        self.shard.hub.tally().reads.add(1);
    }

    /// So many events are dropped, for the reason that is known by now.
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
        tracing::debug!(%tenant, %user, reason = self.closed.label(), "a connection has ended");
    }
}
