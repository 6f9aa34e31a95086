//! The load generator against a relay, with a small version of each scenario.

use std::{sync::Arc, time::Duration};

use sidewire::{
    auth::{NewToken, TokenRules},
    config::{AuthMode, Config},
};
use sidewire_bench::{
    BenchError, BenchPlan, BenchReport, BenchTarget, MeasureWindow, RelayLimits, RelayTarget,
    Scenario, ScenarioFanout, TargetEndpoint, TargetProtocol, TokenMaker,
};
use sidewire_client::{Credential, UrlSchemes};
use sidewire_protocol::{EnvelopeEncoding, TenantName, clock::Clock};

use crate::{
    support::{INGEST_KEY, TestRelay, signing_key},
    transport::Certified,
    vocabulary::TestSchema,
};

/// The lifetime of the clients' tokens.
const LIFETIME: Duration = Duration::from_secs(600);

const WINDOW: MeasureWindow = MeasureWindow {
    warmup: Duration::from_millis(50),
    duration: Duration::from_millis(300),
};

fn plan(relay: &TestRelay, scenario: Scenario) -> BenchPlan {
    plan_over(relay, scenario, "ws", None)
}

fn plan_over(
    relay: &TestRelay,
    scenario: Scenario,
    scheme: &str,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> BenchPlan {
    let clients = format!("{scheme}://{}/ws", relay.addresses.client);
    let ingest = format!("http://{}", relay.addresses.ingest);
    BenchPlan {
        target: BenchTarget {
            clients: TargetEndpoint::from_url(&clients, UrlSchemes::WEBSOCKET, tls).unwrap(),
            ingest: TargetEndpoint::from_url(&ingest, UrlSchemes::INGEST, None).unwrap(),
            speech: TargetProtocol::Relay(Box::new(RelayTarget {
                tenant: TenantName::parse("acme").unwrap(),
                tenants: 1,
                tokens: Some(TokenMaker::new(|tenant, user| {
                    let token = NewToken {
                        tenant,
                        user,
                        expires_at: Some(Clock::system().since_unix_epoch() + LIFETIME),
                        topics: None,
                        subscribe: None,
                    };
                    signing_key().mint(&token, &TokenRules::default())
                })),
                ingest_key: Some(Credential::new(INGEST_KEY)),
                encoding: EnvelopeEncoding::Protobuf,
            })),
        },
        scenario,
        payload_bytes: 200,
        concurrency: 7,
        server_pid: Some(std::process::id()),
        lost_after: Duration::from_secs(10),
    }
}

/// Runs the plan beside the relay; the acceptor runs on the test's thread.
async fn try_run(plan: BenchPlan) -> Result<BenchReport, BenchError> {
    let run = move || sidewire_bench::run(plan, &TestSchema::under_test().compile(), &mut |_| ());
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Returns the report of a run that must succeed without faults.
async fn run(relay: &TestRelay, scenario: Scenario) -> BenchReport {
    let report = try_run(plan(relay, scenario)).await.unwrap();
    assert_eq!(report.failure_summary(), None);
    assert_eq!(report.scenario, scenario.name());
    let server = report.server.unwrap();
    assert!(server.cpu_s > 0.0, "{report:?}");
    report
}

#[tokio::test]
async fn clients_can_be_measured_over_tls() {
    let certified = Certified::new();
    let relay = certified.relay(|_| ());
    let scenario = Scenario::Throughput {
        fanout: FANOUT,
        outstanding: 16,
        window: WINDOW,
    };
    let trust = Some(Arc::clone(&certified.trust));
    let report = try_run(plan_over(&relay, scenario, "wss", trust))
        .await
        .unwrap();
    assert_eq!(report.failure_summary(), None);
    assert!(report.deliveries > 0, "{report:?}");
    assert!(relay.stop().await);
}

/// By how many events the deliveries within a window may differ from the answers within it.
/// At either end up to 16 events are outstanding, and an event may be delivered before its
/// answer is read as well as after.
const SLACK: u64 = 2 * 16;

const FANOUT: ScenarioFanout = ScenarioFanout {
    connections: 20,
    topics: 3,
};

#[tokio::test]
async fn latency_is_measured_at_the_requested_rate() {
    let relay = TestRelay::start();
    let scenario = Scenario::Latency {
        fanout: FANOUT,
        rate: 100.0,
        window: WINDOW,
    };
    let report = run(&relay, scenario).await;
    // No more than are due; fewer if the machine is busy.
    assert!((1..=40).contains(&report.events), "{report:?}");
    // 20 connections on 3 topics: each event goes to six or seven.
    let delivered = report.deliveries.abs_diff(7 * report.events);
    assert!(delivered <= report.events + 3 * 7, "{report:?}");
    let (each, last) = (report.latency_us.unwrap(), report.last_latency_us.unwrap());
    assert!(each.p50 > 0.0 && each.p50 <= each.p99 && each.p99 <= each.max);
    assert!(last.p50 > 0.0 && last.max <= each.max);
    assert!(report.answer_latency_us.is_some());
    assert_eq!((report.connects, report.connect_failures), (20, 0));
    assert!(relay.stop().await);
}

#[tokio::test]
async fn full_load_reaches_every_subscriber_of_each_topic() {
    let relay = TestRelay::start();
    let scenario = Scenario::Throughput {
        fanout: FANOUT,
        outstanding: 16,
        window: WINDOW,
    };
    let report = run(&relay, scenario).await;
    // Seven clients have the first topic, seven the second, and six the third.
    let slack = SLACK * 7;
    assert!(report.events > 16, "{report:?}");
    assert!(
        report.deliveries + slack >= 6 * report.events
            && report.deliveries <= 7 * report.events + slack,
        "{report:?}"
    );
    assert!(report.generator.cpu_share > 0.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_event_of_a_clients_own_topic_is_delivered_once() {
    let relay = TestRelay::start();
    let scenario = Scenario::Selective {
        connections: 20,
        outstanding: 16,
        window: WINDOW,
    };
    let mut plan = plan(&relay, scenario);
    let TargetProtocol::Relay(to) = &mut plan.target.speech else {
        unreachable!();
    };
    to.tenants = 4;
    let report = try_run(plan).await.unwrap();
    assert_eq!(report.failure_summary(), None);
    assert!(report.events > 16);
    assert!(
        report.deliveries.abs_diff(report.events) <= SLACK,
        "{report:?}"
    );
    assert!(relay.stop().await);
}

#[tokio::test]
async fn idle_connections_are_opened_and_their_memory_is_measured() {
    let relay = TestRelay::start();
    let scenario = Scenario::Idle {
        connections: 20,
        settle: WINDOW.duration,
    };
    let report = try_run(plan(&relay, scenario)).await.unwrap();
    assert_eq!((report.failure_summary(), report.connects), (None, 20));
    let server = report.server.unwrap();
    assert!(server.memory_bytes_before.unwrap() > 0);
    assert!(server.memory_bytes_per_connection.is_some());
    assert!(server.cpu_us_per_connect.unwrap() > 0.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_connect_storm_comes_in_waves() {
    let relay = TestRelay::start();
    let scenario = Scenario::Connect {
        connections: 20,
        window: WINDOW,
    };
    let report = run(&relay, scenario).await;
    assert!(report.connects >= 20 && report.connects % 20 == 0);
    assert!(report.connects_per_s > 0.0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn events_without_subscribers_are_posted_one_by_one_and_in_batches() {
    let relay = TestRelay::start();
    for batch in [1, 10] {
        let scenario = Scenario::Ingest {
            publishers: 5,
            batch,
            window: WINDOW,
        };
        let report = run(&relay, scenario).await;
        assert_eq!(report.events, report.calls * batch as u64);
        assert!(report.calls > 5 && report.deliveries == 0);
    }
    assert!(relay.stop().await);
}

#[tokio::test]
async fn growth_compares_few_with_many_in_blocks() {
    let relay = TestRelay::start();
    let scenario = Scenario::Growth {
        few: 10,
        many: 30,
        blocks: 2,
        outstanding: 16,
        window: WINDOW,
    };
    let report = run(&relay, scenario).await;
    let growth = report.growth.as_ref().unwrap();
    let connected: Vec<_> = growth.blocks.iter().map(|it| it.connections).collect();
    assert_eq!(connected, [10, 30, 30, 10]);
    assert!(growth.ratio > 0.0);
    let events: u64 = growth.blocks.iter().map(|it| it.events).sum();
    assert_eq!(report.events, events);
    assert!(report.deliveries.abs_diff(10 * report.events) <= 4 * SLACK * 10);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn a_relay_that_needs_no_token_gets_none() {
    let relay = TestRelay::with(|config| {
        config.auth.mode = AuthMode::None;
        config.auth.keys.clear();
    });
    let scenario = Scenario::Throughput {
        fanout: FANOUT,
        outstanding: 4,
        window: WINDOW,
    };
    let mut plan = plan(&relay, scenario);
    let TargetProtocol::Relay(to) = &mut plan.target.speech else {
        unreachable!();
    };
    to.tokens = None;
    to.tenant = TenantName::parse("local").unwrap();
    let report = try_run(plan).await.unwrap();
    assert_eq!(report.failure_summary(), None);
    assert!(report.deliveries > 0);
    assert!(relay.stop().await);
}

#[tokio::test]
async fn an_immediate_refusal_by_the_relay_ends_the_run() {
    let relay = TestRelay::start();
    let scenario = Scenario::Throughput {
        fanout: FANOUT,
        outstanding: 4,
        window: WINDOW,
    };
    let refused = |change: fn(&mut BenchPlan, &mut RelayTarget)| {
        let mut plan = plan(&relay, scenario);
        let TargetProtocol::Relay(mut to) = plan.target.speech else {
            unreachable!();
        };
        plan.target.speech = TargetProtocol::Floor(sidewire_bench::Framing::Http);
        change(&mut plan, &mut to);
        plan.target.speech = TargetProtocol::Relay(to);
        try_run(plan)
    };
    let no_token = refused(|_, to| to.tokens = None).await;
    assert!(
        matches!(no_token, Err(BenchError::Unauthorized(_))),
        "{no_token:?}"
    );
    let no_key = refused(|_, to| to.ingest_key = None).await;
    assert!(
        matches!(no_key, Err(BenchError::Refused { status: 401, .. })),
        "{no_key:?}"
    );
    let too_big = refused(|plan, _| plan.payload_bytes = 2_000_000).await;
    assert!(
        matches!(too_big, Err(BenchError::Refused { status: 413, .. })),
        "{too_big:?}"
    );
    let too_small = refused(|plan, _| plan.payload_bytes = 20).await;
    assert!(
        matches!(too_small, Err(BenchError::Mould(_))),
        "{too_small:?}"
    );
    assert!(relay.stop().await);
}

#[tokio::test]
async fn limits_that_a_plan_would_exceed_are_reported_beforehand() {
    let relay = TestRelay::start();
    let ingest = |batch| Scenario::Ingest {
        publishers: 1,
        batch,
        window: WINDOW,
    };
    let warnings = |scenario, payload_bytes| {
        let mut plan = plan(&relay, scenario);
        plan.payload_bytes = payload_bytes;
        sidewire_bench::warnings(&plan, &RelayLimits::from(&Config::default())).join("\n")
    };
    let idle = |connections| Scenario::Idle {
        connections,
        settle: WINDOW.duration,
    };
    let throughput = |outstanding| Scenario::Throughput {
        fanout: FANOUT,
        outstanding,
        window: WINDOW,
    };
    for (scenario, payload_bytes, says) in [
        (ingest(1), 2_000_000, "ingest.body_max"),
        (ingest(1001), 200, "ingest.batch_events_max"),
        (ingest(1000), 10_000, "ingest.batch_body_max"),
        (throughput(2000), 200, "limits.outbox_frames"),
        (throughput(900), 2000, "limits.outbox_bytes"),
        (idle(1 << 40), 0, "descriptors"),
    ] {
        let said = warnings(scenario, payload_bytes);
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(warnings(ingest(1000), 200), "");
    let refused = try_run(plan(&relay, idle(1 << 40))).await;
    assert!(
        matches!(refused, Err(BenchError::Descriptors { .. })),
        "{refused:?}"
    );
    assert!(relay.stop().await);
}
