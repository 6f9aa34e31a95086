//! Retried posts, and posts with conditions.

use sidewire_protocol::MessageId;

use super::*;
use crate::{
    event::FingerprintKey,
    log::{AppendCondition, ExpectedLast, MESSAGE_ID_BYTES, UnmetCondition},
};

/// Returns an event with this id and this body.
fn known(id: &str, body: &str, topics: &[&str]) -> EventDraft {
    let draft = draft(id, topics);
    let key = FingerprintKey::new(&RandomSource::from_seed(7));
    let id = MessageId::parse(id).unwrap();
    let fingerprint = key.fingerprint(&id, &[body.as_bytes()], draft.topics());
    draft.with_fingerprint(Some(fingerprint))
}

/// Returns the offset of each event, and true if it is a duplicate.
fn places(published: &PublishedEvents) -> Vec<(u64, bool)> {
    let events = published.events.iter();
    events
        .map(|event| (event.position.offset, event.duplicate))
        .collect()
}

fn condition(topic: &str, last: ExpectedLast) -> AppendCondition {
    let topic = Topic::parse(topic).unwrap();
    AppendCondition { topic, last }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_has_its_first_position_and_is_not_delivered_again() {
    let fixture = HubFixture::new(2, WIDE);
    let (a, b) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(1, "acme", "bob"),
    );
    let post = |id, body| vec![known(id, body, &["tenant:*"])];
    let first = fixture.publish("acme", post("m", "x")).await;
    fixture.publish("acme", post("n", "x")).await;
    let again = fixture.publish("acme", post("m", "x")).await;
    let expected = PlacedEvent {
        matched: Some(0),
        duplicate: true,
        ..first.events[0]
    };
    assert_eq!((again.events, again.acknowledged), (vec![expected], true));
    let conflict = append(&fixture.publisher, &name("acme"), post("m", "y")).await;
    assert_eq!(conflict, Err(AppendError::Conflicts(vec![0])));
    // Ids of different tenants do not conflict.
    let elsewhere = fixture.publish("other", post("m", "y")).await;
    assert_eq!(places(&elsewhere), [(1, false)]);
    for client in [a, b] {
        assert_eq!(
            client.received(),
            [("m".to_owned(), 1), ("n".to_owned(), 2)]
        );
    }
    let next = fixture.publish("acme", post("o", "x")).await;
    assert_eq!(places(&next), [(3, false)]);
}

