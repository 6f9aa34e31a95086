//! Counts connections: in total, per tenant, per user and per address. Connections are
//! counted even without caps, so that a reload can add caps later.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sidewire_protocol::{TenantName, UserName};

use super::{Limit, UserKey};

/// A map is shrunk when its capacity exceeds `ROOM_KEPT` times its length.
const ROOM_KEPT: usize = 4;

/// Maximum numbers of connections; `None` means no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionCaps {
    pub(super) connections: Option<NonZeroU32>,
    pub(super) per_address: Option<NonZeroU32>,
    pub(super) per_tenant: Option<NonZeroU32>,
    pub(super) per_user: Option<NonZeroU32>,
}

/// The connections of the process, counted by tenant, user and address.
#[derive(Debug, Default)]
pub struct ConnectionCounter(Mutex<ConnectionCounts>);

#[derive(Debug, Default)]
struct ConnectionCounts {
    connections: u32,
    tenants: HashMap<TenantName, TenantCounts>,
    addresses: HashMap<IpAddr, u32>,
}

#[derive(Debug, Default)]
struct TenantCounts {
    connections: u32,
    users: HashMap<UserName, u32>,
}

/// A counted connection. Dropping it removes the connection from the counts.
#[derive(Debug)]
pub struct ConnectionPermit {
    census: Arc<ConnectionCounter>,
    who: UserKey,
    address: IpAddr,
}

impl ConnectionCounter {
    /// Counts a connection unless a cap is reached, as one atomic step.
    pub(super) fn try_admit(
        self: &Arc<Self>,
        who: UserKey,
        peer: IpAddr,
        caps: ConnectionCaps,
    ) -> Result<ConnectionPermit, Limit> {
        let address = masked_address(peer);
        let mut counts = self.lock();
        let tenant = counts.tenants.get(&who.tenant);
        let of_tenant = tenant.map_or(0, |it| it.connections);
        let of_user = tenant.and_then(|it| it.users.get(&who.user));
        for (count, cap, limit) in [
            (counts.connections, caps.connections, Limit::Connections),
            (
                counts.addresses.get(&address).copied().unwrap_or(0),
                caps.per_address,
                Limit::AddressConnections,
            ),
            (of_tenant, caps.per_tenant, Limit::TenantConnections),
            (
                of_user.copied().unwrap_or(0),
                caps.per_user,
                Limit::UserConnections,
            ),
        ] {
            if cap.is_some_and(|cap| count >= cap.get()) {
                return Err(limit);
            }
        }
        counts.connections += 1;
        *counts.addresses.entry(address).or_default() += 1;
        let tenant = counts.tenants.entry(who.tenant.clone()).or_default();
        tenant.connections += 1;
        *tenant.users.entry(who.user.clone()).or_default() += 1;
        drop(counts);
        Ok(ConnectionPermit {
            census: Arc::clone(self),
            who,
            address,
        })
    }

