//! Subscriptions to `kind:*`.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_wildcard_brings_every_topic_of_its_kind_and_no_other() {
    let fixture = HubFixture::new(2, WIDE);
    let (here, there) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(1, "acme", "bob"),
    );
    here.subscribe(&["a:*"]);
    there.subscribe(&["a:*", "b:*"]);
    let events = [
        draft("1", &["a:1"]),
        draft("2", &["a:b:1"]),
        draft("3", &["ab:1"]),
        draft("4", &["b:a:1"]),
        draft("5", &["c:1", "a:2"]),
        draft("6", &["user:cid"]),
    ];
    let published = fixture.publish("acme", events.into()).await;
    assert_eq!(here.received_ids(), ["1", "2", "5"]);
    assert_eq!(there.received_ids(), ["1", "2", "4", "5"]);
    let matched: Vec<_> = published.events.iter().map(|event| event.matched).collect();
    let expected = [2, 2, 0, 1, 2, 0].map(Some);
    assert_eq!(matched, expected);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_matches_by_several_topics_comes_and_counts_once() {
    let fixture = HubFixture::new(1, WIDE);
    let client = fixture.connect(0, "acme", "ann");
    client.subscribe(&["a:1", "a:*", "b:*"]);
    let event = draft("m", &["a:1", "b:1", "a:2", "user:ann", "tenant:*"]);
    let published = fixture.publish("acme", vec![event]).await;
    assert_eq!(published.events[0].matched, Some(1));
    assert_eq!(client.received(), [("m".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_and_the_exact_topics_of_its_kind_end_independently() {
    let fixture = HubFixture::new(1, WIDE);
    let client = fixture.connect(0, "acme", "ann");
    client.subscribe(&["a:1", "a:*"]);
    client.unsubscribe(&["a:*"]);
    let events = || vec![draft("1", &["a:1"]), draft("2", &["a:2"])];
    fixture.publish("acme", events()).await;
    assert_eq!(client.received_ids(), ["1"]);
    client.subscribe(&["a:*"]);
    client.unsubscribe(&["a:1"]);
    fixture.publish("acme", events()).await;
    assert_eq!(client.received_ids(), ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn wildcards_do_not_cross_tenants() {
    let fixture = HubFixture::new(1, WIDE);
    let (ours, theirs) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(0, "other", "ann"),
    );
    ours.subscribe(&["a:*"]);
    theirs.subscribe(&["a:*"]);
    fixture.publish("acme", vec![draft("m", &["a:1"])]).await;
    assert_eq!(ours.received_ids(), ["m"]);
    assert_eq!(theirs.received_ids(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_event_costs_one_look_up_more_for_each_kind_if_there_are_wildcards() {
    let steps_for = async |wildcards: usize, topics: &[&str]| {
        let fixture = HubFixture::new(1, WIDE);
        let client = fixture.connect(0, "acme", "ann");
        let other: Vec<_> = (0..wildcards).map(|n| format!("kind{n}:*")).collect();
        let other: Vec<_> = other.iter().map(String::as_str).collect();
        client.subscribe(&other);
        let shard = &fixture.shards[0];
        let before = shard.total_charged();
        fixture.publish("acme", vec![draft("m", topics)]).await;
        let delivery = Cost::FRAME + Cost::STEP.times(topics.len());
        shard.total_charged() - before - delivery
    };
    let topics = ["a:1", "b:2", "a:3"];
    assert_eq!(steps_for(0, &topics).await, Cost::ZERO);
    assert_eq!(steps_for(10_000, &topics).await, Cost::STEP.times(2));
    assert_eq!(steps_for(10_000, &topics[..1]).await, Cost::STEP);
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_counts_as_one_topic_and_leaves_nothing_behind() {
    let fixture = HubFixture::new(1, WIDE);
    let topics = ["a:1", "a:*"].map(|topic| Topic::parse(topic).unwrap());
    let client = fixture.connect(0, "acme", "ann");
    let refused = client.hub().subscribe(&topics, 1, None);
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::TooManyTopics { topics_max: 1 }
    );
    client.subscribe(&["a:1", "a:*"]);
    client.subscribe(&["a:*"]);
    let view = || fixture.publisher.admin().view_tenant(&name("acme"));
    assert_eq!(view().unwrap().topics, 2);
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 2);
    drop(client);
    assert_eq!(view(), None);
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 0);
    let memory = fixture.registry.memory();
    assert_eq!(memory.held_bytes(MemoryUse::Subscriptions), 0);
    assert!(fixture.shards[0].is_empty() && fixture.registry.is_empty());
}
