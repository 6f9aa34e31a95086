//! Calls to a shard outside the path of an event.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
};

use sidewire_protocol::{TenantName, Topic, UserName};
use tokio::{sync::oneshot, task::yield_now};

use super::{ShardHub, ShardTenant};
use crate::{
    hub::{
        admin::{PageRequest, TenantRequest, UserAction, UserRequest, send_answer},
        inspection::{AudienceRequest, ShardAudience, ShardTopics, TopicsRequest},
        revocation::RevocationCall,
        roster::MatchingConnections,
        subscribers::ConnectionId,
    },
    outbox::Outbox,
    scheduler::Cost,
};

/// Topics that the shard looks at to find the busiest of them: so few that it is one step.
const TOPICS_LOOKED_AT_MAX: usize = 8_000;

/// A call to the shard.
enum ShardCall {
    Ping(oneshot::Sender<()>),
    Tenant(TenantRequest),
}

impl ShardHub {
    /// Answers calls until every caller is gone.
    pub async fn answer_calls(&self) {
        while let Some(call) = poll_fn(|context| self.poll_call(context)).await {
            match call {
                ShardCall::Ping(answer) => send_answer(answer, ()),
                ShardCall::Tenant(call) => {
                    match call {
                        TenantRequest::User(request) => self.act_on_user(request),
                        TenantRequest::Page(request) => self.list_page(request),
                        TenantRequest::Topics(request) => self.list_topics(request),
                        TenantRequest::Audience(request) => self.count_audience(request),
                    }
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
        let call = ready!(calls.tenants.poll_recv(context));
        Poll::Ready(call.map(ShardCall::Tenant))
    }

    fn list_page(&self, request: PageRequest) {
        if request.answer.is_closed() {
            return;
        }
        let tenants = self.tenants.borrow();
        let page = tenants.get(&request.tenant).map(|here| {
            let index = here.index.borrow();
            let (filter, after) = (&request.filter, request.after);
            let page = here.roster.page(&index, filter, after, request.limit);
            here.work.charge(Cost::STEP.times(page.touched));
            page
        });
        send_answer(request.answer, page.unwrap_or_default());
    }

    fn list_topics(&self, request: TopicsRequest) {
        if request.answer.is_closed() {
            return;
        }
        let tenants = self.tenants.borrow();
        let listed = tenants.get(&request.tenant).map(|here| {
            let index = here.index.borrow();
            let (search, limit) = (&request.search, request.limit);
            let (topics, touched) = index.busiest_topics(search, limit, TOPICS_LOOKED_AT_MAX);
            here.work.charge(Cost::STEP.times(touched));
            ShardTopics {
                topics,
                is_partial: touched < index.topics_len(),
            }
        });
        send_answer(request.answer, listed.unwrap_or_default());
    }

    fn count_audience(&self, request: AudienceRequest) {
        if request.answer.is_closed() {
            return;
        }
        let tenants = self.tenants.borrow();
        let audience = tenants.get(&request.tenant).map(|here| {
            let index = here.index.borrow();
            let sets = request.topics.iter().map(|topic| index.members(topic));
            let sets: Vec<_> = sets.collect();
            let matching = match request.limit {
                0 => MatchingConnections::default(),
                limit => here.roster.matching(&sets, limit),
            };
            here.work
                .charge(Cost::STEP.times(sets.len() + matching.touched));
            ShardAudience {
                subscriptions: sets.iter().map(|members| members.len()).collect(),
                matching,
            }
        });
        let audience = audience.unwrap_or_else(|| ShardAudience {
            subscriptions: Vec::new(),
            matching: MatchingConnections {
                count: Some(0),
                ..MatchingConnections::default()
            },
        });
        send_answer(request.answer, audience);
    }

    fn act_on_user(&self, call: UserRequest) {
        let UserRequest {
            tenant,
            user,
            action,
            answer,
        } = call;
        // The caller has timed out; a late disconnect would end connections that joined since.
        if answer.is_closed() {
            return;
        }
        match action {
            UserAction::Disconnect(reason) => {
                let mut ended = 0;
                self.nudge_user(&tenant, &user, |_, _, outbox| {
                    let is_first = outbox.signals().set_ending(reason);
                    ended += u64::from(is_first);
                    is_first
                });
                send_answer(answer, ended);
            }
            UserAction::EndSubscriptions(topics) => {
                let call = Rc::new(RevocationCall::new(topics, answer));
                self.nudge_user(&tenant, &user, |here, id, outbox| {
                    here.revocations.add((id, outbox), &call);
                    true
                });
            }
        }
    }

    /// Calls `f` with every connection of a user, and nudges those for which it returns true, as
    /// their tenant is scheduled.
    fn nudge_user(
        &self,
        tenant: &TenantName,
        user: &UserName,
        mut f: impl FnMut(&ShardTenant, ConnectionId, &Outbox) -> bool,
    ) {
        let tenants = self.tenants.borrow();
        let Some(here) = tenants.get(tenant) else {
            return;
        };
        let mut is_any = false;
        here.index
            .borrow()
            .for_each_subscriber(&Topic::of_user(user), |id, outbox| {
                if f(here, id, outbox) {
                    here.due.queue().borrow_mut().push_nudge(outbox);
                    is_any = true;
                }
            });
        if is_any {
            self.wake_nudged(here);
        }
    }
}
