//! What a client may resume from, by the protocol's rules: a position for the
//! topics of each Subscribe until its replay is over, then one for all of them.
//! Pure: it is told what was asked for and what came.

use std::{collections::BTreeMap, mem};

use super::{
    group::{Gap, Group, GroupId, merged, move_on, offset_in, rank},
    had::Had,
};
use crate::protocol::wire::{Position, SubscriptionConfirmed};

/// How many events are remembered for topics that the relay does not take. While
/// it owes an answer there may be more: as many as its window holds.
const HAD_OFFSETS_MAX: usize = 100_000;

/// A group whose missed events are coming.
#[derive(Debug)]
struct Replay {
    group: Group,
    /// The last one's.
    position: Position,
    left: u64,
}

/// Every topic of a client, and what was had of it.
#[derive(Debug)]
pub(super) struct Positions {
    /// Not confirmed on this connection.
    held: BTreeMap<GroupId, Group>,
    replay: Option<Replay>,
    /// Confirmed; without a position before the first confirmation.
    live: Group,
    next_id: GroupId,
    had: Had,
    pub(super) had_offsets_max: usize,
    /// The lowest offset that a held group has in the epoch of `had`.
    held_lowest: Option<u64>,
    gaps: Vec<Gap>,
}

impl Default for Positions {
    fn default() -> Self {
        let implicit = Group {
            implicit: true,
            ..Group::default()
        };
        Self {
            held: BTreeMap::from([(0, implicit)]),
            replay: None,
            live: Group::default(),
            next_id: 1,
            had: Had::default(),
            had_offsets_max: HAD_OFFSETS_MAX,
            held_lowest: None,
            gaps: Vec::new(),
        }
    }
}

impl Positions {
    /// Lets topics that have no position yet begin after this one, the implicit
    /// ones too.
    pub(super) fn start_from(&mut self, position: &Position) {
        for group in self.held.values_mut() {
            group.position.get_or_insert_with(|| position.clone());
        }
        self.had.begin(&position.epoch);
        self.settle();
    }

    /// Adds topics, none of which is there, in groups that the relay takes in one
    /// Subscribe each.
    pub(super) fn add(&mut self, topics: Vec<String>) -> Vec<GroupId> {
        let groups = Group {
            topics: topics.into_iter().collect(),
            ..Group::default()
        };
        groups.split().map(|group| self.hold(group)).collect()
    }

    /// Takes topics away, and their positions with them.
    pub(super) fn remove(&mut self, topics: &[String]) {
        let replay = self.replay.iter_mut().map(|replay| &mut replay.group);
        let groups = self.held.values_mut().chain(replay).chain([&mut self.live]);
        for group in groups {
            for topic in topics {
                group.topics.shift_remove(topic);
            }
        }
        self.held.retain(|_, group| !group.is_idle());
        self.settle();
    }

    /// What to ask a new connection for, the lowest position first, for the implicit
    /// topics belong to the first Subscribe that resumes.
    pub(super) fn begin(&mut self) -> Vec<GroupId> {
        self.end();
        let mut groups = merged(mem::take(&mut self.held).into_values());
        let home = groups.iter().find(|group| group.implicit);
        let home = home.and_then(|group| group.position.clone());
        groups.sort_by_key(|group| rank(group.position.as_ref(), home.as_ref()));
        // Its position is at or below theirs, or they have none: they may go with it.
        for (place, group) in groups.iter_mut().enumerate() {
            group.implicit = place == 0;
        }
        let groups = groups.into_iter().filter(|group| !group.is_idle());
        let groups: Vec<_> = groups.flat_map(Group::split).collect();
        let ids = groups.into_iter().map(|group| self.hold(group)).collect();
        self.settle();
        ids
    }

    /// The connection is over: nothing is confirmed any more, nothing owed.
    pub(super) fn end(&mut self) {
        self.end_replay();
        let live = mem::take(&mut self.live);
        if !live.is_idle() {
            self.hold(live);
        }
        for group in self.held.values_mut() {
            group.is_asked = false;
        }
        self.settle();
    }

    /// What a group's Subscribe says, which is about to be sent; nothing where its
    /// topics were all taken away.
    pub(super) fn ask(&mut self, id: GroupId) -> Option<(Vec<String>, Option<Position>)> {
        let group = self.held.get_mut(&id)?;
        group.is_asked = true;
        group.is_named = !group.topics.is_empty();
        Some((
            group.topics.iter().cloned().collect(),
            group.position.clone(),
        ))
    }

    /// The relay took a group.
    pub(super) fn confirmed(&mut self, id: GroupId, confirmed: &SubscriptionConfirmed) {
        let Some(position) = &confirmed.position else {
            return;
        };
        let Some(mut group) = self.held.remove(&id) else {
            return;
        };
        self.end_replay();
        self.live.position = Some(position.clone());
        self.enter(&position.epoch);
        match group.position.take() {
            Some(position) if confirmed.recovered && confirmed.replayed > 0 => {
                let left = confirmed.replayed;
                self.replay = Some(Replay {
                    group,
                    position,
                    left,
                });
            }
            asked_from => {
                if let Some(since) = asked_from.filter(|_| !confirmed.recovered) {
                    self.gaps.push(group.gap(since));
                }
                self.live.join(group);
            }
        }
        self.settle();
    }

