//! `GET /v1/tenants/{tenant}/presence`: what a backend is told about who is present.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    ingest_support::{Backend, Call, ask, invalid, list, refusal},
    json_client::JsonClient,
    support::{ACME_KEY, INGEST_KEY, TestRelay},
    vocabulary::TestSchema,
};

const PRESENCE: &str = "/v1/tenants/acme/presence";

/// Starts a relay with the generic schema, whose payloads name their topics in full.
fn start() -> TestRelay {
    TestRelay::serving(TestSchema::Generic, |_| ())
}

/// Sends a presence message with this id and contents, and waits until the relay has taken it.
async fn show(client: &mut JsonClient, id: &str, presence: Value) {
    let envelope = json!({"messageId": id, "presence": presence});
    client.send(envelope.to_string().into()).await;
    until_taken(client).await;
}

/// Waits until the relay has taken everything that the client has sent.
async fn until_taken(client: &mut JsonClient) {
    client.say(json!({"ping": {}})).await;
    while client.envelope().await.get("pong").is_none() {}
}

fn shown(id: &str, user: &str, connections: u64, lingering: bool) -> Value {
    json!({"user": user, "connections": connections, "lingering": lingering, "messages": [id]})
}

/// Takes the times out of a listing, and returns the users by topic, and the messages.
fn without_times(mut listing: Value) -> (Vec<Value>, Value) {
    for topic in listing["topics"].as_array_mut().unwrap() {
        for user in topic["users"].as_array_mut().unwrap() {
            let since = user.as_object_mut().unwrap().remove("since");
            assert!(since.unwrap().as_i64().unwrap() > 1_700_000_000);
        }
    }
    for message in listing["messages"].as_object_mut().unwrap().values_mut() {
        let timestamp = message.as_object_mut().unwrap().remove("timestamp");
        assert!(timestamp.unwrap().is_string());
    }
    let topics = listing["topics"].as_array().unwrap().clone();
    (topics, listing["messages"].clone())
}

