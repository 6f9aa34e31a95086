//! Delivers events of clients to the connections of one shard.

use super::{ShardHub, ShardTenant};
use crate::{
    hub::inbox::RelayedEvent,
    outbox::ClientEventOffer,
    planted::{fault, mark_seen},
    scheduler::Cost,
};

impl ShardHub {
    /// Offers an event of a client to the connections that are subscribed to one of its topics,
    /// except the one that sent it. Returns the cost.
    pub(super) fn deliver_client_event(&self, here: &ShardTenant, relayed: &RelayedEvent) -> Cost {
        let number = self.last_event.get() + 1;
        self.last_event.set(number);
        let is_here = relayed.sender.shard == self.id && !fault!(EchoesToTheSender);
        let sender = is_here.then_some(relayed.sender.id);
        let offer = ClientEventOffer::new(&relayed.event, number);
        let index = here.index.borrow();
        let counts = here.due.queue().borrow_mut().record_delivery(
            |due| index.offer_client_event(&relayed.topics, sender, &offer, due),
            || offer.bytes_max(),
        );
        let tally = &self.tally;
        tally
            .relayed
            .add(counts.taken + counts.catching_up + counts.outbox_full);
        tally.queued.add(counts.taken);
        tally.dropped_catching_up.add(counts.catching_up);
        tally.dropped_outbox.add(counts.outbox_full);
        let mut cost = Cost::FRAME + Cost::STEP.times(counts.offers);
        if let Some(bytes) = offer.made_json_bytes() {
            mark_seen("JSON of a client's event that was made only for the delivery");
            tally.json_delivered.add(1);
            cost += Cost::JSON_BYTE.times(bytes);
        }
        cost
    }
}
