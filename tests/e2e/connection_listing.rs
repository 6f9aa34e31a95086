//! `GET /v1/tenants/{tenant}/connections`: what an operator is told about the connections of a
//! tenant, and the request ids of calls.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    ingest_support::{Call, ask, invalid, list, refusal},
    json_client::JsonClient,
    support::{ACME_KEY, INGEST_KEY, TestRelay},
    vocabulary::TestSchema,
};

const CONNECTIONS: &str = "/v1/tenants/acme/connections";

fn start() -> TestRelay {
    TestRelay::serving(TestSchema::Generic, |_| ())
}

#[tokio::test]
async fn connections_are_listed_with_who_they_are_and_what_they_do() {
    let relay = start();
    let ann = JsonClient::subscribed(&relay, "ann", &["a:1", "b:2"]).await;
    let bob = JsonClient::subscribed(&relay, "bob", &["a:1"]).await;
    let other = JsonClient::open(&relay, "globex", "ann").await;
    let listing = list(&relay, CONNECTIONS, "").await;
    assert_eq!(listing["next"], Value::Null);
    assert_eq!(listing["connections"].as_array().unwrap().len(), 2);
    let mut of_ann = list(&relay, CONNECTIONS, "user=ann&topic=b:2").await;
    let connection = of_ann["connections"][0].as_object_mut().unwrap();
    let id = connection.remove("id").unwrap();
    let (shard, number) = id.as_str().unwrap().split_once('-').unwrap();
    assert!(shard.parse::<u32>().is_ok() && number.parse::<u64>().unwrap() > 0);
    assert!(connection.remove("since").unwrap().as_i64().unwrap() > 1_700_000_000);
    let expected = json!({
        "connections": [{
            "user": "ann",
            "transport": "websocket",
            "encoding": "json",
            "topics": 2,
            "outbox": {"frames": 0, "bytes": 0},
            "address": "127.0.0.1",
        }],
        "next": null,
    });
    assert_eq!(of_ann, expected);
    let nobody = json!({"connections": [], "next": null});
    assert_eq!(list(&relay, CONNECTIONS, "user=eve").await, nobody);
    let elsewhere = Call::new("GET", "/v1/tenants/nowhere/connections").key(INGEST_KEY);
    assert_eq!(elsewhere.answer(&relay).await.json(), nobody);
    drop((ann, bob, other));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn pages_list_every_connection_once_however_long_the_answer_is() {
    const CLIENTS: usize = 150;
    let relay = start();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        // With such names, an answer has 45 KB, which are sent in parts.
        let user = format!("{number:0>128}");
        clients.push(JsonClient::subscribed(&relay, &user, &["a:1"]).await);
    }
    for limit in [7, 149, 150, 1_000] {
        let mut known = BTreeSet::new();
        let mut query = format!("topic=a:1&limit={limit}");
        loop {
            let page = list(&relay, CONNECTIONS, &query).await;
            for connection in page["connections"].as_array().unwrap() {
                assert!(known.insert(connection["id"].to_string()));
            }
            let Some(next) = page["next"].as_str() else {
                break;
            };
            query = format!("topic=a:1&limit={limit}&after={next}");
        }
        assert_eq!(known.len(), CLIENTS);
    }
    let default = list(&relay, CONNECTIONS, "").await;
    assert_eq!(default["connections"].as_array().unwrap().len(), 100);
    drop(clients);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_call_that_lists_connections_is_checked_like_the_others() {
    let relay = start();
    for (query, field) in [
        ("user=", "user"),
        ("topic=a", "topic"),
        ("limit=0", "limit"),
        ("after=x", "after"),
        ("reconnect=true", "reconnect"),
    ] {
        let refused = ask(&relay, CONNECTIONS, query).await;
        assert_eq!(refusal(&refused), invalid(Some(field)), "{query}");
    }
    let elsewhere = "/v1/tenants/globex/connections";
    for (method, key, status) in [
        ("GET", Some(ACME_KEY), 403),
        ("GET", None, 401),
        ("POST", Some(INGEST_KEY), 405),
    ] {
        let mut call = Call::new(method, elsewhere);
        if let Some(key) = key {
            call = call.key(key);
        }
        let answer = call.answer(&relay).await;
        assert_eq!(answer.status, status, "{method}");
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn every_answer_has_the_request_id_of_the_call_or_a_new_one() {
    let relay = start();
    let id_of = async |target: &str, id: Option<&str>| {
        let mut call = Call::new("GET", target).key(INGEST_KEY);
        if let Some(id) = id {
            call = call.header(&format!("X-Request-Id: {id}"));
        }
        let answer = call.answer(&relay).await;
        answer.headers["x-request-id"].clone()
    };
    for target in [CONNECTIONS, "/v1/tenants/nowhere", "/nothing"] {
        assert_eq!(id_of(target, Some("deploy-7/4711")).await, "deploy-7/4711");
        let first = id_of(target, None).await;
        assert_eq!(first.len(), 16);
        assert_ne!(first, id_of(target, None).await);
        assert_eq!(id_of(target, Some(&"x".repeat(129))).await.len(), 16);
    }
    assert!(relay.stop().await);
}
