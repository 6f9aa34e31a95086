//! Checks what a SubscriptionConfirmed says about a resume, and computes the replay that must
//! follow it.

use std::{iter, ops::Range};

use super::connection::ConnectionChecker;
use crate::{
    history::{History, Moment, Timestamp},
    messages::{EventPlace, WireTopics},
    topics::TopicBits,
};

impl ConnectionChecker<'_> {
    /// Checks and applies a confirmation, after its position has been checked.
    pub(super) fn check_replay_and_subscribe(
        &mut self,
        (asked, sent): (&WireTopics, Moment),
        said: &WireTopics,
        place: EventPlace,
        when: Timestamp,
        history: &History,
    ) {
        let mut topics = asked.all();
        let Some(from) = asked.position.as_ref().map(|from| from.place()) else {
            assert!(!said.recovered && said.replayed == 0, "{self}: {said:?}");
            self.subscribe(topics, place.offset, when);
            return;
        };
        let implicit = if self.has_resumed {
            TopicBits::NONE
        } else {
            self.held_at_once()
        };
        self.has_resumed = true;
        if said.recovered {
            topics |= implicit;
            self.rights.resumes(topics);
            self.check_recovered(topics, from..place, said.replayed, sent);
            if said.replayed > 0 && implicit.meets(self.claimed) {
                history.count("a token whose topics were resumed");
            }
            self.subscribe(topics, place.offset, when);
            for index in topics.indices() {
                self.served_from[index] = self.served_from[index].min(from.offset);
            }
        } else {
            assert_eq!(said.replayed, 0, "{self}: refused, and replays");
            self.check_refused(from, place, when);
            history.count("refused");
            self.rights.resumes(TopicBits::NONE);
            self.subscribe(topics, place.offset, when);
        }
    }

    /// Adds topics. Those that it already had keep their start.
    fn subscribe(&mut self, topics: TopicBits, position: u64, when: Timestamp) {
        let new = topics.less(self.topics());
        self.rights.subscribed(new, when);
        for index in new.indices() {
            self.served_from[index] = position;
        }
        self.subscribed |= topics.less(self.implicit);
    }

    fn check_recovered(
        &mut self,
        topics: TopicBits,
        Range { start, end }: Range<EventPlace>,
        replayed: u64,
        sent: Moment,
    ) {
        assert_eq!(
            start.epoch, end.epoch,
            "{self}: recovered from another epoch"
        );
        assert!(
            start.offset <= end.offset,
            "{self}: recovered from the future"
        );
        let span = start.offset..end.offset;
        // A subscription that was lost behind the Subscribe stood when that was taken, or not.
        let lost = iter::once(TopicBits::NONE).chain(self.rights.lost_since(sent));
        let possible = lost.map(|lost| self.replay_of(topics, &span, self.topics() | lost));
        let possible: Vec<_> = possible.collect();
        let unheard = self.log().unplaced_events(span.clone());
        let lacks = |replay: &&Vec<u64>| replayed.checked_sub(replay.len() as u64);
        let replay = possible
            .iter()
            .min_by_key(|replay| lacks(replay).unwrap_or(u64::MAX));
        let replay = replay.filter(|replay| lacks(replay).is_some_and(|lacks| lacks <= unheard));
        let replay = replay.unwrap_or_else(|| {
            panic!("{self}: the replay of {span:?} should be {possible:?} and not {replayed}")
        });
        self.replay_unheard = replayed - replay.len() as u64;
        self.replay.clone_from(replay);
        self.replay_after = start.offset;
    }

    /// Returns the offsets of the events of a replay, less what the subscriptions to `standing`
    /// have brought.
    fn replay_of(&self, topics: TopicBits, span: &Range<u64>, standing: TopicBits) -> Vec<u64> {
        let has_brought = |offset: u64, of_event: TopicBits| {
            let mut standing = (of_event & standing).indices();
            standing.any(|index| self.served_from[index] < offset)
        };
        let wanted = self.log().range(span.clone());
        let wanted = wanted
            .filter(|(_, logged)| logged.topics.meets(topics))
            .filter(|(offset, logged)| !has_brought(*offset, logged.topics));
        wanted.map(|(offset, _)| offset).collect()
    }

    /// Checks that a resume is refused only for one of the contract's reasons.
    fn check_refused(&self, from: EventPlace, place: EventPlace, when: Timestamp) {
        let is_good = self.settings.config.replay.enabled
            && from.epoch == place.epoch
            && from.offset <= place.offset
            && !(from.offset < place.offset && self.log().may_be_evicted(from.offset + 1, when));
        assert!(
            !is_good,
            "{self}: refused to resume from {} to {}",
            from.offset, place.offset
        );
    }
}
