//! Events posted again under their message_id: the answers to backends, and what clients receive.

use std::time::Duration;

use serde_json::{Value, json};
use sidewire_client::PublishEncoding;
use sidewire_testing::http::Answer;

use crate::{
    ingest_support::{BATCH, Backend, Call, EVENTS, JSON, PROTOBUF, refusal},
    support::TestRelay,
    vocabulary::{also, edited_by, item_created, item_created_spelt_otherwise, named},
};

/// Returns an event with this text, under this id.
fn event(id: &str, title: &str) -> Value {
    named(id, item_created("w1", "p1", title))
}

fn batch(events: &[Value]) -> Call {
    Call::event(BATCH, &json!({ "messages": events }))
}

/// Returns `offset`, `matched` and `duplicate` of each event in an answer.
fn places(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let place = |result: &Value| {
        json!([
            result["position"]["offset"],
            result["matched"],
            result["duplicate"]
        ])
    };
    match answer["results"].as_array() {
        Some(results) => results.iter().map(place).collect(),
        None => json!([place(&answer)]),
    }
}

fn conflict() -> (u16, String, Option<String>) {
    (409, "CONFLICT".to_owned(), Some("message_id".to_owned()))
}

/// Returns the indices and fields of a batch's errors.
fn errors(answer: &Answer) -> Vec<(u64, Value)> {
    assert_eq!(refusal(answer), (409, "CONFLICT".to_owned(), None));
    let document = answer.json();
    let errors = document["errors"].as_array().unwrap().iter();
    errors
        .map(|error| (error["index"].as_u64().unwrap(), error["field"].clone()))
        .collect()
}

