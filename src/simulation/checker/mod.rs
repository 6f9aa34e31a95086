//! Holds what happened against the contract. It is a model of its own of what the
//! contract says, and knows only what was posted and answered, sent and heard.

mod answers;
mod conditions;
mod connection;
mod endings;
mod logs;
mod rates;
mod replay;
mod shown;

use std::collections::BTreeMap;

use super::{
    history::{Claim, History, Moment},
    messages::Place,
    world::Settings,
};
use connection::Follower;
use logs::Logs;

/// Fails where anything contradicts the contract.
pub(super) fn check(history: &History, settings: &Settings) {
    let logs = Logs::reconstruct(history, settings);
    let mut received = Received::default();
    for (number, connection) in history.connections.borrow().iter().enumerate() {
        let mut follower = Follower::new(number, connection, &logs, settings);
        for heard in &connection.heard {
            follower.follow(heard, &mut received, history);
        }
        follower.check_end(history);
    }
    rates::check(history, settings);
    shown::check(history);
    answers::check(history, &logs, &received);
    for claim in history.claims.borrow().iter() {
        check_claim(claim, &logs, &received);
    }
}

/// Who got what.
#[derive(Default)]
struct Received {
    /// By tenant and place: how many connections got it, replays not counted.
    live: BTreeMap<(usize, Place), u64>,
    /// By client and place: when first.
    by_client: BTreeMap<(usize, Place), Moment>,
}

/// What a client believes to have, it has.
fn check_claim(claim: &Claim, logs: &Logs, received: &Received) {
    if claim.from.epoch != claim.to.epoch {
        return;
    }
    let log = logs.of(claim.tenant, claim.from.epoch);
    for offset in log.relating(claim.from.offset..claim.to.offset, claim.topics) {
        let place = Place {
            offset,
            ..claim.from
        };
        let had = received.by_client.get(&(claim.client, place));
        assert!(
            had.is_some_and(|had| *had < claim.when.moment),
            "client {} lacks {offset} without having been told: {claim:?}",
            claim.client
        );
    }
}
