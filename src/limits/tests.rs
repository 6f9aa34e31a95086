//! Tests of rates, under paused time.

use std::num::NonZeroU32;

use tokio::time::advance;

use super::*;
use crate::config::{IngestKeyEntry, LimitsOverride};

fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

pub(crate) fn user_key(tenant_name: &str, user: &str) -> UserKey {
    UserKey {
        tenant: tenant(tenant_name),
        user: UserName::parse(user).unwrap(),
    }
}

fn config(settings: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    settings(&mut config);
    config
}

fn override_of(name: &str) -> LimitsOverride {
    LimitsOverride {
        tenants: vec![tenant(name)],
        ..LimitsOverride::default()
    }
}

/// Calls `one` until it fails. Returns the number of successes, and the limit and retry time
/// (ms) of the failure.
fn passed(mut one: impl FnMut() -> Result<(), LimitExceeded>) -> (u32, Limit, u128) {
    let mut passed = 0;
    loop {
        match one() {
            Ok(()) => passed += 1,
            Err(it) => return (passed, it.limit, it.retry_after.as_millis()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_may_send_a_burst_and_then_the_same_number_per_period() {
    let limits = Limits::new(&Config::default());
    let ann = user_key("acme", "ann");
    let send = || limits.charge_message(&ann, MessageCharge::User);
    assert_eq!(passed(send), (100, Limit::UserMessages, 600));
    advance(Duration::from_micros(599_100)).await;
    // Rounded up from 0.9 ms.
    assert_eq!(passed(send), (0, Limit::UserMessages, 1));
    advance(Duration::from_micros(900)).await;
    assert_eq!(passed(send), (1, Limit::UserMessages, 600));
    advance(Duration::from_mins(1)).await;
    assert_eq!(passed(send), (100, Limit::UserMessages, 600));
    // Another user, and a user of that name in another tenant, have their own buckets.
    for other in [user_key("acme", "bob"), user_key("globex", "ann")] {
        let send = || limits.charge_message(&other, MessageCharge::User);
        assert_eq!(passed(send), (100, Limit::UserMessages, 600));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_of_a_user_is_not_charged_to_its_tenant() {
    let limits = Limits::new(&config(|it| {
        it.limits.user_burst = count(2);
        it.limits.tenant_burst = count(5);
    }));
    let send = |user| {
        passed(|| limits.charge_message(&user_key("acme", user), MessageCharge::UserAndTenant))
    };
    assert_eq!(send("ann"), (2, Limit::UserMessages, 30_000));
    assert_eq!(send("ann"), (0, Limit::UserMessages, 30_000));
    assert_eq!(send("bob"), (2, Limit::UserMessages, 30_000));
    assert_eq!(send("cid"), (1, Limit::TenantMessages, 12_000));
    // Messages charged only to the user still pass.
    let send = || limits.charge_message(&user_key("acme", "dan"), MessageCharge::User);
    assert_eq!(passed(send), (2, Limit::UserMessages, 30_000));
    let send = || limits.charge_message(&user_key("globex", "ann"), MessageCharge::UserAndTenant);
    assert_eq!(passed(send), (2, Limit::UserMessages, 30_000));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_an_override_has_its_own_rates_and_caps() {
    let limits = Limits::new(&config(|it| {
        it.limits.user_burst = count(2);
        it.limits.connections_per_user = Some(count(1));
        it.limits.overrides = vec![LimitsOverride {
            user_burst: Some(count(4)),
            user_period: Some(Duration::from_secs(4)),
            connections_per_user: Some(count(2)),
            ..override_of("acme")
        }];
    }));
    let send =
        |tenant| passed(|| limits.charge_message(&user_key(tenant, "ann"), MessageCharge::User));
    assert_eq!(send("acme"), (4, Limit::UserMessages, 1_000));
    assert_eq!(send("globex"), (2, Limit::UserMessages, 30_000));
    let address = IpAddr::from([127, 0, 0, 1]);
    for (tenant, cap) in [("acme", 2), ("globex", 1)] {
        let connect = || limits.admit_connection(user_key(tenant, "ann"), address);
        let places: Vec<_> = (0..cap).map(|_| connect().unwrap()).collect();
        assert_eq!(connect().unwrap_err(), Limit::UserConnections);
        drop(places);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_refills_only_the_buckets_whose_rate_it_changes() {
    let with = |user: u32, acme: Option<u32>| {
        config(|it| {
            it.limits.user_burst = count(user);
            it.limits.tenant_burst = count(3);
            it.limits.overrides = vec![LimitsOverride {
                user_burst: acme.map(count),
                ..override_of("acme")
            }];
        })
    };
    let limits = Limits::new(&with(2, Some(5)));
    let send =
        |tenant| passed(|| limits.charge_message(&user_key(tenant, "ann"), MessageCharge::User)).0;
    let all = |tenant| {
        passed(|| limits.charge_message(&user_key(tenant, "bob"), MessageCharge::UserAndTenant)).1
    };
    assert_eq!((send("acme"), send("globex")), (5, 2));
    assert_eq!(all("acme"), Limit::TenantMessages);
    limits.configure(&with(2, Some(5)));
    assert_eq!((send("acme"), send("globex")), (0, 0));
    limits.configure(&with(4, Some(5)));
    assert_eq!((send("acme"), send("globex")), (0, 4));
    // The tenant that loses its override uses the general buckets, where its bucket is full.
    limits.configure(&with(4, None));
    assert_eq!((send("acme"), send("globex")), (4, 0));
    // The tenant's own rate never changed.
    let late = limits.charge_message(&user_key("acme", "cid"), MessageCharge::UserAndTenant);
    assert_eq!(late.unwrap_err().limit, Limit::TenantMessages);
}

#[tokio::test(start_paused = true)]
async fn buckets_are_forgotten_when_they_are_full_again_and_not_before() {
    let limits = Limits::new(&config(|it| {
        it.ingest.tenant_burst = Some(count(10));
        it.limits.handshakes_per_second = Some(count(10));
        it.limits.user_handshakes_per_minute = Some(count(10));
    }));
    for number in 0..1_000 {
        let who = user_key(&format!("tenant-{number}"), "ann");
        limits
            .charge_message(&who, MessageCharge::UserAndTenant)
            .unwrap();
        limits.charge_user_handshake(&who).unwrap();
        limits.charge_call(&who.tenant, None).unwrap();
    }
    limits.charge_handshake().unwrap();
    limits.sweep();
    assert!(!limits.is_empty());
    let ann = user_key("tenant-0", "ann");
    assert_eq!(
        passed(|| limits.charge_message(&ann, MessageCharge::User)).0,
        99
    );
    advance(Duration::from_secs(59)).await;
    limits.sweep();
    assert!(!limits.is_empty());
    assert_eq!(
        passed(|| limits.charge_message(&ann, MessageCharge::User)).0,
        98
    );
    advance(Duration::from_secs(61)).await;
    limits.sweep();
    assert!(limits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn handshakes_are_limited_per_second_and_those_of_a_user_per_minute() {
    let limits = Limits::new(&config(|it| {
        it.limits.handshakes_per_second = Some(count(4));
        it.limits.user_handshakes_per_minute = Some(count(2));
    }));
    assert_eq!(
        passed(|| limits.charge_handshake()),
        (4, Limit::Handshakes, 250)
    );
    let of_user = || limits.charge_user_handshake(&user_key("acme", "ann"));
    assert_eq!(passed(of_user), (2, Limit::UserHandshakes, 30_000));
    let unbounded = Limits::new(&Config::default());
    for _ in 0..1_000 {
        unbounded.charge_handshake().unwrap();
        unbounded
            .charge_user_handshake(&user_key("acme", "ann"))
            .unwrap();
    }
    assert!(unbounded.is_empty());
}

fn ingesting() -> Limits {
    let key = |name: &str, burst| IngestKeyEntry {
        name: name.to_owned(),
        key_file: "key".into(),
        tenants: None,
        burst,
        period: None,
    };
    Limits::new(&config(|it| {
        it.ingest.tenant_burst = Some(count(10));
        it.ingest.keys = vec![key("bounded", Some(count(20))), key("free", None)];
        it.limits.overrides = vec![LimitsOverride {
            ingest_burst: Some(count(4)),
            ingest_period: Some(Duration::from_mins(1)),
            ..override_of("small")
        }];
    }))
}

/// Charges a batch of `events` events.
fn post(limits: &Limits, name: &str, key: &str, events: usize) -> Result<(), LimitExceeded> {
    let budget = limits.charge_call(&tenant(name), Some(key))?;
    budget.charge_rest(events)
}

#[tokio::test(start_paused = true)]
async fn events_are_charged_to_their_tenant_and_then_to_the_key() {
    let limits = ingesting();
    assert_eq!(post(&limits, "acme", "bounded", 6), Ok(()));
    let refused = post(&limits, "acme", "bounded", 5).unwrap_err();
    // The first of the five was charged, so three are left of ten.
    assert_eq!(refused.limit, Limit::IngestTenant);
    assert_eq!(post(&limits, "acme", "bounded", 3), Ok(()));
    let full = passed(|| post(&limits, "acme", "bounded", 1));
    assert_eq!(full, (0, Limit::IngestTenant, 100));
    // The key has 20 less acme's 10: a tenant over its rate was not charged to the key.
    assert_eq!(post(&limits, "globex", "bounded", 10), Ok(()));
    let full = passed(|| post(&limits, "initech", "bounded", 1));
    assert_eq!(full, (0, Limit::IngestKey, 50));
    assert_eq!(post(&limits, "hooli", "free", 10), Ok(()));
    let full = passed(|| post(&limits, "small", "free", 1));
    assert_eq!(full, (4, Limit::IngestTenant, 15_000));
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_a_bucket_passes_when_the_bucket_is_full() {
    let limits = ingesting();
    assert_eq!(post(&limits, "acme", "free", 1_000), Ok(()));
    // A caller that waits as told passes at the second retry at the latest: when the first
    // event is charged, the size of the batch is not known yet.
    for retry_after in [100, 1_000] {
        let refused = post(&limits, "acme", "free", 1_000).unwrap_err();
        assert_eq!(refused.retry_after.as_millis(), retry_after);
        advance(refused.retry_after).await;
    }
    assert_eq!(post(&limits, "acme", "free", 1_000), Ok(()));
}