#[tokio::test]
async fn users_are_listed_by_topic_with_their_messages() {
    let relay = start();
    let mut ann = JsonClient::subscribed(&relay, "ann", &["a:1", "b:2"]).await;
    let mut second = JsonClient::subscribed(&relay, "ann", &["a:1"]).await;
    let mut bob = JsonClient::subscribed(&relay, "bob", &["a:1"]).await;
    show(
        &mut ann,
        "m1",
        json!({"topics": ["a:1", "b:2"], "type": "viewing"}),
    )
    .await;
    show(&mut second, "m2", json!({"topics": ["a:1"]})).await;
    show(
        &mut bob,
        "m3",
        json!({"topics": ["a:1", "b:2"], "userId": "ann"}),
    )
    .await;
    let listing = list(&relay, PRESENCE, "topic=b:2&topic=nobody:here&topic=a:1").await;
    assert_eq!(listing["next"], Value::Null);
    let (topics, messages) = without_times(listing);
    let of_ann = json!({
        "user": "ann", "connections": 2, "lingering": false, "messages": ["m2", "m1"],
    });
    let expected = [
        json!({"topic": "b:2", "users": [shown("m1", "ann", 1, false)]}),
        json!({"topic": "nobody:here", "users": []}),
        json!({"topic": "a:1", "users": [of_ann, shown("m3", "bob", 1, false)]}),
    ];
    assert_eq!(topics, expected);
    let message = |id: &str, presence| json!({"messageId": id, "presence": presence});
    let of_ann = |topics: &[&str]| json!({"topics": topics, "userId": "ann"});
    let mut first = of_ann(&["a:1", "b:2"]);
    first["type"] = json!("viewing");
    let of_bob = json!({"topics": ["a:1", "b:2"], "userId": "bob"});
    let expected = json!({
        "m1": message("m1", first),
        "m2": message("m2", of_ann(&["a:1"])),
        "m3": message("m3", of_bob),
    });
    assert_eq!(messages, expected);
    drop((ann, second, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_user_whose_connection_has_ended_lingers_in_the_listing() {
    let relay = TestRelay::serving(TestSchema::Generic, |config| {
        config.presence.linger = Duration::from_hours(1);
    });
    let mut ann = JsonClient::subscribed(&relay, "ann", &["a:1"]).await;
    show(&mut ann, "m1", json!({"topics": ["a:1"]})).await;
    drop(ann);
    relay
        .metrics_where(|metrics| metrics["sidewire_connections"] == 0.0)
        .await;
    let (topics, messages) = without_times(list(&relay, PRESENCE, "topic=a:1").await);
    let expected = json!({"topic": "a:1", "users": [shown("m1", "ann", 1, true)]});
    assert_eq!(topics, [expected]);
    assert_eq!(messages["m1"]["messageId"], "m1");
    assert!(relay.stop().await);
}

#[tokio::test]
async fn unknown_topics_and_tenants_have_no_users() {
    let relay = start();
    for target in [PRESENCE, "/v1/tenants/nowhere/presence"] {
        let target = format!("{target}?topic=a:1&topic=user:ann&topic=a:1");
        let call = Call::new("GET", &target).key(INGEST_KEY);
        let nobody = |topic: &str| json!({"topic": topic, "users": []});
        assert_eq!(
            call.answer(&relay).await.json(),
            json!({"topics": [nobody("a:1"), nobody("user:ann")], "messages": {}, "next": null})
        );
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn messages_with_the_same_id_are_all_listed() {
    let relay = start();
    let mut ann = JsonClient::subscribed(&relay, "ann", &["a:1"]).await;
    let mut bob = JsonClient::subscribed(&relay, "bob", &["a:1"]).await;
    for client in [&mut ann, &mut bob] {
        show(client, "same", json!({"topics": ["a:1"]})).await;
    }
    let listing = list(&relay, PRESENCE, "topic=a:1").await;
    let users = listing["topics"][0]["users"].as_array().unwrap();
    for (user, name) in users.iter().zip(["ann", "bob"]) {
        let key = user["messages"][0].as_str().unwrap();
        let message = &listing["messages"][key];
        assert_eq!(message["messageId"], "same");
        assert_eq!(message["presence"]["userId"], name);
    }
    assert_eq!(
        listing["topics"][0]["users"][0]["messages"],
        json!(["same"])
    );
    drop((ann, bob));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn pages_list_every_user_once_however_long_the_answer_is() {
    const USERS: usize = 60;
    let relay = start();
    let mut clients = Vec::new();
    for number in 0..USERS {
        let user = format!("user-{number:03}");
        let mut client = JsonClient::open(&relay, "acme", &user).await;
        let id = format!("m{number}");
        client.subscribe(json!({"topics": ["a:1", "b:2"]})).await;
        // A whole answer has 120 KB, which are sent in parts.
        let data = "x".repeat(1_900);
        show(
            &mut client,
            &id,
            json!({"topics": ["a:1", "b:2"], "data": data}),
        )
        .await;
        clients.push(client);
    }
    for limit in [1, 7, 59, 60, 61, 1_000] {
        let (mut listed, mut known) = (Vec::new(), BTreeSet::new());
        let mut query = format!("topic=a:1&topic=b:2&limit={limit}");
        loop {
            let page = list(&relay, PRESENCE, &query).await;
            let mut users = 0;
            for topic in page["topics"].as_array().unwrap() {
                for user in topic["users"].as_array().unwrap() {
                    let id = user["messages"][0].as_str().unwrap();
                    assert!(page["messages"][id].is_object());
                    known.insert(id.to_owned());
                    listed.push((topic["topic"].clone(), user["user"].clone()));
                    users += 1;
                }
            }
            assert!(users <= limit);
            let Some(next) = page["next"].as_str() else {
                break;
            };
            assert_eq!(users, limit);
            query = format!("topic=a:1&topic=b:2&limit={limit}&after={next}");
        }
        let of = |topic: &'static str| {
            (0..USERS).map(move |number| (json!(topic), json!(format!("user-{number:03}"))))
        };
        assert!(listed.into_iter().eq(of("a:1").chain(of("b:2"))));
        assert_eq!(known.len(), USERS);
    }
    drop(clients);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_call_that_lists_presence_is_checked_like_the_others() {
    let relay = start();
    for (query, field) in [
        ("", "topic"),
        ("topic=a:*", "topic"),
        ("topic=a:1&limit=0", "limit"),
        ("topic=a:1&after=x", "after"),
        ("topic=a:1&if_last=a:1@0", "if_last"),
    ] {
        let refused = ask(&relay, PRESENCE, query).await;
        assert_eq!(refusal(&refused), invalid(Some(field)), "{query}");
    }
    let elsewhere = "/v1/tenants/globex/presence?topic=a:1";
    for (method, target, key, status) in [
        ("GET", elsewhere, Some(ACME_KEY), 403),
        ("GET", elsewhere, None, 401),
        ("GET", elsewhere, Some(INGEST_KEY), 200),
        ("POST", elsewhere, Some(INGEST_KEY), 405),
    ] {
        let mut call = Call::new(method, target);
        if let Some(key) = key {
            call = call.key(key);
        }
        let answer = Backend::connect(&relay).await.call(&call).await;
        assert_eq!(answer.status, status, "{method} {target}");
        if status == 405 {
            assert_eq!(answer.headers["allow"], "GET, HEAD");
        }
    }
    assert!(relay.stop().await);
}
