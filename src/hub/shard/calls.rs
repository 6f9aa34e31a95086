//! What a shard is asked beside events.

use std::{collections::VecDeque, future::poll_fn};

use tokio::{sync::oneshot, task::yield_now};

use super::ShardHub;
use crate::{
    hub::admin::{CALLS_MAX, Call, TenantLook},
    protocol::{TenantName, Topic, UserName, close::Ending},
};

impl ShardHub {
    /// Answers what is asked beside events, for as long as there is somebody who could
    /// ask.
    pub async fn answer_calls(&self) {
        let mut waiting = VecDeque::new();
        loop {
            // Whether it is there is not to hang on what others ask, so pings go first.
            while waiting.len() < CALLS_MAX {
                let next = self.calls.borrow_mut().try_recv();
                match next {
                    Ok(Call::Ping(answer)) => tell(answer, ()),
                    Ok(call) => waiting.push_back(call),
                    Err(_) => break,
                }
            }
            if let Some(call) = waiting.pop_front() {
                self.answer(call);
                yield_now().await;
                continue;
            }
            match poll_fn(|context| self.calls.borrow_mut().poll_recv(context)).await {
                Some(call) => waiting.push_back(call),
                None => break,
            }
        }
    }

    fn answer(&self, call: Call) {
        // Late, it would end connections that have come since, or be work in vain.
        if call.is_given_up() {
            return;
        }
        match call {
            Call::Ping(answer) => tell(answer, ()),
            Call::Disconnect(tenant, user, answer) => tell(answer, self.disconnect(&tenant, &user)),
            Call::Look(tenant, answer) => tell(answer, self.look(&tenant)),
        }
    }

    /// Tells the connections of a user to end: how many are not ending already.
    fn disconnect(&self, tenant: &TenantName, user: &UserName) -> u64 {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return 0;
        };
        let mut ended = 0;
        here.index
            .borrow()
            .for_each_subscriber(&Topic::of_user(user), |outbox| {
                if outbox.ending().is_none() {
                    outbox.end(Ending::Disconnected);
                    ended += 1;
                }
            });
        ended
    }

    fn look(&self, tenant: &TenantName) -> TenantLook {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return TenantLook::default();
        };
        let index = here.index.borrow();
        let mut look = TenantLook {
            connections: index.connections_len() as u64,
            ..TenantLook::default()
        };
        for topic in index.topics() {
            let names = if topic.is_implicit() {
                &mut look.users
            } else {
                &mut look.topics
            };
            names.push(topic.hash());
        }
        look
    }
}

/// Answers a question. Who no longer waits for the answer does not get it.
fn tell<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}