    /// The relay refused a group, which is asked for again on the next connection.
    /// What it refused are the topics that the Subscribe named, if any: the implicit
    /// ones are then a group of their own, to be asked for before all others.
    pub(super) fn refused(&mut self, id: GroupId) -> Option<GroupId> {
        let group = self.held.get_mut(&id)?;
        let implicit = (group.is_named && mem::take(&mut group.implicit)).then(|| Group {
            implicit: true,
            position: group.position.clone(),
            ..Group::default()
        });
        let implicit = implicit.map(|group| self.hold(group));
        self.deferred(id);
        implicit
    }

    /// The relay could not take a group at this moment.
    pub(super) fn deferred(&mut self, id: GroupId) {
        if let Some(group) = self.held.get_mut(&id) {
            group.is_asked = false;
        }
        self.held.retain(|_, group| !group.is_idle());
        self.settle();
    }

    /// Whether an answer is owed on which the implicit topics depend.
    pub(super) fn owes_implicit(&self) -> bool {
        let mut groups = self.held.values();
        groups.any(|group| group.implicit && group.is_asked)
    }

    /// Takes an event's position, and says whether the event was not had before.
    pub(super) fn take(&mut self, position: &Position) -> bool {
        self.enter(&position.epoch);
        let offset = position.offset;
        let had = self.floor().is_some_and(|floor| offset <= floor) || self.had.contains(offset);
        self.advance(position);
        if !had && self.held_lowest.is_some_and(|lowest| offset > lowest) {
            self.had.insert(offset);
            if self.had.len() > self.had_offsets_max {
                self.give_up();
            }
        }
        !had
    }

    /// The relay says where the connection stands: all that confirmed topics were to bring
    /// up to there has come. It says so only while no replay is under way.
    pub(super) fn stands_at(&mut self, position: &Position) {
        if self.replay.is_none()
            && let Some(live) = &mut self.live.position
        {
            move_on(live, position);
        }
    }

    /// What was missed, and was not told yet.
    pub(super) fn next_gap(&mut self) -> Option<Gap> {
        (!self.gaps.is_empty()).then(|| self.gaps.remove(0))
    }

    /// How many offsets are kept in mind.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.had.len()
    }

    fn advance(&mut self, position: &Position) {
        let Some(replay) = &mut self.replay else {
            if let Some(live) = &mut self.live.position {
                move_on(live, position);
            }
            return;
        };
        move_on(&mut replay.position, position);
        replay.left = replay.left.saturating_sub(1);
        if replay.left == 0 {
            let replay = self.replay.take();
            self.live
                .join(replay.map(|it| it.group).unwrap_or_default());
            self.settle();
        }
    }

    /// What is left of a replay is owed again.
    fn end_replay(&mut self) {
        if let Some(replay) = self.replay.take() {
            self.hold(Group {
                position: Some(replay.position),
                is_asked: false,
                ..replay.group
            });
        }
    }

    /// Forgets the lowest position, where no answer is owed that could tell its
    /// fate: a relay that refuses a Subscribe would have all later events remembered.
    fn give_up(&mut self) {
        let epoch = self.had.epoch();
        let in_epoch = |group: &&mut Group| group.offset_in(epoch).is_some();
        let mut groups: Vec<_> = self.held.values_mut().filter(in_epoch).collect();
        if groups.iter().any(|group| group.is_asked) {
            return;
        }
        for group in &mut groups {
            if group.offset_in(epoch) == self.held_lowest
                && let Some(since) = group.position.take()
            {
                self.gaps.push(group.gap(since));
            }
        }
        self.settle();
    }

    fn hold(&mut self, group: Group) -> GroupId {
        let id = self.next_id;
        self.next_id += 1;
        self.held.insert(id, group);
        id
    }

    fn enter(&mut self, epoch: &str) {
        if self.had.epoch() != epoch {
            self.had.begin(epoch);
            self.settle();
        }
    }

    /// After a change of the groups: what can still come again?
    fn settle(&mut self) {
        let epoch = self.had.epoch();
        let offsets = self.held.values().filter_map(|it| it.offset_in(epoch));
        self.held_lowest = offsets.min();
        let floor = if self.held_lowest.is_none() && self.replay.is_none() {
            None
        } else {
            self.floor()
        };
        self.had.forget_up_to(floor);
    }

    /// The lowest position: everything up to here was had.
    fn floor(&self) -> Option<u64> {
        let epoch = self.had.epoch();
        let replay = self.replay.as_ref().map(|replay| &replay.position);
        let replay = replay.and_then(|position| offset_in(position, epoch));
        let offsets = [self.held_lowest, replay, self.live.offset_in(epoch)];
        offsets.into_iter().flatten().min()
    }
}
