//! Tells a shard which tenants have presence changes that it has not applied.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::hub::tenant::Tenant;

/// The tenants with changes for one shard. Each is in it at most once, so it is bounded by the
/// number of tenants.
#[derive(Debug, Default)]
pub(in crate::hub) struct PresenceMailbox {
    /// True if there may be a tenant. Checked in each turn of the shard, which must not cost a
    /// lock.
    has_mail: AtomicBool,
    content: Mutex<MailboxContent>,
}

#[derive(Debug, Default)]
struct MailboxContent {
    tenants: Vec<Arc<Tenant>>,
    waker: Option<Waker>,
}

impl PresenceMailbox {
    /// Adds a tenant, which is not in the mailbox, and wakes the shard.
    pub(super) fn post(&self, tenant: &Arc<Tenant>) {
        let mut content = self.lock();
        content.tenants.push(Arc::clone(tenant));
        self.has_mail.store(true, Ordering::Release);
        if let Some(waker) = content.waker.take() {
            waker.wake();
        }
    }

    /// Takes all tenants.
    pub(in crate::hub) fn take(&self) -> Vec<Arc<Tenant>> {
        if !self.has_mail.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut content = self.lock();
        self.has_mail.store(false, Ordering::Release);
        mem::take(&mut content.tenants)
    }

    /// Waits until there is a tenant.
    pub(in crate::hub) fn poll_mail(&self, context: &Context<'_>) -> Poll<()> {
        let mut content = self.lock();
        if !content.tenants.is_empty() {
            return Poll::Ready(());
        }
        content.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, MailboxContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
