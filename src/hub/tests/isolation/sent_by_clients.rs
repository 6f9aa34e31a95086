//! Client events and presence messages that name the tenant of their sender.

use std::sync::LazyLock;

use prost::Message;
use sidewire_protocol::schema::{BundledSchema, Schema};

use super::*;
use crate::event::{ClientEvent, ClientEventFields};

/// The number of the presence payload in the generic schema.
const PRESENCE: u32 = 34;

/// Topics that messages name, of which the sender need not be subscribed to all.
const NAMED: [&str; 3] = ["a:1", "a:2", "b:1"];

const LIMITS: PresenceLimits = PresenceLimits {
    messages_per_user: 16,
    users_per_topic: 1_000,
    bytes_per_tenant: 1 << 20,
};

/// An envelope of the generic schema.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Received {
    #[prost(string, tag = "1")]
    message_id: String,
    #[prost(message, optional, tag = "33")]
    pub(super) message: Option<Payload>,
    #[prost(message, optional, tag = "34")]
    pub(super) presence: Option<Payload>,
}

/// A message or presence.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Payload {
    /// The origin.
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "6")]
    pub(super) absent: bool,
}

impl Received {
    pub(super) fn from_frame(frame: &Frame) -> Self {
        Self::decode(&*frame.payload).unwrap()
    }

    /// Returns a text that begins with the tenant from which it came: what its sender wrote, as
    /// the relay chooses the ids of absent messages.
    pub(super) fn origin(&self) -> &str {
        let payload = self.message.as_ref().or(self.presence.as_ref());
        payload.map_or(&self.message_id, |payload| &payload.kind)
    }

    /// Returns the event with this payload, under an id that begins with its tenant too.
    fn into_event(self, fixture: &HubFixture, id: &str) -> Arc<ClientEvent> {
        static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
            let generic = BundledSchema::by_name("generic").unwrap();
            Arc::new(generic.compile().unwrap())
        });
        let fields = ClientEventFields {
            message_id: id,
            timestamp: 1,
        };
        let account = fixture.publisher.memory();
        let (field, now) = (self.encode_to_vec(), Instant::now());
        Arc::new(ClientEvent::new(&SCHEMA, &field, fields, account, now))
    }
}

impl Member {
    /// Sends an event to the others of a topic, if the member is subscribed to it.
    pub(super) fn relay(&self, fixture: &HubFixture, random: &mut StdRng, number: usize) {
        let topics = self.subscribed(&named(random));
        if topics.is_empty() {
            return;
        }
        let (message, id) = self.payload(number);
        let sent = Received {
            message: Some(message),
            ..Received::default()
        };
        let event = sent.into_event(fixture, &id);
        fixture
            .publisher
            .relay_client_event(&self.client.hub(), event, topics.into());
    }

    /// Sends a presence message, or withdraws it.
    pub(super) fn change_presence(&self, fixture: &HubFixture, random: &mut StdRng, number: usize) {
        let topics = named(random);
        let hub = self.client.hub();
        if random.random_range(0..4) == 0 {
            let _was_present = hub.withdraw_presence(PRESENCE);
            return;
        }
        if !topics.iter().any(|topic| hub.is_subscribed(topic)) {
            return;
        }
        let (presence, id) = self.payload(number);
        let sent = Received {
            presence: Some(presence),
            ..Received::default()
        };
        let event = sent.into_event(fixture, &id);
        let set = hub.set_presence(&self.user, PRESENCE, event, topics, &LIMITS, 1);
        // A user may have too many connections that linger.
        assert!(matches!(set, Ok(()) | Err(PresenceRefused::Bound(_))));
    }

    fn subscribed(&self, topics: &[Topic]) -> Vec<Topic> {
        let hub = self.client.hub();
        let subscribed = topics.iter().filter(|topic| hub.is_subscribed(topic));
        subscribed.cloned().collect()
    }

    /// Returns a payload, and the id of its message.
    fn payload(&self, number: usize) -> (Payload, String) {
        let id = format!("{}.{number}", self.tenant);
        let payload = Payload {
            kind: id.clone(),
            absent: false,
        };
        (payload, id)
    }
}

/// Returns one or two topics.
fn named(random: &mut StdRng) -> Vec<Topic> {
    let first = random.random_range(0..NAMED.len());
    let second = random.random_range(0..NAMED.len());
    let mut topics: Vec<_> = [first, second]
        .iter()
        .map(|index| Topic::parse(NAMED[*index]).unwrap())
        .collect();
    topics.dedup();
    topics
}
