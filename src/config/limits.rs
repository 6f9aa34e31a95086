//! `[limits]`: limits per event, per connection and per process.

use std::{num::NonZeroU32, time::Duration};

use bytesize::ByteSize;
use serde::Deserialize;
use sidewire_protocol::TenantName;

use super::{
    IngestSection, ReplaySection,
    error::ConfigProblems,
    reload::{live, restart},
    section::config_section,
    values::{self, GIB, KIB, MIB},
};

/// Minimum memory for clients and backends, in addition to the logs and the message ids.
const MEMORY_BEYOND_LOGS: usize = 128 * MIB;

/// Maximum number of shards; more than any machine has cores.
const SHARDS_MAX: usize = 1024;

/// Maximum of `refusals_per_minute`: a connection remembers the time of each refusal.
const REFUSALS_MAX: u32 = 10_000;

config_section! {
    /// The `[limits]` section.
    pub struct LimitsSection("limits") {
        /// Number of shards, the threads that serve connections; 0, the default, means one per
        /// core.
        #[serde(deserialize_with = "values::count")]
        restart shards: usize = 0;
        /// Maximum number of topics of an event; 100.
        #[serde(deserialize_with = "values::count")]
        live topics_per_event: usize = 100, check_count();
        /// Maximum number of topics in one Subscribe or Unsubscribe; 1,000.
        #[serde(deserialize_with = "values::count")]
        live topics_per_subscribe: usize = 1_000, check_count();
        /// Maximum number of topics that a connection is subscribed to; 10,000.
        #[serde(deserialize_with = "values::count")]
        live topics_per_connection: usize = 10_000, check_count();
        /// Number of frames at which an outbox is full; 1,000.
        #[serde(deserialize_with = "values::count")]
        live outbox_frames: usize = 1_000, check_count();
        /// Number of bytes at which an outbox is full; 1 MiB.
        #[serde(deserialize_with = "values::size")]
        live outbox_bytes: usize = MIB, check_size(1..=GIB);
        /// Maximum size of an event as JSON; 4 MiB. A larger event is refused.
        #[serde(deserialize_with = "values::size")]
        live json_max: usize = 4 * MIB, check_size(KIB..=GIB);
        /// Maximum number of tenants that have a connection, an event or a message id at the same
        /// time; 100,000.
        #[serde(deserialize_with = "values::count")]
        live tenants: usize = 100_000, check_count();
        /// Maximum bytes held for clients and backends: events, requests in progress,
        /// subscriptions and remembered message ids; 1 GiB. If more is held, connections that hold
        /// the oldest events are closed.
        #[serde(deserialize_with = "values::size")]
        live memory_max: usize = 1024 * MIB;
        /// Maximum number of client connections. The process's file descriptors bound them too;
        /// with `None`, the default, only they do.
        #[serde(deserialize_with = "values::bound")]
        live connections: Option<NonZeroU32> = None;
        /// Maximum number of connections of a tenant; no bound if `None`, the default.
        #[serde(deserialize_with = "values::bound")]
        live connections_per_tenant: Option<NonZeroU32> = None;
        /// Maximum number of connections of a user; no bound if `None`, the default.
        #[serde(deserialize_with = "values::bound")]
        live connections_per_user: Option<NonZeroU32> = None;
        /// Maximum number of connections from an address, for IPv6 from a /64; no bound if `None`,
        /// the default.
        #[serde(deserialize_with = "values::bound")]
        live connections_per_address: Option<NonZeroU32> = None;
        /// Maximum number of handshakes per second; no bound if `None`, the default.
        #[serde(deserialize_with = "values::bound")]
        live handshakes_per_second: Option<NonZeroU32> = None;
        /// Maximum number of handshakes per minute from an address, for IPv6 from a /64; 600. The
        /// addresses of trusted proxies are not counted.
        #[serde(deserialize_with = "values::some")]
        live address_handshakes_per_minute: NonZeroU32 = non_zero(600);
        /// Maximum number of handshakes of a user per minute; no bound if `None`, the default.
        #[serde(deserialize_with = "values::bound")]
        live user_handshakes_per_minute: Option<NonZeroU32> = None;
        /// Maximum number of refused handshakes, at a time, that wait for the client's Close frame;
        /// 256. Handshakes refused beyond it are answered over HTTP.
        #[serde(deserialize_with = "values::count")]
        live refusals_open: usize = 256;
        /// Number of messages that a user may send at once; 100.
        #[serde(deserialize_with = "values::some")]
        live user_burst: NonZeroU32 = non_zero(100);
        /// Time in which `user_burst` refills; 1 min.
        #[serde(deserialize_with = "values::duration")]
        live user_period: Duration = Duration::from_mins(1), check_duration();
        /// Number of messages that all users of a tenant together may send at once; 1,000.
        #[serde(deserialize_with = "values::some")]
        live tenant_burst: NonZeroU32 = non_zero(1_000);
        /// Time in which `tenant_burst` refills; 1 min.
        #[serde(deserialize_with = "values::duration")]
        live tenant_period: Duration = Duration::from_mins(1), check_duration();
        /// Maximum size of a client event, as its client sends it; 16 KiB.
        #[serde(deserialize_with = "values::size")]
        live client_event_max: usize = 16 * KIB, check_size(1..=MIB);
        /// Number of client events that a user may send at once; 600.
        #[serde(deserialize_with = "values::some")]
        live user_event_burst: NonZeroU32 = non_zero(600);
        /// Time in which `user_event_burst` refills; 1 min.
        #[serde(deserialize_with = "values::duration")]
        live user_event_period: Duration = Duration::from_mins(1), check_duration();
        /// Number of client events that all users of a tenant together may send at once; 60,000.
        #[serde(deserialize_with = "values::some")]
        live tenant_event_burst: NonZeroU32 = non_zero(60_000);
        /// Time in which `tenant_event_burst` refills; 1 min.
        #[serde(deserialize_with = "values::duration")]
        live tenant_event_period: Duration = Duration::from_mins(1), check_duration();
        /// Number of pings that a connection may send at once; 2,048 pongs or small fragments count
        /// as one ping; 60.
        #[serde(deserialize_with = "values::some")]
        live heartbeat_burst: NonZeroU32 = non_zero(60);
        /// Time in which `heartbeat_burst` refills; 1 min.
        #[serde(deserialize_with = "values::duration")]
        live heartbeat_period: Duration = Duration::from_mins(1), check_duration();
        /// Number of refusals within a minute at which a connection is closed; 100.
        #[serde(deserialize_with = "values::some")]
        live refusals_per_minute: NonZeroU32 = non_zero(100);
        /// `[[limits.overrides]]`: other limits for some tenants; none by default.
        live overrides: Vec<LimitsOverride> = Vec::new();
    }
}

