//! `?if_last=`: an event that is appended only if a topic's last event is the one that its
//! backend knows.

use serde_json::{Value, json};
use sidewire_client::{CallFailure, EventPublisher, PublishEncoding};
use sidewire_testing::http::Answer;

use crate::{
    ingest_support::{BATCH, Call, EVENTS, Watched, offset, refusal},
    support::TestRelay,
    vocabulary::{created, edited_by, named},
};

/// Returns a call that edits a document on conditions, each `<topic>@<position>`.
fn post(document: &str, conditions: &[&str]) -> Call {
    let mut target = format!("{EVENTS}?topic={document}");
    for condition in conditions {
        target.push_str(&format!("&if_last={condition}"));
    }
    Call::event(&target, &edited_by("ann"))
}

/// Returns `current` of a 409: the topics with a condition that does not hold.
fn current(answer: &Answer) -> Value {
    let field = Some("if_last".to_owned());
    assert_eq!(refusal(answer), (409, "CONFLICT".to_owned(), field));
    answer.json()["current"].clone()
}

/// Returns the epoch in the event's answer.
fn epoch(answer: &Answer) -> String {
    answer.json()["position"]["epoch"].as_str().unwrap().into()
}

#[tokio::test]
async fn an_event_is_appended_if_the_last_event_of_the_topic_is_the_expected_one() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["doc:1", "doc:2"]).await;
    let first = post("doc:1", &[]).answer(&relay).await;
    let epoch = epoch(&first);
    let at = |offset: u64| json!({"epoch": epoch, "offset": offset.to_string()});
    let told = |topic: &str, position: Value| json!({"topic": topic, "epoch": epoch, "position": position});

    assert_eq!(offset(&post("doc:2", &[]).answer(&relay).await), 2);
    // The event of doc:2 makes no difference to doc:1.
    let on = |offset: u64| post("doc:1", &[&*format!("doc:1@{epoch}:{offset}")]);
    for (tried, last) in [(2, 1), (3, 1)] {
        let refused = on(tried).answer(&relay).await;
        assert_eq!(current(&refused), json!([told("doc:1", at(last))]));
    }
    assert_eq!(offset(&on(1).answer(&relay).await), 3);
    // A condition that held before fails now, and the current one holds.
    let refused = on(1).answer(&relay).await;
    assert_eq!(current(&refused), json!([told("doc:1", at(3))]));
    assert_eq!(offset(&on(3).answer(&relay).await), 4);

    // The same offset of another epoch is another event.
    let elsewhere = format!("doc:1@{}:4", "0".repeat(32));
    let refused = post("doc:1", &[&elsewhere]).answer(&relay).await;
    assert_eq!(current(&refused), json!([told("doc:1", at(4))]));

    for offset in 1..=4 {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    client.nothing_more().await;
    let metrics = relay.metrics().await;
    let conflicts = "sidewire_ingest_conflicts_total{reason=\"precondition\"}";
    assert_eq!(metrics[conflicts], 4.0);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn every_condition_must_hold_and_each_unmet_one_is_reported() {
    let relay = TestRelay::start();
    let epoch = epoch(&post("doc:1", &[]).answer(&relay).await);
    post("doc:2", &[]).answer(&relay).await;
    let at = |topic: &str, offset: &str| format!("{topic}@{epoch}:{offset}");
    let (one, two) = (at("doc:1", "1"), at("doc:2", "2"));
    let (wrong, none) = (at("doc:2", "1"), at("doc:3", "5"));
    // A condition's topic need not be one of the event's; an id may contain an @.
    let other = "mail:ann%40example.org@0";
    let refused = post("doc:1", &[&one, &wrong, other, &none])
        .answer(&relay)
        .await;
    assert_eq!(
        current(&refused),
        json!([
            {"topic": "doc:2", "epoch": epoch, "position": {"epoch": epoch, "offset": "2"}},
            {"topic": "doc:3", "epoch": epoch, "position": null},
        ])
    );
    let taken = post("doc:1", &[&one, &two, other]).answer(&relay).await;
    assert_eq!(offset(&taken), 3);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_expectation_of_no_event_can_be_given_with_or_without_an_epoch() {
    let relay = TestRelay::start();
    // A tenant without a log: only `@0` can hold, and a failed condition does not create a log.
    let zeroes = "0".repeat(32);
    for last in ["0", "7"] {
        let refused = post("doc:1", &[&*format!("doc:1@{zeroes}:{last}")]);
        let told = json!([{"topic": "doc:1", "epoch": null, "position": null}]);
        assert_eq!(current(&refused.answer(&relay).await), told);
    }
    assert_eq!(relay.metrics().await["sidewire_tenants"], 0.0);
    let first = post("doc:1", &["doc:1@0"]).answer(&relay).await;
    assert_eq!(offset(&first), 1);
    let epoch = epoch(&first);

    // A log in which doc:2 has no event.
    let refused = post("doc:2", &[&*format!("doc:2@{zeroes}:0")])
        .answer(&relay)
        .await;
    let told = json!([{"topic": "doc:2", "epoch": epoch, "position": null}]);
    assert_eq!(current(&refused), told);
    let taken = post("doc:2", &[&*format!("doc:2@{epoch}:0")])
        .answer(&relay)
        .await;
    assert_eq!(offset(&taken), 2);
    // Now doc:2 has an event.
    for last in [format!("doc:2@{epoch}:0"), "doc:2@0".to_owned()] {
        let refused = post("doc:2", &[&last]).answer(&relay).await;
        let position = json!({"epoch": epoch, "offset": "2"});
        let told = json!([{"topic": "doc:2", "epoch": epoch, "position": position}]);
        assert_eq!(current(&refused), told, "{last}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_connected_client_is_enough_for_its_tenant_to_have_a_log() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    let confirmed = client.subscribe(&["doc:1"]).await;
    let epoch = confirmed.position.unwrap().epoch;
    let taken = post("doc:1", &[&*format!("doc:1@{epoch}:0")])
        .answer(&relay)
        .await;
    assert_eq!(offset(&taken), 1);
    client.event().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn after_the_last_event_is_evicted_only_the_expectation_of_no_event_holds() {
    let relay = TestRelay::with(|config| config.replay.events = 2);
    let epoch = epoch(&post("doc:1", &[]).answer(&relay).await);
    for _ in 0..2 {
        post("doc:2", &[]).answer(&relay).await;
    }
    let refused = post("doc:1", &[&*format!("doc:1@{epoch}:1")])
        .answer(&relay)
        .await;
    let told = json!([{"topic": "doc:1", "epoch": epoch, "position": null}]);
    assert_eq!(current(&refused), told);
    let taken = post("doc:1", &[&*format!("doc:1@{epoch}:0")])
        .answer(&relay)
        .await;
    assert_eq!(offset(&taken), 4);
    for _ in 0..2 {
        post("doc:2", &[]).answer(&relay).await;
    }
    assert_eq!(offset(&post("doc:1", &["doc:1@0"]).answer(&relay).await), 7);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_duplicate_is_answered_again_whatever_its_condition() {
    let relay = TestRelay::start();
    let event = named("m", edited_by("ann"));
    let target = format!("{EVENTS}?topic=doc:1&if_last=doc:1@0");
    let call = Call::event(&target, &event);
    let first = call.answer(&relay).await;
    assert_eq!(offset(&first), 1);
    let again = call.answer(&relay).await;
    assert_eq!(
        (offset(&again), &again.json()["duplicate"]),
        (1, &json!(true))
    );

    // A failed condition does not record the message id.
    let event = named("n", edited_by("ann"));
    let refused = Call::event(&target, &event).answer(&relay).await;
    assert_eq!(refused.status, 409);
    let event = named("n", edited_by("bob"));
    let target = format!("{EVENTS}?topic=doc:1");
    let taken = Call::event(&target, &event).answer(&relay).await;
    assert_eq!(offset(&taken), 2);
    // A conflicting body is reported before a failed condition.
    let event = named("n", edited_by("cid"));
    let both = Call::event(&format!("{target}&if_last=doc:1@0"), &event);
    let refused = refusal(&both.answer(&relay).await);
    assert_eq!(refused.2.as_deref(), Some("message_id"));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn conditions_are_for_single_events_and_must_be_well_formed() {
    let mut watched = Watched::start().await;
    let good = created("p1");
    let epoch = "0".repeat(32);
    let many = ["if_last=board:1@0"; 101].join("&");
    for query in [
        "if_last=",
        "if_last=0",
        "if_last=board:1",
        "if_last=board@0",
        "if_last=board:*@0",
        "if_last=board:1@1",
        "if_last=board:1@x:1",
        &format!("if_last=board:1@{epoch}"),
        &format!("if_last=board:1@{epoch}:-1"),
        &format!("if_last=board:1@0&if_last=board:1@{epoch}:x"),
        &many,
    ] {
        let call = Call::event(&format!("{EVENTS}?{query}"), &good);
        watched.refuses(query, call, Some("if_last")).await;
    }
    let batch = Call::event(
        &format!("{BATCH}?if_last=board:1@0"),
        &json!({"messages": [good]}),
    );
    watched.refuses("a batch", batch, Some("if_last")).await;
    watched.has_not_changed().await;
}

/// Reads the document's position, edits the document on that condition, and on 409 reads it
/// again. Returns the number of retries.
async fn edit_together(backend: &EventPublisher, editor: usize, edits: usize) -> usize {
    let (mut condition, mut retries) = ("doc:1@0".to_owned(), 0);
    for number in 0..edits {
        let mut body = edited_by(&format!("editor {editor}"));
        body["messageId"] = json!(format!("{editor}.{number}"));
        loop {
            let conditions = [condition.as_str()];
            let posted = backend.post_if_last(
                "acme",
                body.to_string(),
                PublishEncoding::Json,
                &["doc:1"],
                &conditions,
            );
            match posted.await {
                Ok(answer) => {
                    let position = &answer.results[0].position;
                    condition = format!("doc:1@{}:{}", position.epoch, position.offset);
                    break;
                }
                Err(CallFailure::Refused(problem)) => {
                    assert_eq!(problem.status, 409);
                    condition = problem.current[0].to_string();
                    retries += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    retries
}

#[tokio::test]
async fn each_edit_of_concurrent_editors_follows_the_edit_that_it_expected() {
    const EDITORS: usize = 6;
    const EDITS: usize = 25;
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["doc:1"]).await;
    let backends: Vec<_> = (0..EDITORS).map(|_| relay.backend()).collect();
    let editing = backends
        .iter()
        .enumerate()
        .map(|(editor, backend)| edit_together(backend, editor, EDITS));
    let retries: usize = futures_util::future::join_all(editing).await.iter().sum();
    assert!(retries >= EDITORS - 1, "nobody was in anybody's way");
    for offset in 1..=(EDITORS * EDITS) as u64 {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    client.nothing_more().await;
    drop((client, backends));
    assert!(relay.stop().await);
}
