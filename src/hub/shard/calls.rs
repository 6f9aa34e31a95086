//! What a shard is asked beside events.

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

/// A question to the shard.
enum Call {
    Ping(oneshot::Sender<()>),
    Disconnect(Disconnect),
}

impl ShardHub {
    /// Answers what is asked beside events, for as long as there is somebody who could
    /// ask.
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

    /// Returns the next question. Pings come first: whether the shard answers them must
    /// not depend on what else it is asked.
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
        // Late, it would end connections that have come since.
        if !answer.is_closed() {
            tell(answer, self.disconnect(&tenant, &user));
        }
    }

    /// Has the connections of a user end, in the tenant's turns. Returns how many are not
    /// ending already.
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

/// Answers a question. Who no longer waits for the answer does not get it.
fn tell<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}
