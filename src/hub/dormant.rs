//! The heads of the logs of tenants that have nothing else left. A client that reconnects and has
//! missed nothing can thus be told so.

use lru::LruCache;

use sidewire_protocol::{Position, TenantName};

/// The heads of empty logs, ordered by last use.
#[derive(Debug)]
pub(super) struct DormantTenants(LruCache<TenantName, Position>);

impl Default for DormantTenants {
    fn default() -> Self {
        // The registry bounds it: the limit depends on the number of other tenants.
        Self(LruCache::unbounded())
    }
}

impl DormantTenants {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Remembers the head of the tenant's log.
    pub(super) fn put(&mut self, name: TenantName, head: Position) {
        self.0.put(name, head);
    }

    /// Returns the head of the tenant's log. Does not count as a use.
    pub(super) fn head(&self, name: &TenantName) -> Option<Position> {
        self.0.peek(name).copied()
    }

    /// Removes and returns the head of the tenant's log, which continues from there.
    pub(super) fn take_head(&mut self, name: &TenantName) -> Option<Position> {
        self.0.pop(name)
    }

    /// Returns all of them, least recently used first.
    pub(super) fn heads(&self) -> Vec<(TenantName, Position)> {
        let heads = self.0.iter().rev();
        heads.map(|(name, head)| (name.clone(), *head)).collect()
    }

    /// Forgets the least recently used entries until at most `count` are left.
    pub(super) fn forget_beyond(&mut self, count: usize) {
        while self.0.len() > count && self.0.pop_lru().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidewire_protocol::Epoch;

    fn name(number: usize) -> TenantName {
        TenantName::parse(&format!("a-tenant-with-a-usual-name-{number:09}")).unwrap()
    }

    fn head(offset: u64) -> Position {
        Position {
            epoch: Epoch::from_bits(1),
            offset,
        }
    }

    #[test]
    fn the_least_recently_used_tenant_is_forgotten_first() {
        let mut dormant = DormantTenants::default();
        for number in 0..3 {
            dormant.put(name(number), head(number as u64));
        }
        let back = dormant.take_head(&name(0));
        assert_eq!(back, Some(head(0)));
        dormant.put(name(0), head(10));
        dormant.forget_beyond(2);
        assert_eq!(dormant.take_head(&name(1)), None);
        assert_eq!(dormant.take_head(&name(0)), Some(head(10)));
        assert_eq!(dormant.take_head(&name(2)), Some(head(2)));
        assert_eq!(dormant.len(), 0);
    }
}
