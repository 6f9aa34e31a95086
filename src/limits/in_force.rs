//! The rates and caps of the configuration in force, with their buckets.

use std::time::Duration;
use std::{
    borrow::Borrow, collections::HashMap, hash::Hash, net::IpAddr, num::NonZeroU32, sync::Arc,
};

use sidewire_protocol::TenantName;

use super::{
    UserKey,
    census::ConnectionCaps,
    rates::{BucketKey, KeyedBuckets, RateLimit},
};
use crate::config::{Config, IngestKeyEntry, LimitsOverride};

/// All rates and caps in force.
#[derive(Debug, Default)]
pub(super) struct LimitsState {
    pub(super) handshakes: Option<Arc<KeyedBuckets<()>>>,
    pub(super) address_handshakes: Option<Arc<KeyedBuckets<IpAddr>>>,
    pub(super) user_handshakes: OverridableBuckets<TenantName, UserKey>,
    pub(super) user_messages: OverridableBuckets<TenantName, UserKey>,
    pub(super) tenant_messages: OverridableBuckets<TenantName, TenantName>,
    pub(super) user_client_events: OverridableBuckets<TenantName, UserKey>,
    pub(super) tenant_client_events: OverridableBuckets<TenantName, TenantName>,
    pub(super) presence_snapshots: Option<Arc<KeyedBuckets<UserKey>>>,
    pub(super) tenant_events: OverridableBuckets<TenantName, TenantName>,
    pub(super) key_events: OverridableBuckets<Box<str>, ()>,
    caps: ConnectionCaps,
    caps_of_tenants: HashMap<TenantName, ConnectionCaps>,
}

/// The buckets of one kind: those of the default rate, and those of names with an own rate.
#[derive(Debug)]
pub(super) struct OverridableBuckets<G, K: BucketKey> {
    usual: Option<Arc<KeyedBuckets<K>>>,
    own: HashMap<G, Option<Arc<KeyedBuckets<K>>>>,
}

impl<G, K: BucketKey> Default for OverridableBuckets<G, K> {
    fn default() -> Self {
        Self {
            usual: None,
            own: HashMap::new(),
        }
    }
}

impl<G: Hash + Eq, K: BucketKey> OverridableBuckets<G, K> {
    /// Returns the buckets that apply to `name`; `None` if its rate is unbounded. A clone stays
    /// usable after a reload.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<&Arc<KeyedBuckets<K>>>
    where
        G: Borrow<Q>,
    {
        self.own.get(name).unwrap_or(&self.usual).as_ref()
    }

    /// Returns the buckets for new rates. Buckets with an unchanged rate are kept.
    fn reconfigured(
        &self,
        usual: Option<RateLimit>,
        own: impl Iterator<Item = (G, Option<RateLimit>)>,
    ) -> Self {
        let own = own
            .filter(|(_, rate)| *rate != usual)
            .map(|(name, rate)| {
                let before = self.own.get(&name).and_then(Option::as_ref);
                let bucket = kept_or_new(before, rate);
                (name, bucket)
            })
            .collect();
        Self {
            usual: kept_or_new(self.usual.as_ref(), usual),
            own,
        }
    }

    fn iter_all(&self) -> impl Iterator<Item = &KeyedBuckets<K>> {
        let own = self.own.values().flatten();
        self.usual.iter().chain(own).map(Arc::as_ref)
    }

    fn sweep(&self) {
        self.iter_all().for_each(KeyedBuckets::sweep);
    }

    fn is_full(&self) -> bool {
        self.iter_all().all(KeyedBuckets::is_full)
    }
}

fn kept_or_new<K: BucketKey>(
    before: Option<&Arc<KeyedBuckets<K>>>,
    rate: Option<RateLimit>,
) -> Option<Arc<KeyedBuckets<K>>> {
    let kept = before.filter(|bucket| Some(bucket.rate()) == rate);
    kept.cloned()
        .or_else(|| KeyedBuckets::new(rate).map(Arc::new))
}

