//! Batches: the answers when they are accepted, and when they are refused.

use serde_json::{Value, json};
use sidewire_testing::http::Answer;

use crate::{
    ingest_support::{BATCH, Call, JSON, PROTOBUF, Watched},
    support::TestRelay,
    vocabulary::{TestSchema, also, created, edited_by, named, typing},
};

#[tokio::test]
async fn a_batch_is_answered_event_by_event_and_its_events_are_consecutive() {
    let relay = TestRelay::start();
    let mut one = relay.connect("acme", "ann").await;
    one.subscribe(&["project:p1"]).await;
    let mut both = relay.connect("acme", "bob").await;
    both.subscribe(&["project:p1", "project:p2"]).await;
    for (round, content_type) in [JSON, PROTOBUF].into_iter().enumerate() {
        let messages = ["p2", "p1", "p3", "p2"].into_iter().enumerate();
        let messages: Vec<_> = messages
            .map(|(index, project)| named(&format!("m{round}.{index}"), created(project)))
            .collect();
        let batch = json!({"messages": messages}).to_string().into_bytes();
        let body = match content_type {
            JSON => batch,
            _ => relay.schema.batch_from_json(&batch, usize::MAX).unwrap(),
        };
        let answer = Call::post(BATCH, content_type, body).answer(&relay).await;
        assert_eq!(
            (answer.status, &answer.headers["content-type"][..]),
            (200, JSON)
        );
        let answer = answer.json();
        assert_eq!(answer.as_object().unwrap().len(), 1);
        let found: Vec<_> = answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(summary)
            .collect();
        let expected: Vec<_> = [("p2", 1), ("p1", 2), ("p3", 0), ("p2", 1)]
            .into_iter()
            .enumerate()
            .map(|(index, (project, matched))| {
                let offset = (4 * round + index + 1).to_string();
                let topics = json!(["work_item:item-1", format!("project:{project}")]);
                json!([format!("m{round}.{index}"), offset, topics, matched, false])
            })
            .collect();
        assert_eq!(found, expected, "{content_type}");
        let id = |index| format!("m{round}.{index}");
        assert_eq!(one.event().await.message_id, id(1));
        for expected in [0, 1, 3] {
            assert_eq!(both.event().await.message_id, id(expected));
        }
    }
    one.nothing_more().await;
    both.nothing_more().await;
    drop((one, both));
    assert!(relay.stop().await);
}

/// Returns the parts of an event's answer, in the order of the contract.
fn summary(result: &Value) -> Value {
    assert_eq!(result.as_object().unwrap().len(), 5);
    assert_eq!(result["position"]["epoch"].as_str().unwrap().len(), 32);
    json!([
        result["message_id"],
        result["position"]["offset"],
        result["topics"],
        result["matched"],
        result["duplicate"],
    ])
}

#[tokio::test]
async fn a_batch_with_the_maximum_number_of_events_is_accepted() {
    let relay = TestRelay::with(|config| {
        config.limits.outbox_frames = 1;
    });
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["project:p1"]).await;
    let batch = json!({"messages": vec![created("p1"); 1000]});
    let answer = Call::event(BATCH, &batch).answer(&relay).await;
    let answer = answer.json();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), 1000);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["position"]["offset"], json!((index + 1).to_string()));
    }
    // An empty outbox takes the whole batch.
    for offset in 1..=1000 {
        assert_eq!(client.event().await.position.unwrap().offset, offset);
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let mut watched = Watched::start().await;
    let schema = TestSchema::under_test();
    let good = created("p1");
    let mut positioned = typing("p1");
    positioned["position"] = json!({});
    let batch = json!({"messages": [
        good,
        positioned,
        typing("*"),
        good,
        edited_by("ann"),
        {"ping": {}},
        {"batch": {"messages": [good]}},
        {},
        also(edited_by("ann"), &["board:1", "board"]),
    ]});
    let bytes = watched
        .relay
        .schema
        .batch_from_json(batch.to_string().as_bytes(), usize::MAX);
    let bodies = [
        Call::event(BATCH, &batch),
        Call::post(BATCH, PROTOBUF, bytes.unwrap()),
    ];
    for call in bodies {
        let answer = watched.refuses("several are bad", call, None).await;
        let fields = [
            (1, Some("position")),
            (2, Some(schema.typing_path())),
            (4, None),
            (5, Some("ping")),
            (6, Some("batch")),
            (7, Some("payload")),
            (8, Some("topics[1]")),
        ];
        assert_eq!(
            errors(&answer),
            fields.map(|(index, field)| (index, field.map(str::to_owned)))
        );
    }

    // Only the first event that cannot be decoded is reported.
    let unknown = json!({"messages": [good, good, schema.unreadable(), {"y": 1}]});
    let answer = watched
        .refuses("an unknown field", Call::event(BATCH, &unknown), None)
        .await;
    assert_eq!(
        errors(&answer),
        [(2, Some(schema.typing_member().to_owned()))]
    );
    let mistyped = json!({"messages": [good, 1]});
    let answer = watched
        .refuses("no message", Call::event(BATCH, &mistyped), None)
        .await;
    assert_eq!(errors(&answer), [(1, None)]);

    // An invalid topic of the call is not the fault of an event.
    let call = Call::event(
        &format!("{BATCH}?topic=board"),
        &json!({"messages": [good]}),
    );
    watched
        .refuses("a topic of the call", call, Some("topic"))
        .await;
    watched.has_not_changed().await;
}

