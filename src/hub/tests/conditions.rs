//! Conditions on a log that takes several parts to search.

use super::*;
use crate::log::{AppendCondition, EVENTS_PER_PART, ExpectedLast, UnmetCondition};

const WINDOW: usize = WIDE.window.events;

fn acme() -> TenantName {
    name("acme")
}

/// A tenant whose window is full of events of other topics.
async fn full(topics: &[&str]) -> HubFixture {
    let fixture = HubFixture::new(1, WIDE);
    for _ in 0..WINDOW / 1000 {
        post(&fixture, vec![draft("m", topics); 1000]).await;
    }
    fixture
}

async fn post(fixture: &HubFixture, drafts: Vec<EventDraft>) -> Vec<PlacedEvent> {
    let published = append(&fixture.publisher, &acme(), drafts).await;
    published.unwrap().events
}

/// The condition that no event has the topic `doc:1`.
fn nothing_of_doc() -> [AppendCondition; 1] {
    [AppendCondition {
        topic: Topic::parse("doc:1").unwrap(),
        last: ExpectedLast::None,
    }]
}

/// Polls the future to completion. Returns the number of pauses and the output.
fn finish<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> (usize, T) {
    let mut context = Context::from_waker(Waker::noop());
    let mut pauses = 0;
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return (pauses, done),
            Poll::Pending => pauses += 1,
        }
    }
}

/// Posts an event of another topic on that condition. Returns the number of pauses before it was
/// accepted.
fn pauses_of_a_post(fixture: &HubFixture) -> usize {
    let (conditions, tenant) = (nothing_of_doc(), acme());
    let check = ConditionCheck::new(&conditions);
    let drafts = vec![draft("m", &["b:2"])];
    let appended = fixture.publisher.append_if(&tenant, drafts, check);
    let (pauses, appended) = finish(pin!(unconstrained(appended)));
    assert_eq!(appended.unwrap().new_len(), 1);
    pauses
}

#[tokio::test(start_paused = true)]
async fn a_log_is_searched_in_parts_and_events_appended_meanwhile_are_seen() {
    let fixture = full(&["b:1"]).await;
    let (conditions, tenant) = (nothing_of_doc(), acme());
    let check = ConditionCheck::new(&conditions);
    let drafts = vec![draft("m", &["doc:1"])];
    let appended = fixture.publisher.append_if(&tenant, drafts, check);
    let mut appended = pin!(unconstrained(appended));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10 {
        assert!(appended.as_mut().poll(&mut context).is_pending());
    }
    let other = post(&fixture, vec![draft("other", &["doc:1"])]).await;
    // More events than the append itself searches.
    post(&fixture, vec![draft("m", &["b:1"]); 2 * EVENTS_PER_PART]).await;
    let (pauses, refused) = finish(appended);
    let parts = (WINDOW + 1 + 2 * EVENTS_PER_PART).div_ceil(EVENTS_PER_PART);
    assert!((parts - 13..=parts - 10).contains(&pauses), "{pauses}");
    let unmet = UnmetCondition {
        topic: conditions[0].topic.clone(),
        epoch: Some(other[0].position.epoch),
        position: Some(other[0].position),
    };
    assert_eq!(refused.unwrap_err(), AppendError::Unmet(vec![unmet]));
}

#[tokio::test(start_paused = true)]
async fn each_search_indexes_a_part_until_the_whole_log_is_indexed() {
    let fixture = full(&["b:1"]).await;
    let parts = WINDOW / EVENTS_PER_PART;
    for question in 0..parts {
        assert_eq!(pauses_of_a_post(&fixture), parts - question, "{question}");
    }
    assert_eq!(pauses_of_a_post(&fixture), 0);
    // A batch is not indexed by its append, and needs no more parts than its size requires.
    let topics: Vec<_> = (0..100).map(|number| format!("c:{number}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    post(&fixture, vec![draft("m", &topics); 1000]).await;
    assert_eq!(
        pauses_of_a_post(&fixture),
        1000_usize.div_ceil(EVENTS_PER_PART)
    );
}

#[tokio::test(start_paused = true)]
async fn the_index_drops_evicted_events_and_everything_when_it_is_unused() {
    let fixture = HubFixture::new(1, WIDE);
    let old = draft("m", &["b:1"]);
    let old_topics = Arc::clone(old.topics());
    post(&fixture, vec![old]).await;
    assert_eq!(pauses_of_a_post(&fixture), 0);
    // Held by this test, the log and the index.
    assert_eq!(Arc::strong_count(&old_topics), 3);
    tokio::time::advance(WIDE.window.age - Duration::from_secs(30)).await;
    let new = draft("m", &["b:1"]);
    let new_topics = Arc::clone(new.topics());
    post(&fixture, vec![new]).await;
    assert_eq!(pauses_of_a_post(&fixture), 0);
    tokio::time::advance(Duration::from_secs(30)).await;
    fixture.registry.sweep(Instant::now());
    assert_eq!(Arc::strong_count(&old_topics), 1);
    assert_eq!(Arc::strong_count(&new_topics), 3);
    tokio::time::advance(Duration::from_secs(30)).await;
    fixture.registry.sweep(Instant::now());
    assert_eq!(Arc::strong_count(&new_topics), 2);
    assert_eq!(pauses_of_a_post(&fixture), 0);
}