impl LimitsState {
    pub(super) fn reconfigured(&self, config: &Config) -> Self {
        let (limits, ingest) = (&config.limits, &config.ingest);
        let caps = ConnectionCaps {
            connections: limits.connections,
            per_address: limits.connections_per_address,
            per_tenant: limits.connections_per_tenant,
            per_user: limits.connections_per_user,
        };
        Self {
            handshakes: kept_or_new(
                self.handshakes.as_ref(),
                bounded_rate(limits.handshakes_per_second, Duration::from_secs(1)),
            ),
            address_handshakes: kept_or_new(
                self.address_handshakes.as_ref(),
                per_minute(Some(limits.address_handshakes_per_minute)),
            ),
            user_handshakes: self.user_handshakes.reconfigured(
                per_minute(limits.user_handshakes_per_minute),
                for_overridden_tenants(config, |it| {
                    per_minute(
                        it.user_handshakes_per_minute
                            .or(limits.user_handshakes_per_minute),
                    )
                }),
            ),
            user_messages: self.user_messages.reconfigured(
                bounded_rate(Some(limits.user_burst), limits.user_period),
                for_overridden_tenants(config, |it| {
                    bounded_rate(
                        Some(it.user_burst.unwrap_or(limits.user_burst)),
                        it.user_period.unwrap_or(limits.user_period),
                    )
                }),
            ),
            tenant_messages: self.tenant_messages.reconfigured(
                bounded_rate(Some(limits.tenant_burst), limits.tenant_period),
                for_overridden_tenants(config, |it| {
                    bounded_rate(
                        Some(it.tenant_burst.unwrap_or(limits.tenant_burst)),
                        it.tenant_period.unwrap_or(limits.tenant_period),
                    )
                }),
            ),
            user_client_events: self.user_client_events.reconfigured(
                bounded_rate(Some(limits.user_event_burst), limits.user_event_period),
                for_overridden_tenants(config, |it| {
                    bounded_rate(
                        Some(it.user_event_burst.unwrap_or(limits.user_event_burst)),
                        it.user_event_period.unwrap_or(limits.user_event_period),
                    )
                }),
            ),
            tenant_client_events: self.tenant_client_events.reconfigured(
                bounded_rate(Some(limits.tenant_event_burst), limits.tenant_event_period),
                for_overridden_tenants(config, |it| {
                    bounded_rate(
                        Some(it.tenant_event_burst.unwrap_or(limits.tenant_event_burst)),
                        it.tenant_event_period.unwrap_or(limits.tenant_event_period),
                    )
                }),
            ),
            presence_snapshots: kept_or_new(
                self.presence_snapshots.as_ref(),
                per_minute(Some(config.presence.snapshot_messages_per_minute)),
            ),
            tenant_events: self.tenant_events.reconfigured(
                bounded_rate(ingest.tenant_burst, ingest.tenant_period),
                for_overridden_tenants(config, |it| {
                    bounded_rate(
                        it.ingest_burst.or(ingest.tenant_burst),
                        it.ingest_period.unwrap_or(ingest.tenant_period),
                    )
                }),
            ),
            key_events: self
                .key_events
                .reconfigured(None, ingest.keys.iter().map(ingest_key_rate)),
            caps,
            caps_of_tenants: for_overridden_tenants(config, |it| ConnectionCaps {
                per_tenant: it.connections_per_tenant.or(caps.per_tenant),
                per_user: it.connections_per_user.or(caps.per_user),
                ..caps
            })
            .collect(),
        }
    }

    pub(super) fn tenant_caps(&self, tenant: &TenantName) -> ConnectionCaps {
        *self.caps_of_tenants.get(tenant).unwrap_or(&self.caps)
    }

    pub(super) fn sweep(&self) {
        self.user_handshakes.sweep();
        self.user_messages.sweep();
        self.tenant_messages.sweep();
        self.user_client_events.sweep();
        self.tenant_client_events.sweep();
        self.presence_snapshots
            .iter()
            .for_each(|bucket| bucket.sweep());
        self.tenant_events.sweep();
        self.key_events.sweep();
        self.handshakes.iter().for_each(|bucket| bucket.sweep());
        let addresses = self.address_handshakes.iter();
        addresses.for_each(|bucket| bucket.sweep());
    }

    pub(super) fn is_full(&self) -> bool {
        self.user_handshakes.is_full()
            && self.user_messages.is_full()
            && self.tenant_messages.is_full()
            && self.user_client_events.is_full()
            && self.tenant_client_events.is_full()
            && self
                .presence_snapshots
                .iter()
                .all(|bucket| bucket.is_full())
            && self.tenant_events.is_full()
            && self.key_events.is_full()
            && self.handshakes.iter().all(|bucket| bucket.is_full())
            && self
                .address_handshakes
                .iter()
                .all(|bucket| bucket.is_full())
    }
}

/// Returns the rate; `None` (unbounded) without a burst.
fn bounded_rate(burst: Option<NonZeroU32>, period: Duration) -> Option<RateLimit> {
    burst.map(|burst| RateLimit { burst, period })
}

fn per_minute(count: Option<NonZeroU32>) -> Option<RateLimit> {
    bounded_rate(count, Duration::from_mins(1))
}

fn ingest_key_rate(key: &IngestKeyEntry) -> (Box<str>, Option<RateLimit>) {
    let period = key.period.unwrap_or(Duration::from_secs(1));
    (key.name.as_str().into(), bounded_rate(key.burst, period))
}

/// Returns `of(override)` for each tenant that has an override.
fn for_overridden_tenants<T>(
    config: &Config,
    of: impl Fn(&LimitsOverride) -> T,
) -> impl Iterator<Item = (TenantName, T)> {
    config.limits.overrides.iter().flat_map(move |it| {
        let each = it.tenants.iter().map(|tenant| (tenant.clone(), of(it)));
        each.collect::<Vec<_>>()
    })
}
