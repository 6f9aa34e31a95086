//! Checks rate limits: a client that is refused has exceeded its rate, and no client exceeds it
//! unnoticed. The buckets are not simulated, since the time at which the relay reads a message is
//! not known from outside: it lies between sending and receiving the answer, and the checks use
//! only these bounds.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use crate::simulation::{
    history::{Asked, Connection, History, Said, Scarce},
    world::Settings,
};

/// Maximum time for which the network holds up data, including its delivery.
const ARRIVES_WITHIN: Duration = Duration::from_secs(8);

/// A bucket: the messages that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    User(usize, usize),
    Tenant(usize),
    /// The pings of a connection.
    Heartbeat(usize),
}

/// A message that was charged to a bucket, or was refused for it.
#[derive(Debug, Clone, Copy)]
struct Charge {
    connection: usize,
    /// Its index among the requests of the connection.
    index: usize,
    sent: Duration,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No answer was received.
    Unknown,
    /// It was accepted, by an answer received at this time.
    Taken(Duration),
    /// It was refused for its rate, by an answer received at this time.
    Limited(Duration),
}

/// The capacity of a bucket, and the period in which it refills completely.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    period: f64,
}

impl Rate {
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

pub(super) fn check(history: &History, settings: &Settings) {
    let mut all: BTreeMap<Bucket, Vec<Charge>> = BTreeMap::new();
    let mut limited = Vec::new();
    for (number, connection) in history.connections.borrow().iter().enumerate() {
        let outcomes = outcomes(connection);
        let first = first_subscribe(connection);
        for (index, request) in connection.sent.iter().enumerate() {
            let charge = Charge {
                connection: number,
                index,
                sent: request.sent.time,
                outcome: outcomes[index],
            };
            let buckets = charged(connection, number, &request.what, first == Some(index));
            for bucket in &buckets {
                all.entry(*bucket).or_default().push(charge);
            }
            if let Outcome::Limited(_) = charge.outcome {
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
        let is_so = |it: &Bucket| is_exceeded(&all[it], &charge, rate(*it, settings));
        assert!(
            buckets.iter().any(is_so),
            "{charge:?} is limited, and none of {buckets:?} was exceeded"
        );
    }
}

fn first_subscribe(connection: &Connection) -> Option<usize> {
    let is_subscribe = |what: &Asked| matches!(what, Asked::Subscribe(_));
    connection.sent.iter().position(|it| is_subscribe(&it.what))
}

fn charged(connection: &Connection, number: usize, what: &Asked, is_first: bool) -> Vec<Bucket> {
    let user = Bucket::User(connection.tenant, connection.user);
    match what {
        Asked::Subscribe(_) if is_first => vec![],
        Asked::Subscribe(_) | Asked::Unsubscribe(_) => vec![user],
        Asked::Ping(_) => vec![Bucket::Heartbeat(number)],
        Asked::Event => vec![user, Bucket::Tenant(connection.tenant)],
    }
}

fn rate(bucket: Bucket, settings: &Settings) -> Rate {
    let limits = &settings.config.limits;
    match bucket {
        Bucket::User(..) => Rate::new(limits.user_burst, limits.user_period),
        Bucket::Tenant(_) => Rate::new(limits.tenant_burst, limits.tenant_period),
        Bucket::Heartbeat(_) => Rate::new(limits.heartbeat_burst, limits.heartbeat_period),
    }
}

/// Returns the outcome of each request, from the received answers.
fn outcomes(connection: &Connection) -> Vec<Outcome> {
    let mut outcomes = vec![Outcome::Unknown; connection.sent.len()];
    let place = |id: &str| connection.sent.iter().position(|it| it.id == id);
    for heard in &connection.heard {
        let time = heard.when.time;
        let (index, outcome) = match &heard.what {
            Said::Subscribed(topics) | Said::Unsubscribed(topics) => {
                (place(&topics.0.request), Outcome::Taken(time))
            }
            Said::Refused {
                request, scarce, ..
            } => {
                // A request refused for lack of memory or waiting slots was charged before.
                let outcome = match scarce {
                    Some(Scarce::Rate) => Outcome::Limited(time),
                    _ => Outcome::Taken(time),
                };
                (place(request), outcome)
            }
            // Pongs arrive in the order of their Pings.
            Said::Pong { .. } => {
                let next = connection
                    .sent
                    .iter()
                    .zip(&outcomes)
                    .position(|(it, outcome)| {
                        matches!(it.what, Asked::Ping(_)) && *outcome == Outcome::Unknown
                    });
                (next, Outcome::Taken(time))
            }
            Said::Event { .. } | Said::Close { .. } => (None, Outcome::Unknown),
        };
        if let Some(index) = index {
            outcomes[index] = outcome;
        }
    }
    outcomes
}

/// Checks that no interval has more accepted messages than the bucket's capacity plus its refill.
fn check_is_kept(bucket: Bucket, charges: &[Charge], rate: Rate) {
    let mut taken: Vec<(Duration, Duration)> = charges
        .iter()
        .filter_map(|it| match it.outcome {
            Outcome::Taken(heard) => Some((heard, it.sent)),
            Outcome::Unknown | Outcome::Limited(_) => None,
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
fn is_exceeded(charges: &[Charge], refused: &Charge, rate: Rate) -> bool {
    let Outcome::Limited(known) = refused.outcome else {
        return false;
    };
    // A message refused for the one bucket may have been charged to the other.
    let may_count = |it: &&Charge| {
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
