//! The delivery of queued items: a shard takes them from its inbox, queues them with their tenants,
//! and offers their events to the matching connections, slice by slice.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use super::{
    ShardHub,
    shard_tenant::{PendingItem, ShardTenant, WAITING_KEPT_ROOM_FOR},
};
use crate::{
    hub::inbox::{InboxContent, InboxItem},
    outbox::EventOffer,
    planted::{fault, mark_seen},
    scheduler::Cost,
};

impl ShardHub {
    /// Moves all items from the inbox to the tenants' queues. The inbox's capacity bounds their
    /// number.
    pub(super) fn drain_inbox(&self) {
        let mut inbox = self.inbox.borrow_mut();
        while let Ok(item) = inbox.try_recv() {
            self.enqueue_item(item);
        }
    }

    /// Queues an item with its tenant, if the tenant has connections here.
    pub(super) fn enqueue_item(&self, item: InboxItem) {
        let tenants = self.tenants.borrow();
        let mut here = tenants
            .get(item.tenant.name())
            // A tenant that was forgotten and created again has another log.
            .filter(|here| Arc::ptr_eq(&here.tenant, &item.tenant));
        if fault!(CrossesTenants) {
            here = tenants.values().next();
        }
        let Some(here) = here else {
            return;
        };
        here.waiting.borrow_mut().push_back(PendingItem {
            item,
            done: 0,
            first: None,
        });
        self.deliveries.borrow_mut().activate(here);
    }

    /// Offers the events of the tenant's first item to the matching connections here until the
    /// quota is used. An event is never split, and delivery pauses at an event that must be
    /// rendered first. Then nudges connections that waited for what was delivered. Returns the
    /// cost, or `None` if there was nothing to do.
    pub(super) fn deliver_slice(
        self: &Rc<Self>,
        here: &Rc<ShardTenant>,
        quota: Cost,
    ) -> Option<Cost> {
        let mut waiting = here.waiting.borrow_mut();
        let is_rendering = here.is_rendering.get() && !self.is_ending.get();
        if here.applies_presence_first(!waiting.is_empty() && !is_rendering) {
            here.is_presence_next.set(false);
            return Some(self.apply_presence(here, quota) + here.nudge_awaited());
        }
        here.is_presence_next.set(true);
        let next = waiting.front_mut().filter(|_| !is_rendering);
        let Some(PendingItem { item, done, first }) = next else {
            let cost = here.nudge_awaited();
            return (cost > Cost::ZERO).then_some(cost);
        };
        let (events, delivery) = match &item.content {
            InboxContent::Events { events, delivery } => (events.as_slice(), delivery),
            InboxContent::Client(relayed) => {
                let cost = self.deliver_client_event(here, relayed);
                self.finish_slice(here, &mut waiting, true);
                return Some(cost);
            }
        };
        #[cfg(any(test, feature = "testing"))]
        here.take_position_late();
        let index = here.index.borrow();
        let mut due = here.due.queue().borrow_mut();
        let mut cost = Cost::ZERO;
        let delivery = delivery.shared_delivery();
        let rest = events.iter().zip(delivery.events()).skip(*done);
        for (event, delivered) in rest {
            if cost >= quota || cost > Cost::ZERO && due.has_full_write() {
                break;
            }
            if event.renders_slowly() && self.render_before_delivery(here, event, delivery, *done) {
                break;
            }
            *done += 1;
            if here.has_reached(event.position().offset) {
                mark_seen("a tenant that came back to a full inbox");
                continue;
            }
            here.taken.set(event.position());
            let number = self.last_event.get() + 1;
            self.last_event.set(number);
            let first = *first.get_or_insert(number);
            let offer = EventOffer::new(event, delivered.json_cell(), first, number);
            let fanout = due.record_delivery(
                |due| {
                    let mut fanout = index.offer_event(event, &offer, due);
                    if fault!(MatchesWildcardAcrossTenants) {
                        for other in self.tenants.borrow().values() {
                            let index = other.index.borrow();
                            index.offer_by_kind(event, &offer, due, &mut fanout);
                        }
                    }
                    fanout
                },
                || offer.bytes_max(),
            );
            delivered.add_matched(fanout.matched);
            self.tally.matched.add(fanout.matched);
            self.tally.dropped_slow.add(fanout.overflowed);
            self.tally.queued.add(fanout.matched - fanout.overflowed);
            cost += Cost::FRAME + Cost::STEP.times(fanout.offers);
            if let Some(bytes) = offer.made_json_bytes() {
                mark_seen("JSON that was made only for the delivery");
                self.tally.json_delivered.add(1);
                cost += Cost::JSON_BYTE.times(bytes);
            }
        }
        let is_done = *done == events.len();
        drop(due);
        cost += here.nudge_awaited();
        self.finish_slice(here, &mut waiting, is_done);
        Some(cost)
    }

    /// Schedules the connections that must be woken, and removes the tenant's first item if it
    /// `is_done`.
    fn finish_slice(&self, here: &ShardTenant, waiting: &mut VecDeque<PendingItem>, is_done: bool) {
        self.schedule_wakes(here);
        if is_done {
            waiting.pop_front();
            if waiting.is_empty() && waiting.capacity() > WAITING_KEPT_ROOM_FOR {
                waiting.shrink_to(WAITING_KEPT_ROOM_FOR);
            }
        }
    }
}
