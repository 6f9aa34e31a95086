//! Faults that tests can plant to check that simulations find them, and counters of internal
//! code paths that tests can read. Without the feature `testing`, and outside of this crate's
//! own tests, nothing can be planted and nothing is counted.

/// Is true if one of the faults, given by the name of its [`PlantedFault`], is planted on this
/// thread; with a number as well, only if that is a multiple of three. In a build without planted
/// faults it is `false`, a literal.
#[cfg(any(test, feature = "testing"))]
macro_rules! fault {
    ($($fault:ident)|+) => {
        $($crate::planted::is_planted($crate::planted::PlantedFault::$fault))||+
    };
    ($fault:ident, $number:expr) => {
        $crate::planted::fault!($fault) && $number.is_multiple_of(3)
    };
}

#[cfg(not(any(test, feature = "testing")))]
macro_rules! fault {
    ($($fault:ident)|+ $(, $number:expr)?) => {
        false
    };
}

pub(crate) use fault;

#[cfg(any(test, feature = "testing"))]
pub use in_tests::{PlantedFault, is_planted, note_schema, plant, seen};

#[cfg(any(test, feature = "testing"))]
pub(crate) use in_tests::{mark_seen, rendering_schema};

#[cfg(not(any(test, feature = "testing")))]
pub(crate) use in_production::{mark_seen, rendering_schema};

#[cfg(not(any(test, feature = "testing")))]
mod in_production {
    use std::sync::Arc;

    use sidewire_protocol::schema::Schema;

    pub(crate) const fn mark_seen(_: &'static str) {}

    /// Returns the schema by which a stored event is rendered.
    pub(crate) const fn rendering_schema(of_event: &Arc<Schema>) -> &Arc<Schema> {
        of_event
    }
}

#[cfg(any(test, feature = "testing"))]
mod in_tests {
    use std::{
        cell::{Cell, RefCell},
        collections::BTreeMap,
        sync::Arc,
    };

    use sidewire_protocol::schema::Schema;

    /// A fault that tests can plant.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum PlantedFault {
        /// Some events that are owed to a connection that catches up are dropped.
        DropsOwedEvents,
        /// A Subscribe is confirmed with the log's head, even if the shard has not reached it.
        ConfirmsTheHead,
        /// A Subscribe does not wait until the shard has reached the log's head.
        ConfirmsBelowTheHead,
        /// A Pong has the log's head as its position, even if the shard has not reached it.
        PongsTheHead,
        /// A shard's position is not read in the same step in which it enters a tenant's set.
        TakesThePositionLate,
        /// The log claims to have events that it has evicted.
        SkipsAnEviction,
        /// An event is delivered to a connection once for each of its topics.
        DeliversTwice,
        /// A closed connection leaves a topic in the index.
        LeavesAnIndexEntry,
        /// A replay repeats events that an older subscription has delivered.
        ReplaysDeliveredEvents,
        /// A resume forgets the implicit topics.
        ForgetsImplicitTopics,
        /// A shard looks up its first tenant instead of the requested one.
        CrossesTenants,
        /// A wildcard of the kind `user` that a token grants can be subscribed to.
        TakesUserWildcard,
        /// The wildcards of every tenant of a shard bring an event.
        MatchesWildcardAcrossTenants,
        /// Input from a client does not reset its idle timeout.
        GivesUpTheLiving,
        /// Messages of clients are not charged to any rate limit.
        ForgetsToCharge,
        /// Some messages of a client are charged twice.
        ChargesTwice,
        /// An event that is refused for lack of room is appended to the log all the same.
        AppendsTooEarly,
        /// A stored event is rendered as JSON by the schema in force instead of its own.
        RendersByTheCurrentSchema,
        /// A full outbox skips an event that it should take as JSON.
        SkipsJsonOnOverflow,
        /// An event that is replayed as JSON is counted twice.
        CountsJsonTwice,
        /// Subscriptions that are ended are reported as such and stay.
        KeepsRevokedTopics,
        /// A connection that has a newer token is closed when the older one expires.
        KeepsTheOldDeadline,
        /// A topic that the backend has denied is remembered as allowed.
        RemembersDenialsAsAllowed,
        /// The backend's answer about one user is used for all users of the tenant.
        UsesAnswersOfOthers,
        /// The backend's answer is used although it is older than a revocation.
        UsesOutdatedAnswers,
        /// A client receives its own event.
        EchoesToTheSender,
        /// The sender of a client's event is not written into it.
        SkipsTheStamp,
        /// Connections that still see a user are told that the user is absent.
        SendsAbsentToThoseWhoSee,
        /// A presence message that a connection has no room for is forgotten.
        ForgetsOwedPresence,
        /// A presence message stays on topics that its sender has unsubscribed from.
        KeepsUnsubscribedPresence,
        /// Presence messages of connections that have ended linger forever.
        ForgetsToEndLingering,
        /// A message of another connection of a user replaces one that has ended only for those
        /// who see both on the same topic.
        HandsOverByTopicOnly,
        /// A presence message that is refused for a bound ends the earlier one.
        RefusesAndForgets,
        /// What was delivered before the only Subscribe of a connection stays, ahead of the replay.
        KeepsWhatCameBefore,
        /// An answer to a poll that a bound cuts claims to have everything.
        SkipsBehindTheBound,
        /// A ping has the log's head as its position, even if something is still queued.
        PingsTheHead,
    }

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Schema>>> = const { RefCell::new(None) };
        static PLANTED: Cell<Option<PlantedFault>> = const { Cell::new(None) };
        static SEEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Plants a fault on this thread, in place of the previous one.
    pub fn plant(fault: Option<PlantedFault>) {
        PLANTED.set(fault);
    }

    /// Returns true if the fault is planted on this thread.
    #[must_use]
    pub fn is_planted(fault: PlantedFault) -> bool {
        PLANTED.get() == Some(fault)
    }

    /// Records the schema in force.
    pub fn note_schema(schema: &Arc<Schema>) {
        CURRENT.replace(Some(Arc::clone(schema)));
    }

    /// Returns the schema by which a stored event is rendered.
    pub(crate) fn rendering_schema(of_event: &Arc<Schema>) -> Arc<Schema> {
        let current = CURRENT.with_borrow(Clone::clone);
        let planted = current.filter(|_| fault!(RendersByTheCurrentSchema));
        planted.unwrap_or_else(|| Arc::clone(of_event))
    }

    /// Counts that a code path was reached on this thread.
    pub(crate) fn mark_seen(what: &'static str) {
        SEEN.with_borrow_mut(|seen| *seen.entry(what).or_default() += 1);
    }

    /// Returns the counts since the last call, and resets them.
    pub fn seen() -> BTreeMap<&'static str, u64> {
        SEEN.take()
    }
}
