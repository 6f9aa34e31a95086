//! The relay under test.

use std::{sync::Arc, time::Duration};

use sidewire_client::{ClientOptions, Credential, EventPublisher};
use sidewire_protocol::random::RandomSource;
use sidewire_testing::{
    process::{PATIENCE, Signal},
    relay::{ConfigLines, Files, INGEST_KEY, Relay},
    setting,
};

use tokio::time::{sleep, timeout};

/// Returns the seed of a run, and prints it.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = setting("SIDEWIRE_SEED").unwrap_or_else(rand::random);
    println!("{test}: seed {seed}");
    seed
}

/// Returns the files of a relay with these lines in `[client]` and `[limits]`, followed by
/// `more`.
pub(crate) fn files(client: &str, limits: &str, more: &str) -> Files {
    Files::configured(ConfigLines {
        client,
        limits,
        log: &format!("format = \"json\"\n{more}"),
        ..ConfigLines::default()
    })
}

pub(crate) fn publisher(relay: &Relay) -> EventPublisher {
    EventPublisher::new(&relay.ingest_url(), Some(&Credential::new(INGEST_KEY))).unwrap()
}

/// Returns options of a client that soon notices a lost connection and reconnects at once.
pub(crate) fn impatient(url: &str, token: &str, seed: u64) -> ClientOptions {
    let mut options =
        ClientOptions::new(url, Arc::new(RandomSource::from_seed(seed))).with_token(token);
    options.heartbeat = Duration::from_millis(500);
    options.dead_after = Duration::from_millis(1500);
    options.handshake_timeout = Duration::from_secs(5);
    options.backoff_first = Duration::from_millis(5);
    options.backoff_max = Duration::from_millis(100);
    options
}

/// Asserts that the relay has not panicked, that its sums add up once all clients have
/// gone, and that it exits successfully.
pub(crate) async fn assert_unharmed(relay: Relay) {
    assert_eq!(relay.metric("sidewire_panics_total"), 0.0);
    let all_gone = async {
        // Presence stays for a while after its connection.
        let left = [
            "sidewire_connections",
            "sidewire_events_queued",
            "sidewire_memory_bytes{use=\"presence\"}",
        ];
        while left.iter().any(|name| relay.metric(name) > 0.0) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, all_gone).await.expect("connections stay");
    let metric = |name: &str| relay.metric(&format!("sidewire_events_{name}"));
    let reasons = [
        "too_slow",
        "closed",
        "revoked",
        "catching_up",
        "outbox_full",
        "inbox_full",
    ];
    let dropped = reasons.map(|reason| metric(&format!("dropped_total{{reason=\"{reason}\"}}")));
    let came = ["matched_total", "replayed_total", "relayed_total"].map(metric);
    assert_eq!(
        came.iter().sum::<f64>(),
        metric("written_total") + dropped.iter().sum::<f64>()
    );
    assert_eq!(metric("bytes"), relay.metric("sidewire_log_bytes"));
    relay.process.signal(Signal::TERM);
    let ended = relay.process.end();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}
