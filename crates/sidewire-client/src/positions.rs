//! The positions that a client may resume from, by the protocol's rules: one for the
//! topics of each Subscribe until its replay is over, then one for all topics.
//! Does no I/O: the caller passes in requests and received messages.

use std::{collections::BTreeMap, mem};

use sidewire_protocol::wire::{Position, SubscriptionConfirmed};

use super::{
    group::{
        EventGap, GroupId, TopicGroup, merge_by_position, offset_in, raise_position, resume_order,
    },
    seen_offsets::SeenOffsets,
};

/// The most offsets that are remembered for topics that the relay refuses to subscribe.
/// While an answer is outstanding there may be more, up to the relay's window.
const HAD_OFFSETS_MAX: usize = 100_000;

/// A group for which a replay is under way.
#[derive(Debug)]
struct ReplayInProgress {
    group: TopicGroup,
    /// The position of the last replayed event.
    position: Position,
    /// Number of events still to come.
    left: u64,
}

/// All topics of a client, and the position up to which each was received.
#[derive(Debug)]
pub(super) struct ResumePositions {
    /// Groups that are not confirmed on this connection.
    held: BTreeMap<GroupId, TopicGroup>,
    replay: Option<ReplayInProgress>,
    /// The confirmed topics; without a position before the first confirmation.
    live: TopicGroup,
    next_id: GroupId,
    had: SeenOffsets,
    pub(super) had_offsets_max: usize,
    /// The lowest offset of a held group in the epoch of `had`.
    held_lowest: Option<u64>,
    gaps: Vec<EventGap>,
}

impl Default for ResumePositions {
    fn default() -> Self {
        let implicit = TopicGroup {
            implicit: true,
            ..TopicGroup::default()
        };
        Self {
            held: BTreeMap::from([(0, implicit)]),
            replay: None,
            live: TopicGroup::default(),
            next_id: 1,
            had: SeenOffsets::default(),
            had_offsets_max: HAD_OFFSETS_MAX,
            held_lowest: None,
            gaps: Vec::new(),
        }
    }
}

impl ResumePositions {
    /// Sets the starting position of topics that have none yet, the implicit ones included.
    pub(super) fn start_from(&mut self, position: &Position) {
        for group in self.held.values_mut() {
            group.position.get_or_insert_with(|| position.clone());
        }
        self.had.start_epoch(&position.epoch);
        self.forget_settled();
    }

    /// Adds new topics, in groups that each fit into one Subscribe.
    pub(super) fn add_topics(&mut self, topics: Vec<String>) -> Vec<GroupId> {
        let groups = TopicGroup {
            topics: topics.into_iter().collect(),
            ..TopicGroup::default()
        };
        groups
            .split_to_fit()
            .map(|group| self.hold_group(group))
            .collect()
    }

    /// Removes topics and their positions.
    pub(super) fn remove_topics(&mut self, topics: &[String]) {
        let replay = self.replay.iter_mut().map(|replay| &mut replay.group);
        let groups = self.held.values_mut().chain(replay).chain([&mut self.live]);
        for group in groups {
            for topic in topics {
                group.topics.shift_remove(topic);
            }
        }
        self.held.retain(|_, group| !group.is_idle());
        self.forget_settled();
    }

    /// Removes those of the topics that are confirmed on this connection, with their positions,
    /// and returns them.
    pub(super) fn remove_confirmed(&mut self, topics: &[String]) -> Vec<String> {
        let replay = self.replay.iter_mut().map(|replay| &mut replay.group);
        let mut ended = Vec::new();
        for group in replay.chain([&mut self.live]) {
            let removed = topics.iter().filter_map(|it| group.topics.shift_take(it));
            ended.extend(removed);
        }
        ended
    }

