//! The rates and caps of the configuration in force, with their buckets.

use std::time::Duration;
use std::{
    borrow::Borrow, collections::HashMap, hash::Hash, net::IpAddr, num::NonZeroU32, sync::Arc,
};

use super::{
    UserKey,
    census::Caps,
    rates::{Bucket, BucketKey, Rate},
};
use crate::{
    config::{Config, IngestKey, LimitsOverride},
    protocol::TenantName,
};

/// All rates and caps in force.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) handshakes: Option<Arc<Bucket<()>>>,
    pub(super) address_handshakes: Option<Arc<Bucket<IpAddr>>>,
    pub(super) user_handshakes: Buckets<TenantName, UserKey>,
    pub(super) user_messages: Buckets<TenantName, UserKey>,
    pub(super) tenant_messages: Buckets<TenantName, TenantName>,
    pub(super) tenant_events: Buckets<TenantName, TenantName>,
    pub(super) key_events: Buckets<Box<str>, ()>,
    caps: Caps,
    caps_of_tenants: HashMap<TenantName, Caps>,
}

/// The buckets of one kind: those of the default rate, and those of names with an own rate.
#[derive(Debug)]
pub(super) struct Buckets<G, K: BucketKey> {
    usual: Option<Arc<Bucket<K>>>,
    own: HashMap<G, Option<Arc<Bucket<K>>>>,
}

impl<G, K: BucketKey> Default for Buckets<G, K> {
    fn default() -> Self {
        Self {
            usual: None,
            own: HashMap::new(),
        }
    }
}

impl<G: Hash + Eq, K: BucketKey> Buckets<G, K> {
    /// Returns the buckets that apply to `name`; `None` if its rate is unbounded.
    pub(super) fn of<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<&Bucket<K>>
    where
        G: Borrow<Q>,
    {
        self.find(name).as_deref()
    }

    /// Returns the buckets that apply to `name`, to be held across a reload.
    pub(super) fn shared<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> Option<Arc<Bucket<K>>>
    where
        G: Borrow<Q>,
    {
        self.find(name).clone()
    }

    fn find<Q: Hash + Eq + ?Sized>(&self, name: &Q) -> &Option<Arc<Bucket<K>>>
    where
        G: Borrow<Q>,
    {
        self.own.get(name).unwrap_or(&self.usual)
    }

    /// Returns the buckets for new rates. Buckets with an unchanged rate are kept.
    fn followed_by(
        &self,
        usual: Option<Rate>,
        own: impl Iterator<Item = (G, Option<Rate>)>,
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

    fn each(&self) -> impl Iterator<Item = &Bucket<K>> {
        let own = self.own.values().flatten();
        self.usual.iter().chain(own).map(Arc::as_ref)
    }

    fn sweep(&self) {
        self.each().for_each(Bucket::sweep);
    }

    fn is_full(&self) -> bool {
        self.each().all(Bucket::is_full)
    }
}

fn kept_or_new<K: BucketKey>(
    before: Option<&Arc<Bucket<K>>>,
    rate: Option<Rate>,
) -> Option<Arc<Bucket<K>>> {
    let kept = before.filter(|bucket| Some(bucket.rate()) == rate);
    kept.cloned().or_else(|| Bucket::new(rate).map(Arc::new))
}

impl InForce {
    pub(super) fn new(config: &Config) -> Self {
        let nothing = Self {
            handshakes: None,
            address_handshakes: None,
            user_handshakes: Buckets::default(),
            user_messages: Buckets::default(),
            tenant_messages: Buckets::default(),
            tenant_events: Buckets::default(),
            key_events: Buckets::default(),
            caps: Caps::default(),
            caps_of_tenants: HashMap::new(),
        };
        nothing.followed_by(config)
    }

    pub(super) fn followed_by(&self, config: &Config) -> Self {
        let (limits, ingest) = (&config.limits, &config.ingest);
        let caps = Caps {
            connections: limits.connections,
            per_address: limits.connections_per_address,
            per_tenant: limits.connections_per_tenant,
            per_user: limits.connections_per_user,
        };
        Self {
            handshakes: kept_or_new(
                self.handshakes.as_ref(),
                rate(limits.handshakes_per_second, Duration::from_secs(1)),
            ),
            address_handshakes: kept_or_new(
                self.address_handshakes.as_ref(),
                a_minute(Some(limits.address_handshakes_per_minute)),
            ),
            user_handshakes: self.user_handshakes.followed_by(
                a_minute(limits.user_handshakes_per_minute),
                each_tenant(config, |it| {
                    a_minute(
                        it.user_handshakes_per_minute
                            .or(limits.user_handshakes_per_minute),
                    )
                }),
            ),
            user_messages: self.user_messages.followed_by(
                rate(Some(limits.user_burst), limits.user_period),
                each_tenant(config, |it| {
                    rate(
                        Some(it.user_burst.unwrap_or(limits.user_burst)),
                        it.user_period.unwrap_or(limits.user_period),
                    )
                }),
            ),
            tenant_messages: self.tenant_messages.followed_by(
                rate(Some(limits.tenant_burst), limits.tenant_period),
                each_tenant(config, |it| {
                    rate(
                        Some(it.tenant_burst.unwrap_or(limits.tenant_burst)),
                        it.tenant_period.unwrap_or(limits.tenant_period),
                    )
                }),
            ),
            tenant_events: self.tenant_events.followed_by(
                rate(ingest.tenant_burst, ingest.tenant_period),
                each_tenant(config, |it| {
                    rate(
                        it.ingest_burst.or(ingest.tenant_burst),
                        it.ingest_period.unwrap_or(ingest.tenant_period),
                    )
                }),
            ),
            key_events: self
                .key_events
                .followed_by(None, ingest.keys.iter().map(of_key)),
            caps,
            caps_of_tenants: each_tenant(config, |it| Caps {
                per_tenant: it.connections_per_tenant.or(caps.per_tenant),
                per_user: it.connections_per_user.or(caps.per_user),
                ..caps
            })
            .collect(),
        }
    }

    pub(super) fn caps_of(&self, tenant: &TenantName) -> Caps {
        *self.caps_of_tenants.get(tenant).unwrap_or(&self.caps)
    }

    pub(super) fn sweep(&self) {
        self.user_handshakes.sweep();
        self.user_messages.sweep();
        self.tenant_messages.sweep();
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
fn rate(burst: Option<NonZeroU32>, period: Duration) -> Option<Rate> {
    burst.map(|burst| Rate { burst, period })
}

fn a_minute(count: Option<NonZeroU32>) -> Option<Rate> {
    rate(count, Duration::from_mins(1))
}

fn of_key(key: &IngestKey) -> (Box<str>, Option<Rate>) {
    let period = key.period.unwrap_or(Duration::from_secs(1));
    (key.name.as_str().into(), rate(key.burst, period))
}

/// Returns `of(override)` for each tenant that has an override.
fn each_tenant<T>(
    config: &Config,
    of: impl Fn(&LimitsOverride) -> T,
) -> impl Iterator<Item = (TenantName, T)> {
    config.limits.overrides.iter().flat_map(move |it| {
        let each = it.tenants.iter().map(|tenant| (tenant.clone(), of(it)));
        each.collect::<Vec<_>>()
    })
}
