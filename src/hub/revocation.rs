//! Takes subscriptions away from clients: those that a backend ends, and those that a new token
//! does not grant.
//!
//! A connection loses the topics in one step: from then on nothing is queued for it because of
//! them. They are removed from the index in parts. If that takes more than a quantum, the
//! connection's events come from the log meanwhile, as those of a connection that is catching up
//! do, since the index still offers it events of the lost topics.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet, VecDeque},
    mem,
    rc::Rc,
    sync::Arc,
};

use sidewire_protocol::{Topic, topic::TopicSet};
use tokio::sync::oneshot;

use super::{
    admin::send_answer,
    membership::TenantMember,
    subscribers::ConnectionId,
    subscriptions::{SubscriptionMap, subscription_bytes},
};
use crate::{outbox::Outbox, planted::fault, scheduler::Cost};

/// The subscriptions that a backend ends: those to its topics, and the wildcards that cover one
/// of them. A wildcard among the topics ends all subscriptions to its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedTopics {
    topics: TopicSet,
    /// The kinds of all topics.
    kinds: HashSet<Box<str>>,
    /// The kinds of which everything ends.
    whole_kinds: HashSet<Box<str>>,
}

impl RevokedTopics {
    /// Returns true if a subscription to `subscribed` ends.
    #[must_use]
    pub fn ends(&self, subscribed: &Topic) -> bool {
        if subscribed.is_wildcard() {
            self.kinds.contains(subscribed.kind())
        } else {
            self.topics.contains(subscribed) || self.whole_kinds.contains(subscribed.kind())
        }
    }

    /// Returns the topics that the backend named.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }
}

impl FromIterator<Topic> for RevokedTopics {
    fn from_iter<I: IntoIterator<Item = Topic>>(topics: I) -> Self {
        let topics: TopicSet = topics.into_iter().collect();
        let kinds_of = |topics: &mut dyn Iterator<Item = &Topic>| {
            topics.map(|topic| topic.kind().into()).collect()
        };
        Self {
            kinds: kinds_of(&mut topics.iter()),
            whole_kinds: kinds_of(&mut topics.iter().filter(|topic| topic.is_wildcard())),
            topics,
        }
    }
}

/// A backend's request to end subscriptions of a user, on one shard. It is answered with the
/// number of subscriptions that ended once every connection of the user has carried it out or is
/// gone, which is when the last reference to it is dropped.
#[derive(Debug)]
pub(super) struct RevocationCall {
    topics: Arc<RevokedTopics>,
    ended: Cell<u64>,
    answer: Option<oneshot::Sender<u64>>,
}

impl RevocationCall {
    pub(super) fn new(topics: Arc<RevokedTopics>, answer: oneshot::Sender<u64>) -> Self {
        Self {
            topics,
            ended: Cell::default(),
            answer: Some(answer),
        }
    }

    pub(super) fn topics(&self) -> &RevokedTopics {
        &self.topics
    }

    /// Adds to the number of subscriptions that have ended.
    pub(super) fn add_ended(&self, subscriptions: usize) {
        self.ended.set(self.ended.get() + subscriptions as u64);
    }
}

impl Drop for RevocationCall {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            send_answer(answer, self.ended.get());
        }
    }
}

/// The revocations that connections of a tenant have not carried out yet.
#[derive(Debug, Default)]
pub(super) struct PendingRevocations(RefCell<HashMap<ConnectionId, VecDeque<Rc<RevocationCall>>>>);

impl PendingRevocations {
    /// Adds a call for the connection, which must be nudged.
    pub(super) fn add(&self, (id, outbox): (ConnectionId, &Outbox), call: &Rc<RevocationCall>) {
        let mut pending = self.0.borrow_mut();
        pending.entry(id).or_default().push_back(Rc::clone(call));
        outbox.set_has_revocation(true);
    }

    /// Removes the first call for the connection.
    fn take(&self, (id, outbox): (ConnectionId, &Outbox)) -> Option<Rc<RevocationCall>> {
        let mut pending = self.0.borrow_mut();
        let calls = pending.get_mut(&id)?;
        let first = calls.pop_front();
        if calls.is_empty() {
            pending.remove(&id);
            outbox.set_has_revocation(false);
        }
        first
    }

    /// Removes all calls for a connection that has ended.
    fn remove(&self, id: ConnectionId) {
        // Dropped after the borrow has ended.
        let _calls = self.0.borrow_mut().remove(&id);
    }
}

/// Subscriptions that a connection has lost, and that are still in the index.
#[derive(Debug, Default)]
pub(super) struct LostSubscriptions {
    /// Those lost during a replay, which still needs to know what they have delivered: each with
    /// the offset from which its events were.
    during_replay: SubscriptionMap<u64>,
    /// Those to remove from the index.
    topics: Vec<Topic>,
}

/// A connection loses a topic that its replay covers, and has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayCut {
    /// The number of subscriptions that it loses.
    pub subscriptions: usize,
}