    /// Returns the groups to subscribe on a new connection, the lowest position first,
    /// since the first Subscribe that resumes also resumes the implicit topics.
    pub(super) fn start_connection(&mut self) -> Vec<GroupId> {
        self.end_connection();
        let mut groups = merge_by_position(mem::take(&mut self.held).into_values());
        let home = groups.iter().find(|group| group.implicit);
        let home = home.and_then(|group| group.position.clone());
        groups.sort_by_key(|group| resume_order(group.position.as_ref(), home.as_ref()));
        // The first group's position is at or below that of the implicit topics, or these
        // have none: so the implicit topics can join it.
        for (place, group) in groups.iter_mut().enumerate() {
            group.implicit = place == 0;
        }
        let groups = groups.into_iter().filter(|group| !group.is_idle());
        let groups: Vec<_> = groups.flat_map(TopicGroup::split_to_fit).collect();
        let ids = groups
            .into_iter()
            .map(|group| self.hold_group(group))
            .collect();
        self.forget_settled();
        ids
    }

    /// Handles the end of the connection: no group is confirmed or asked for any more.
    pub(super) fn end_connection(&mut self) {
        self.end_replay();
        let live = mem::take(&mut self.live);
        if !live.is_idle() {
            self.hold_group(live);
        }
        for group in self.held.values_mut() {
            group.is_asked = false;
        }
        self.forget_settled();
    }

    /// Returns the topics and position for a group's Subscribe, which is about to be sent;
    /// `None` if all its topics were removed.
    pub(super) fn prepare_subscribe(
        &mut self,
        id: GroupId,
    ) -> Option<(Vec<String>, Option<Position>)> {
        let group = self.held.get_mut(&id)?;
        group.is_asked = true;
        group.is_named = !group.topics.is_empty();
        Some((
            group.topics.iter().cloned().collect(),
            group.position.clone(),
        ))
    }

    /// Handles the confirmation of a group.
    pub(super) fn on_confirmed(&mut self, id: GroupId, confirmed: &SubscriptionConfirmed) {
        let Some(position) = &confirmed.position else {
            return;
        };
        let Some(mut group) = self.held.remove(&id) else {
            return;
        };
        self.end_replay();
        self.live.position = Some(position.clone());
        self.enter_epoch(&position.epoch);
        match group.position.take() {
            Some(position) if confirmed.recovered && confirmed.replayed > 0 => {
                let left = confirmed.replayed;
                self.replay = Some(ReplayInProgress {
                    group,
                    position,
                    left,
                });
            }
            asked_from => {
                if let Some(since) = asked_from.filter(|_| !confirmed.recovered) {
                    self.gaps.extend(group.gap_since(since));
                }
                self.live.absorb_group(group);
            }
        }
        self.forget_settled();
    }

    /// Handles the refusal of a group, which is asked for again on the next connection.
    /// If the Subscribe listed topics, only these were refused: the implicit topics then
    /// become a group of their own, which is returned and must be subscribed first.
    pub(super) fn on_refused(&mut self, id: GroupId) -> Option<GroupId> {
        let group = self.held.get_mut(&id)?;
        let implicit = (group.is_named && mem::take(&mut group.implicit)).then(|| TopicGroup {
            implicit: true,
            position: group.position.clone(),
            ..TopicGroup::default()
        });
        let implicit = implicit.map(|group| self.hold_group(group));
        self.on_deferred(id);
        implicit
    }

    /// Handles a temporary refusal of a group.
    pub(super) fn on_deferred(&mut self, id: GroupId) {
        if let Some(group) = self.held.get_mut(&id) {
            group.is_asked = false;
        }
        self.held.retain(|_, group| !group.is_idle());
        self.forget_settled();
    }

    /// Returns true while the Subscribe that includes the implicit topics is not answered.
    pub(super) fn awaits_implicit(&self) -> bool {
        let mut groups = self.held.values();
        groups.any(|group| group.implicit && group.is_asked)
    }

