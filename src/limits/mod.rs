//! Rate limits (as buckets), connection caps (as counts) and budgets of one connection.
//! Knows users, tenants and keys only by name, and not what a caller answers when a limit
//! is exceeded.
//!
//! One [`Limits`] lives as long as the process. [`Limits::configure`] applies a new
//! configuration: buckets with a changed rate start full, the others keep their level.

mod census;
mod heartbeats;
mod in_force;
mod open_refusals;
mod rates;
mod refusals;
mod sockets;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use sidewire_protocol::{TenantName, UserName, named_values};

use crate::config::Config;
use in_force::LimitsState;
use rates::KeyedBuckets;

pub use census::{ConnectionCounter, ConnectionPermit};
pub use heartbeats::HeartbeatBucket;
pub use open_refusals::{OpenRefusals, RefusalPermit};
pub use rates::RateLimit;
pub use refusals::RefusalHistory;
pub use sockets::{HandshakeGuard, PeerKind, SocketLimits, SocketPermit, SocketPool};

named_values! {
    /// A limit that can be exceeded; the values of the metric label `limit`.
    pub enum Limit {
        /// Connections of the process.
        Connections = "connections",
        /// Sockets of clients, bounded by the process's file descriptors.
        Descriptors = "descriptors",
        /// Connections of a tenant.
        TenantConnections = "tenant_connections",
        /// Connections of a user.
        UserConnections = "user_connections",
        /// Connections from an address.
        AddressConnections = "address_connections",
        /// Tenants of the process.
        Tenants = "tenants",
        /// Handshakes of the process per second.
        Handshakes = "handshakes",
        /// Handshakes from an address per minute.
        AddressHandshakes = "address_handshakes",
        /// Handshakes of a user per minute.
        UserHandshakes = "user_handshakes",
        /// Messages of a user.
        UserMessages = "user_messages",
        /// Messages of a tenant's users.
        TenantMessages = "tenant_messages",
        /// Client events of a user.
        UserClientEvents = "user_client_events",
        /// Client events of a tenant's users.
        TenantClientEvents = "tenant_client_events",
        /// Presence: its messages of a user, its users of a topic, its memory of a tenant.
        Presence = "presence",
        /// Presence messages that a user is sent because of new subscriptions.
        PresenceSnapshots = "presence_snapshots",
        /// Pings of a connection, and its pongs and small fragments.
        Heartbeats = "heartbeats",
        /// Topics of a connection.
        Topics = "topics",
        /// Requests of a connection that wait for a replay to end.
        Waiting = "waiting",
        /// Events posted for a tenant.
        IngestTenant = "ingest_tenant",
        /// Events posted with an ingest key.
        IngestKey = "ingest_key",
        /// Memory held for clients and backends.
        Memory = "memory",
    }
}

impl Limit {
    /// Returns the noun that the error message puts after "too many".
    fn noun(self) -> &'static str {
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
            Self::UserClientEvents => "client events of this user",
            Self::TenantClientEvents => "client events of this tenant's users",
            Self::Presence => "presence messages",
            Self::PresenceSnapshots => "presence messages to this user",
            Self::Heartbeats => "pings, pongs or small fragments",
            Self::Topics => "topics",
            Self::Waiting => "waiting requests",
            Self::IngestTenant => "events for this tenant",
            Self::IngestKey => "events with this key",
            Self::Memory => "bytes in memory",
        }
    }
}

/// Writes the error message, such as "too many connections".
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too many {}", self.noun())
    }
}

/// A limit is exceeded for now; the caller can retry later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitExceeded {
    /// The exceeded limit.
    pub limit: Limit,
    /// Time to wait before retrying: whole milliseconds, never 0.
    pub retry_after: Duration,
}

/// Writes the message of the exceeded limit.
impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)
    }
}

/// A user, identified within its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserKey {
    /// The tenant.
    pub tenant: TenantName,
    /// The user.
    pub user: UserName,
}

/// The rate limits that a message is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageCharge {
    /// The user's limit only.
    User,
    /// The user's limit and the tenant's.
    UserAndTenant,
}

/// The limits of a process, with their current usage.
#[derive(Debug)]
pub struct Limits {
    in_force: ArcSwap<LimitsState>,
    /// Counts of connections, per tenant, user and address.
    pub census: Arc<ConnectionCounter>,
    /// Count of refused handshakes that wait for the client's Close frame.
    pub open_refusals: OpenRefusals,
}