#[tokio::test(start_paused = true)]
async fn the_new_events_of_a_batch_are_consecutive_despite_duplicates_between_them() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let post = |id| known(id, "x", &["tenant:*"]);
    fixture.publish("acme", vec![post("old")]).await;
    let batch = ["a", "old", "a", "b", "c", "b", "old"].map(post).into();
    let published = fixture.publish("acme", batch).await;
    let expected = [
        (2, false),
        (1, true),
        (2, true),
        (3, false),
        (4, false),
        (3, true),
        (1, true),
    ];
    assert_eq!(places(&published), expected);
    let matched: Vec<_> = published.events.iter().map(|it| it.matched).collect();
    assert_eq!(matched, [1, 0, 0, 1, 1, 0, 0].map(Some));
    assert_eq!(a.received_ids(), ["old", "a", "b", "c"]);

    // One conflict refuses the whole batch and leaves nothing of the others.
    let batch = vec![
        post("d"),
        known("a", "y", &["tenant:*"]),
        post("e"),
        known("e", "y", &["tenant:*"]),
        known("b", "x", &["tenant:*", "a:1"]),
    ];
    let refused = append(&fixture.publisher, &name("acme"), batch).await;
    assert_eq!(refused, Err(AppendError::Conflicts(vec![1, 3, 4])));
    let published = fixture.publish("acme", vec![post("d"), post("e")]).await;
    assert_eq!(places(&published), [(5, false), (6, false)]);
    assert_eq!(a.received_ids(), ["d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_permit_is_not_remembered_and_a_duplicate_needs_none() {
    let inbox = InboxLimits {
        places: 1,
        places_per_tenant: 1,
    };
    let fixture = HubFixture::new(1, RegistryLimits { inbox, ..WIDE });
    let a = fixture.connect(0, "acme", "ann");
    let (tenant, post) = (name("acme"), |id| vec![known(id, "x", &["tenant:*"])]);
    // The shard does not drain its inbox.
    let first = append(&fixture.publisher, &tenant, post("m"))
        .await
        .unwrap();
    assert!(!first.acknowledged);
    let refused = append(&fixture.publisher, &tenant, post("n")).await;
    assert_eq!(refused, Err(AppendError::NoRoom));
    // The first is still waiting for its shard.
    let begun = Instant::now();
    let again = append(&fixture.publisher, &tenant, post("m"))
        .await
        .unwrap();
    assert_eq!(
        (again.acknowledged, begun.elapsed()),
        (true, Duration::ZERO)
    );
    assert_eq!(places(&again), [(1, true)]);
    let published = fixture.publish("acme", post("n")).await;
    assert_eq!(places(&published), [(2, false)]);
    assert_eq!(a.received_ids(), ["m", "n"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_id_outlives_its_event_and_a_tenant_outlives_its_last_event() {
    let window = LogWindow {
        events: 0,
        ..WIDE.window
    };
    let fixture = HubFixture::new(1, RegistryLimits { window, ..WIDE });
    let post = || vec![known("m", "x", &["a:1"])];
    let first = fixture.publish("acme", post()).await.events[0].position;
    let age = WIDE.message_ids.age;
    tokio::time::advance(age - Duration::from_secs(1)).await;
    fixture.registry.sweep(Instant::now());
    let again = fixture.publish("acme", post()).await;
    assert_eq!(
        (again.events[0].position, again.events[0].duplicate),
        (first, true)
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    fixture.registry.sweep(Instant::now());
    assert!(fixture.registry.is_empty());
    assert_eq!(fixture.registry.message_ids().bytes(), 0);
    let anew = fixture.publish("acme", post()).await;
    assert_eq!(places(&anew), [(2, false)]);
}

#[tokio::test(start_paused = true)]
async fn an_id_made_by_the_relay_is_not_remembered() {
    let fixture = HubFixture::new(1, WIDE);
    for offset in 1..3 {
        let published = fixture.publish("acme", vec![draft("m", &["a:1"])]).await;
        assert_eq!(places(&published), [(offset, false)]);
    }
    assert_eq!(fixture.registry.message_ids().bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_tenant_leaves_the_ids_of_another_alone() {
    let limits = MessageIdLimits {
        bytes: 80 * MESSAGE_ID_BYTES,
        ..WIDE.message_ids
    };
    let fixture = HubFixture::new(
        1,
        RegistryLimits {
            message_ids: limits,
            ..WIDE
        },
    );
    let post = |id: usize| vec![known(&id.to_string(), "x", &["a:1"])];
    for id in 0..200 {
        fixture.publish("flood", post(id)).await;
        assert!(fixture.registry.message_ids().bytes() <= limits.bytes);
    }
    // A latecomer gets room at the cost of the tenant with the most ids.
    for id in 0..30 {
        fixture.publish("small", post(id)).await;
        fixture.publish("flood", post(1000 + id)).await;
        assert!(fixture.registry.message_ids().bytes() <= limits.bytes);
    }
    for id in 0..30 {
        assert!(fixture.publish("small", post(id)).await.events[0].duplicate);
    }
    let newest = fixture.publish("flood", post(1029)).await;
    assert!(newest.events[0].duplicate);
    let oldest = fixture.publish("flood", post(100)).await;
    assert!(!oldest.events[0].duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_checked_with_the_append_and_after_duplicates() {
    let fixture = HubFixture::new(1, WIDE);
    let (tenant, publisher) = (name("acme"), &fixture.publisher);
    let post = async |id: &str, condition: &AppendCondition| {
        let drafts = vec![known(id, "x", &["doc:1"])];
        let check = ConditionCheck::new(std::slice::from_ref(condition));
        let appended = publisher.append_if(&tenant, drafts, check).await;
        appended.map(|appended| appended.new_len())
    };
    let never = condition("doc:1", ExpectedLast::None);
    assert_eq!(post("m1", &never).await, Ok(1));
    let head = fixture.registry.get_or_create(&tenant).unwrap().head();
    let unmet = UnmetCondition {
        topic: never.topic.clone(),
        epoch: Some(head.epoch),
        position: Some(head),
    };
    // A refused post is not remembered, so it may be retried with another condition.
    let refused = Err(AppendError::Unmet(vec![unmet]));
    assert_eq!(post("m2", &never).await, refused);
    assert_eq!(
        post("m2", &condition("doc:1", ExpectedLast::At(head))).await,
        Ok(1)
    );
    // An accepted post may be retried, although its condition no longer holds.
    assert_eq!(post("m1", &never).await, Ok(0));
    assert_eq!(
        fixture
            .registry
            .get_or_create(&tenant)
            .unwrap()
            .head()
            .offset,
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_cannot_hold_creates_no_tenant() {
    let fixture = HubFixture::new(1, WIDE);
    let (tenant, epoch) = (name("acme"), Epoch::from_bits(1));
    let position = Position { epoch, offset: 1 };
    for last in [ExpectedLast::At(position), ExpectedLast::NoneIn(epoch)] {
        let conditions = [condition("a:1", last), condition("b:2", ExpectedLast::None)];
        let drafts = vec![draft("m", &["a:1"])];
        let check = ConditionCheck::new(&conditions);
        let refused = fixture.publisher.append_if(&tenant, drafts, check);
        let unmet = UnmetCondition {
            topic: conditions[0].topic.clone(),
            epoch: None,
            position: None,
        };
        let expected = AppendError::Unmet(vec![unmet]);
        assert_eq!(refused.await.unwrap_err(), expected);
        assert!(fixture.registry.is_empty());
    }
    let drafts = vec![draft("m", &["a:1"])];
    let never = [condition("a:1", ExpectedLast::None)];
    let check = ConditionCheck::new(&never);
    let appended = fixture.publisher.append_if(&tenant, drafts, check);
    assert_eq!(appended.await.unwrap().new_len(), 1);
}

/// Returns the expected outcome of a batch, given all events accepted so far.
fn judged(taken: &[(u8, u8)], batch: &[(u8, u8)]) -> Result<Vec<(u64, bool)>, Vec<usize>> {
    let (mut all, mut places, mut conflicts) = (taken.to_vec(), Vec::new(), Vec::new());
    for (index, (id, body)) in batch.iter().enumerate() {
        match all.iter().position(|(known, _)| known == id) {
            Some(first) if all[first].1 == *body => places.push((first as u64 + 1, true)),
            Some(_) => conflicts.push(index),
            None => {
                all.push((*id, *body));
                places.push((all.len() as u64, false));
            }
        }
    }
    if conflicts.is_empty() {
        Ok(places)
    } else {
        Err(conflicts)
    }
}

proptest! {
    #[test]
    fn batches_are_deduplicated_like_a_list_of_all_events(
        batches in prop::collection::vec(
            prop::collection::vec((0..12_u8, prop::bool::weighted(0.1)), 1..6),
            1..20,
        ),
    ) {
        simulate(async {
            let fixture = HubFixture::new(2, WIDE);
            let a = fixture.connect(1, "acme", "ann");
            let (mut taken, mut expected_ids) = (Vec::new(), Vec::new());
            for batch in batches {
                let batch: Vec<_> = batch.iter().map(|(id, other)| (*id, u8::from(*other))).collect();
                let drafts = batch
                    .iter()
                    .map(|(id, body)| known(&id.to_string(), &body.to_string(), &["tenant:*"]))
                    .collect();
                let expected = judged(&taken, &batch);
                let Ok(places_of_all) = &expected else {
                    let refused = append(&fixture.publisher, &name("acme"), drafts).await;
                    let conflicts = expected.unwrap_err();
                    assert_eq!(refused, Err(AppendError::Conflicts(conflicts)));
                    continue;
                };
                let published = fixture.publish("acme", drafts).await;
                assert_eq!(places(&published), *places_of_all);
                for (event, (_, duplicate)) in batch.iter().zip(places_of_all) {
                    if !duplicate {
                        taken.push(*event);
                        expected_ids.push(event.0.to_string());
                    }
                }
            }
            assert_eq!(a.received_ids(), expected_ids);
        });
    }
}
