//! Many clients of one topic, under load.

use futures_util::future::join_all;
use sidewire_client::{PublishEncoding, RelayMessage};

use crate::support::{TestRelay, raise_descriptor_limit};
use crate::vocabulary::about;

const CLIENTS: usize = 1000;
const EVENTS: u64 = 100;

#[tokio::test]
async fn a_thousand_clients_get_every_event_once_and_in_order() {
    raise_descriptor_limit();
    let relay = TestRelay::start();
    let mut following = Vec::new();
    for number in 0..CLIENTS {
        let mut client = relay
            .connect_binary("acme", &format!("user-{number}"))
            .await;
        client.subscribe(&["project:p1"]).await;
        following.push(tokio::spawn(async move {
            for expected in 1..=EVENTS {
                match client.receive().await {
                    RelayMessage::Event(event) => {
                        assert_eq!(event.position.unwrap().offset, expected);
                    }
                    other => panic!("{other:?}"),
                }
            }
            client.nothing_more().await;
        }));
    }
    let backend = relay.backend();
    let event = about(&["work_item:w1", "project:p1"]).to_string();
    for _ in 0..EVENTS {
        let answer = backend
            .post("acme", event.clone(), PublishEncoding::Json, &[], false)
            .await
            .unwrap();
        assert_eq!(answer.results[0].matched, Some(CLIENTS as u64));
    }
    for outcome in join_all(following).await {
        outcome.unwrap();
    }
    let metrics = relay.metrics().await;
    let deliveries = CLIENTS as f64 * EVENTS as f64;
    assert_eq!(metrics["sidewire_events_matched_total"], deliveries);
    assert_eq!(metrics["sidewire_events_written_total"], deliveries);
    assert!(relay.stop().await);
}
