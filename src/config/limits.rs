//! `[limits]`: what one event, connection or process may take up.

use std::{num::NonZeroU32, time::Duration};

use bytesize::ByteSize;
use serde::Deserialize;

use super::{
    Ingest, Replay,
    error::Problems,
    values::{self, GIB, KIB, MIB},
};
use crate::protocol::TenantName;

/// What is to be left for clients and backends beside the logs and the message ids.
const MEMORY_BEYOND_LOGS: usize = 128 * MIB;

/// The most shards; more than any machine has cores.
const SHARDS_MAX: usize = 1024;

/// The most refusals within a minute: a connection remembers when each of them was.
const REFUSALS_MAX: u32 = 10_000;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many threads carry connections; 0, the default, is one per core.
    #[serde(deserialize_with = "values::count")]
    pub shards: usize,
    /// The most topics that an event may relate to; 100.
    #[serde(deserialize_with = "values::count")]
    pub topics_per_event: usize,
    /// The most topics that one Subscribe or Unsubscribe may name; 1,000.
    #[serde(deserialize_with = "values::count")]
    pub topics_per_subscribe: usize,
    /// The most topics that a connection may be subscribed to; 10,000.
    #[serde(deserialize_with = "values::count")]
    pub topics_per_connection: usize,
    /// The frames from which on an outbox is full; 1,000.
    #[serde(deserialize_with = "values::count")]
    pub outbox_frames: usize,
    /// The bytes from which on an outbox is full; 1 MiB.
    #[serde(deserialize_with = "values::size")]
    pub outbox_bytes: usize,
    /// The most bytes of JSON that an event may have; 4 MiB. An event with more is refused.
    #[serde(deserialize_with = "values::size")]
    pub json_max: usize,
    /// The most tenants that have a connection, an event or a message id at the same time;
    /// 100,000.
    #[serde(deserialize_with = "values::count")]
    pub tenants: usize,
    /// The most bytes that are held for clients and backends: events, requests that are
    /// being answered, subscriptions and remembered message ids; 1 GiB.
    /// When there are more, the connections are closed that hold the oldest.
    #[serde(deserialize_with = "values::size")]
    pub memory_max: usize,
    /// The most connections of clients, which the limit of the process's descriptors
    /// bounds as well; `None`, the default: it alone does.
    #[serde(deserialize_with = "values::bound")]
    pub connections: Option<NonZeroU32>,
    /// The most connections of one tenant; no bound where `None`, the default.
    #[serde(deserialize_with = "values::bound")]
    pub connections_per_tenant: Option<NonZeroU32>,
    /// The most connections of one user; no bound where `None`, the default.
    #[serde(deserialize_with = "values::bound")]
    pub connections_per_user: Option<NonZeroU32>,
    /// The most connections from one address, of IPv6 from one /64; no bound where
    /// `None`, the default.
    #[serde(deserialize_with = "values::bound")]
    pub connections_per_address: Option<NonZeroU32>,
    /// The most handshakes a second; no bound where `None`, the default.
    #[serde(deserialize_with = "values::bound")]
    pub handshakes_per_second: Option<NonZeroU32>,
    /// The most handshakes from one address a minute, of IPv6 from one /64; 600. Trusted
    /// proxies are not counted.
    #[serde(deserialize_with = "values::some")]
    pub address_handshakes_per_minute: NonZeroU32,
    /// The most handshakes of one user a minute; no bound where `None`, the default.
    #[serde(deserialize_with = "values::bound")]
    pub user_handshakes_per_minute: Option<NonZeroU32>,
    /// How many messages a user may send at once; 100.
    #[serde(deserialize_with = "values::some")]
    pub user_burst: NonZeroU32,
    /// The time in which a user may send as many again; 1 min.
    #[serde(deserialize_with = "values::duration")]
    pub user_period: Duration,
    /// How many messages all users of a tenant may send at once; 1,000.
    #[serde(deserialize_with = "values::some")]
    pub tenant_burst: NonZeroU32,
    /// The time in which they may send as many again; 1 min.
    #[serde(deserialize_with = "values::duration")]
    pub tenant_period: Duration,
    /// How many pings a connection may send at once, with every 2,048 pongs and small
    /// fragments as one; 60.
    #[serde(deserialize_with = "values::some")]
    pub heartbeat_burst: NonZeroU32,
    /// The time in which it may send as many again; 1 min.
    #[serde(deserialize_with = "values::duration")]
    pub heartbeat_period: Duration,
    /// The refusals within a minute with which a connection is closed; 100.
    #[serde(deserialize_with = "values::some")]
    pub refusals_per_minute: NonZeroU32,
    /// `[[limits.overrides]]`: what is otherwise for some tenants; none by default.
    pub overrides: Vec<LimitsOverride>,
}

