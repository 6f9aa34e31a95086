//! Hostile traffic against the real program, over real sockets: handshakes, frames,
//! envelopes, calls of backends, tokens and their renewals that are malformed, forged, oversized
//! or merely unusual, each with the answer that the contract prescribes. Meanwhile healthy clients
//! must receive all of their events, in order and in time.
//!
//! ```text
//! cargo test --test hostile                                      # a few thousand
//! SIDEWIRE_HOSTILE=50000 cargo test --release -p sidewire --test hostile     # as in the gate
//! SIDEWIRE_HOSTILE=1000000 cargo test --release -p sidewire --test hostile   # before a release
//! ```
//!
//! `SIDEWIRE_HOSTILE` is the number of cases, a seventh of them in each family. Each is made
//! from the run's seed and its own number; a run prints its seed, and `SIDEWIRE_SEED`
//! repeats it. A mutator is one way to be hostile. With `-- --nocapture` a run prints a
//! table of mutators. A run fails if a mutator was not tried, or if the relay deviated,
//! took longer than a second or panicked.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "a test may fail loudly, and this one reports"
)]

mod campaign;
mod client_events;
mod envelopes;
mod forge;
mod frames;
mod handshakes;
mod http;
mod ingest;
mod neighbour;
mod refusal;
mod renewals;
mod tokens;

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use campaign::{Pace, Report};
use forge::{AUDIENCE, INGEST_TENANT, ISSUER, LIMITED_KEY, ORIGIN, Site};
use neighbour::Neighbour;
use sidewire_testing::{
    http::http,
    process::{Ended, Process, Signal},
    relay::{Files, Relay},
    setting,
};

/// Default number of cases.
const CASES: u64 = 5_000;

const FAMILIES: u64 = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_case_is_answered_as_the_contract_says() {
    let cases = setting("SIDEWIRE_HOSTILE").unwrap_or(CASES);
    let seed = setting("SIDEWIRE_SEED").unwrap_or_else(rand::random);
    println!("{cases} cases of seed {seed}");
    let relay = Relay::serve(files("tracker", LENIENT));
    let generic = Relay::serve(files("generic", LENIENT));
    let strict = Relay::serve(files("tracker", STRICT));
    let site = Site::of(&relay, &generic);
    let strict_site = Site::of(&strict, &generic);
    let pace = Pace::start();
    let began = Instant::now();

    let stop = Arc::new(AtomicBool::new(false));
    let mut neighbours = Vec::new();
    for (site, user) in [(&site, "ann"), (&site, "bob"), (&strict_site, "carol")] {
        let neighbour = Neighbour::arrive(site, user).await.unwrap();
        neighbours.push(tokio::spawn(neighbour.live(
            user,
            pace.clone(),
            Arc::clone(&stop),
        )));
    }
    let report = attack(&site, &strict_site, &pace, seed, cases / FAMILIES).await;
    stop.store(true, Ordering::Relaxed);
    let took = began.elapsed();
    let mut received = 0;
    for neighbour in neighbours {
        received += neighbour.await.unwrap().unwrap();
    }

    print!("{report}");
    let tried: u64 = report.rows.iter().map(|row| row.tried).sum();
    println!(
        "{tried} cases in {took:.1?}, {:.0} a second, the slowest {:.1?}; beside them {received} events",
        tried as f64 / took.as_secs_f64(),
        report.slowest,
    );
    report.assert_as_expected();
    assert!(received > 0);
    assert_unharmed(relay);
    assert_unharmed(generic);
    let log = assert_unharmed(strict);
    // Each part of a token that is a JSON object begins with this.
    assert!(!log.contains("eyJ"), "a token in the log:\n{log}");
    assert!(log.contains("client connected"), "a log of too little");
}

/// Runs all families at the same time.
async fn attack(
    site: &Arc<Site>,
    strict: &Arc<Site>,
    pace: &Pace,
    seed: u64,
    cases: u64,
) -> Report {
    let to = |site| (Arc::clone(site), pace.clone(), seed, cases);
    let of = || to(site);
    let (handshakes, frames, envelopes, calls, tokens, clients, renewals) = tokio::join!(
        start::<handshakes::HandshakeAttacker>(of()),
        start::<frames::FrameAttacker>(of()),
        start::<envelopes::EnvelopeAttacker>(of()),
        start::<ingest::IngestAttacker>(of()),
        start::<tokens::TokenAttacker>(of()),
        start::<client_events::ClientEventAttacker>(of()),
        start::<renewals::RenewalAttacker>(to(strict)),
    );
    let mut report = Report::default();
    for family in [
        handshakes, frames, envelopes, calls, tokens, clients, renewals,
    ] {
        report.add(family);
    }
    report
}

