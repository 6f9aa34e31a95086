//! Clients whose tokens subscribe to topics.

use serde_json::json;
use sidewire_protocol::{EnvelopeEncoding, Topic};

use crate::{
    connection::{
        testing::{ConnectionFixture, WIDE, event, settle, simulate},
        wire_testing::{ReceivedFrame, subscribe, unsubscribe},
    },
    limits::Limit,
    memory::MemoryUse,
};

/// The confirmation of what a token subscribes to.
fn unsolicited() -> ReceivedFrame {
    ReceivedFrame::Subscribed(String::new())
}

#[test]
fn the_topics_of_the_token_are_confirmed_before_any_event() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        for encoding in EnvelopeEncoding::ALL {
            let mut client = fixture.connect_claiming(encoding, &["project:1", "room:*"]);
            // The task of the connection has not run yet.
            fixture.publish([event(1)]).await;
            let next = client.next_frames(2).await;
            assert_eq!(next[0], unsolicited());
            assert!(matches!(next[1], ReceivedFrame::Event(_)), "{next:?}");
            assert_eq!(fixture.tally().subscriptions.get(), 2);
            drop(client);
            settle().await;
        }
        fixture.check_nothing_is_left();
    });
}

#[test]
fn the_confirmation_repeats_the_texts_and_has_neither_a_request_nor_a_position() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        for topics in [&["room:*", "project:1"][..], &[]] {
            let mut client = fixture.connect_claiming(EnvelopeEncoding::Json, topics);
            let confirmed = client.next_json().await["subscriptionConfirmed"].take();
            let expected = match topics {
                [] => json!({}),
                topics => json!({"topics": topics}),
            };
            assert_eq!(confirmed, expected);
        }
    });
}

#[test]
fn without_the_claim_nothing_is_sent() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        client.send(subscribe("s", "project:1")).await;
        let expected = [ReceivedFrame::Subscribed("s".to_owned())];
        assert_eq!(client.next_frames(1).await, expected);
    });
}

#[test]
fn topics_of_the_token_count_as_topics_of_the_connection_and_can_be_unsubscribed() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| {
            config.limits.topics_per_connection = 2;
        });
        let mut client = fixture.connect_claiming(EnvelopeEncoding::Protobuf, &["a:1", "a:*"]);
        client.send(subscribe("too-many", "b:1")).await;
        client.send(unsubscribe("u", "a:*")).await;
        client.send(subscribe("s", "b:1")).await;
        let expected = [
            unsolicited(),
            ReceivedFrame::Refused("VALIDATION_ERROR".to_owned()),
            ReceivedFrame::Unsubscribed("u".to_owned()),
            ReceivedFrame::Subscribed("s".to_owned()),
        ];
        assert_eq!(client.next_frames(4).await, expected);
        assert_eq!(fixture.tally().subscriptions.get(), 2);
    });
}

#[test]
fn a_client_whose_topics_find_no_memory_is_not_admitted_and_leaves_nothing_behind() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        fixture.bound_memory(64 * 1024);
        let topics = (0..1_000).map(|n| Topic::new("room", &n.to_string()).unwrap());
        let refused = fixture.try_admit(
            "ann",
            None,
            EnvelopeEncoding::Protobuf,
            Some(topics.collect()),
        );
        assert_eq!(refused.err(), Some(Limit::Memory));
        let memory = fixture.shard.relay.publisher.memory();
        assert_eq!(memory.held_bytes(MemoryUse::Subscriptions), 0);
        assert!(
            fixture
                .try_admit("ann", None, EnvelopeEncoding::Protobuf, Some(vec![]))
                .is_ok()
        );
        settle().await;
        fixture.check_nothing_is_left();
    });
}
