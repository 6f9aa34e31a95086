//! The presence messages of the client, and those that it is owed.

use std::sync::Arc;

use sidewire_protocol::reply::Reply;
use tokio::time::Instant;

use super::{ConnectionPhase, ConnectionTask};
use crate::{
    config::Config,
    connection::{
        conversation::{ClientEventRequest, PresenceChange, presence_refusal, rate_limit_refusal},
        stream::Transport,
    },
    event::ClientEvent,
    hub::{PresenceLimits, PresenceProgress, PresenceRefusal, PresenceRefused},
    limits::Limit,
};

fn presence_limits(config: &Config) -> PresenceLimits {
    PresenceLimits {
        messages_per_user: config.presence.messages_per_user,
        users_per_topic: config.presence.users_per_topic,
        bytes_per_tenant: config.presence.bytes_per_tenant,
    }
}

impl<S: Transport> ConnectionTask<S> {
    /// Withdraws the client's earlier message. Returns false if there is none.
    pub(super) fn withdraw_presence(&self, request: &ClientEventRequest) -> bool {
        request.presence == Some(PresenceChange::Withdrawn)
            && matches!(&self.phase, ConnectionPhase::Open(open)
                if open.hub.withdraw_presence(request.payload_number))
    }

    /// Charges a presence message to the rate of client events. Returns false if it is refused.
    pub(super) fn charge_presence(&mut self, request: &ClientEventRequest) -> bool {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return false;
        };
        let relay = &self.account.shard.relay;
        let who = self.account.user_key();
        let charged = open
            .pace
            .charge_presence(request.payload_number, who, relay);
        if let Err(exceeded) = charged {
            let refusal = rate_limit_refusal(exceeded).for_message(&request.message_id);
            self.push_reply(&Reply::Error(refusal));
        }
        charged.is_ok()
    }

    /// Takes a presence message, in place of the client's earlier one, or refuses it.
    pub(super) fn set_presence(&mut self, request: ClientEventRequest, event: ClientEvent) {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let relay = &self.account.shard.relay;
        let limits = presence_limits(&relay.live().config);
        let now = relay.clock.unix_seconds();
        let user = &self.account.user_key().user;
        let (payload, topics) = (request.payload_number, request.topics);
        let bytes = event.frame().len();
        let set = open
            .hub
            .set_presence(user, payload, Arc::new(event), topics, &limits, now);
        let refused = match set {
            Ok(()) => return relay.metrics.client_event_accepted(bytes),
            Err(refused) => refused,
        };
        let (limit, message) = match refused {
            PresenceRefused::NoMemory(_) => (
                Limit::Memory,
                "the relay has no memory for more presence (limits.memory_max)".to_owned(),
            ),
            PresenceRefused::Bound(bound) => (Limit::Presence, bound_message(&bound, &limits)),
        };
        relay.metrics.limit_exceeded(limit);
        let refusal = presence_refusal(&request.payload, message).for_message(&request.message_id);
        self.push_reply(&Reply::Error(refusal));
    }

    /// Sends a part of the presence that the client is owed.
    pub(super) fn send_presence(&mut self) {
        let ConnectionPhase::Open(open) = &self.phase else {
            return;
        };
        let relay = &self.account.shard.relay;
        let who = self.account.user_key();
        let charge = || relay.limits.charge_presence_snapshot(who);
        if let PresenceProgress::Limited(exceeded) = open.hub.send_presence(charge) {
            relay.metrics.limit_exceeded(exceeded.limit);
            let next = Instant::now().checked_add(exceeded.retry_after);
            self.deadlines.presence = next.map(Box::new);
        }
        // Others work before the next part.
        self.turn_is_over = true;
    }
}

fn bound_message(bound: &PresenceRefusal, limits: &PresenceLimits) -> String {
    match bound {
        PresenceRefusal::UserMessages => format!(
            "the user has {} presence messages, which is the maximum (presence.messages_per_user)",
            limits.messages_per_user
        ),
        PresenceRefusal::TopicUsers(topic) => format!(
            "{} users are present on {topic}, which is the maximum (presence.users_per_topic)",
            limits.users_per_topic
        ),
        PresenceRefusal::TenantBytes => {
            "the tenant has no room for more presence (presence.bytes_per_tenant)".to_owned()
        }
    }
}