/// One `[[limits.overrides]]`. What it leaves out is as for all tenants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsOverride {
    /// The tenants; none of them in two overrides.
    #[serde(deserialize_with = "values::tenants")]
    pub tenants: Vec<TenantName>,
    /// In place of `limits.connections_per_tenant`.
    #[serde(default, deserialize_with = "values::bound")]
    pub connections_per_tenant: Option<NonZeroU32>,
    /// In place of `limits.connections_per_user`.
    #[serde(default, deserialize_with = "values::bound")]
    pub connections_per_user: Option<NonZeroU32>,
    /// In place of `limits.user_handshakes_per_minute`.
    #[serde(default, deserialize_with = "values::bound")]
    pub user_handshakes_per_minute: Option<NonZeroU32>,
    /// In place of `limits.user_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub user_burst: Option<NonZeroU32>,
    /// In place of `limits.user_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub user_period: Option<Duration>,
    /// In place of `limits.tenant_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub tenant_burst: Option<NonZeroU32>,
    /// In place of `limits.tenant_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub tenant_period: Option<Duration>,
    /// In place of `ingest.tenant_burst`.
    #[serde(default, deserialize_with = "values::bound")]
    pub ingest_burst: Option<NonZeroU32>,
    /// In place of `ingest.tenant_period`.
    #[serde(default, deserialize_with = "values::duration_if_given")]
    pub ingest_period: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            shards: 0,
            topics_per_event: 100,
            topics_per_subscribe: 1_000,
            topics_per_connection: 10_000,
            outbox_frames: 1_000,
            outbox_bytes: MIB,
            json_max: 4 * MIB,
            tenants: 100_000,
            memory_max: 1024 * MIB,
            connections: None,
            connections_per_tenant: None,
            connections_per_user: None,
            connections_per_address: None,
            handshakes_per_second: None,
            address_handshakes_per_minute: at_once(600),
            user_handshakes_per_minute: None,
            user_burst: at_once(100),
            user_period: Duration::from_mins(1),
            tenant_burst: at_once(1_000),
            tenant_period: Duration::from_mins(1),
            heartbeat_burst: at_once(60),
            heartbeat_period: Duration::from_mins(1),
            refusals_per_minute: at_once(100),
            overrides: Vec::new(),
        }
    }
}

/// So many, where it is known that there is one at least.
fn at_once(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

impl Limits {
    pub(super) fn check(&self, replay: &Replay, ingest: &Ingest, problems: &mut Problems) {
        self.check_memory(replay, ingest, problems);
        if self.shards > SHARDS_MAX {
            problems.refuse(
                "limits.shards",
                format!("is {}", self.shards),
                format!("the most is {SHARDS_MAX}; 0 is one per core"),
            );
        }
        for (key, count) in [
            ("limits.topics_per_event", self.topics_per_event),
            ("limits.topics_per_subscribe", self.topics_per_subscribe),
            ("limits.topics_per_connection", self.topics_per_connection),
            ("limits.outbox_frames", self.outbox_frames),
            ("limits.tenants", self.tenants),
        ] {
            problems.check_count(key, count);
        }
        problems.check_size("limits.outbox_bytes", self.outbox_bytes, 1..=GIB);
        problems.check_size("limits.json_max", self.json_max, KIB..=GIB);
        for (key, period) in [
            ("limits.user_period", self.user_period),
            ("limits.tenant_period", self.tenant_period),
            ("limits.heartbeat_period", self.heartbeat_period),
        ] {
            problems.check_duration(key, period);
        }
        if self.refusals_per_minute.get() > REFUSALS_MAX {
            problems.refuse(
                "limits.refusals_per_minute",
                format!("is {}", self.refusals_per_minute),
                format!("the most is {REFUSALS_MAX}: a connection remembers when each of them was"),
            );
        }
        self.check_overrides(problems);
    }

    fn check_overrides(&self, problems: &mut Problems) {
        for (index, entry) in self.overrides.iter().enumerate() {
            let place = format!("limits.overrides[{index}]");
            for (key, period) in [
                ("user_period", entry.user_period),
                ("tenant_period", entry.tenant_period),
                ("ingest_period", entry.ingest_period),
            ] {
                if let Some(period) = period {
                    problems.check_duration(&format!("{place}.{key}"), period);
                }
            }
            if entry.tenants.is_empty() {
                problems.refuse(
                    format!("{place}.tenants"),
                    "is empty, so what follows would be for nobody",
                    "name a tenant",
                );
            }
            let earlier = self.overrides.iter().take(index);
            let mut named = earlier.flat_map(|entry| &entry.tenants);
            if let Some(twice) = named.find(|tenant| entry.tenants.contains(tenant)) {
                problems.refuse(
                    format!("{place}.tenants"),
                    format!("names {:?}, which has an override already", twice.as_str()),
                    "each tenant may have one",
                );
            }
        }
    }

    /// What the logs may keep has to be there, and room for what is on its way.
    fn check_memory(&self, replay: &Replay, ingest: &Ingest, problems: &mut Problems) {
        let kept = replay
            .process_bytes
            .saturating_add(ingest.message_id_bytes_max);
        let least = kept.saturating_add(MEMORY_BEYOND_LOGS);
        if self.memory_max < least {
            problems.refuse(
                "limits.memory_max",
                format!(
                    "is {}, and must be at least {}: what the logs and the message ids may keep, and 128 MiB",
                    ByteSize(self.memory_max as u64),
                    ByteSize(least as u64)
                ),
                "make it larger, or replay.process_bytes or ingest.message_id_bytes_max smaller",
            );
        }
    }
}