async fn start<A: campaign::Attacker>(
    (site, pace, seed, cases): (Arc<Site>, Pace, u64, u64),
) -> Report {
    tokio::spawn(campaign::run::<A>(site, pace, seed, cases))
        .await
        .unwrap()
}

/// How often a client may be refused, and the log.
struct Strictness {
    refusals: u32,
    log_level: &'static str,
}

const LENIENT: Strictness = Strictness {
    refusals: 10_000,
    log_level: "info",
};

/// As is the default, and with everything in the log.
const STRICT: Strictness = Strictness {
    refusals: renewals::REFUSALS_MAX,
    log_level: "debug",
};

/// Returns the files of a relay with this bundled schema, and every optional check enabled.
fn files(schema: &str, strictness: Strictness) -> Files {
    let Strictness {
        refusals,
        log_level,
    } = strictness;
    let (paced, paced_burst) = (renewals::PACED_TENANT, renewals::PACED_BURST);
    let files = Files::new();
    let key = |name: &str, algorithm: &str| {
        let path = format!(
            "{}/src/auth/testdata/{name}.pub.pem",
            env!("CARGO_MANIFEST_DIR")
        );
        format!(
            "[[auth.keys]]\npublic_key_file = {path:?}\nalgorithm = \"{algorithm}\"\nkid = \"{name}\"\n"
        )
    };
    files.write("limited.key", LIMITED_KEY);
    files.write(
        "sidewire.toml",
        &format!(
            r#"[client]
listen = "127.0.0.1:0"
origins = ["{ORIGIN}"]
# Clients that only receive are not pinged, however long the run is.
ping_interval = "12h"
idle_timeout = "24h"
[auth]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
[[auth.keys]]
secret_file = "jwt.secret"
algorithm = "HS256"
{}{}[schema]
bundled = "{schema}"
[limits]
shards = 2
# One user of one tenant sends all that is hostile, as fast as it is answered: what is
# looked at is how each is answered.
address_handshakes_per_minute = 4294967295
user_burst = 4294967295
tenant_burst = 4294967295
user_event_burst = 4294967295
tenant_event_burst = 4294967295
heartbeat_burst = 4294967295
refusals_per_minute = {refusals}
[[limits.overrides]]
tenants = ["{paced}"]
user_burst = {paced_burst}
user_period = "12h"
[ingest]
listen = "127.0.0.1:0"
[[ingest.keys]]
name = "tests"
key_file = "ingest.key"
[[ingest.keys]]
name = "limited"
key_file = "limited.key"
tenants = ["{INGEST_TENANT}"]
[ops]
listen = "127.0.0.1:0"
[log]
format = "json"
level = "{log_level}"
"#,
            key("p256", "ES256"),
            key("rsa", "RS256"),
        ),
    );
    files
}

/// Asserts that the relay has not panicked, has no state of its clients left, and exits
/// successfully. Returns its log.
fn assert_unharmed(relay: Relay) -> String {
    assert_eq!(relay.metric("sidewire_panics_total"), 0.0);
    let answer = http(
        relay.ops,
        "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let Relay { process, files, .. } = relay;
    let ended = stop(process);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    drop(files);
    ended.stderr
}

fn stop(process: Process) -> Ended {
    process.signal(Signal::TERM);
    process.end()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<11} {:<62} {:>9} {:>12}",
            "family", "mutator", "tried", "as expected"
        )?;
        for row in &self.rows {
            let name: String = row.name.escape_debug().take(62).collect();
            let (tried, good) = (row.tried, row.as_expected);
            writeln!(f, "{:<11} {name:<62} {tried:>9} {good:>12}", row.family)?;
        }
        Ok(())
    }
}

impl Report {
    fn assert_as_expected(&self) {
        let names: HashSet<_> = self
            .rows
            .iter()
            .map(|row| (row.family, &row.name))
            .collect();
        assert_eq!(names.len(), self.rows.len(), "two mutators of one name");
        assert!(self.rows.len() >= 400, "{} mutators", self.rows.len());
        let deviations = self.deviations.join("\n");
        assert!(self.deviations.is_empty(), "{deviations}");
        for row in &self.rows {
            assert!(row.tried > 0, "{} was not tried", row.name);
            assert_eq!(row.tried, row.as_expected, "{}", row.name);
        }
    }
}
