//! Metrics that no other test moves: the sizes of events by their source, the process, the
//! certificate, and tenants by name.

use std::time::Duration;

use serde_json::json;
use sidewire_protocol::clock::Clock;

use crate::{
    json_client::JsonClient,
    support::TestRelay,
    transport::Certified,
    vocabulary::{TestSchema, item_created, topics},
};

const BACKEND: &str = "sidewire_events_received_bytes_total{source=\"backend\"}";
const CLIENT: &str = "sidewire_events_received_bytes_total{source=\"client\"}";

#[tokio::test]
async fn bytes_of_events_are_counted_by_source_and_connections_by_tenant() {
    let relay = TestRelay::start();
    let mut sender = JsonClient::open(&relay, "acme", "ann").await;
    let mut receiver = JsonClient::open(&relay, "acme", "bob").await;
    let _other = JsonClient::open(&relay, "globex", "ann").await;
    for client in [&mut sender, &mut receiver] {
        client.subscribe(topics(&["project:p"])).await;
    }
    relay.publish("acme", item_created("i", "p", "text")).await;
    let typing = match TestSchema::under_test() {
        TestSchema::Tracker => json!({"userTyping": {"projectId": "p", "isTyping": true}}),
        TestSchema::Generic => json!({"message": {"topics": ["project:p"], "type": "typing"}}),
    };
    sender.say(typing).await;
    relay
        .metrics_where(|metrics| metrics[CLIENT] > 0.0 && metrics["sidewire_events_queued"] == 0.0)
        .await;
    let metrics = relay.metrics().await;
    assert!((50.0..1000.0).contains(&metrics[BACKEND]), "{metrics:#?}");
    assert!((20.0..500.0).contains(&metrics[CLIENT]), "{metrics:#?}");
    assert!(metrics["sidewire_client_bytes_written_total"] > 2.0 * metrics[BACKEND]);
    assert!(metrics["sidewire_delivery_latency_seconds_count"] >= 2.0);
    let of_tenant =
        |tenant| metrics[&format!("sidewire_tenant_connections{{tenant=\"{tenant}\"}}")];
    assert_eq!(["acme", "globex", "other"].map(of_tenant), [2.0, 1.0, 0.0]);
    assert!(metrics["process_resident_memory_bytes"] > 1e6);
    assert!(metrics["process_open_fds"] > 6.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn the_expiry_of_the_certificate_is_shown_and_is_0_without_tls() {
    const EXPIRY: &str = "sidewire_tls_certificate_expiry_timestamp_seconds";
    let plain = TestRelay::start();
    assert_eq!(plain.metrics().await[EXPIRY], 0.0);
    assert!(plain.stop().await);
    let relay = Certified::new().relay(|_| ());
    let now = Clock::system().since_unix_epoch();
    let in_a_day = (now + Duration::from_hours(24)).as_secs_f64();
    assert!(relay.metrics().await[EXPIRY] > in_a_day);
    assert!(relay.stop().await);
}
