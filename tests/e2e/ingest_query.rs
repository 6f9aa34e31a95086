//! The query of a call: `?topic=`.

use serde_json::json;

use crate::{
    ingest_support::{BATCH, Call, EVENTS, Watched},
    support::TestRelay,
    vocabulary::{about, also, created},
};

#[tokio::test]
async fn the_query_adds_topics_to_each_event_of_the_call() {
    let relay = TestRelay::start();
    let mut client = relay.connect("acme", "ann").await;
    client.subscribe(&["board:b 1/ü", "list:a:b+c&d"]).await;
    let query = "?topic=board%3Ab+1%2F%C3%BC&topic=list:a:b%2Bc%26d&topic=project:p1";
    let extra = ["project:p1", "board:b 1/ü", "list:a:b+c&d"];

    // Topics in field 18 as well: each occurs once, and the event's own come first.
    let event = also(about(&["project:p1"]), &["list:a:b+c&d", "project:p1"]);
    let answer = Call::event(&format!("{EVENTS}{query}"), &event)
        .answer(&relay)
        .await;
    let topics = json!(["project:p1", "list:a:b+c&d", "board:b 1/ü"]);
    assert_eq!(
        (&answer.json()["topics"], &answer.json()["matched"]),
        (&topics, &json!(1))
    );
    client.event().await;

    let batch = json!({"messages": [
        about(&["project:p1"]),
        about(&[]),
    ]});
    let answer = Call::event(&format!("{BATCH}{query}"), &batch)
        .answer(&relay)
        .await;
    let results = &answer.json()["results"];
    assert_eq!(results[0]["topics"], json!(extra));
    assert_eq!(results[1]["topics"], json!([extra[1], extra[2], extra[0]]));
    for _ in 0..2 {
        client.event().await;
    }
    client.nothing_more().await;
    drop(client);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_query_that_names_no_topic_is_refused() {
    let mut watched = Watched::start().await;
    let good = created("p1");
    let topics: Vec<_> = (0..101).map(|i| format!("topic=b:{i}")).collect();
    let topics = topics.join("&");
    let long = format!("topic=b:{}", "i".repeat(257));
    for (query, field) in [
        ("topic=", Some("topic")),
        ("topic", Some("topic")),
        ("topic=board:1&topic=board", Some("topic")),
        ("topic=board%3A%2A", Some("topic")),
        ("topic=user:*", Some("topic")),
        ("topic=tenant:acme", Some("topic")),
        ("topic=board:a%0Ab", Some("topic")),
        ("topic=board:%ff", Some("topic")),
        (&long, Some("topic")),
        (&topics, None),
        ("topics=board:1", Some("topics")),
        ("Topic=board:1", Some("Topic")),
    ] {
        let call = Call::event(&format!("{EVENTS}?{query}"), &good);
        watched.refuses(query, call, field).await;
    }
    watched.has_not_changed().await;
}
