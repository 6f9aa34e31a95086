//! Answers to accepted events.

use serde_json::json;
use sidewire_client::PublishEncoding;

use crate::{
    ingest_spellings,
    ingest_support::{Call, EVENTS, JSON, offset},
    support::TestRelay,
    vocabulary::{TestSchema, also, created, edited_by, named, typing},
};

#[tokio::test]
async fn an_event_is_answered_with_its_id_position_topics_and_match_count() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.subscribe(&["project:p1", "work_item:item-1"]).await;
    let epoch = confirmed.position.unwrap().epoch;
    let event = named("m1", created("p1"));
    let answer = Call::event(EVENTS, &event).answer(&relay).await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"][..]),
        (200, JSON)
    );
    // The offset is a string, so that it can be pasted into a Subscribe; other numbers are
    // numbers.
    let expected = json!({
        "message_id": "m1",
        "position": {"epoch": epoch, "offset": "1"},
        "topics": ["work_item:item-1", "project:p1"],
        "matched": 1,
        "duplicate": false,
    });
    assert_eq!(answer.json(), expected);

    // An event without subscribers is not an error.
    let answer = Call::event(EVENTS, &created("p2")).answer(&relay).await;
    let answer = answer.json();
    assert_eq!(
        (&answer["matched"], &answer["position"]["offset"]),
        (&json!(1), &json!("2"))
    );
    let answer = Call::event("/v1/tenants/nobody/events", &created("p2"));
    assert_eq!(answer.answer(&relay).await.json()["matched"], json!(0));
    assert_eq!(client.event().await.message_id, "m1");
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn any_kind_is_valid_and_implicit_topics_reach_the_users_that_they_name() {
    let relay = TestRelay::start();
    let mut ann = relay.connect("acme", "ann").await;
    let mut bob = relay.connect("acme", "bob").await;
    let id = "i".repeat(256);
    let kind = "k".repeat(32);
    let longest = format!("{kind}:{id}");
    bob.subscribe(&[&longest, "a:b:*", "a::"]).await;
    let backend = relay.backend();
    for (topic, to_ann, to_bob) in [
        ("tenant:*", true, true),
        ("user:ann", true, false),
        ("user:nobody", false, false),
        (&longest, false, true),
        ("a:b:*", false, true),
        ("a::", false, true),
    ] {
        let event = edited_by("ann").to_string();
        let answer = backend
            .post("acme", event, PublishEncoding::Json, &[topic], false)
            .await;
        let published = &answer.unwrap().results[0];
        assert_eq!(published.topics, [topic]);
        assert_eq!(
            published.matched,
            Some(u64::from(to_ann) + u64::from(to_bob))
        );
        for (client, gets) in [(&mut ann, to_ann), (&mut bob, to_bob)] {
            if gets {
                assert_eq!(client.event().await.message_id, published.message_id);
            }
        }
    }
    ann.nothing_more().await;
    bob.nothing_more().await;
    drop((ann, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn events_just_within_the_limits_are_accepted() {
    let relay = TestRelay::start();
    let many: Vec<_> = (0..100).map(|i| format!("board:{i}")).collect();
    // 99 topics, each of them twice.
    let twice = [&many[..99], &many[..99]].concat();
    let query = format!("{EVENTS}?topic=board:98");
    let schema = TestSchema::under_test();
    let mut cases = vec![
        ("100 topics", EVENTS, also(edited_by("ann"), &many)),
        (
            "100 topics, some of them twice",
            &query,
            also(typing("p"), &twice),
        ),
        (
            "a message_id of 128 bytes",
            EVENTS,
            named(&"ü".repeat(64), typing("p")),
        ),
        ("an id with colons", EVENTS, typing("a:b:c")),
        ("an id of 256 bytes", EVENTS, typing(&"ü".repeat(128))),
        ("an id with a star in it", EVENTS, typing("**")),
    ];
    let spellings = ingest_spellings::taken(schema);
    cases.extend(
        spellings
            .into_iter()
            .map(|(what, event)| (what, EVENTS, event)),
    );
    let count = cases.len() as u64;
    for (what, target, event) in cases {
        let answer = Call::event(target, &event).answer(&relay).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    }
    let answer = Call::event(EVENTS, &schema.beside_an_empty_id("a:b"));
    assert_eq!(
        answer.answer(&relay).await.json()["topics"],
        json!(["project:a:b"])
    );
    let answer = Call::post(EVENTS, JSON, format!(" {}\r\n ", typing("p")));
    assert_eq!(offset(&answer.answer(&relay).await), count + 2);
    assert!(relay.stop().await);
}
