//! Checks the record of a simulation against the contract. It is an independent model of the
//! contract, and uses only the recorded calls, answers and frames.

mod answers;
mod authorization;
mod client_events;
mod conditions;
mod connection;
mod endings;
mod logs;
mod losses;
mod presence;
mod rates;
mod refusals;
mod replay;
mod requests;
mod responses;
mod revocations;
mod rights;
mod shown;

use std::collections::BTreeMap;

use super::{
    history::{CompletenessClaim, History, Moment},
    messages::EventPlace,
    world::SimulationSettings,
};
use connection::ConnectionChecker;
use logs::ModelLogs;

/// Panics if anything in the record contradicts the contract. `dropped` is the number of events of
/// clients that the relay may have dropped.
pub(super) fn check(history: &History, settings: &SimulationSettings, dropped: u64) {
    let logs = ModelLogs::reconstruct(history, settings);
    let mut received = ReceivedEvents::default();
    let connections = history.connections.borrow();
    let calls = history.rights.borrow();
    let (mut views, mut told) = (Vec::new(), BTreeMap::new());
    for number in 0..connections.len() {
        let mut follower = ConnectionChecker::new(number, &connections, &calls, &logs, settings);
        for heard in &connections[number].heard {
            follower.follow(heard, &mut received, history);
        }
        follower.check_end(history);
        for (call, count) in follower.rights.told.drain(..) {
            *told.entry(call).or_default() += count;
        }
        views.extend(follower.rest_view());
    }
    responses::check(history, &logs, &mut received);
    presence::check_at_rest(history, &views);
    revocations::check_answers(history, &told);
    authorization::check_asked_once(history, settings);
    losses::check(history, dropped);
    rates::check(history, settings);
    shown::check(history);
    answers::check(history, &logs, &received);
    for claim in history.claims.borrow().iter() {
        check_claim(claim, &logs, &received);
    }
}

/// The events that were received.
#[derive(Default)]
struct ReceivedEvents {
    /// Number of connections that received an event live, by tenant and position.
    live: BTreeMap<(usize, EventPlace), u64>,
    /// First time that a client received an event, by client and position.
    by_client: BTreeMap<(usize, EventPlace), Moment>,
}

/// Checks that a client has received all events that it claims to have.
fn check_claim(claim: &CompletenessClaim, logs: &ModelLogs, received: &ReceivedEvents) {
    if claim.from.epoch != claim.to.epoch {
        return;
    }
    let log = logs.log_of(claim.tenant, claim.from.epoch);
    for offset in log.offsets_relating(claim.from.offset..claim.to.offset, claim.topics) {
        let place = EventPlace {
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
