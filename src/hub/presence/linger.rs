//! Ends the presence messages of connections that have ended, after a while.

use std::{cell::RefCell, collections::BTreeMap, future::pending, sync::Arc};

use sidewire_presence::ConnectionKey;
use sidewire_protocol::UserName;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    hub::{shard::ShardHub, tenant::Tenant},
    planted::fault,
};

/// The connections of a shard that have ended, and whose messages still linger, in the order in
/// which that is over.
#[derive(Debug, Default)]
pub(in crate::hub) struct LingeringConnections {
    by_end: RefCell<BTreeMap<(Instant, ConnectionKey), LingeringUser>>,
    added: Notify,
}

/// Whose messages linger.
#[derive(Debug)]
struct LingeringUser {
    tenant: Arc<Tenant>,
    user: UserName,
}

impl LingeringConnections {
    pub(super) fn add(
        &self,
        end: Instant,
        connection: ConnectionKey,
        tenant: &Arc<Tenant>,
        user: &UserName,
    ) {
        let lingering = LingeringUser {
            tenant: Arc::clone(tenant),
            user: user.clone(),
        };
        self.by_end
            .borrow_mut()
            .insert((end, connection), lingering);
        self.added.notify_one();
    }

    /// Waits for the end of the one that is over first.
    async fn wait_for_first(&self) {
        let first = self.by_end.borrow().keys().next().map(|(end, _)| *end);
        match first {
            Some(end) => sleep_until(end).await,
            None => pending().await,
        }
    }
}

impl ShardHub {
    /// Ends the messages of connections that have ended, each when it has lingered. Never returns.
    pub async fn end_lingering(&self) {
        let lingering = &self.presence().lingering;
        loop {
            tokio::select! {
                biased;
                () = lingering.added.notified() => {}
                () = lingering.wait_for_first() => self.end_expired(),
            }
        }
    }

    fn end_expired(&self) {
        let now = Instant::now();
        loop {
            let mut by_end = self.presence().lingering.by_end.borrow_mut();
            let Some(first) = by_end.first_entry().filter(|first| first.key().0 <= now) else {
                return;
            };
            let ((_, connection), LingeringUser { tenant, user }) = first.remove_entry();
            drop(by_end);
            if fault!(ForgetsToEndLingering) {
                continue;
            }
            tenant
                .presence()
                .reduce(self.presence_context(&tenant), |book| {
                    book.end_linger(connection, &user);
                });
            self.registry().forget_if_idle(&tenant);
        }
    }
}
