//! How often and how many: rates as buckets, caps as counts, budgets of one
//! connection. Knows who is counted by name alone, of what they do only what it is
//! called, and not how they are answered when it is too much.
//!
//! One [`Limits`] lives as long as the process. [`Limits::configure`] tells it what
//! holds from now on: a bucket whose rate has changed begins full, one whose rate has
//! not goes on as it stands.

mod census;
mod heartbeats;
mod in_force;
mod rates;
mod refusals;
mod sockets;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::{
    config::Config,
    protocol::{TenantName, UserName},
};
use in_force::InForce;
use rates::Bucket;

pub use census::{Census, Place};
pub use heartbeats::Heartbeats;
pub use rates::Rate;
pub use refusals::Refusals;
pub use sockets::{Arrival, Room, Seat, Sockets, Whose};

/// What can be too much, for the label `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The connections of the process.
    Connections,
    /// The sockets of clients, which the process's descriptors bound.
    Descriptors,
    /// The connections of a tenant.
    TenantConnections,
    /// The connections of a user.
    UserConnections,
    /// The connections from an address.
    AddressConnections,
    /// The tenants of the process.
    Tenants,
    /// The handshakes of the process in a second.
    Handshakes,
    /// The handshakes from an address in a minute.
    AddressHandshakes,
    /// The handshakes of a user in a minute.
    UserHandshakes,
    /// The messages of a user.
    UserMessages,
    /// The messages of a tenant's users.
    TenantMessages,
    /// The pings of a connection, and its frames that say nothing.
    Heartbeats,
    /// The topics of a connection.
    Topics,
    /// The requests of a connection that wait for a replay to be over.
    Waiting,
    /// The events that are posted for a tenant.
    IngestTenant,
    /// The events that are posted with a key.
    IngestKey,
    /// The memory that is held for clients and backends.
    Memory,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Connections,
        Self::Descriptors,
        Self::TenantConnections,
        Self::UserConnections,
        Self::AddressConnections,
        Self::Tenants,
        Self::Handshakes,
        Self::AddressHandshakes,
        Self::UserHandshakes,
        Self::UserMessages,
        Self::TenantMessages,
        Self::Heartbeats,
        Self::Topics,
        Self::Waiting,
        Self::IngestTenant,
        Self::IngestKey,
        Self::Memory,
    ];

    /// The limit as a word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Descriptors => "descriptors",
            Self::TenantConnections => "tenant_connections",
            Self::UserConnections => "user_connections",
            Self::AddressConnections => "address_connections",
            Self::Tenants => "tenants",
            Self::Handshakes => "handshakes",
            Self::AddressHandshakes => "address_handshakes",
            Self::UserHandshakes => "user_handshakes",
            Self::UserMessages => "user_messages",
            Self::TenantMessages => "tenant_messages",
            Self::Heartbeats => "heartbeats",
            Self::Topics => "topics",
            Self::Waiting => "waiting",
            Self::IngestTenant => "ingest_tenant",
            Self::IngestKey => "ingest_key",
            Self::Memory => "memory",
        }
    }

    /// What there is too much of, for people.
    fn what(self) -> &'static str {
        match self {
            Self::Connections | Self::Descriptors => "connections",
            Self::TenantConnections => "connections of this tenant",
            Self::UserConnections => "connections of this user",
            Self::AddressConnections => "connections from this address",
            Self::Tenants => "tenants",
            Self::Handshakes => "handshakes",
            Self::AddressHandshakes => "handshakes from this address",
            Self::UserHandshakes => "handshakes of this user",
            Self::UserMessages => "messages of this user",
            Self::TenantMessages => "messages of this tenant's users",
            Self::Heartbeats => "pings, pongs or small fragments",
            Self::Topics => "topics",
            Self::Waiting => "requests that wait",
            Self::IngestTenant => "events for this tenant",
            Self::IngestKey => "events with this key",
            Self::Memory => "bytes in memory",
        }
    }
}

/// For people: "too many connections".
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many {}", self.what())
    }
}

/// It is too much, and will be less when some time has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// What is.
    pub limit: Limit,
    /// When to try again: whole milliseconds, and never 0.
    pub retry_after: Duration,
}

/// For people, as what is exceeded.
impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)
    }
}

/// A user, inside its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserKey {
    /// The tenant.
    pub tenant: TenantName,
    /// The user.
    pub user: UserName,
}

/// To whom a message is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// To its user.
    User,
    /// To its user and its tenant.
    UserAndTenant,
}

/// The limits of a process.
#[derive(Debug)]
pub struct Limits {
    in_force: ArcSwap<InForce>,
    /// Who is connected.
    pub census: Arc<Census>,
}