impl TenantMember {
    /// Removes the first revocation that a backend has requested for the connection.
    pub(super) fn take_revocation(&self) -> Option<Rc<RevocationCall>> {
        self.here.revocations.take((self.id(), self.outbox()))
    }

    /// Delivers events as they come again. Those that are still pending from the log were offered
    /// for topics that the connection has lost since.
    pub(super) fn go_live(&self) {
        let dropped = self.outbox().go_live();
        self.hub().tally().dropped_revoked.add(dropped);
        self.hub().tally().queued.sub(dropped);
    }

    /// Takes the subscriptions for which `is_lost` is true from the connection, and returns their
    /// topics. `replays`: true if the connection has not queued its whole replay yet. They stay in
    /// the index until they are [cleared](Self::clear_lost).
    pub(super) fn lose_subscriptions(
        &mut self,
        replays: bool,
        mut is_lost: impl FnMut(&Topic) -> bool,
    ) -> Vec<Topic> {
        self.charge(Cost::STEP.times(self.topics.len()));
        if fault!(KeepsRevokedTopics) {
            let lost = self.topics.topics().filter(|topic| is_lost(topic));
            return lost.cloned().collect();
        }
        let lost = self.topics.take_if(is_lost);
        self.note_topic_count();
        let topics: Vec<Topic> = lost.iter().map(|(topic, _)| topic.clone()).collect();
        if !topics.is_empty() {
            self.implicit.forget_claimed(&topics);
            let kept = self.lost.get_or_insert_default();
            if replays {
                for (topic, from) in lost {
                    kept.during_replay.insert(topic, from);
                }
            } else {
                kept.topics.extend(lost.into_iter().map(|(topic, _)| topic));
            }
        }
        topics
    }

    /// Returns the offsets from which lost subscriptions have delivered events of this topic, as
    /// far as a replay still needs them.
    pub(super) fn lost_marks(&self, topic: &Topic) -> impl Iterator<Item = u64> {
        let lost = self.lost.iter();
        lost.flat_map(|lost| lost.during_replay.covering(topic).copied())
    }

    /// Returns true if subscriptions that the connection has lost are still in the index.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Removes subscriptions that the connection has lost from the index, at least one, until the
    /// tenant's quantum is used up. Must not be called during a replay. Returns true if none is
    /// left.
    pub(super) fn clear_lost(&mut self) -> bool {
        let Some(mut lost) = self.lost.take() else {
            return true;
        };
        let after_replay = mem::take(&mut lost.during_replay);
        lost.topics.extend(after_replay.into_topics());
        while let Some(topic) = lost.topics.pop() {
            self.charge(Cost::SUBSCRIPTION);
            self.remove_from_index(&topic);
            if !lost.topics.is_empty() && !self.here.work.has_quota() {
                self.lost = Some(lost);
                break;
            }
        }
        self.leave_presence_topics();
        self.lost.is_none()
    }

    /// Removes a topic that the connection no longer has from the index, and sends the presence
    /// that the client sees instead.
    pub(super) fn remove_from_index(&self, topic: &Topic) {
        self.here.unsubscribe(topic, self.id());
        self.hub().tally().subscriptions.sub(1);
        self.release_memory(subscription_bytes(topic));
        self.charge(self.update_after_unsubscribe(topic));
    }

    /// Drops what is left of revocations, because the connection ends. Returns the topics that are
    /// still in the index.
    pub(super) fn end_revocations(&mut self) -> LostSubscriptions {
        self.here.revocations.remove(self.id());
        self.lost.take().map(|lost| *lost).unwrap_or_default()
    }
}

impl LostSubscriptions {
    /// Returns the topics that are still in the index.
    pub(super) fn into_map(mut self) -> SubscriptionMap<u64> {
        for topic in self.topics {
            self.during_replay.insert(topic, 0);
        }
        self.during_replay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Topic {
        Topic::parse(text).unwrap()
    }

    #[test]
    fn a_topic_ends_itself_and_the_wildcard_that_covers_it() {
        let revoked: RevokedTopics = ["project:1", "sprint:*"].map(topic).into_iter().collect();
        for ended in ["project:1", "project:*", "sprint:*", "sprint:7"] {
            assert!(revoked.ends(&topic(ended)), "{ended}");
        }
        for kept in ["project:2", "item:1", "item:*"] {
            assert!(!revoked.ends(&topic(kept)), "{kept}");
        }
    }

    #[test]
    fn a_call_is_answered_when_its_last_connection_lets_go_of_it() {
        let (sender, mut answer) = oneshot::channel();
        let call = Rc::new(RevocationCall::new(
            Arc::new(RevokedTopics::from_iter([])),
            sender,
        ));
        let second = Rc::clone(&call);
        call.ended.set(2);
        drop(call);
        assert!(answer.try_recv().is_err());
        drop(second);
        assert_eq!(answer.try_recv(), Ok(2));
    }
}