#[tokio::test]
async fn a_fault_far_into_a_long_batch_is_reported_as_in_a_short_one() {
    let mut watched = Watched::start().await;
    let good = created("p1");
    let long = |last: Value| {
        let messages = [vec![good.clone(); 900], vec![last]].concat();
        json!({"messages": messages})
    };
    let related_to_none = long(edited_by("ann"));
    let schema = TestSchema::under_test();
    let unreadable = long(schema.unreadable());
    assert!(unreadable.to_string().len() > 50_000);
    for (what, batch, field) in [
        ("related to nothing", &related_to_none, None),
        (
            "unreadable",
            &unreadable,
            Some(schema.typing_member().to_owned()),
        ),
    ] {
        let answer = watched.refuses(what, Call::event(BATCH, batch), None).await;
        assert_eq!(errors(&answer), [(900, field)], "{what}");
    }
    let bytes = watched
        .relay
        .schema
        .batch_from_json(related_to_none.to_string().as_bytes(), usize::MAX);
    let call = Call::post(BATCH, PROTOBUF, bytes.unwrap());
    let answer = watched.refuses("related to nothing", call, None).await;
    assert_eq!(errors(&answer), [(900, None)]);
    watched.has_not_changed().await;
}

/// Returns the index and the field of each error, after checking the rest.
fn errors(answer: &Answer) -> Vec<(u64, Option<String>)> {
    let document = answer.json();
    let errors = document["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|error| {
            assert_eq!(error.as_object().unwrap().len(), 3);
            assert!(!error["message"].as_str().unwrap().is_empty());
            let field = error["field"].as_str().map(str::to_owned);
            (error["index"].as_u64().unwrap(), field)
        })
        .collect()
}

#[tokio::test]
async fn an_empty_too_large_or_invalid_batch_is_refused() {
    let mut watched = Watched::start().await;
    let good = created("p1");
    let many = json!({"messages": vec![&good; 1001]});
    let bytes = watched
        .relay
        .schema
        .batch_from_json(many.to_string().as_bytes(), usize::MAX);
    let event = watched.relay.envelope(named("m", edited_by("ann")));
    for (what, content_type, body, field) in [
        ("empty", JSON, b"{}".to_vec(), None),
        ("empty", JSON, b"{\"messages\":[]}".to_vec(), None),
        ("empty", PROTOBUF, vec![], None),
        ("1,001 events", JSON, many.to_string().into_bytes(), None),
        ("1,001 events", PROTOBUF, bytes.unwrap(), None),
        ("an event", JSON, good.to_string().into_bytes(), None),
        (
            "an unknown field",
            JSON,
            b"{\"messages\":[],\"x\":1}".to_vec(),
            None,
        ),
        (
            "no list",
            JSON,
            b"{\"messages\":{}}".to_vec(),
            Some("messages"),
        ),
        ("cut short", PROTOBUF, b"\x0a\x05\x12\x00".to_vec(), None),
    ] {
        let call = Call::post(BATCH, content_type, body);
        let answer = watched.refuses(what, call, field).await;
        assert!(answer.json().get("errors").is_none(), "{what}");
    }
    // An envelope's message_id looks like a message of a batch.
    let answer = watched
        .refuses("an event", Call::post(BATCH, PROTOBUF, event), None)
        .await;
    assert_eq!(errors(&answer).len(), 1);
    watched.has_not_changed().await;
}
