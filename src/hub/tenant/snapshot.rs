//! What a tenant leaves to a later relay, and begins with from an earlier one.

use std::sync::Arc;

use super::Tenant;
use crate::{
    hub::registry::TenantSnapshot,
    log::{MessageIds, RememberedId},
};

impl Tenant {
    /// Returns the content of its log and its message ids.
    pub(in crate::hub) fn snapshot(&self) -> TenantSnapshot {
        let state = self.lock();
        let ids = state.message_ids.iter().flat_map(|ids| ids.iter());
        TenantSnapshot {
            name: self.name.clone(),
            head: state.log.head(),
            events: state.log.events_after(0).cloned().collect(),
            message_ids: ids.copied().collect(),
        }
    }

    /// Remembers the message ids of an earlier relay, oldest first.
    pub(in crate::hub) fn restore_message_ids(&self, message_ids: &[RememberedId]) {
        if message_ids.is_empty() {
            return;
        }
        let mut state = self.lock();
        let ids = state
            .message_ids
            .get_or_insert_with(|| Box::new(MessageIds::new(Arc::clone(&self.message_id_budget))));
        for known in message_ids {
            ids.remember(known.fingerprint, known.offset, known.since);
        }
    }
}