    /// Records an event's position. Returns true if the event was not received before.
    pub(super) fn accept_event(&mut self, position: &Position) -> bool {
        self.enter_epoch(&position.epoch);
        let offset = position.offset;
        let had =
            self.lowest_offset().is_some_and(|floor| offset <= floor) || self.had.contains(offset);
        self.advance_position(position);
        if !had && self.held_lowest.is_some_and(|lowest| offset > lowest) {
            self.had.insert(offset);
            if self.had.len() > self.had_offsets_max {
                self.give_up_lowest();
            }
        }
        !had
    }

    /// Records the connection's position from a Pong: every event of the confirmed topics
    /// up to it has arrived. The relay sends it only while no replay is under way.
    pub(super) fn advance_live(&mut self, position: &Position) {
        if self.replay.is_none()
            && let Some(live) = &mut self.live.position
        {
            raise_position(live, position);
        }
    }

    /// Returns the next gap that was not reported yet.
    pub(super) fn next_gap(&mut self) -> Option<EventGap> {
        (!self.gaps.is_empty()).then(|| self.gaps.remove(0))
    }

    /// Number of remembered offsets.
    #[cfg(test)]
    pub(super) fn remembered_offsets(&self) -> usize {
        self.had.len()
    }

    fn advance_position(&mut self, position: &Position) {
        let Some(replay) = &mut self.replay else {
            if let Some(live) = &mut self.live.position {
                raise_position(live, position);
            }
            return;
        };
        raise_position(&mut replay.position, position);
        replay.left = replay.left.saturating_sub(1);
        if replay.left == 0 {
            let replay = self.replay.take();
            self.live
                .absorb_group(replay.map(|it| it.group).unwrap_or_default());
            self.forget_settled();
        }
    }

    /// Ends an unfinished replay; its group is held again, at the last replayed position.
    fn end_replay(&mut self) {
        if let Some(replay) = self.replay.take() {
            self.hold_group(TopicGroup {
                position: Some(replay.position),
                is_asked: false,
                ..replay.group
            });
        }
    }

    /// Gives up the groups at the lowest position and reports their gap, unless a
    /// Subscribe is still unanswered. Otherwise a relay that refuses a Subscribe would make
    /// the client remember every later event.
    fn give_up_lowest(&mut self) {
        let epoch = self.had.epoch();
        let in_epoch = |group: &&mut TopicGroup| group.offset_in(epoch).is_some();
        let mut groups: Vec<_> = self.held.values_mut().filter(in_epoch).collect();
        if groups.iter().any(|group| group.is_asked) {
            return;
        }
        for group in &mut groups {
            if group.offset_in(epoch) == self.held_lowest
                && let Some(since) = group.position.take()
            {
                self.gaps.extend(group.gap_since(since));
            }
        }
        self.forget_settled();
    }

    fn hold_group(&mut self, group: TopicGroup) -> GroupId {
        let id = self.next_id;
        self.next_id += 1;
        self.held.insert(id, group);
        id
    }

    fn enter_epoch(&mut self, epoch: &str) {
        if self.had.epoch() != epoch {
            self.had.start_epoch(epoch);
            self.forget_settled();
        }
    }

    /// Forgets the offsets that cannot arrive again. Called after each change of the groups.
    fn forget_settled(&mut self) {
        let epoch = self.had.epoch();
        let offsets = self.held.values().filter_map(|it| it.offset_in(epoch));
        self.held_lowest = offsets.min();
        let floor = if self.held_lowest.is_none() && self.replay.is_none() {
            None
        } else {
            self.lowest_offset()
        };
        self.had.forget_up_to(floor);
    }

    /// Returns the lowest offset of all groups: every event up to it was received.
    fn lowest_offset(&self) -> Option<u64> {
        let epoch = self.had.epoch();
        let replay = self.replay.as_ref().map(|replay| &replay.position);
        let replay = replay.and_then(|position| offset_in(position, epoch));
        let offsets = [self.held_lowest, replay, self.live.offset_in(epoch)];
        offsets.into_iter().flatten().min()
    }
}
