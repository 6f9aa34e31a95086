//! The counters that the page draws: read from the same cells as `/metrics`, without making its
//! text.

use serde::Serialize;

use super::Inspector;
use crate::{
    memory::MemoryUse,
    tally::{CounterCell, DurationHistogram, ShardTally, TransportCounters},
    telemetry,
};

/// The counters of the relay at one moment. Those that end in `_total` only grow; the page makes
/// rates of them.
#[derive(Serialize)]
pub(super) struct Overview {
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    draining: bool,
    shards: usize,
    cpu_seconds: f64,
    resident_bytes: Option<f64>,
    accepted_total: u64,
    client_events_total: u64,
    matched_total: u64,
    replayed_total: u64,
    relayed_total: u64,
    written_total: u64,
    bytes_written_total: u64,
    dropped_total: Vec<Named>,
    connections: u64,
    connections_opened_total: u64,
    json_connections: u64,
    blocked: u64,
    subscriptions: u64,
    tenants: usize,
    tenants_dormant: usize,
    queued: u64,
    inbox_items: usize,
    memory: MemoryOverview,
    latency: Histogram,
    stall: Histogram,
}

/// A number with a name.
#[derive(Serialize)]
struct Named {
    name: &'static str,
    count: u64,
}

/// What is held for clients and backends, in bytes.
#[derive(Serialize)]
struct MemoryOverview {
    max: u64,
    uses: Vec<Named>,
    log: u64,
    log_max: u64,
}

/// A histogram of durations, summed over the shards. The last count has no bound.
#[derive(Serialize)]
struct Histogram {
    bounds_ms: Vec<f64>,
    counts: Vec<u64>,
}

impl Histogram {
    fn of<'a>(parts: impl Iterator<Item = &'a DurationHistogram>) -> Self {
        let bounds = DurationHistogram::BOUNDS.iter();
        let mut counts = vec![0; DurationHistogram::BOUNDS.len() + 1];
        for part in parts {
            for (sum, count) in counts.iter_mut().zip(part.buckets()) {
                *sum += count;
            }
        }
        Self {
            bounds_ms: bounds.map(|bound| bound.as_secs_f64() * 1e3).collect(),
            counts,
        }
    }
}

/// The reasons for which events are dropped, in the order of [`ShardTally::dropped`].
const DROP_REASONS: [&str; 6] = [
    "too_slow",
    "closed",
    "revoked",
    "catching_up",
    "outbox_full",
    "inbox_full",
];

impl Inspector {
    /// Reads the counters.
    pub(super) fn overview(&self) -> Overview {
        let relay = &self.relay;
        let tallies = &self.tallies;
        let sum = |cell: fn(&ShardTally) -> &CounterCell| -> u64 {
            tallies.iter().map(|tally| cell(tally).get()).sum()
        };
        let total = |counters: fn(&ShardTally) -> &TransportCounters| -> u64 {
            tallies.iter().map(|tally| counters(tally).total()).sum()
        };
        let [accepted_total, client_events_total] = relay.metrics.accepted_events();
        let at = relay.clock.since_unix_epoch().as_millis();
        Overview {
            at_ms: u64::try_from(at).unwrap_or(u64::MAX),
            draining: relay.is_draining(),
            shards: tallies.len(),
            cpu_seconds: telemetry::cpu_seconds(),
            resident_bytes: telemetry::resident_bytes(),
            accepted_total,
            client_events_total,
            matched_total: sum(|tally| &tally.matched),
            replayed_total: sum(|tally| &tally.replayed),
            relayed_total: sum(|tally| &tally.relayed),
            written_total: sum(|tally| &tally.written),
            bytes_written_total: sum(|tally| &tally.bytes_written),
            dropped_total: self.dropped(),
            connections: total(|tally| &tally.connections),
            connections_opened_total: total(|tally| &tally.connections_opened),
            json_connections: sum(|tally| &tally.json_connections),
            blocked: tallies.iter().map(|tally| tally.blocked.count()).sum(),
            subscriptions: sum(|tally| &tally.subscriptions),
            tenants: self.registry.len(),
            tenants_dormant: self.registry.dormant_len(),
            queued: sum(|tally| &tally.queued),
            inbox_items: relay.publisher.inbox_items(),
            memory: self.memory(),
            latency: Histogram::of(tallies.iter().map(|tally| &tally.delivery_latency)),
            stall: Histogram::of(tallies.iter().map(|tally| &tally.turn_stall)),
        }
    }

    fn dropped(&self) -> Vec<Named> {
        let mut counts = [0; DROP_REASONS.len()];
        for tally in &self.tallies {
            for (sum, cell) in counts.iter_mut().zip(tally.dropped()) {
                *sum += cell.get();
            }
        }
        let named = DROP_REASONS.into_iter().zip(counts);
        named.map(|(name, count)| Named { name, count }).collect()
    }

    fn memory(&self) -> MemoryOverview {
        let (account, ids) = (self.registry.memory(), self.registry.message_ids());
        let ids_max = ids.bytes_max() as u64;
        let uses = MemoryUse::ALL.map(|what| Named {
            name: what.as_str(),
            count: account.held_bytes(what),
        });
        let ids = Named {
            name: "message_ids",
            count: ids.bytes() as u64,
        };
        MemoryOverview {
            max: account.limits().max.saturating_add(ids_max),
            uses: uses.into_iter().chain([ids]).collect(),
            log: self.registry.log_bytes(),
            log_max: account.limits().window,
        }
    }
}
