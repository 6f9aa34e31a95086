//! Checks rate limits: a client that is refused has exceeded its rate, and no client exceeds it
//! unnoticed. The buckets are not simulated, since the time at which the relay reads a message is
//! not known from outside: it lies between sending and receiving the answer, and the checks use
//! only these bounds.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use super::requests::gets_pong;
use crate::{
    history::History,
    record::{ConnectionRecord, FrameContent, RequestKind, ScarceResource},
    world::SimulationSettings,
};

/// Maximum time for which the network holds up data, including its delivery.
const ARRIVES_WITHIN: Duration = Duration::from_secs(8);

/// A bucket: the messages that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RateBucket {
    User(usize, usize),
    Tenant(usize),
    /// The pings of a connection.
    Heartbeat(usize),
    /// The client events of a user, and of a tenant.
    UserEvents(usize, usize),
    TenantEvents(usize),
}

/// A message that was charged to a bucket, or was refused for it.
#[derive(Debug, Clone, Copy)]
struct BucketCharge {
    connection: usize,
    /// Its index among the requests of the connection.
    index: usize,
    sent: Duration,
    outcome: ChargeOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChargeOutcome {
    /// No answer was received.
    Unknown,
    /// It was accepted, by an answer received at this time.
    Taken(Duration),
    /// It was refused for its rate, by an answer received at this time.
    Limited(Duration),
    /// It was refused because too many waited, by an answer received at this time. Its rate may
    /// have been another reason.
    Unclear(Duration),
}

/// The capacity of a bucket, and the period in which it refills completely.
#[derive(Debug, Clone, Copy)]
struct BucketRate {
    burst: f64,
    period: f64,
}

impl BucketRate {
    fn new(burst: NonZeroU32, period: Duration) -> Self {
        Self {
            burst: f64::from(burst.get()),
            period: period.as_secs_f64(),
        }
    }

