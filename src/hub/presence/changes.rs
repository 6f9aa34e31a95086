//! Applies the changes of a tenant's presence to the connections of one shard.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use sidewire_presence::{Entry, Transition, ViewUpdate, update_after_change};

use super::{PresenceMailbox, PresenceMessage};
use crate::{
    event::{ClientEvent, NoJson},
    hub::{
        shard::{ShardHub, ShardTenant},
        subscribers::ConnectionId,
    },
    outbox::{OutboundFrame, Outbox, PresenceOutcome},
    planted::fault,
    scheduler::Cost,
};

type PresenceEntry = Entry<Arc<PresenceMessage>>;
type PresenceTransition = Transition<Arc<PresenceMessage>>;

impl ShardHub {
    /// Schedules the tenants of this shard that have changes.
    pub(in crate::hub) fn take_presence_mail(&self) {
        let mail = self.presence_mailbox().map(PresenceMailbox::take);
        for tenant in mail.unwrap_or_default() {
            if let Some(here) = self.tenant_here(&tenant) {
                here.has_presence_changes.set(true);
                self.activate_deliveries(&here);
            }
        }
    }

    /// Applies changes of the tenant's presence until the quota is used. Returns the cost.
    pub(in crate::hub) fn apply_presence(&self, here: &ShardTenant, quota: Cost) -> Cost {
        let mut cost = Cost::ZERO;
        while cost < quota {
            let Some(transition) = here.tenant.presence().next_transition(self.id()) else {
                here.has_presence_changes.set(false);
                break;
            };
            cost += self.apply_transition(here, &transition);
        }
        cost
    }

    fn apply_transition(&self, here: &ShardTenant, transition: &PresenceTransition) -> Cost {
        let index = here.index.borrow();
        let frames = PresenceFrames::default();
        let (mut sent, mut views) = (0, 0);
        here.due.queue().borrow_mut().record_delivery(
            |due| {
                let mut change = ChangeDelivery {
                    hub: self,
                    here,
                    transition,
                    frames: &frames,
                    due,
                    sent: &mut sent,
                };
                transition.for_each_changed_view(
                    |topic, report| index.for_each_subscriber(topic, |id, _| report(id)),
                    |id, before, after| {
                        views += 1;
                        if let Some(outbox) = index.outbox(id) {
                            change.update_view(id, outbox, before, after);
                        }
                    },
                );
            },
            || frames.bytes_max.get(),
        );
        self.tally().relayed.add(sent);
        self.tally().queued.add(sent);
        self.schedule_wakes(here);
        let topics = transition.before.len() + transition.after.len();
        Cost::FRAME
            + Cost::TOPIC.times(topics)
            + Cost::STEP.times(4 * views)
            + Cost::JSON_BYTE.times(frames.json_bytes.get())
    }
}

/// The delivery of one change to the connections of a shard.
struct ChangeDelivery<'a> {
    hub: &'a ShardHub,
    here: &'a ShardTenant,
    transition: &'a PresenceTransition,
    frames: &'a PresenceFrames,
    due: &'a mut VecDeque<Rc<Outbox>>,
    sent: &'a mut u64,
}

impl ChangeDelivery<'_> {
    fn update_view(
        &mut self,
        id: ConnectionId,
        outbox: &Rc<Outbox>,
        before: Option<&PresenceEntry>,
        after: Option<&PresenceEntry>,
    ) {
        let receiver = self.hub.connection_key(id);
        let after = after.filter(|after| {
            !fault!(HandsOverByTopicOnly) || before.is_none_or(|before| shares_topic(before, after))
        });
        let update = if fault!(SendsAbsentToThoseWhoSee) && before.is_some() {
            before.map(ViewUpdate::Absent)
        } else {
            update_after_change(receiver, before, after)
        };
        let event = match update {
            None => return,
            Some(ViewUpdate::Present(entry)) => entry.message.event(),
            Some(ViewUpdate::Absent(entry)) => match self.hub.absent(&entry.message) {
                Some(absent) => absent,
                None => return,
            },
        };
        let frames = self.frames;
        match outbox.offer_presence(|is_json| frames.frame(event, is_json)) {
            PresenceOutcome::Taken { to_wake } => {
                *self.sent += 1;
                if to_wake {
                    self.due.push_back(Rc::clone(outbox));
                }
            }
            PresenceOutcome::Owed => {
                let last = before.filter(|entry| entry.connection != receiver);
                let last = last.map(|entry| &entry.message);
                let key = &self.transition.key;
                self.hub.owe_presence(self.here, (id, outbox), key, last);
                if outbox.is_half_free() {
                    // It has room for this message, and waits for something else.
                    self.due.push_back(Rc::clone(outbox));
                }
            }
            PresenceOutcome::Ended => {}
        }
    }
}

fn shares_topic(one: &PresenceEntry, other: &PresenceEntry) -> bool {
    one.topics.iter().any(|topic| other.topics.contains(topic))
}

/// The frames of the messages that one change sends, which the outboxes of a shard share.
#[derive(Default)]
struct PresenceFrames {
    made: RefCell<Vec<(*const ClientEvent, bool, Rc<OutboundFrame>)>>,
    /// Size of the largest frame.
    bytes_max: Cell<usize>,
    /// Bytes of JSON that were made.
    json_bytes: Cell<usize>,
}

impl PresenceFrames {
    fn frame(&self, event: &Arc<ClientEvent>, is_json: bool) -> Result<Rc<OutboundFrame>, NoJson> {
        let address = Arc::as_ptr(event);
        let mut made = self.made.borrow_mut();
        let earlier = made.iter().find(|it| (it.0, it.1) == (address, is_json));
        if let Some((.., frame)) = earlier {
            return Ok(Rc::clone(frame));
        }
        let count_json = |bytes| self.json_bytes.set(self.json_bytes.get() + bytes);
        let frame = Rc::new(OutboundFrame::of_client_event(event, is_json, count_json)?);
        self.bytes_max
            .set(self.bytes_max.get().max(frame.byte_len()));
        made.push((address, is_json, Rc::clone(&frame)));
        Ok(frame)
    }
}
