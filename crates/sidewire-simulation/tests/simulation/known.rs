//! A client's knowledge of the positions from which it may resume, by the contract's rule: one
//! for the topics of each Subscribe, and one for the implicit topics.

use super::{messages::EventPlace, topics::TopicBits};

/// The topics of one Subscribe.
#[derive(Debug, Clone)]
pub(super) struct SubscriptionGroup {
    pub(super) topics: TopicBits,
    /// The client has all events of these topics after this position...
    pub(super) from: EventPlace,
    /// ...up to this one, from which it may resume.
    pub(super) at: EventPlace,
    state: GroupState,
    /// True if these are the implicit topics.
    is_implicit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupState {
    /// Not confirmed yet on this connection.
    Stale,
    Replaying,
    Live,
}

/// A Subscribe that is not answered yet.
#[derive(Debug)]
struct UnansweredSubscribe {
    request: String,
    topics: TopicBits,
    resume_from: Option<EventPlace>,
    /// True for the first resume of a connection, which resumes the implicit topics too.
    is_first: bool,
}

#[derive(Debug)]
pub(super) struct ResumeModel {
    /// Includes the topics of its tokens.
    implicit: TopicBits,
    /// The implicit topics that the client has not unsubscribed from on this connection.
    implicit_now: TopicBits,
    pub(super) groups: Vec<SubscriptionGroup>,
    pending: Vec<UnansweredSubscribe>,
    has_resumed: bool,
    /// The running replay: the number of events still to come, and the confirmed position.
    replay: Option<(u64, EventPlace)>,
}

impl ResumeModel {
    pub(super) fn new(implicit: TopicBits) -> Self {
        Self {
            implicit,
            implicit_now: implicit,
            groups: Vec::new(),
            pending: Vec::new(),
            has_resumed: false,
            replay: None,
        }
    }

    /// Starts a new connection. Returns the topics and positions to resume, in this order. The
    /// first set of topics may be empty.
    pub(super) fn reconnected(&mut self) -> Vec<(TopicBits, EventPlace)> {
        self.pending.clear();
        self.implicit_now = self.implicit;
        self.has_resumed = false;
        self.replay = None;
        for group in &mut self.groups {
            group.state = GroupState::Stale;
        }
        self.groups
            .sort_by_key(|group| (group.at, group.is_implicit));
        let Some(lowest) = self.groups.first() else {
            return Vec::new();
        };
        let alone = lowest.is_implicit.then_some((TopicBits::NONE, lowest.at));
        let asked = self.groups.iter().filter(|group| !group.is_implicit);
        alone
            .into_iter()
            .chain(asked.map(|group| (group.topics, group.at)))
            .collect()
    }

    pub(super) fn subscribing(
        &mut self,
        request: &str,
        topics: TopicBits,
        from: Option<EventPlace>,
    ) {
        self.pending.push(UnansweredSubscribe {
            request: request.to_owned(),
            topics,
            resume_from: from,
            is_first: from.is_some() && !self.has_resumed,
        });
        self.has_resumed |= from.is_some();
    }

    /// Unsubscribes from topics. Returns the groups that held them.
    pub(super) fn unsubscribing(&mut self, topics: TopicBits) -> Vec<SubscriptionGroup> {
        let had = self
            .groups
            .iter()
            .filter(|group| group.topics.meets(topics));
        let had = had.cloned().collect();
        for group in &mut self.groups {
            group.topics = group.topics.less(topics);
        }
        self.implicit_now = self.implicit_now.less(topics);
        for pending in &mut self.pending {
            pending.topics = pending.topics.less(topics);
        }
        self.groups.retain(|group| !group.topics.is_empty());
        had
    }

