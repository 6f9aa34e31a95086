//! Faults that tests can plant, to see that simulations find them, and what the code
//! has seen that nobody outside of it can see. Outside of tests nothing is planted, and
//! to ask costs nothing.

#[cfg(not(test))]
use std::sync::Arc;

#[cfg(not(test))]
use crate::schema::Schema;

/// A fault that somebody might make.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "some are planted by test code alone")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What a connection that catches up is owed last is not given to it.
    DropsALiveEvent,
    /// A Subscribe stands at the log's head, whatever the shard has taken.
    ConfirmsTheHead,
    /// A Subscribe does not wait until the shard has come to the log's head.
    ConfirmsBelowTheHead,
    /// A Pong has the log's head, whatever the shard has taken.
    PongsTheHead,
    /// A shard's position is not read in the step in which it enters a tenant's set.
    TakesThePositionLate,
    /// The log says that it has what it has evicted.
    SkipsAnEviction,
    /// An event goes to a connection once for each of its topics.
    DeliversTwice,
    /// A connection that has gone leaves a topic in the index.
    LeavesAnIndexEntry,
    /// A replay repeats what an older subscription has brought.
    ReplaysWhatWasBrought,
    /// A resume forgets the implicit topics.
    ForgetsImplicitTopics,
    /// A shard finds the first tenant that it has, whoever is asked for.
    CrossesTenants,
    /// That something has come from a client is not noticed.
    GivesUpTheLiving,
    /// Clients may say what they like, as often as they like.
    ForgetsToCharge,
    /// Some messages of a client count for two.
    ChargesTwice,
    /// What is refused for want of room is in the log all the same.
    AppendsTooEarly,
    /// A stored event is rendered as JSON by the schema in force, not by its own.
    RendersByTheCurrentSchema,
    /// A full outbox leaves out an event that it should take as JSON.
    SkipsJsonOnOverflow,
    /// An event that is replayed as JSON is counted for two.
    CountsJsonTwice,
}

#[cfg(not(test))]
pub(crate) const fn is_planted(_: Fault) -> bool {
    false
}

#[cfg(not(test))]
pub(crate) const fn saw(_: &'static str) {}

/// The schema by which a stored event is rendered.
#[cfg(not(test))]
pub(crate) const fn rendering_schema(of_event: &Arc<Schema>) -> &Arc<Schema> {
    of_event
}

#[cfg(test)]
pub(crate) use in_tests::{is_planted, note_schema, plant, rendering_schema, saw, seen};

#[cfg(test)]
mod in_tests {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
    };

    use std::sync::Arc;

    use super::Fault;
    use crate::schema::Schema;

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Schema>>> = const { RefCell::new(None) };
        static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
        static SEEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Plants a fault on this thread, and digs up the one that was there.
    pub(crate) fn plant(fault: Option<Fault>) {
        PLANTED.set(fault);
    }

    pub(crate) fn is_planted(fault: Fault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Notes the schema in force.
    pub(crate) fn note_schema(schema: &Arc<Schema>) {
        CURRENT.replace(Some(Arc::clone(schema)));
    }

    pub(crate) fn rendering_schema(of_event: &Arc<Schema>) -> Arc<Schema> {
        let current = CURRENT.with_borrow(Clone::clone);
        let planted = current.filter(|_| is_planted(Fault::RendersByTheCurrentSchema));
        planted.unwrap_or_else(|| Arc::clone(of_event))
    }

    /// Counts something on this thread.
    pub(crate) fn saw(what: &'static str) {
        SEEN.with_borrow_mut(|seen| *seen.entry(what).or_default() += 1);
    }

    /// What was counted since this was asked last.
    pub(crate) fn seen() -> BTreeMap<&'static str, u64> {
        SEEN.take()
    }
}
