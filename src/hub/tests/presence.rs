//! Presence that waits until its tenant is scheduled.

use sidewire_protocol::schema::Schema;

use super::*;
use crate::{
    event::{ClientEvent, ClientEventFields},
    scheduler::WorkTicket,
};

const LIMITS: PresenceLimits = PresenceLimits {
    messages_per_user: 16,
    users_per_topic: 16,
    bytes_per_tenant: 1 << 20,
};

/// A shard with connections of one tenant. Somebody is present on `a:1`, and there are events to
/// catch up with.
struct PresenceFixture {
    hub: HubFixture,
    _present: HubClient,
    /// Waits to be sent who is present on `a:1`, until the tenant is scheduled.
    receiver: HubClient,
    /// Waits to work, behind the receiver.
    other: HubClient,
    place_of_other: Option<WorkTicket>,
}

impl PresenceFixture {
    async fn new() -> Self {
        let hub = HubFixture::new(1, WIDE);
        let [present, receiver, other] = ["ann", "bob", "eve"].map(|it| hub.connect(0, "acme", it));
        hub.publish("acme", vec![draft("m", &["b:1"]); 2000]).await;
        present.subscribe(&["a:1"]);
        set_presence(&present, &hub);
        turn(&hub.shards[0]);
        receiver.subscribe(&["a:1"]);
        let work = hub.shards[0].work_queue().tenant_work(&name("acme"));
        work.charge(QUANTUM.times(2));
        assert!(!receiver.hub().may_send_presence(false));
        let mut fixture = Self {
            hub,
            _present: present,
            receiver,
            other,
            place_of_other: None,
        };
        assert!(!fixture.may_other_work());
        fixture
    }

    fn may_other_work(&mut self) -> bool {
        self.other.hub().may_work(&mut self.place_of_other)
    }

    /// Asserts that the other connection is scheduled, although the receiver does nothing.
    fn assert_other_works(mut self) {
        let mut turns = 0..10;
        let worked = turns.any(|_| {
            turn(&self.hub.shards[0]);
            self.may_other_work()
        });
        assert!(worked, "it waits for a connection that does not work");
    }
}

fn set_presence(client: &HubClient, fixture: &HubFixture) {
    let fields = ClientEventFields {
        message_id: "m",
        timestamp: 1,
    };
    let (schema, account) = (
        Arc::new(Schema::bundled().unwrap()),
        fixture.registry.memory(),
    );
    let event = ClientEvent::new(&schema, b"", fields, account, Instant::now());
    let topic = Topic::parse("a:1").unwrap();
    let user = UserName::parse("ann").unwrap();
    let set = client
        .hub()
        .set_presence(&user, 7, Arc::new(event), vec![topic], &LIMITS, 1);
    assert_eq!(set, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_begins_to_catch_up_gives_up_its_place_to_send_presence() {
    let fixture = PresenceFixture::new().await;
    let mut receiver = fixture.receiver.hub();
    let start = Position {
        offset: 0,
        ..receiver.member.delivered_up_to()
    };
    let topics = [Topic::parse("b:1").unwrap()];
    assert_eq!(receiver.subscribe(&topics, 10, Some(Ok(start))), Ok(None));
    assert!(!receiver.may_send_presence(false));
    drop(receiver);
    fixture.assert_other_works();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_unsubscribes_gives_up_its_place_to_send_presence() {
    let fixture = PresenceFixture::new().await;
    fixture.receiver.unsubscribe(&["a:1"]);
    assert!(!fixture.receiver.hub().may_send_presence(false));
    fixture.assert_other_works();
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_another_request_gives_up_its_place_to_send_presence() {
    let fixture = PresenceFixture::new().await;
    fixture.receiver.hub().postpone_own_work();
    fixture.assert_other_works();
}