impl Limits {
    /// Nobody is connected, and all buckets are full.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            in_force: ArcSwap::from_pointee(InForce::new(config)),
            census: Arc::default(),
        }
    }

    /// What holds from now on.
    pub fn configure(&self, config: &Config) {
        let next = self.in_force.load().followed_by(config);
        self.in_force.store(Arc::new(next));
    }

    /// One handshake begins.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn handshake(&self) -> Result<(), Exceeded> {
        let in_force = self.in_force.load();
        charge(in_force.handshakes.as_deref(), &(), Limit::Handshakes)
    }

    /// One handshake begins that comes from this address, of IPv6 from its /64.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn address_handshake(&self, address: IpAddr) -> Result<(), Exceeded> {
        let in_force = self.in_force.load();
        let bucket = in_force.address_handshakes.as_deref();
        charge(
            bucket,
            &census::counted_as(address),
            Limit::AddressHandshakes,
        )
    }

    /// One handshake of this user's has come so far that it is known whose it is.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn user_handshake(&self, who: &UserKey) -> Result<(), Exceeded> {
        let in_force = self.in_force.load();
        let bucket = in_force.user_handshakes.of(&who.tenant);
        charge(bucket, who, Limit::UserHandshakes)
    }

    /// Counts a connection, until what comes back is dropped.
    ///
    /// # Errors
    ///
    /// When there are too many.
    pub fn connect(&self, who: UserKey, peer: IpAddr) -> Result<Place, Limit> {
        let caps = self.in_force.load().caps_of(&who.tenant);
        Census::enter(&self.census, who, peer, caps)
    }

    /// One message has come. A user that is over its rate takes nothing from what its
    /// tenant may.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn message(&self, who: &UserKey, to: Charge) -> Result<(), Exceeded> {
        let in_force = self.in_force.load();
        let users = in_force.user_messages.of(&who.tenant);
        charge(users, who, Limit::UserMessages)?;
        match to {
            Charge::User => Ok(()),
            Charge::UserAndTenant => {
                let tenants = in_force.tenant_messages.of(&who.tenant);
                charge(tenants, &who.tenant, Limit::TenantMessages)
            }
        }
    }

    /// A call with events begins, of which the first is charged. A tenant that is over
    /// its rate takes nothing from what the key may, which may be for others too.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn call(&self, tenant: &TenantName, key: Option<&str>) -> Result<EventBudget, Exceeded> {
        let in_force = self.in_force.load();
        let budget = EventBudget {
            tenant: in_force
                .tenant_events
                .shared(tenant)
                .map(|bucket| (bucket, tenant.clone())),
            key: key.and_then(|key| in_force.key_events.shared(key)),
        };
        if let Some((bucket, tenant)) = &budget.tenant {
            exceeded(bucket.take(tenant), Limit::IngestTenant)?;
        }
        if let Some(bucket) = &budget.key {
            exceeded(bucket.take(&()), Limit::IngestKey)?;
        }
        Ok(budget)
    }

    /// Forgets the buckets that are full again, and gives memory back.
    pub fn sweep(&self) {
        self.in_force.load().sweep();
        self.census.shrink();
    }

    /// Whether nobody is connected and all buckets are forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_force.load().is_full() && self.census.is_empty()
    }
}

/// What the events of one call are charged to.
#[derive(Debug)]
pub struct EventBudget {
    tenant: Option<(Arc<Bucket<TenantName>>, TenantName)>,
    key: Option<Arc<Bucket<()>>>,
}

impl EventBudget {
    /// The call turns out to have so many events. It costs a whole bucket at the most,
    /// so that it can pass some day.
    ///
    /// # Errors
    ///
    /// When there were too many.
    pub fn charge_rest(&self, events: usize) -> Result<(), Exceeded> {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        if let Some((bucket, tenant)) = &self.tenant {
            exceeded(bucket.take_rest(tenant, events), Limit::IngestTenant)?;
        }
        if let Some(bucket) = &self.key {
            exceeded(bucket.take_rest(&(), events), Limit::IngestKey)?;
        }
        Ok(())
    }
}

fn charge<K: rates::BucketKey>(
    bucket: Option<&Bucket<K>>,
    key: &K,
    limit: Limit,
) -> Result<(), Exceeded> {
    bucket.map_or(Ok(()), |bucket| exceeded(bucket.take(key), limit))
}

fn exceeded(taken: Result<(), Duration>, limit: Limit) -> Result<(), Exceeded> {
    taken.map_err(|wait| Exceeded {
        limit,
        retry_after: rates::whole_millis(wait),
    })
}

#[cfg(test)]
mod tests;