    /// Loses subscriptions. Returns the groups that held them. A Subscribe that is not answered
    /// yet had not been taken, and those of earlier connections have not begun.
    pub(super) fn lost(&mut self, topics: TopicBits) -> Vec<SubscriptionGroup> {
        let mut had = Vec::new();
        for group in &mut self.groups {
            let is_held = group.is_implicit || group.state != GroupState::Stale;
            if is_held && group.topics.meets(topics) {
                had.push(group.clone());
                group.topics = group.topics.less(topics);
            }
        }
        self.implicit_now = self.implicit_now.less(topics);
        self.groups.retain(|group| !group.topics.is_empty());
        had
    }

    /// Returns true if every Subscribe is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns the topics that it has subscribed to.
    pub(super) fn subscribed_topics(&self) -> TopicBits {
        let asked = self.groups.iter().filter(|group| !group.is_implicit);
        asked.fold(self.implicit_now, |all, group| all | group.topics)
    }

    pub(super) fn refused(&mut self, request: &str) {
        self.pending.retain(|pending| pending.request != request);
    }

    /// Applies a confirmation. Returns the groups that now have a gap, as they were before.
    pub(super) fn subscribed(
        &mut self,
        request: &str,
        place: EventPlace,
        recovered: bool,
        replayed: u64,
    ) -> Vec<SubscriptionGroup> {
        for group in &mut self.groups {
            if group.state == GroupState::Live {
                group.at = place;
            }
        }
        let Some(index) = self.pending.iter().position(|it| it.request == request) else {
            return Vec::new();
        };
        let pending = self.pending.remove(index);
        let mut lost = Vec::new();
        if pending.is_first || self.groups.iter().all(|group| !group.is_implicit) {
            lost.extend(self.confirm(self.implicit_now, &pending, place, recovered, true));
        }
        if !pending.topics.is_empty() {
            lost.extend(self.confirm(pending.topics, &pending, place, recovered, false));
        }
        if recovered && replayed > 0 {
            self.replay = Some((replayed, place));
        } else {
            self.replay_is_over(place);
        }
        lost
    }

    fn confirm(
        &mut self,
        topics: TopicBits,
        pending: &UnansweredSubscribe,
        place: EventPlace,
        recovered: bool,
        is_implicit: bool,
    ) -> Option<SubscriptionGroup> {
        let at = pending.resume_from.filter(|_| recovered).unwrap_or(place);
        let old = self.groups.iter_mut().find(|group| {
            let is_resumed =
                group.state == GroupState::Stale && pending.resume_from == Some(group.at);
            group.is_implicit == is_implicit
                && (is_implicit || is_resumed && group.topics == topics)
        });
        let Some(group) = old else {
            self.groups.push(SubscriptionGroup {
                topics,
                from: at,
                at,
                state: GroupState::Replaying,
                is_implicit,
            });
            return None;
        };
        group.state = GroupState::Replaying;
        if recovered && at.epoch == group.at.epoch && at <= group.at {
            group.at = at;
            return None;
        }
        let lost = group.clone();
        (group.from, group.at) = (at, at);
        Some(lost)
    }

    pub(super) fn got(&mut self, place: EventPlace) {
        let moving = if self.replay.is_some() {
            GroupState::Replaying
        } else {
            GroupState::Live
        };
        for group in &mut self.groups {
            if group.state == moving {
                group.at = place;
            }
        }
        if let Some((left, confirmed)) = &mut self.replay {
            *left -= 1;
            if *left == 0 {
                let confirmed = *confirmed;
                self.replay_is_over(confirmed);
            }
        }
    }

    /// Applies a position of the connection, which the relay does not report during a replay.
    pub(super) fn stands_at(&mut self, place: EventPlace) {
        assert!(self.replay.is_none(), "{place:?} during a replay");
        for group in &mut self.groups {
            if group.state == GroupState::Live {
                group.at = group.at.max(place);
            }
        }
    }

    fn replay_is_over(&mut self, place: EventPlace) {
        self.replay = None;
        for group in &mut self.groups {
            if group.state == GroupState::Replaying {
                (group.at, group.state) = (place, GroupState::Live);
            }
        }
    }
}
