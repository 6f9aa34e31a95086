//! The presence of a connection: its own messages, and what it is sent of others'.

use std::{rc::Rc, sync::Arc};

use sidewire_presence::{
    ConnectionKey, NewMessage, PresenceBook, PresenceKey, PresenceLimits, ViewUpdate,
};
use sidewire_protocol::{Topic, UserName};
use tokio::time::Instant;

use super::{PresenceMessage, PresenceProgress, PresenceRefused, TenantPresence};
use crate::{
    event::ClientEvent,
    hub::{membership::TenantMember, shard::ShardHub},
    limits::LimitExceeded,
    outbox::OutboundFrame,
    planted::fault,
    scheduler::Cost,
};

/// Keys that are looked up under the lock of a tenant's presence at once.
const KEYS_PER_PART: usize = 64;

/// The client's own messages.
impl TenantMember {
    pub(in crate::hub) fn presence(&self) -> &TenantPresence {
        self.here.tenant.presence()
    }

    /// Returns the id of the connection in the process.
    pub(in crate::hub) fn key(&self) -> ConnectionKey {
        self.record().key()
    }

    /// Takes a presence message of the client. `named` are the topics that it names, of which the
    /// connection is subscribed to at least one.
    pub(in crate::hub) fn set_presence(
        &self,
        user: &UserName,
        payload: u32,
        event: Arc<ClientEvent>,
        named: Vec<Topic>,
        limits: &PresenceLimits,
        now: i64,
    ) -> Result<(), PresenceRefused> {
        let user = self.present_as_or_init(user);
        self.charge(Cost::EVENT + Cost::TOPIC.times(named.len()));
        let topics = named.iter().filter(|topic| self.is_subscribed(topic));
        let message = NewMessage {
            payload,
            topics: topics.cloned().collect(),
            named,
            message_bytes: event.frame().len(),
            message: Arc::new(PresenceMessage::new(event)),
        };
        let context = self.hub().presence_context(&self.here.tenant);
        self.presence()
            .set(context, self.key(), user, message, limits, now)
    }

    /// Changes the book by what the client or its connection has ended, if the client has sent a
    /// presence message at all.
    fn reduce_presence(
        &self,
        change: impl FnOnce(&mut PresenceBook<Arc<PresenceMessage>>, ConnectionKey, &UserName),
    ) {
        if let Some(user) = self.present_as() {
            let context = self.hub().presence_context(&self.here.tenant);
            self.presence()
                .reduce(context, |book| change(book, self.key(), user));
        }
    }

    /// Ends the client's message with this payload. Returns true if there was one.
    pub(in crate::hub) fn withdraw_presence(&self, payload: u32) -> bool {
        self.charge(Cost::EVENT);
        let mut was_present = false;
        self.reduce_presence(|book, key, user| {
            let before = book.len();
            book.withdraw(key, user, payload);
            was_present = book.len() < before;
        });
        was_present
    }

    /// Takes the topics that the connection is no longer subscribed to from the client's messages.
    pub(in crate::hub) fn leave_presence_topics(&self) {
        if self.present_as().is_some() && !fault!(KeepsUnsubscribedPresence) {
            self.reduce_presence(|book, key, user| {
                book.unsubscribe(key, user, |topic| !self.is_subscribed(topic));
            });
        }
    }

    /// Lets the client's messages linger, since its connection has ended. Nothing ends in a drain:
    /// the clients move to the next process.
    pub(in crate::hub) fn end_presence(&self) {
        self.here.presence_backlogs.remove(self.id());
        if self.present_as().is_none() || self.hub().is_ending() {
            return;
        }
        let linger = self.hub().presence().settings.get().linger;
        let mut lingers = false;
        self.reduce_presence(|book, key, user| {
            lingers = book.end_connection(key, user);
            if linger.is_zero() {
                book.end_linger(key, user);
            }
        });
        if lingers
            && !linger.is_zero()
            && let Some(user) = self.present_as()
        {
            let (tenant, end) = (&self.here.tenant, Instant::now() + linger);
            self.hub()
                .presence()
                .lingering
                .add(end, self.key(), tenant, user);
        }
    }
}

/// What the client is sent.
impl TenantMember {
    /// Returns true if some of what the connection is owed may be sent now.
    pub(in crate::hub) fn may_send_presence(&self, is_limited: bool) -> bool {
        self.here.presence_backlogs.may_send(self, is_limited)
    }

