//! What is measured of a connection: how long its events took, whether its client takes them, and
//! whether it is a reconnect.

use std::time::Duration;

use sidewire_protocol::Position;
use tokio::time::sleep;

use super::json::resume_json;
use crate::connection::{
    testing::{ConnectionFixture, FrameClient, WIDE, event, settle, simulate},
    wire_testing::{ReceivedFrame, resume},
};
use crate::tls::ChainValidity;

const LONGEST: &str = "sidewire_connections_blocked_longest_seconds";

/// Less than the write timeout and the ping interval.
const DELAY: Duration = Duration::from_secs(3);

async fn check_that_its_delay_is_measured(fixture: &ConnectionFixture, mut client: FrameClient) {
    let tally = fixture.tally();
    fixture.publish([event(100)]).await;
    settle().await;
    assert_eq!(tally.delivery_latency.count(), 0, "it is written in part");
    assert_eq!(fixture.metric("sidewire_connections_blocked"), 1);
    sleep(DELAY).await;
    assert_eq!(client.next().await, Some(ReceivedFrame::Event(1)));
    settle().await;
    assert_eq!(tally.delivery_latency.count(), 1);
    assert_eq!(tally.delivery_latency.sum(), DELAY);
    assert_eq!(fixture.metric("sidewire_connections_blocked"), 0);

    // Two that are written at once count with the time of the older one.
    fixture.publish([event(1), event(1)]).await;
    assert_eq!(client.next().await, Some(ReceivedFrame::Event(2)));
    assert_eq!(client.next().await, Some(ReceivedFrame::Event(3)));
    settle().await;
    assert_eq!(tally.delivery_latency.count(), 3);
    assert_eq!(tally.delivery_latency.sum(), DELAY);

    // A client that never reads is no longer counted when it is gone.
    fixture.publish([event(1000)]).await;
    settle().await;
    assert_eq!(fixture.metric("sidewire_connections_blocked"), 1);
    assert_eq!(fixture.metric(LONGEST), 0);
    sleep(DELAY).await;
    assert_eq!(fixture.metric(LONGEST), DELAY.as_secs());
    drop(client);
    settle().await;
    assert_eq!(fixture.metric("sidewire_connections_blocked"), 0);
    assert_eq!(fixture.metric(LONGEST), 0);
    assert_eq!(tally.delivery_latency.count(), 3);
    assert_eq!(
        fixture.metric("sidewire_client_bytes_written_total"),
        tally.bytes_written.get()
    );
    fixture.check_nothing_is_left();
}

#[test]
fn the_latency_of_an_event_lasts_until_the_client_makes_room_for_all_of_it() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let client = fixture.connect(64);
        check_that_its_delay_is_measured(&fixture, client).await;
    });
}

#[test]
fn the_latency_of_an_event_over_tls_lasts_until_the_kernel_has_it() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let client = fixture.connect_encrypted(64);
        check_that_its_delay_is_measured(&fixture, client).await;
    });
}

#[test]
fn the_age_of_a_replayed_event_is_not_its_latency() {
    simulate(async {
        for is_json in [false, true] {
            let fixture = ConnectionFixture::with_log(|_| ());
            let placed = fixture.publish([event(1), event(1)]).await.events;
            let start = Position {
                offset: 0,
                ..placed[0].position
            };
            sleep(DELAY).await;
            let (mut client, request) = match is_json {
                false => (fixture.connect(WIDE), resume("r", "project:p", start)),
                true => (
                    fixture.connect_json(WIDE),
                    resume_json("r", "project:p", start),
                ),
            };
            client.send(request).await;
            settle().await;
            let tally = fixture.tally();
            assert_eq!((tally.replayed.get(), tally.written.get()), (2, 2));
            assert_eq!(tally.delivery_latency.count(), 0);
            fixture.publish([event(1)]).await;
            settle().await;
            assert_eq!(tally.delivery_latency.count(), 1);
            assert_eq!(tally.delivery_latency.sum(), Duration::ZERO);
        }
    });
}