    /// Returns the number of messages by which the bucket refills in this time.
    fn refill(self, time: Duration) -> f64 {
        time.as_secs_f64() * self.burst / self.period
    }
}

pub(super) fn check(history: &History, settings: &SimulationSettings) {
    let mut all: BTreeMap<RateBucket, Vec<BucketCharge>> = BTreeMap::new();
    let mut limited = Vec::new();
    for (number, connection) in history.connections.borrow().iter().enumerate() {
        let outcomes = outcomes(connection);
        let first = first_subscribe(connection);
        for (index, request) in connection.sent.iter().enumerate() {
            let charge = BucketCharge {
                connection: number,
                index,
                sent: request.sent.time,
                outcome: outcomes[index],
            };
            let buckets = charged(connection, number, &request.what, first == Some(index));
            for bucket in &buckets {
                all.entry(*bucket).or_default().push(charge);
            }
            if let ChargeOutcome::Limited(_) = charge.outcome {
                history.count("limited");
                limited.push((buckets, charge));
            }
        }
    }
    for (bucket, charges) in &all {
        check_is_kept(*bucket, charges, rate(*bucket, settings));
    }
    for (buckets, charge) in limited {
        // A message that is charged to two buckets may have been refused for either.
        let is_so = |it: &RateBucket| is_exceeded(&all[it], &charge, rate(*it, settings));
        assert!(
            buckets.iter().any(is_so),
            "{charge:?} is limited, and none of {buckets:?} was exceeded"
        );
    }
}

fn first_subscribe(connection: &ConnectionRecord) -> Option<usize> {
    let is_subscribe = |what: &RequestKind| matches!(what, RequestKind::Subscribe(_));
    connection.sent.iter().position(|it| is_subscribe(&it.what))
}

fn charged(
    connection: &ConnectionRecord,
    number: usize,
    what: &RequestKind,
    is_first: bool,
) -> Vec<RateBucket> {
    let user = RateBucket::User(connection.tenant, connection.user);
    match what {
        RequestKind::Subscribe(_) if is_first => vec![],
        RequestKind::Subscribe(_) | RequestKind::Unsubscribe(_) | RequestKind::Authenticate(_) => {
            vec![user]
        }
        RequestKind::Ping(_) => vec![RateBucket::Heartbeat(number)],
        RequestKind::Event => vec![user, RateBucket::Tenant(connection.tenant)],
        RequestKind::Typing(_) | RequestKind::Presence(_) => vec![
            RateBucket::UserEvents(connection.tenant, connection.user),
            RateBucket::TenantEvents(connection.tenant),
        ],
    }
}

fn rate(bucket: RateBucket, settings: &SimulationSettings) -> BucketRate {
    let limits = &settings.config.limits;
    match bucket {
        RateBucket::User(..) => BucketRate::new(limits.user_burst, limits.user_period),
        RateBucket::Tenant(_) => BucketRate::new(limits.tenant_burst, limits.tenant_period),
        RateBucket::Heartbeat(_) => {
            BucketRate::new(limits.heartbeat_burst, limits.heartbeat_period)
        }
        RateBucket::UserEvents(..) => {
            BucketRate::new(limits.user_event_burst, limits.user_event_period)
        }
        RateBucket::TenantEvents(_) => {
            BucketRate::new(limits.tenant_event_burst, limits.tenant_event_period)
        }
    }
}

/// Returns the outcome of each request, from the received answers.
pub(super) fn outcomes(connection: &ConnectionRecord) -> Vec<ChargeOutcome> {
    let mut outcomes = vec![ChargeOutcome::Unknown; connection.sent.len()];
    let place = |id: &str| connection.sent.iter().position(|it| it.id == id);
    for heard in &connection.heard {
        let time = heard.when.time;
        let (index, outcome) = match &heard.what {
            FrameContent::Subscribed(topics) | FrameContent::Unsubscribed(topics) => {
                (place(&topics.0.request), ChargeOutcome::Taken(time))
            }
            FrameContent::Authenticated { request, .. } => {
                (place(request), ChargeOutcome::Taken(time))
            }
            FrameContent::Refused {
                request, scarce, ..
            } => {
                // A request refused for lack of memory was charged before. Some client events are
                // not charged at all.
                let index = place(request);
                let is_event = index.is_some_and(|it| connection.sent[it].what.is_client_event());
                let outcome = match scarce {
                    Some(ScarceResource::Rate) => ChargeOutcome::Limited(time),
                    Some(ScarceResource::Waiting) => ChargeOutcome::Unclear(time),
                    _ if is_event => ChargeOutcome::Unknown,
                    _ => ChargeOutcome::Taken(time),
                };
                (index, outcome)
            }
            FrameContent::Pong { timestamp, .. } => {
                let mut pings = connection.sent.iter().zip(&outcomes);
                let next = pings.position(|(it, outcome)| {
                    gets_pong(it, *timestamp) && *outcome == ChargeOutcome::Unknown
                });
                (next, ChargeOutcome::Taken(time))
            }
            FrameContent::Event { .. }
            | FrameContent::Claimed(_)
            | FrameContent::Revoked(_)
            | FrameContent::Typing { .. }
            | FrameContent::Presence { .. }
            | FrameContent::Close { .. } => (None, ChargeOutcome::Unknown),
        };
        if let Some(index) = index {
            outcomes[index] = outcome;
        }
    }
    outcomes
}

/// Checks that no interval has more accepted messages than the bucket's capacity plus its refill.
fn check_is_kept(bucket: RateBucket, charges: &[BucketCharge], rate: BucketRate) {
    let mut taken: Vec<(Duration, Duration)> = charges
        .iter()
        .filter_map(|it| match it.outcome {
            ChargeOutcome::Taken(heard) => Some((heard, it.sent)),
            ChargeOutcome::Unknown | ChargeOutcome::Limited(_) | ChargeOutcome::Unclear(_) => None,
        })
        .collect();
    taken.sort_unstable();
    for (_, begin) in &taken {
        let mut count = 0.0;
        for (heard, sent) in &taken {
            if sent < begin {
                continue;
            }
            count += 1.0;
            let most = rate.burst + rate.refill(*heard - *begin);
            assert!(
                count <= most + 0.001,
                "{bucket:?}: {count} between {begin:?} and {heard:?} at {rate:?}"
            );
        }
    }
}

/// Returns true if so much may have been charged before that the bucket was empty.
fn is_exceeded(charges: &[BucketCharge], refused: &BucketCharge, rate: BucketRate) -> bool {
    let ChargeOutcome::Limited(known) = refused.outcome else {
        return false;
    };
    // A message refused for the one bucket may have been charged to the other.
    let may_count = |it: &&BucketCharge| {
        if it.connection == refused.connection {
            it.index < refused.index
        } else {
            it.sent <= known
        }
    };
    let mut sent: Vec<Duration> = charges.iter().filter(may_count).map(|it| it.sent).collect();
    sent.sort_unstable_by(|one, other| other.cmp(one));
    let mut count = 0.0;
    sent.iter().any(|begin| {
        count += 1.0;
        let passed = refused.sent.saturating_sub(*begin + ARRIVES_WITHIN);
        count > rate.burst - 1.0 + rate.refill(passed) - 0.001
    })
}