    /// Lets others of the tenant work first, while the connection has to do something else before
    /// it sends what is owed.
    pub(in crate::hub) fn postpone_presence(&self) {
        if self.outbox().owes_presence() {
            self.here.presence_backlogs.postpone(self.id());
        }
    }

    /// Sends a part of what the connection is owed.
    pub(in crate::hub) fn send_presence(
        &self,
        charge: impl FnMut() -> Result<(), LimitExceeded>,
    ) -> PresenceProgress {
        self.here.presence_backlogs.send_some(self, charge)
    }

    /// Notes that the client has to be sent the users of topics that it has subscribed to.
    pub(in crate::hub) fn add_snapshots<'t>(&self, topics: impl IntoIterator<Item = &'t Topic>) {
        if self.presence().is_empty() || self.outbox().takes_stored_only() {
            return;
        }
        let shard = self.key().shard;
        // Nobody else is there until a change is applied, which the connection then sees.
        let is_anyone_on = |topic: &&Topic| {
            let first = self.presence().snapshot_part(shard, topic, None, 1);
            first.next.is_some()
        };
        let topics = topics.into_iter().filter(is_anyone_on).cloned();
        let backlogs = &self.here.presence_backlogs;
        backlogs.add_snapshots((self.id(), self.outbox()), topics);
    }

    /// Sends what the client sees now instead of what it saw on a topic from which it has just
    /// been unsubscribed. Returns the cost.
    pub(in crate::hub) fn update_after_unsubscribe(&self, lost: &Topic) -> Cost {
        let mut cost = Cost::ZERO;
        if self.presence().is_empty() {
            return cost;
        }
        let backlogs = &self.here.presence_backlogs;
        let has = |topic: &Topic| self.is_subscribed(topic);
        let is_lost =
            |topic: &Topic| topic == lost || lost.is_wildcard() && topic.kind() == lost.kind();
        let mut cursor = None;
        loop {
            let shard = self.key().shard;
            let after = cursor.as_ref();
            let part = self
                .presence()
                .snapshot_part(shard, lost, after, KEYS_PER_PART);
            for applied in part.keys {
                cost += Cost::TOPIC + Cost::STEP.times(applied.entries.len());
                let key = &applied.cursor.key;
                let update = sidewire_presence::update_after_unsubscribe(
                    self.key(),
                    &applied.entries,
                    |topic| has(topic) || is_lost(topic),
                    has,
                    backlogs.is_up_to_date(self.id(), lost, key),
                );
                match update {
                    Some(ViewUpdate::Present(entry)) => {
                        cost += self.send_or_owe(entry.message.event(), key, &entry.message);
                    }
                    Some(ViewUpdate::Absent(entry)) => {
                        if let Some(absent) = self.absent(&entry.message) {
                            cost += self.send_or_owe(absent, key, &entry.message);
                        }
                    }
                    None => {}
                }
            }
            cursor = part.next;
            if cursor.is_none() {
                break;
            }
        }
        backlogs.remove_snapshots(self.id(), lost);
        cost
    }

    fn send_or_owe(
        &self,
        event: &Arc<ClientEvent>,
        key: &PresenceKey,
        last: &Arc<PresenceMessage>,
    ) -> Cost {
        if self.outbox().owes_presence() || !self.outbox().is_half_free() {
            let outbox = (self.id(), &**self.outbox());
            self.hub().owe_presence(&self.here, outbox, key, Some(last));
            return Cost::STEP;
        }
        Cost::FRAME + self.push_presence(event)
    }

    /// Queues a message. Returns the cost of making its JSON.
    pub(in crate::hub) fn push_presence(&self, event: &Arc<ClientEvent>) -> Cost {
        let mut json_bytes = 0;
        let is_taken = self.outbox().push_presence(|is_json| {
            let made = |bytes| json_bytes = bytes;
            OutboundFrame::of_client_event(event, is_json, made).map(Rc::new)
        });
        if is_taken {
            self.hub().tally().relayed.add(1);
            self.hub().tally().queued.add(1);
        }
        Cost::JSON_BYTE.times(json_bytes)
    }

    /// Returns the message that says that the user is absent.
    pub(in crate::hub) fn absent<'m>(
        &self,
        message: &'m Arc<PresenceMessage>,
    ) -> Option<&'m Arc<ClientEvent>> {
        self.hub().absent(message)
    }
}

impl ShardHub {
    /// Returns the message that says that the user is absent.
    pub(super) fn absent<'m>(
        &self,
        message: &'m Arc<PresenceMessage>,
    ) -> Option<&'m Arc<ClientEvent>> {
        message.absent(self.random(), &self.presence().clock)
    }
}