#[tokio::test]
async fn the_same_event_is_answered_with_its_first_position_and_delivered_once() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let first = Call::event(EVENTS, &event("m1", "a")).answer(&relay).await;
    assert_eq!(places(&first), json!([["1", 1, false]]));
    let other = Call::event(EVENTS, &event("m2", "a")).answer(&relay).await;
    assert_eq!(places(&other), json!([["2", 1, false]]));

    let again = Call::event(EVENTS, &event("m1", "a")).answer(&relay).await;
    let mut expected = first.json();
    expected["matched"] = json!(0);
    expected["duplicate"] = json!(true);
    assert_eq!((again.status, again.json()), (200, expected));

    // No offset was used for it.
    let next = Call::event(EVENTS, &event("m3", "a")).answer(&relay).await;
    assert_eq!(places(&next), json!([["3", 1, false]]));
    for id in ["m1", "m2", "m3"] {
        assert_eq!(client.event().await.message_id, id);
    }
    client.nothing_more().await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics["sidewire_ingest_duplicates_total"], 1.0);
    assert_eq!(metrics["sidewire_events_ingested_total"], 3.0);
    assert_eq!(metrics["sidewire_message_ids_bytes"], 3.0 * 128.0);
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_body_is_identified_by_its_bytes_and_the_set_of_its_topics() {
    let relay = TestRelay::start();
    let with_topics = also(event("m1", "a"), &["board:1", "board:2"]);
    let bytes = relay.envelope(with_topics.clone());
    let bare = relay.envelope(event("m1", "a"));
    let first = Call::event(EVENTS, &with_topics).answer(&relay).await;
    assert_eq!(places(&first), json!([["1", 0, false]]));

    // Field 18 is not part of the compared bytes, and topics are compared as a set, without
    // order.
    let swapped = format!("{EVENTS}?topic=board:2&topic=board:1&topic=project:p1");
    let mut spelt_otherwise = item_created_spelt_otherwise("w1", "p1", "a");
    spelt_otherwise["message_id"] = json!("m1");
    spelt_otherwise["timestamp"] = json!(0);
    for (what, call) in [
        ("protobuf", Call::post(EVENTS, PROTOBUF, bytes)),
        ("topics of the call", Call::post(&swapped, PROTOBUF, bare)),
        ("other JSON", Call::event(&swapped, &spelt_otherwise)),
    ] {
        let answer = call.answer(&relay).await;
        assert_eq!(places(&answer), json!([["1", 0, true]]), "{what}");
        // The answer repeats the topics in the order of this call.
        assert_eq!(answer.json()["topics"].as_array().unwrap().len(), 4);
    }

    let mut with_a_time = with_topics.clone();
    with_a_time["timestamp"] = json!(1_700_000_000);
    let of_another_title = also(event("m1", "b"), &["board:1", "board:2"]);
    for (what, call) in [
        ("a topic less", Call::event(EVENTS, &event("m1", "a"))),
        (
            "a topic more",
            Call::event(&format!("{EVENTS}?topic=board:3"), &with_topics),
        ),
        ("a timestamp", Call::event(EVENTS, &with_a_time)),
        ("a text", Call::event(EVENTS, &of_another_title)),
    ] {
        let answer = call.answer(&relay).await;
        assert_eq!(refusal(&answer), conflict(), "{what}");
    }
    let metrics = relay.metrics().await;
    let conflicts = "sidewire_ingest_conflicts_total{reason=\"message_id\"}";
    assert_eq!(metrics[conflicts], 4.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_id_is_scoped_to_its_tenant_and_one_made_by_the_relay_is_not_remembered() {
    let relay = TestRelay::start();
    let mut nameless = event("", "a");
    for offset in ["1", "2"] {
        let answer = Call::event(EVENTS, &nameless).answer(&relay).await;
        assert_eq!(places(&answer), json!([[offset, 0, false]]));
        // The relay made the id in its answer, so a backend can use it once.
        nameless = event("", "a");
    }
    let answer = Call::event(EVENTS, &nameless).answer(&relay).await;
    let made = answer.json()["message_id"].as_str().unwrap().to_owned();
    let given = Call::event(EVENTS, &event(&made, "a")).answer(&relay).await;
    assert_eq!(places(&given), json!([["4", 0, false]]));

    for target in [EVENTS, "/v1/tenants/other/events"] {
        let answer = Call::event(target, &event("m", target))
            .answer(&relay)
            .await;
        assert_eq!(answer.json()["duplicate"], json!(false), "{target}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_batch_has_first_positions_of_duplicates_and_consecutive_new_events() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    Call::event(EVENTS, &event("a", "x")).answer(&relay).await;
    let events = ["b", "a", "c", "b", "d", "a"].map(|id| event(id, "x"));
    let answer = batch(&events).answer(&relay).await;
    let expected = json!([
        ["2", 1, false],
        ["1", 0, true],
        ["3", 1, false],
        ["2", 0, true],
        ["4", 1, false],
        ["1", 0, true],
    ]);
    assert_eq!(places(&answer), expected);
    // The same batch again: nothing is sent, and no offset is used.
    let again = batch(&events).answer(&relay).await;
    let offsets = ["2", "1", "3", "2", "4", "1"];
    let expected: Value = offsets.iter().map(|it| json!([it, 0, true])).collect();
    assert_eq!(places(&again), expected);
    let single = Call::event(EVENTS, &event("c", "x")).answer(&relay).await;
    assert_eq!(places(&single), json!([["3", 0, true]]));
    for id in ["a", "b", "c", "d"] {
        assert_eq!(client.event().await.message_id, id);
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn one_conflict_refuses_a_whole_batch_and_leaves_nothing_behind() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    Call::event(EVENTS, &event("a", "x")).answer(&relay).await;
    let field = json!("message_id");
    let with_earlier_call = batch(&[event("n", "x"), event("a", "y")]);
    let answer = with_earlier_call.answer(&relay).await;
    assert_eq!(errors(&answer), [(1, field.clone())]);
    let within = batch(&[
        event("n", "x"),
        event("o", "x"),
        event("n", "y"),
        event("o", "y"),
    ]);
    let answer = within.answer(&relay).await;
    assert_eq!(errors(&answer), [(2, field.clone()), (3, field)]);
    // An event that was refused with it counts as new, whatever its body.
    let answer = batch(&[event("n", "z"), event("o", "z")])
        .answer(&relay)
        .await;
    assert_eq!(places(&answer), json!([["2", 1, false], ["3", 1, false]]));
    for id in ["a", "n", "o"] {
        assert_eq!(client.event().await.message_id, id);
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_call_that_is_refused_for_its_content_leaves_no_id_behind() {
    let relay = TestRelay::start();
    let bad = batch(&[event("m", "x"), named("n", edited_by("ann"))]);
    assert_eq!(bad.answer(&relay).await.status, 400);
    let mut positioned = event("m", "x");
    positioned["position"] = json!({});
    let answer = Call::event(EVENTS, &positioned).answer(&relay).await;
    assert_eq!(answer.status, 400);
    let answer = Call::event(EVENTS, &event("m", "other"))
        .answer(&relay)
        .await;
    assert_eq!(places(&answer), json!([["1", 0, false]]));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn exactly_one_of_several_identical_parallel_calls_is_delivered() {
    const CALLS: usize = 12;
    const ROUNDS: usize = 40;
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let mut backends = Vec::new();
    for _ in 0..CALLS {
        backends.push(Backend::connect(&relay).await);
    }
    for round in 0..ROUNDS {
        let id = format!("m{round}");
        // Single events and batches, over connections of both shards.
        let single = Call::event(EVENTS, &event(&id, "x"));
        let several = batch(&[event(&id, "x"), event(&id, "x")]);
        let calls = backends.iter_mut().enumerate().map(|(index, backend)| {
            let call = if index % 3 == 0 { &several } else { &single };
            backend.call(call)
        });
        let answers = futures_util::future::join_all(calls).await;
        let places: Vec<_> = answers
            .iter()
            .flat_map(|answer| places(answer).as_array().unwrap().clone())
            .collect();
        let offset = (round + 1).to_string();
        assert!(places.iter().all(|place| place[0] == json!(offset)));
        let new = places.iter().filter(|place| place[2] == json!(false));
        assert_eq!(new.count(), 1, "{places:?}");
        assert_eq!(client.event().await.message_id, id);
    }
    client.nothing_more().await;
    drop((client, backends));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_id_is_remembered_within_its_window_even_if_its_event_is_evicted() {
    let relay = TestRelay::with(|config| {
        config.replay.events = 1;
        config.ingest.message_ids_max = 3;
    });
    for id in ["a", "b", "c"] {
        Call::event(EVENTS, &event(id, "x")).answer(&relay).await;
    }
    // Its event has left the log.
    let answer = Call::event(EVENTS, &event("a", "x")).answer(&relay).await;
    assert_eq!(places(&answer), json!([["1", 0, true]]));
    // A fourth id evicts the oldest.
    Call::event(EVENTS, &event("d", "x")).answer(&relay).await;
    let answer = Call::event(EVENTS, &event("a", "x")).answer(&relay).await;
    assert_eq!(places(&answer), json!([["5", 0, false]]));
    assert!(relay.stop().await);

    let relay = TestRelay::with(|config| {
        config.ingest.message_id_age = Duration::from_nanos(1);
    });
    for offset in ["1", "2"] {
        let answer = Call::event(EVENTS, &event("a", "x")).answer(&relay).await;
        assert_eq!(places(&answer), json!([[offset, 0, false]]));
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_backend_that_lost_the_answer_may_post_again() {
    let relay = TestRelay::start();
    let backend = relay.backend();
    let body = event("m", "x").to_string();
    let mut lost = Backend::connect(&relay).await;
    lost.send(&Call::post(EVENTS, JSON, body.clone()).bytes())
        .await;
    drop(lost);
    // Whichever of the two comes first, there is one event.
    let again = backend
        .post("acme", body, PublishEncoding::Json, &[], false)
        .await;
    assert_eq!(again.unwrap().results[0].position.offset, 1);
    let next = relay.publish("acme", event("n", "x")).await;
    assert_eq!(next.position.offset, 2);
    assert!(relay.stop().await);
}