impl Limits {
    /// Creates limits with no connection counted and all buckets full.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            in_force: ArcSwap::from_pointee(LimitsState::default().reconfigured(config)),
            census: Arc::default(),
            open_refusals: OpenRefusals::default(),
        }
    }

    /// Applies a new configuration.
    pub fn configure(&self, config: &Config) {
        let next = self.in_force.load().reconfigured(config);
        self.in_force.store(Arc::new(next));
    }

    /// Charges one handshake to the process.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_handshake(&self) -> Result<(), LimitExceeded> {
        let in_force = self.in_force.load();
        charge_bucket(in_force.handshakes.as_ref(), &(), Limit::Handshakes)
    }

    /// Charges one handshake to a client's address; an IPv6 address counts as its /64.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_address_handshake(&self, address: IpAddr) -> Result<(), LimitExceeded> {
        let in_force = self.in_force.load();
        let bucket = in_force.address_handshakes.as_ref();
        let address = census::masked_address(address);
        charge_bucket(bucket, &address, Limit::AddressHandshakes)
    }

    /// Charges one handshake to a user, once the handshake is authenticated.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_user_handshake(&self, who: &UserKey) -> Result<(), LimitExceeded> {
        let in_force = self.in_force.load();
        let bucket = in_force.user_handshakes.get(&who.tenant);
        charge_bucket(bucket, who, Limit::UserHandshakes)
    }

    /// Counts a connection until the returned permit is dropped.
    ///
    /// # Errors
    ///
    /// Returns the first cap that is reached.
    pub fn admit_connection(&self, who: UserKey, peer: IpAddr) -> Result<ConnectionPermit, Limit> {
        let caps = self.in_force.load().tenant_caps(&who.tenant);
        ConnectionCounter::try_admit(&self.census, who, peer, caps)
    }

    /// Charges one message of a client. A message over the user's rate is not charged to the
    /// tenant.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_message(&self, who: &UserKey, to: MessageCharge) -> Result<(), LimitExceeded> {
        let in_force = self.in_force.load();
        let users = in_force.user_messages.get(&who.tenant);
        charge_bucket(users, who, Limit::UserMessages)?;
        match to {
            MessageCharge::User => Ok(()),
            MessageCharge::UserAndTenant => {
                let tenants = in_force.tenant_messages.get(&who.tenant);
                charge_bucket(tenants, &who.tenant, Limit::TenantMessages)
            }
        }
    }

    /// Charges one client event to its user and tenant. An event over the user's rate is not
    /// charged to the tenant.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_client_event(&self, who: &UserKey) -> Result<(), LimitExceeded> {
        let in_force = self.in_force.load();
        let users = in_force.user_client_events.get(&who.tenant);
        charge_bucket(users, who, Limit::UserClientEvents)?;
        let tenants = in_force.tenant_client_events.get(&who.tenant);
        charge_bucket(tenants, &who.tenant, Limit::TenantClientEvents)
    }

    /// Charges a presence message that a user is sent because of a new subscription.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_presence_snapshot(&self, who: &UserKey) -> Result<(), LimitExceeded> {
        let in_force = self.in_force.load();
        let bucket = in_force.presence_snapshots.as_ref();
        charge_bucket(bucket, who, Limit::PresenceSnapshots)
    }

    /// Charges the first event of a publish call. A call over the tenant's rate is not
    /// charged to the key, which other tenants may share.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_call(
        &self,
        tenant: &TenantName,
        key: Option<&str>,
    ) -> Result<EventBudget, LimitExceeded> {
        let in_force = self.in_force.load();
        let budget = EventBudget {
            tenant: in_force
                .tenant_events
                .get(tenant)
                .map(|bucket| (Arc::clone(bucket), tenant.clone())),
            key: key.and_then(|key| in_force.key_events.get(key)).cloned(),
        };
        if let Some((bucket, tenant)) = &budget.tenant {
            into_exceeded(bucket.charge_one(tenant), Limit::IngestTenant)?;
        }
        charge_bucket(budget.key.as_ref(), &(), Limit::IngestKey)?;
        Ok(budget)
    }

    /// Forgets buckets that are full again and frees unused memory.
    pub fn sweep(&self) {
        self.in_force.load().sweep();
        self.census.shrink();
    }

    /// Returns true if no connection is counted and all buckets are forgotten.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_force.load().is_full() && self.census.is_empty()
    }
}

/// The rate limits that the events of one publish call are charged to.
#[derive(Debug)]
pub struct EventBudget {
    tenant: Option<(Arc<KeyedBuckets<TenantName>>, TenantName)>,
    key: Option<Arc<KeyedBuckets<()>>>,
}

impl EventBudget {
    /// Charges the rest of a call of `events` events; the first is charged already. A call
    /// costs a full bucket at most, so that every call can pass eventually.
    ///
    /// # Errors
    ///
    /// Fails if the rate is exceeded.
    pub fn charge_rest(&self, events: usize) -> Result<(), LimitExceeded> {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        if let Some((bucket, tenant)) = &self.tenant {
            into_exceeded(bucket.charge_rest(tenant, events), Limit::IngestTenant)?;
        }
        if let Some(bucket) = &self.key {
            into_exceeded(bucket.charge_rest(&(), events), Limit::IngestKey)?;
        }
        Ok(())
    }
}

fn charge_bucket<K: rates::BucketKey>(
    bucket: Option<&Arc<KeyedBuckets<K>>>,
    key: &K,
    limit: Limit,
) -> Result<(), LimitExceeded> {
    bucket.map_or(Ok(()), |bucket| {
        into_exceeded(bucket.charge_one(key), limit)
    })
}

/// Increments the count and returns true, or returns false at the maximum.
fn try_increment(count: &AtomicUsize, most: usize) -> bool {
    let more = |taken: usize| (taken < most).then_some(taken + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

fn into_exceeded(taken: Result<(), Duration>, limit: Limit) -> Result<(), LimitExceeded> {
    taken.map_err(|wait| LimitExceeded {
        limit,
        retry_after: rates::ceil_to_millis(wait),
    })
}

#[cfg(test)]
pub(crate) mod tests;
