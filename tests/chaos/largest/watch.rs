//! Observes a row while it runs: the process's memory, whether the relay is ready, and how
//! long the turns of its shard are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use sidewire_testing::{http::http, relay::Relay};

use crate::kernel::resident;

const EVERY: Duration = Duration::from_millis(50);

/// Samples the relay periodically, on a thread of its own.
pub(super) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// Observations made while a row ran.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Peak resident memory, in bytes.
    pub(super) resident: u64,
    /// Answer of `/readyz` when it was not ready.
    pub(super) not_ready: Option<String>,
}

impl Watch {
    pub(super) fn begin(relay: &Relay) -> Self {
        let (process, ops) = (relay.process.id(), relay.ops);
        let is_over = Arc::<AtomicBool>::default();
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let request = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let mut seen = Seen::default();
            while !over.load(Ordering::Relaxed) {
                seen.resident = seen.resident.max(resident(process));
                let answer = http(ops, request);
                if !answer.starts_with("HTTP/1.1 200 ") {
                    seen.not_ready.get_or_insert(answer);
                }
                thread::sleep(EVERY);
            }
            seen
        });
        Self { is_over, thread }
    }

    pub(super) fn end(self) -> Seen {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

const CPU: &str = "sidewire_shard_turn_cpu_seconds";
const STALL: &str = "sidewire_shard_stall_seconds";

/// Durations of the shard's turns, as two histograms.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Turns {
    cpu: Histogram,
    stall: Histogram,
}

/// Upper bounds of the buckets, the last of which is infinite, with cumulative counts.
#[derive(Debug, Default, PartialEq)]
struct Histogram(Vec<(f64, u64)>);

impl Turns {
    /// Returns the turns so far.
    pub(super) fn of(relay: &Relay) -> Self {
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let scrape = http(relay.ops, request);
        Self {
            cpu: Histogram::read(&scrape, CPU),
            stall: Histogram::read(&scrape, STALL),
        }
    }

    /// Returns the turns after `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.since(&before.cpu),
            stall: self.stall.since(&before.stall),
        }
    }

    /// Returns the number of turns that took more CPU time than `bound`, which is the bound
    /// of a bucket.
    pub(super) fn cpu_longer_than(&self, bound: Duration) -> u64 {
        self.cpu.longer_than(bound)
    }

    /// Returns the bucket of the longest CPU time.
    pub(super) fn longest_cpu(&self) -> String {
        self.cpu.longest()
    }

    /// Returns the bucket of the longest wall time.
    pub(super) fn longest_stall(&self) -> String {
        self.stall.longest()
    }
}

impl Histogram {
    fn read(scrape: &str, name: &str) -> Self {
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = scrape.lines().filter_map(|line| {
            let (bound, count) = line.strip_prefix(&prefix)?.split_once("\"} ")?;
            Some((bound.parse().unwrap(), count.parse().unwrap()))
        });
        Self(buckets.collect())
    }

    fn since(&self, before: &Self) -> Self {
        let pairs = self.0.iter().zip(&before.0);
        Self(pairs.map(|(now, then)| (now.0, now.1 - then.1)).collect())
    }

    fn longer_than(&self, bound: Duration) -> u64 {
        let bound = bound.as_secs_f64();
        let (_, below) = self.0.iter().find(|it| it.0 == bound).unwrap();
        self.0.last().unwrap().1 - below
    }

    fn longest(&self) -> String {
        let all = self.0.last().unwrap().1;
        let (bound, _) = self.0.iter().find(|it| it.1 == all).unwrap();
        if bound.is_finite() {
            format!("≤ {} ms", bound * 1000.0)
        } else {
            "> 1 s".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_is_read_from_the_buckets() {
        let read = |counts: [u64; 3]| {
            let [fast, slow, all] = counts;
            let scrape = format!(
                "{CPU}_bucket{{le=\"0.001\"}} {fast}\n{CPU}_bucket{{le=\"0.005\"}} {slow}\n\
                 {CPU}_bucket{{le=\"+Inf\"}} {all}\n{CPU}_count {all}\n"
            );
            Histogram::read(&scrape, CPU)
        };
        let turns = read([7, 9, 9]).since(&read([5, 5, 5]));
        assert_eq!(turns.longest(), "≤ 5 ms");
        assert_eq!(turns.longer_than(Duration::from_millis(1)), 2);
        assert_eq!(turns.longer_than(Duration::from_millis(5)), 0);
        assert_eq!(read([0, 0, 1]).longest(), "> 1 s");
    }
}
