//! A presence message as it is kept and sent.

use std::sync::{Arc, OnceLock};

use sidewire_protocol::{clock::Clock, random::RandomSource};
use tokio::time::Instant;

use crate::event::{ClientEvent, ClientEventFields};

/// A presence message of a client, and the message that says that its user is absent.
#[derive(Debug)]
pub struct PresenceMessage {
    event: Arc<ClientEvent>,
    /// Made when the first connection needs it. `None` if the payload has no value for absent.
    absent: OnceLock<Option<Arc<ClientEvent>>>,
}

impl PresenceMessage {
    pub(super) fn new(event: Arc<ClientEvent>) -> Self {
        Self {
            event,
            absent: OnceLock::new(),
        }
    }

    /// Returns the message as its client sent it.
    #[must_use]
    pub fn event(&self) -> &Arc<ClientEvent> {
        &self.event
    }

    /// Returns the message with the value for absent in it, with an id and a time of its own.
    /// Returns `None` if its type has no such value.
    pub(super) fn absent(&self, random: &RandomSource, clock: &Clock) -> Option<&Arc<ClientEvent>> {
        let absent = self.absent.get_or_init(|| {
            let id = random.uuid_v7(clock).to_string();
            let fields = ClientEventFields {
                message_id: &id,
                timestamp: clock.unix_seconds(),
            };
            self.event.absent(fields, Instant::now()).map(Arc::new)
        });
        absent.as_ref()
    }
}