#[test]
fn a_client_that_is_back_within_a_minute_is_counted_and_whether_it_has_resumed() {
    simulate(async {
        let fixture = ConnectionFixture::with_log(|_| ());
        let placed = fixture.publish([event(1)]).await.events;
        let counts = || {
            [
                "sidewire_reconnects_total",
                "sidewire_reconnects_resumed_total{result=\"recovered\"}",
                "sidewire_reconnects_resumed_total{result=\"unknown_epoch\"}",
                "sidewire_resumes_total{result=\"recovered\"}",
            ]
            .map(|series| fixture.metric(series))
        };
        drop(fixture.connect(WIDE));
        settle().await;
        assert_eq!(
            counts(),
            [0, 0, 0, 0],
            "it has connected for the first time"
        );

        sleep(DELAY).await;
        let mut client = fixture.connect(WIDE);
        settle().await;
        assert_eq!(counts(), [1, 0, 0, 0]);
        for _ in 0..2 {
            let from = placed[0].position;
            client.send(resume("r", "project:p", from)).await;
            settle().await;
        }
        assert_eq!(counts(), [1, 1, 0, 2], "its second resume is no reconnect");
        drop(client);
        settle().await;

        sleep(Duration::from_secs(61)).await;
        let mut client = fixture.connect(WIDE);
        client
            .send(resume("r", "project:p", placed[0].position))
            .await;
        settle().await;
        assert_eq!(counts(), [1, 1, 0, 3], "it was away for too long");
        drop(client);
        settle().await;

        let mut client = fixture.connect(WIDE);
        let unknown = Position {
            epoch: sidewire_protocol::Epoch::from_bits(1),
            offset: 1,
        };
        client.send(resume("r", "project:p", unknown)).await;
        settle().await;
        assert_eq!(counts(), [2, 1, 1, 3]);
    });
}

#[test]
fn a_drain_is_shown_from_its_beginning() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        assert_eq!(fixture.metric("sidewire_draining"), 0);
        fixture.shard.relay.begin_drain();
        assert_eq!(fixture.metric("sidewire_draining"), 1);
    });
}

#[test]
fn a_reload_shows_the_expiry_of_the_new_certificate() {
    const EXPIRY: &str = "sidewire_tls_certificate_expiry_timestamp_seconds";
    simulate(async {
        let fixture = ConnectionFixture::new();
        assert_eq!(fixture.metric(EXPIRY), 0);
        fixture.replace_settings(|live| {
            live.certificate = Some(ChainValidity {
                not_before: 0,
                not_after: 1_900_000_000,
            });
        });
        assert_eq!(fixture.metric(EXPIRY), 1_900_000_000);
    });
}

#[test]
fn items_that_wait_for_a_shard_and_the_connections_of_tenants_are_shown() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let _clients = [fixture.connect(WIDE), fixture.connect(WIDE)];
        let acme = "sidewire_tenant_connections{tenant=\"acme\"}";
        let others = "sidewire_tenant_connections{tenant=\"other\"}";
        assert_eq!((fixture.metric(acme), fixture.metric(others)), (2, 0));
        fixture.reload(|config| config.ops.tenant_labels = 0);
        assert!(!fixture.scrape().contains("sidewire_tenant_connections"));

        fixture.stop_delivering();
        let tenant = sidewire_protocol::TenantName::parse("acme").unwrap();
        let publisher = &fixture.shard.relay.publisher;
        let appended = publisher.append(&tenant, vec![event(1)]).await.unwrap();
        assert_eq!(fixture.metric("sidewire_inbox_items"), 1);
        fixture.resume_delivering();
        assert!(appended.wait_acknowledged().await.acknowledged);
        settle().await;
        assert_eq!(fixture.metric("sidewire_inbox_items"), 0);
    });
}
