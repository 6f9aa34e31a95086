//! Calls to a shard outside the path of an event.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use sidewire_protocol::{TenantName, Topic, UserName, close::CloseReason};
use tokio::{sync::oneshot, task::yield_now};

use super::ShardHub;
use crate::hub::admin::DisconnectRequest;

/// A call to the shard.
enum ShardCall {
    Ping(oneshot::Sender<()>),
    Disconnect(DisconnectRequest),
}

impl ShardHub {
    /// Answers calls until every caller is gone.
    pub async fn answer_calls(&self) {
        while let Some(call) = poll_fn(|context| self.poll_call(context)).await {
            match call {
                ShardCall::Ping(answer) => send_answer(answer, ()),
                ShardCall::Disconnect(call) => {
                    self.answer_disconnect(call);
                    yield_now().await;
                }
            }
        }
    }

    /// Returns the next call. Pings come first: answering them must not depend on other calls.
    fn poll_call(&self, context: &mut Context<'_>) -> Poll<Option<ShardCall>> {
        let mut calls = self.calls.borrow_mut();
        if let Poll::Ready(ping) = calls.pings.poll_recv(context) {
            return Poll::Ready(ping.map(ShardCall::Ping));
        }
        let disconnect = ready!(calls.disconnects.poll_recv(context));
        Poll::Ready(disconnect.map(ShardCall::Disconnect))
    }

    fn answer_disconnect(&self, call: DisconnectRequest) {
        let DisconnectRequest {
            tenant,
            user,
            answer,
        } = call;
        // The caller has timed out; a late disconnect would end connections that joined since.
        if !answer.is_closed() {
            send_answer(answer, self.disconnect_user(&tenant, &user));
        }
    }

    /// Ends the connections of a user, as their tenant is scheduled. Returns the number of
    /// connections that were not ending already.
    fn disconnect_user(&self, tenant: &TenantName, user: &UserName) -> u64 {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return 0;
        };
        let mut ended = 0;
        here.index
            .borrow()
            .for_each_subscriber(&Topic::of_user(user), |_, outbox| {
                if outbox.signals().set_ending(CloseReason::Disconnected) {
                    here.due.queue().borrow_mut().push_nudge(outbox);
                    ended += 1;
                }
            });
        if ended > 0 {
            self.wake_nudged(here);
        }
        ended
    }
}

/// Answers a call. The answer is dropped if the caller no longer waits for it.
fn send_answer<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}
