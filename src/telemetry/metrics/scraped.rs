//! Metrics that other modules count, mostly on the path of an event, and that are copied into
//! the registry at each scrape.

use metrics::{Counter, Gauge};
use sidewire_protocol::NamedValues;

use super::{ScrapeSources, register::SeriesRegistry};
use crate::{
    memory::MemoryUse,
    tally::{CounterCell, ShardTally, TransportCounters},
    telemetry::{logging, panics},
    transport::TransportKind,
};

/// The metrics that each scrape updates.
pub(super) struct ScrapedMetrics {
    connections: Gauge,
    /// By transport.
    transport_connections: [Gauge; TransportKind::COUNT],
    connections_blocked: Gauge,
    connections_blocked_longest: Gauge,
    json_connections: Gauge,
    /// By transport.
    connections_opened: [Counter; TransportKind::COUNT],
    subscriptions: Gauge,
    matched: Counter,
    replayed: Counter,
    relayed: Counter,
    written: Counter,
    dropped_slow: Counter,
    dropped_closed: Counter,
    dropped_revoked: Counter,
    dropped_catching_up: Counter,
    dropped_outbox: Counter,
    dropped_inbox: Counter,
    queued: Gauge,
    json_delivered: Counter,
    json_replayed: Counter,
    client_writes: Counter,
    client_frames_written: Counter,
    client_bytes_written: Counter,
    client_reads: Counter,
    inbox_items: Gauge,
    key_sets_fetched: Gauge,
    event_bytes: Gauge,
    memory_bytes: [Gauge; MemoryUse::ALL.len()],
    message_ids_memory: Gauge,
    memory_max: Gauge,
    log_bytes: Gauge,
    message_id_bytes: Gauge,
    tenants: Gauge,
    tenants_dormant: Gauge,
    panics: Counter,
    log_lines_lost: Counter,
}

fn memory_bytes(register: &SeriesRegistry<'_>, what: &'static str) -> Gauge {
    register.gauge(
        "sidewire_memory_bytes",
        "Memory held for clients and backends, in bytes, by use: events, in logs, inboxes and outboxes; requests, backend calls that are being answered; subscriptions, topics of clients; presence, presence messages of clients; authorization, questions to the backend about subscriptions and its remembered answers; begun_messages, client messages that are incomplete or wait to be read; decoding, events that a worker thread reads or renders; client_connections and backend_connections; tls, TLS sessions; handshakes, client handshakes in progress; message_ids, remembered message ids.",
        &[("use", what)],
    )
}

