//! Random schedules: what connections, shards and clients do, in any order.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use sidewire_protocol::{Topic, UserName};

/// The shards, and for each place of a connection its shard and user.
pub(crate) const SHARDS: usize = 3;
pub(crate) const PLACES: [(usize, &str); 7] = [
    (0, "ann"),
    (1, "ann"),
    (0, "bob"),
    (1, "bob"),
    (2, "cem"),
    (0, "dan"),
    (1, "dan"),
];

pub(crate) const PAYLOADS: [u32; 2] = [7, 34];

const TOPICS: [&str; 4] = ["item:1", "item:2", "item:3", "room:1"];
const SUBSCRIPTIONS: [&str; 5] = ["item:1", "item:2", "item:3", "room:1", "item:*"];

/// One step. Places, payloads and lists of topics are numbers.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Connects, or ends the connection of the place.
    Toggle {
        place: usize,
    },
    EndLinger {
        index: usize,
    },
    Set {
        place: usize,
        payload: usize,
        named: u8,
    },
    Withdraw {
        place: usize,
        payload: usize,
    },
    Subscribe {
        place: usize,
        topics: u8,
    },
    Unsubscribe {
        place: usize,
        topics: u8,
    },
    ContinueSnapshot {
        place: usize,
        limit: usize,
    },
    Apply {
        shard: usize,
    },
    /// The client reads frames, and what is owed is queued.
    Read {
        place: usize,
        frames: usize,
    },
    /// Other bounds come into force.
    Limit {
        messages: usize,
        users: usize,
        bytes: usize,
    },
    Settle,
}

pub(crate) fn schedules() -> impl Strategy<Value = Vec<Step>> {
    let connect = (0..PLACES.len()).prop_map(|place| Step::Toggle { place });
    let subscribe = (0..PLACES.len(), any::<u8>())
        .prop_map(|(place, topics)| Step::Subscribe { place, topics });
    let prelude = (vec(connect, 3..9), vec(subscribe, 2..7));
    (prelude, vec(step(), 5..90))
        .prop_map(|((connects, subscribes), steps)| [connects, subscribes, steps].concat())
}

fn step() -> impl Strategy<Value = Step> {
    let place = || 0..PLACES.len();
    let payload = || 0..PAYLOADS.len();
    let limits = (1..6_usize, 1..5_usize, 1..6_usize);
    prop_oneof![
        2 => place().prop_map(|place| Step::Toggle { place }),
        2 => (0..4_usize).prop_map(|index| Step::EndLinger { index }),
        6 => (place(), payload(), any::<u8>())
            .prop_map(|(place, payload, named)| Step::Set { place, payload, named }),
        2 => (place(), payload()).prop_map(|(place, payload)| Step::Withdraw { place, payload }),
        3 => (place(), any::<u8>())
            .prop_map(|(place, topics)| Step::Subscribe { place, topics }),
        3 => (place(), any::<u8>())
            .prop_map(|(place, topics)| Step::Unsubscribe { place, topics }),
        4 => (place(), 1..3_usize)
            .prop_map(|(place, limit)| Step::ContinueSnapshot { place, limit }),
        7 => (0..SHARDS).prop_map(|shard| Step::Apply { shard }),
        6 => (place(), 1..4_usize).prop_map(|(place, frames)| Step::Read { place, frames }),
        1 => limits.prop_map(|(messages, users, bytes)| Step::Limit {
            messages,
            users,
            bytes: bytes * 700,
        }),
        1 => Just(Step::Settle),
    ]
}

pub(crate) fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

/// The topics that a message names.
pub(crate) fn named_topics(bits: u8) -> BTreeSet<Topic> {
    chosen(&TOPICS, bits)
}

/// The topics and wildcards of a Subscribe or Unsubscribe.
pub(crate) fn subscriptions(bits: u8) -> BTreeSet<Topic> {
    chosen(&SUBSCRIPTIONS, bits)
}

pub(crate) fn all_topics() -> Vec<Topic> {
    chosen(&TOPICS, u8::MAX).into_iter().collect()
}

fn chosen(texts: &[&str], bits: u8) -> BTreeSet<Topic> {
    let is_chosen = |(bit, _): &(usize, &&str)| bits >> bit & 1 == 1;
    let texts = texts.iter().enumerate().filter(is_chosen);
    texts.map(|(_, text)| Topic::parse(text).unwrap()).collect()
}
