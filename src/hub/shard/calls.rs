//! Calls to a shard outside the path of an event.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use tokio::{sync::oneshot, task::yield_now};

use super::ShardHub;
use crate::{
    hub::admin::Disconnect,
    protocol::{TenantName, Topic, UserName, close::Ending},
};

/// A call to the shard.
enum Call {
    Ping(oneshot::Sender<()>),
    Disconnect(Disconnect),
}

impl ShardHub {
    /// Answers calls until every caller is gone.
    pub async fn answer_calls(&self) {
        while let Some(call) = poll_fn(|context| self.poll_call(context)).await {
            match call {
                Call::Ping(answer) => tell(answer, ()),
                Call::Disconnect(call) => {
                    self.answer_disconnect(call);
                    yield_now().await;
                }
            }
        }
    }

    /// Returns the next call. Pings come first: answering them must not depend on other calls.
    fn poll_call(&self, context: &mut Context<'_>) -> Poll<Option<Call>> {
        let mut calls = self.calls.borrow_mut();
        if let Poll::Ready(ping) = calls.pings.poll_recv(context) {
            return Poll::Ready(ping.map(Call::Ping));
        }
        let disconnect = ready!(calls.disconnects.poll_recv(context));
        Poll::Ready(disconnect.map(Call::Disconnect))
    }

    fn answer_disconnect(&self, call: Disconnect) {
        let Disconnect {
            tenant,
            user,
            answer,
        } = call;
        // The caller has timed out; a late disconnect would end connections that joined since.
        if !answer.is_closed() {
            tell(answer, self.disconnect(&tenant, &user));
        }
    }

    /// Ends the connections of a user, as their tenant is scheduled. Returns the number of
    /// connections that were not ending already.
    fn disconnect(&self, tenant: &TenantName, user: &UserName) -> u64 {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return 0;
        };
        let mut ended = 0;
        here.index
            .borrow()
            .for_each_subscriber(&Topic::of_user(user), |outbox| {
                if outbox.set_ending(Ending::Disconnected) {
                    here.due.queue().borrow_mut().ring(outbox);
                    ended += 1;
                }
            });
        if ended > 0 {
            self.wake_rung(here);
        }
        ended
    }
}

/// Answers a call. The answer is dropped if the caller no longer waits for it.
fn tell<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}