impl ScrapedMetrics {
    pub(super) fn register(register: &SeriesRegistry<'_>) -> Self {
        const DROPPED: &str = "sidewire_events_dropped_total";
        const DROPPED_HELP: &str = "Events that were to reach a connection and were not written to it, by reason: too_slow, it was closed with 4003; closed, it ended before; revoked, it lost the topic before it had caught up; catching_up, the connection was, or it had yet to begin with its only Subscribe. Events of clients also for: outbox_full; inbox_full, that of a shard, counted once for all of its connections.";
        const JSON: &str = "sidewire_events_rendered_total";
        const JSON_HELP: &str = "Events whose JSON was made, by purpose: delivery, at most once for each event that is posted while a connection of its tenant speaks JSON, including duplicates and events that are then refused with 409 or 503; replay, once for each connection that catches up, and for events of more than 4 KiB once for several that catch up at the same time.";
        Self {
            connections: register.gauge(
                "sidewire_connections",
                "Connections of clients that are open.",
                &[],
            ),
            connections_blocked: register.gauge(
                "sidewire_connections_blocked",
                "Of the connections of clients that are open, those whose client does not take what waits for it: the kernel's buffers are full. Each is closed unless it takes a whole frame within client.write_timeout.",
                &[],
            ),
            connections_blocked_longest: register.gauge(
                "sidewire_connections_blocked_longest_seconds",
                "Time since the kernel last took a frame of the connection that is blocked longest, in seconds; 0 if none is. Frames have waited in its outbox for as long.",
                &[],
            ),
            json_connections: register.gauge(
                "sidewire_json_connections",
                "Of the connections of clients that are open, those that speak JSON.",
                &[],
            ),
            transport_connections: TransportKind::ALL.map(|transport| {
                register.gauge(
                    "sidewire_transport_connections",
                    "Connections of clients that are open, by transport.",
                    &[("transport", transport.name())],
                )
            }),
            connections_opened: TransportKind::ALL.map(|transport| {
                register.counter(
                    "sidewire_connections_opened_total",
                    "Connections of clients that have been opened, by transport. Each poll is a connection.",
                    &[("transport", transport.name())],
                )
            }),
            subscriptions: register.gauge(
                "sidewire_subscriptions",
                "Topics subscribed, summed over all connections; implicit topics are not counted.",
                &[],
            ),
            matched: register.counter(
                "sidewire_events_matched_total",
                "Events, counted once for each connection that they matched.",
                &[],
            ),
            written: register.counter(
                "sidewire_events_written_total",
                "Of the events matched, replayed and relayed, those handed to the kernel whole.",
                &[],
            ),
            replayed: register.counter(
                "sidewire_events_replayed_total",
                "Events that were queued again for a connection that resumes, once for each such connection.",
                &[],
            ),
            relayed: register.counter(
                "sidewire_events_relayed_total",
                "Events of clients, counted once for each connection that they were to reach, and once for each shard whose inbox had no room for them.",
                &[],
            ),
            dropped_slow: register.counter(DROPPED, DROPPED_HELP, &[("reason", "too_slow")]),
            dropped_closed: register.counter(DROPPED, DROPPED_HELP, &[("reason", "closed")]),
            dropped_revoked: register.counter(DROPPED, DROPPED_HELP, &[("reason", "revoked")]),
            dropped_catching_up: register.counter(
                DROPPED,
                DROPPED_HELP,
                &[("reason", "catching_up")],
            ),
            dropped_outbox: register.counter(DROPPED, DROPPED_HELP, &[("reason", "outbox_full")]),
            dropped_inbox: register.counter(DROPPED, DROPPED_HELP, &[("reason", "inbox_full")]),
            queued: register.gauge(
                "sidewire_events_queued",
                "Of the events matched, replayed and relayed, those that wait in an outbox, or in the log for a connection that catches up. matched + replayed + relayed = written + dropped + queued.",
                &[],
            ),
            json_delivered: register.counter(JSON, JSON_HELP, &[("purpose", "delivery")]),
            json_replayed: register.counter(JSON, JSON_HELP, &[("purpose", "replay")]),
            client_writes: register.counter(
                "sidewire_client_writes_total",
                "System calls that wrote to connections of clients; over TLS writes to its session, each of which is one system call, several or none. Frames written / writes is how many frames leave at once: about 1 when little happens, many under load.",
                &[],
            ),
            client_frames_written: register.counter(
                "sidewire_client_frames_written_total",
                "Frames that were handed to the kernel whole: events, replies, pongs and closes.",
                &[],
            ),
            client_bytes_written: register.counter(
                "sidewire_client_bytes_written_total",
                "Bytes that these writes handed over, without those of TLS.",
                &[],
            ),
            inbox_items: register.gauge(
                "sidewire_inbox_items",
                "Appends and events of clients that wait until a shard delivers them, summed over all shards. A shard has room for 1,024 of them, 256 of which may be of one tenant.",
                &[],
            ),
            key_sets_fetched: register.gauge(
                "sidewire_jwks_fetched_timestamp_seconds",
                "Time of the last successful fetch of a jwks_url, in Unix seconds; of several, that which was fetched longest ago. 0 if one has not been fetched yet, or there is none.",
                &[],
            ),
            client_reads: register.counter(
                "sidewire_client_reads_total",
                "System calls that read from connections of clients; over TLS reads from its session, each of which is one system call, several or none.",
                &[],
            ),
            event_bytes: register.gauge(
                "sidewire_events_bytes",
                "Memory that events take up, in logs, inboxes and outboxes together, in bytes.",
                &[],
            ),
            memory_bytes: MemoryUse::ALL.map(|what| memory_bytes(register, what.as_str())),
            message_ids_memory: memory_bytes(register, "message_ids"),
            memory_max: register.gauge(
                "sidewire_memory_max_bytes",
                "Maximum memory that may be held, limits.memory_max, in bytes.",
                &[],
            ),
            log_bytes: register.gauge(
                "sidewire_log_bytes",
                "Memory that the events in the tenants' logs take up, in bytes.",
                &[],
            ),
            message_id_bytes: register.gauge(
                "sidewire_message_ids_bytes",
                "Memory that remembered message ids take up, in bytes, counted as 128 per id.",
                &[],
            ),
            tenants: register.gauge(
                "sidewire_tenants",
                "Tenants with connections, events in their log, or remembered message ids.",
                &[],
            ),
            tenants_dormant: register.gauge(
                "sidewire_tenants_dormant",
                "Tenants without any of these, for which only the end of the log is remembered.",
                &[],
            ),
            panics: register.counter(
                "sidewire_panics_total",
                "Faults of the relay that ended a task. Anything but 0 is a bug.",
                &[],
            ),
            log_lines_lost: register.counter(
                "sidewire_log_lines_lost_total",
                "Log lines that were dropped because standard error did not take them: nobody reads it, or its disk is full.",
                &[],
            ),
        }
    }

