//! What a relay keeps of its tenants for the next one: the logs, the remembered message ids, and
//! the heads of logs that are empty. Knows no file.

use std::sync::Arc;

use sidewire_protocol::{Position, TenantName};
use tokio::time::Instant;

use super::TenantRegistry;
use crate::{
    event::{Event, EventBody, FingerprintKey},
    hub::tenant::Tenant,
    log::{EvictedEvents, RememberedId},
};

/// The content of one tenant.
#[derive(Debug)]
pub struct TenantSnapshot {
    /// The tenant.
    pub name: TenantName,
    /// The position of the newest event.
    pub head: Position,
    /// The events of the log, oldest first.
    pub events: Vec<Arc<Event>>,
    /// The remembered message ids, oldest first.
    pub message_ids: Vec<RememberedId>,
}

/// What a relay begins with, from an earlier one.
#[derive(Debug)]
pub struct KeptWindow {
    /// The key of the message ids' fingerprints.
    pub fingerprint_key: FingerprintKey,
    /// The tenants that had events or message ids.
    pub tenants: Vec<KeptTenant>,
    /// The heads of the logs of all others, least recently used first.
    pub dormant: Vec<(TenantName, Position)>,
}

/// A tenant of an earlier relay.
#[derive(Debug)]
pub struct KeptTenant {
    /// The tenant.
    pub name: TenantName,
    /// The position of the newest event.
    pub head: Position,
    /// The events of the log, oldest first and without gaps, up to the head.
    pub events: Vec<KeptEvent>,
    /// The remembered message ids, oldest first.
    pub message_ids: Vec<RememberedId>,
}

/// An event of an earlier relay.
#[derive(Debug)]
pub struct KeptEvent {
    /// The event, without its position.
    pub body: EventBody,
    /// Its offset.
    pub offset: u64,
    /// The time at which it was appended.
    pub placed: Instant,
}

impl TenantRegistry {
    /// Takes a snapshot of one tenant after the other. Expired events and message ids are not in
    /// it. Nothing may be appended meanwhile.
    pub fn snapshots(&self, now: Instant) -> impl Iterator<Item = TenantSnapshot> {
        let tenants = self.all_tenants().into_iter();
        tenants.map(move |tenant| {
            while !tenant.expire_message_ids(now) {}
            drop(tenant.evict(now));
            tenant.snapshot()
        })
    }

    /// Returns the heads of the logs of tenants that have nothing else, least recently used
    /// first.
    #[must_use]
    pub fn dormant_heads(&self) -> Vec<(TenantName, Position)> {
        self.read_tenants().dormant.heads()
    }

    /// Adds the tenants of an earlier relay to a registry that has none. Leaves out what has
    /// expired by now, and what the limits do not allow.
    pub(crate) fn restore(&mut self, window: KeptWindow, now: Instant) {
        self.fingerprint_key = window.fingerprint_key;
        let tenants_max = self.tenants_max();
        let mut tenants = self.write_tenants();
        for (name, head) in window.dormant {
            tenants.dormant.put(name, head);
        }
        for kept in window.tenants {
            let mut log = self.new_log(kept.head);
            for event in kept.events {
                log.restore(event.body, event.offset, event.placed);
            }
            drop(log.evict(now));
            let tenant = Tenant::new(kept.name.clone(), log, &self.message_ids);
            tenant.restore_message_ids(&kept.message_ids);
            while !tenant.expire_message_ids(now) {}
            if tenant.is_idle() || tenants.live.len() >= tenants_max {
                tenants.dormant.put(kept.name, kept.head);
            } else {
                // It may have become dormant while the others were written.
                tenants.dormant.take_head(&kept.name);
                tenants.live.insert(kept.name, Arc::new(tenant));
            }
        }
        tenants.forget_surplus(tenants_max);
        drop(tenants);
        self.trim_logs(&mut EvictedEvents::new());
        self.trim_message_ids();
    }
}