    /// Returns true if no connection is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let counts = self.lock();
        counts.connections == 0 && counts.tenants.is_empty() && counts.addresses.is_empty()
    }

    /// Frees unused memory.
    pub(super) fn shrink(&self) {
        let mut counts = self.lock();
        shrink_map(&mut counts.tenants);
        shrink_map(&mut counts.addresses);
    }

    fn release_permit(&self, who: &UserKey, address: IpAddr) {
        let mut counts = self.lock();
        counts.connections = counts.connections.saturating_sub(1);
        decrement_or_remove(counts.addresses.entry(address));
        if let Entry::Occupied(mut tenant) = counts.tenants.entry(who.tenant.clone()) {
            let it = tenant.get_mut();
            it.connections = it.connections.saturating_sub(1);
            decrement_or_remove(it.users.entry(who.user.clone()));
            if it.connections == 0 {
                tenant.remove();
            } else {
                shrink_map(&mut it.users);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Returns the user of the connection.
    #[must_use]
    pub fn user(&self) -> &UserKey {
        &self.who
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.census.release_permit(&self.who, self.address);
    }
}

/// Decrements the count and removes the entry when it reaches 0.
fn decrement_or_remove<K>(entry: Entry<'_, K, u32>) {
    if let Entry::Occupied(mut count) = entry {
        *count.get_mut() = count.get().saturating_sub(1);
        if *count.get() == 0 {
            count.remove();
        }
    }
}

fn shrink_map<K: Hash + Eq, V>(map: &mut HashMap<K, V>) {
    if map.capacity() / ROOM_KEPT > map.len() {
        map.shrink_to_fit();
    }
}

/// Returns the address that a peer is counted under: an IPv6 address as its /64, since one
/// host usually has a whole /64, and an IPv4-mapped IPv6 address as IPv4.
pub(super) fn masked_address(peer: IpAddr) -> IpAddr {
    const NETWORK: u128 = u128::MAX << 64;
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::tests::user_key;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_cap_is_enforced_and_a_released_permit_can_be_taken_again() {
        let census = Arc::new(ConnectionCounter::default());
        let cap = |count| NonZeroU32::new(count);
        let none = ConnectionCaps::default();
        let caps = [
            (
                ConnectionCaps {
                    connections: cap(2),
                    ..none
                },
                Limit::Connections,
            ),
            (
                ConnectionCaps {
                    per_address: cap(2),
                    ..none
                },
                Limit::AddressConnections,
            ),
            (
                ConnectionCaps {
                    per_tenant: cap(2),
                    ..none
                },
                Limit::TenantConnections,
            ),
            (
                ConnectionCaps {
                    per_user: cap(2),
                    ..none
                },
                Limit::UserConnections,
            ),
        ];
        for (caps, limit) in caps {
            let enter = |caps| census.try_admit(user_key("acme", "ann"), address("10.0.0.1"), caps);
            let (first, _second) = (enter(caps).unwrap(), enter(caps).unwrap());
            assert_eq!(enter(caps).unwrap_err(), limit);
            // Connections are counted even without caps.
            let third = enter(none).unwrap();
            drop(first);
            assert_eq!(enter(caps).unwrap_err(), limit);
            drop(third);
            drop(enter(caps).unwrap());
        }
        assert!(census.is_empty());
    }

    #[test]
    fn users_of_the_same_name_in_two_tenants_count_separately() {
        let census = Arc::new(ConnectionCounter::default());
        let caps = ConnectionCaps {
            per_user: NonZeroU32::new(1),
            ..ConnectionCaps::default()
        };
        let enter =
            |tenant, user| census.try_admit(user_key(tenant, user), address("10.0.0.1"), caps);
        let acme = enter("acme", "ann").unwrap();
        let _globex = enter("globex", "ann").unwrap();
        let _bob = enter("acme", "bob").unwrap();
        assert_eq!(enter("acme", "ann").unwrap_err(), Limit::UserConnections);
        drop(acme);
        assert!(enter("acme", "ann").is_ok());
    }

    #[test]
    fn an_ipv6_address_counts_as_its_64_prefix_and_a_mapped_one_as_ipv4() {
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            let same_count = masked_address(address(one)) == masked_address(address(other));
            assert_eq!(same_count, same, "{one} {other}");
        }
    }

    #[test]
    fn memory_for_many_connections_is_released_when_they_have_left() {
        let census = Arc::new(ConnectionCounter::default());
        let enter = |number: u32| {
            let peer = IpAddr::from(number.to_be_bytes());
            let who = user_key(&format!("t{}", number % 100), &format!("u{number}"));
            census
                .try_admit(who, peer, ConnectionCaps::default())
                .unwrap()
        };
        let mut places: Vec<_> = (0..10_000).map(enter).collect();
        places.truncate(1);
        census.shrink();
        let counts = census.lock();
        assert!(counts.tenants.capacity() < 100 && counts.addresses.capacity() < 100);
        let users = counts.tenants.values().map(|it| it.users.capacity());
        assert!(users.sum::<usize>() < 100);
        drop(counts);
        drop(places);
        assert!(census.is_empty());
    }
}