    pub(super) fn update(&self, sources: &ScrapeSources<'_>) {
        let (tallies, registry) = (sources.tallies, sources.registry);
        let sum =
            |cell: fn(&ShardTally) -> u64| -> u64 { tallies.iter().map(|tally| cell(tally)).sum() };
        let mut connections = 0;
        let gauges = self
            .transport_connections
            .iter()
            .zip(&self.connections_opened);
        for (transport, (open, opened)) in TransportKind::ALL.into_iter().zip(gauges) {
            let count = |of: fn(&ShardTally) -> &TransportCounters| -> u64 {
                let counters = tallies.iter().map(|tally| of(tally).of(transport));
                counters.map(CounterCell::get).sum()
            };
            opened.absolute(count(|tally| &tally.connections_opened));
            let count = count(|tally| &tally.connections);
            open.set(as_gauge(count));
            connections += count;
        }
        self.connections.set(as_gauge(connections));
        self.matched.absolute(sum(|tally| tally.matched.get()));
        self.replayed.absolute(sum(|tally| tally.replayed.get()));
        self.relayed.absolute(sum(|tally| tally.relayed.get()));
        self.dropped_revoked
            .absolute(sum(|tally| tally.dropped_revoked.get()));
        self.dropped_catching_up
            .absolute(sum(|tally| tally.dropped_catching_up.get()));
        self.dropped_outbox
            .absolute(sum(|tally| tally.dropped_outbox.get()));
        self.dropped_inbox
            .absolute(sum(|tally| tally.dropped_inbox.get()));
        self.written.absolute(sum(|tally| tally.written.get()));
        self.dropped_slow
            .absolute(sum(|tally| tally.dropped_slow.get()));
        self.dropped_closed
            .absolute(sum(|tally| tally.dropped_closed.get()));
        self.client_writes.absolute(sum(|tally| tally.writes.get()));
        self.client_frames_written
            .absolute(sum(|tally| tally.frames_written.get()));
        self.client_bytes_written
            .absolute(sum(|tally| tally.bytes_written.get()));
        self.client_reads.absolute(sum(|tally| tally.reads.get()));
        self.panics.absolute(panics::panic_count());
        self.log_lines_lost.absolute(logging::lines_lost());
        self.connections_blocked
            .set(as_gauge(sum(|tally| tally.blocked.count())));
        let tallies = sources.tallies.iter();
        let longest = tallies
            .filter_map(|tally| tally.blocked.longest_since())
            .min();
        self.connections_blocked_longest
            .set(longest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        self.inbox_items.set(as_gauge(sources.inbox_items as u64));
        self.key_sets_fetched
            .set(as_gauge(sources.key_sets_fetched_at));
        self.subscriptions
            .set(as_gauge(sum(|tally| tally.subscriptions.get())));
        self.queued.set(as_gauge(sum(|tally| tally.queued.get())));
        self.json_connections
            .set(as_gauge(sum(|tally| tally.json_connections.get())));
        self.json_delivered
            .absolute(sum(|tally| tally.json_delivered.get()));
        self.json_replayed
            .absolute(sum(|tally| tally.json_replayed.get()));
        let memory = registry.memory();
        self.event_bytes
            .set(as_gauge(memory.held_bytes(MemoryUse::Events)));
        for (gauge, what) in self.memory_bytes.iter().zip(MemoryUse::ALL) {
            gauge.set(as_gauge(memory.held_bytes(what)));
        }
        let message_ids = registry.message_ids();
        let message_ids_max = message_ids.bytes_max() as u64;
        self.memory_max.set(as_gauge(
            memory.limits().max.saturating_add(message_ids_max),
        ));
        self.message_ids_memory
            .set(as_gauge(message_ids.bytes() as u64));
        self.log_bytes.set(as_gauge(registry.log_bytes()));
        self.message_id_bytes
            .set(as_gauge(registry.message_ids().bytes() as u64));
        self.tenants.set(as_gauge(registry.len() as u64));
        self.tenants_dormant
            .set(as_gauge(registry.dormant_len() as u64));
    }
}

/// Converts a count to a gauge's double, which is exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn as_gauge(value: u64) -> f64 {
    value as f64
}
