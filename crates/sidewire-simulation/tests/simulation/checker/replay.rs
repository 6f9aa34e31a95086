//! Checks what a SubscriptionConfirmed says about a resume, and computes the replay that must
//! follow it.

use super::connection::ConnectionChecker;
use crate::{
    history::{History, Timestamp},
    messages::{EventPlace, WireTopics},
    topics::TopicBits,
};

impl ConnectionChecker<'_> {
    /// Checks and applies a confirmation, after its position has been checked.
    pub(super) fn check_replay_and_subscribe(
        &mut self,
        asked: &WireTopics,
        said: &WireTopics,
        place: EventPlace,
        when: Timestamp,
        history: &History,
    ) {
        let mut topics = asked.all();
        let Some(from) = asked.position.as_ref().map(|from| from.place()) else {
            assert!(!said.recovered && said.replayed == 0, "{self}: {said:?}");
            self.subscribe(topics, place.offset);
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
            self.check_recovered(topics, from, place, said.replayed);
            if said.replayed > 0 && implicit.meets(self.claimed) {
                history.count("a token whose topics were resumed");
            }
            self.subscribe(topics, place.offset);
            for index in topics.indices() {
                self.served_from[index] = self.served_from[index].min(from.offset);
            }
        } else {
            assert_eq!(said.replayed, 0, "{self}: refused, and replays");
            self.check_refused(from, place, when);
            history.count("refused");
            self.subscribe(topics, place.offset);
        }
    }

    /// Adds topics. Those that it already had keep their start.
    fn subscribe(&mut self, topics: TopicBits, position: u64) {
        for index in topics.less(self.topics()).indices() {
            self.served_from[index] = position;
        }
        self.subscribed |= topics.less(self.implicit);
    }

    fn check_recovered(
        &mut self,
        topics: TopicBits,
        from: EventPlace,
        place: EventPlace,
        replayed: u64,
    ) {
        assert_eq!(
            from.epoch, place.epoch,
            "{self}: recovered from another epoch"
        );
        assert!(
            from.offset <= place.offset,
            "{self}: recovered from the future"
        );
        let wanted = self.log().range(from.offset..place.offset);
        let wanted = wanted
            .filter(|(_, logged)| logged.topics.meets(topics))
            .filter(|(offset, logged)| !self.has_brought(*offset, logged.topics))
            .map(|(offset, _)| offset);
        self.replay = wanted.collect();
        self.replay_after = from.offset;
        let known = self.replay.len() as u64;
        let unheard = self.log().unplaced_events(from.offset..place.offset);
        assert!(
            (known..=known + unheard).contains(&replayed),
            "{self}: from {} to {} the replay should be {:?} and not {replayed}",
            from.offset,
            place.offset,
            self.replay
        );
        self.replay_unheard = replayed - known;
    }

    /// Returns true if an existing subscription has already delivered the event.
    fn has_brought(&self, offset: u64, topics: TopicBits) -> bool {
        let mut standing = (topics & self.topics()).indices();
        standing.any(|index| self.served_from[index] < offset)
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