/// An entry of `[[limits.overrides]]`. Keys that are left out keep the general value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsOverride {
    /// The tenants; a tenant may be in one override only.
    #[serde(deserialize_with = "values::tenants")]
    pub tenants: Vec<TenantName>,
    /// Replaces `limits.connections_per_tenant`.
    #[serde(default, deserialize_with = "values::bound")]
    pub connections_per_tenant: Option<NonZeroU32>,
    /// Replaces `limits.connections_per_user`.
    #[serde(default, deserialize_with = "values::bound")]
    pub connections_per_user: Option<NonZeroU32>,
    /// Replaces `limits.user_handshakes_per_minute`.
    #[serde(default, deserialize_with = "values::bound")]
    pub user_handshakes_per_minute: Option<NonZeroU32>,
    /// Replaces `limits.user_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub user_burst: Option<NonZeroU32>,
    /// Replaces `limits.user_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub user_period: Option<Duration>,
    /// Replaces `limits.tenant_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub tenant_burst: Option<NonZeroU32>,
    /// Replaces `limits.tenant_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub tenant_period: Option<Duration>,
    /// Replaces `limits.user_event_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub user_event_burst: Option<NonZeroU32>,
    /// Replaces `limits.user_event_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub user_event_period: Option<Duration>,
    /// Replaces `limits.tenant_event_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub tenant_event_burst: Option<NonZeroU32>,
    /// Replaces `limits.tenant_event_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub tenant_event_period: Option<Duration>,
    /// Replaces `ingest.tenant_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub ingest_burst: Option<NonZeroU32>,
    /// Replaces `ingest.tenant_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub ingest_period: Option<Duration>,
}

/// Returns `count`, which must be 1 or more.
fn non_zero(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

impl LimitsSection {
    pub(super) fn check(
        &self,
        replay: &ReplaySection,
        ingest: &IngestSection,
        problems: &mut ConfigProblems,
    ) {
        self.check_bounds(problems);
        self.check_memory(replay, ingest, problems);
        if self.shards > SHARDS_MAX {
            problems.add_problem(
                "limits.shards",
                format!("is {}", self.shards),
                format!("the maximum is {SHARDS_MAX}; 0 means one per core"),
            );
        }
        if self.refusals_per_minute.get() > REFUSALS_MAX {
            problems.add_problem(
                "limits.refusals_per_minute",
                format!("is {}", self.refusals_per_minute),
                format!(
                    "the maximum is {REFUSALS_MAX}: a connection remembers the time of each refusal"
                ),
            );
        }
        self.check_overrides(problems);
    }

    fn check_overrides(&self, problems: &mut ConfigProblems) {
        for (index, entry) in self.overrides.iter().enumerate() {
            let place = format!("limits.overrides[{index}]");
            for (key, period) in [
                ("user_period", entry.user_period),
                ("tenant_period", entry.tenant_period),
                ("user_event_period", entry.user_event_period),
                ("tenant_event_period", entry.tenant_event_period),
                ("ingest_period", entry.ingest_period),
            ] {
                if let Some(period) = period {
                    problems.check_duration(&format!("{place}.{key}"), period);
                }
            }
            if entry.tenants.is_empty() {
                problems.add_problem(
                    format!("{place}.tenants"),
                    "is empty, so the override would apply to no tenant",
                    "name a tenant",
                );
            }
            let earlier = self.overrides.iter().take(index);
            let mut named = earlier.flat_map(|entry| &entry.tenants);
            if let Some(twice) = named.find(|tenant| entry.tenants.contains(tenant)) {
                problems.add_problem(
                    format!("{place}.tenants"),
                    format!("names {:?}, which already has an override", twice.as_str()),
                    "a tenant may have only one override",
                );
            }
        }
    }

    /// Checks that the memory covers the logs and message ids at their maximum, plus a reserve.
    fn check_memory(
        &self,
        replay: &ReplaySection,
        ingest: &IngestSection,
        problems: &mut ConfigProblems,
    ) {
        let kept = replay
            .process_bytes
            .saturating_add(ingest.message_id_bytes_max);
        let least = kept.saturating_add(MEMORY_BEYOND_LOGS);
        if self.memory_max < least {
            problems.add_problem(
                "limits.memory_max",
                format!(
                    "is {} and must be at least {}: the maximum of the logs and the message ids, plus 128 MiB",
                    ByteSize(self.memory_max as u64),
                    ByteSize(least as u64)
                ),
                "increase it, or decrease replay.process_bytes or ingest.message_id_bytes_max",
            );
        }
    }
}
