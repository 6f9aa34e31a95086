//! Renders large events as JSON on another thread before they are delivered to JSON connections.

use std::{rc::Rc, sync::Arc};

use tokio::task::spawn_local;

use super::{ShardHub, ShardTenant};
use crate::{
    event::{Event, NoJson},
    hub::{inbox::SharedDelivery, large_json::render_for_delivery},
    planted::mark_seen,
};

/// An event that is being rendered while the tenant's deliveries wait. Dropping it lets them
/// continue.
struct DeliveryRendering {
    hub: Rc<ShardHub>,
    here: Rc<ShardTenant>,
    event: Arc<Event>,
    delivery: Arc<SharedDelivery>,
    /// Index of the event in the delivery.
    index: usize,
}

impl ShardHub {
    /// Returns true if an event that renders slowly must be rendered before it is delivered here.
    /// Another thread then renders it, and the tenant's deliveries wait.
    #[cold]
    pub(super) fn render_before_delivery(
        self: &Rc<Self>,
        here: &Rc<ShardTenant>,
        event: &Arc<Event>,
        delivery: &Arc<SharedDelivery>,
        index: usize,
    ) -> bool {
        let is_filled = || {
            let delivered = delivery.events().get(index);
            delivered.is_none_or(|delivered| delivered.json_cell().is_filled())
        };
        let renders_first = here.json_connections.get() > 0
            && !self.is_ending.get()
            && !here.has_reached(event.position().offset)
            && !is_filled();
        if renders_first {
            mark_seen("an event that another thread rendered for its delivery");
            here.is_rendering.set(true);
            let rendering = DeliveryRendering {
                hub: Rc::clone(self),
                here: Rc::clone(here),
                event: Arc::clone(event),
                delivery: Arc::clone(delivery),
                index,
            };
            spawn_local(rendering.run());
        }
        renders_first
    }
}

impl DeliveryRendering {
    async fn run(self) {
        let work = &self.here.work;
        if render_for_delivery(&self.event, &self.delivery, self.index, work).await {
            self.hub.tally.json_delivered.add(1);
        }
    }
}

impl Drop for DeliveryRendering {
    fn drop(&mut self) {
        if let Some(delivered) = self.delivery.events().get(self.index) {
            delivered.json_cell().give_up(NoJson::NoMemory);
        }
        self.here.is_rendering.set(false);
        self.hub.deliveries.borrow_mut().activate(&self.here);
        self.hub.work.wake();
    }
}
