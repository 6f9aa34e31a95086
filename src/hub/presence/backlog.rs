//! What connections have not been sent yet of what they see: single messages for which there was
//! no room, and the users of topics that they have subscribed to.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use sidewire_presence::{PresenceKey, SnapshotCursor, seen};
use sidewire_protocol::{Topic, close::CloseReason};

use super::PresenceMessage;
use crate::{
    event::ClientEvent,
    hub::{membership::TenantMember, subscribers::ConnectionId},
    limits::LimitExceeded,
    outbox::Outbox,
    planted::fault,
    scheduler::{Cost, WorkTicket},
};

/// Keys that are looked up under the lock of a tenant's presence at once.
const KEYS_PER_PART: usize = 16;

/// The connections of a tenant on a shard that have not been sent all that they see.
#[derive(Debug, Default)]
pub(in crate::hub) struct PresenceBacklogs(RefCell<HashMap<ConnectionId, PresenceBacklog>>);

/// What one connection has not been sent.
#[derive(Debug, Default)]
pub(super) struct PresenceBacklog {
    /// Keys of which the connection sees something else than it was sent, each with the message
    /// that it was sent last, if there was one.
    owed: BTreeMap<PresenceKey, Option<Arc<PresenceMessage>>>,
    snapshots: VecDeque<Snapshot>,
    /// Its ticket among the tenant's tasks that wait to work.
    ticket: Option<WorkTicket>,
}

/// A topic of which the connection has not been sent all users.
#[derive(Debug)]
struct Snapshot {
    topic: Topic,
    cursor: Option<SnapshotCursor>,
}

/// The progress of a connection's backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresenceProgress {
    /// More may be left, which is sent when there is room and the tenant is scheduled.
    Continued,
    /// The user has been sent as much as it may be within a minute. The rest waits.
    Limited(LimitExceeded),
}

impl PresenceBacklog {
    fn is_empty(&self) -> bool {
        self.owed.is_empty() && self.snapshots.is_empty()
    }
}

impl PresenceBacklogs {
    /// Notes that the connection has to be sent what it sees of a key. `last` is what it was sent
    /// before. A connection that is owed more than `owed_max` messages is closed.
    pub(super) fn owe(
        &self,
        (id, outbox): (ConnectionId, &Outbox),
        key: &PresenceKey,
        last: Option<&Arc<PresenceMessage>>,
        owed_max: usize,
    ) {
        if fault!(ForgetsOwedPresence) {
            return;
        }
        let mut backlogs = self.0.borrow_mut();
        let owed = &mut backlogs.entry(id).or_default().owed;
        // What it was sent last does not change while it is owed something.
        owed.entry(key.clone()).or_insert_with(|| last.cloned());
        if owed.len() > owed_max {
            outbox.signals().request_end(CloseReason::PresenceOwed);
        }
        outbox.set_owes_presence(true);
    }

    /// Notes that the connection has to be sent the users of these topics.
    pub(super) fn add_snapshots(
        &self,
        (id, outbox): (ConnectionId, &Outbox),
        topics: impl IntoIterator<Item = Topic>,
    ) {
        let snapshots = topics.into_iter().map(|topic| Snapshot {
            topic,
            cursor: None,
        });
        let mut snapshots = snapshots.peekable();
        if snapshots.peek().is_some() {
            let mut backlogs = self.0.borrow_mut();
            backlogs.entry(id).or_default().snapshots.extend(snapshots);
            outbox.set_owes_presence(true);
        }
    }

    /// Forgets a connection that has ended.
    pub(in crate::hub) fn remove(&self, id: ConnectionId) {
        self.0.borrow_mut().remove(&id);
    }

    /// Returns true if the client has been sent the message of this key that its connection sees
    /// on the topic.
    pub(super) fn is_up_to_date(&self, id: ConnectionId, topic: &Topic, key: &PresenceKey) -> bool {
        let backlogs = self.0.borrow();
        backlogs.get(&id).is_none_or(|backlog| {
            let is_sending = |it: &Snapshot| it.topic == *topic;
            !backlog.owed.contains_key(key) && !backlog.snapshots.iter().any(is_sending)
        })
    }

    /// Forgets the snapshots of a topic.
    pub(super) fn remove_snapshots(&self, id: ConnectionId, topic: &Topic) {
        if let Some(backlog) = self.0.borrow_mut().get_mut(&id) {
            backlog
                .snapshots
                .retain(|snapshot| snapshot.topic != *topic);
        }
    }

    /// Returns true if some of the backlog may be sent now. `is_limited`: true while no snapshot
    /// may be sent.
    pub(super) fn may_send(&self, member: &TenantMember, is_limited: bool) -> bool {
        let mut backlogs = self.0.borrow_mut();
        let Some(backlog) = backlogs.get_mut(&member.id()) else {
            return false;
        };
        if backlog.owed.is_empty() && (is_limited || backlog.snapshots.is_empty()) {
            backlog.ticket = None;
            return false;
        }
        if !member.outbox().is_half_free() {
            // Others need not wait for a client that does not read.
            backlog.ticket = None;
            return false;
        }
        member.may_work(&mut backlog.ticket)
    }

    /// Gives up the connection's place among the tenant's tasks that wait to work, so that no other
    /// waits for it.
    pub(super) fn postpone(&self, id: ConnectionId) {
        let mut backlogs = self.0.borrow_mut();
        let ticket = backlogs.get_mut(&id).and_then(|it| it.ticket.take());
        // Dropping it wakes the next one.
        drop(backlogs);
        drop(ticket);
    }

    /// Sends a part of the backlog. `charge` charges a message of a snapshot.
    pub(super) fn send_some(
        &self,
        member: &TenantMember,
        charge: impl FnMut() -> Result<(), LimitExceeded>,
    ) -> PresenceProgress {
        let id = member.id();
        let Some(backlog) = self.0.borrow_mut().remove(&id) else {
            return PresenceProgress::Continued;
        };
        let mut sending = Sending {
            member,
            backlog,
            cost: Cost::ZERO,
        };
        let progress = sending.run(charge);
        member.charge(sending.cost);
        let mut backlog = sending.backlog;
        // Joins the end of the queue next time.
        backlog.ticket = None;
        if backlog.is_empty() {
            member.outbox().set_owes_presence(false);
        } else {
            self.0.borrow_mut().insert(id, backlog);
        }
        progress
    }
}

/// One slice of sending a backlog.
struct Sending<'a> {
    member: &'a TenantMember,
    backlog: PresenceBacklog,
    cost: Cost,
}

impl Sending<'_> {
    fn run(&mut self, mut charge: impl FnMut() -> Result<(), LimitExceeded>) -> PresenceProgress {
        let quota = self.member.quota();
        while self.cost < quota && self.member.outbox().is_half_free() {
            if let Some((key, last)) = self.backlog.owed.pop_first() {
                self.send_owed(&key, last);
            } else if let Some(snapshot) = self.backlog.snapshots.pop_front() {
                let (rest, limited) = self.send_snapshot(snapshot, &mut charge);
                if let Some(rest) = rest {
                    self.backlog.snapshots.push_front(rest);
                }
                if let Err(limited) = limited {
                    return PresenceProgress::Limited(limited);
                }
            } else {
                break;
            }
        }
        PresenceProgress::Continued
    }

    fn send_owed(&mut self, key: &PresenceKey, last: Option<Arc<PresenceMessage>>) {
        let member = self.member;
        let entries = member.presence().applied(member.key().shard, key);
        self.cost += Cost::TOPIC + Cost::STEP.times(entries.len());
        let sees = seen(&entries, |topic| member.is_subscribed(topic));
        match (sees, last) {
            (Some(entry), _) if entry.connection == member.key() => {}
            (Some(entry), _) => self.send(entry.message.event()),
            (None, Some(last)) => {
                if let Some(absent) = member.absent(&last) {
                    self.send(absent);
                }
            }
            (None, None) => {}
        }
    }

    /// Sends a part of what is present on a topic. Returns what is left of it.
    fn send_snapshot(
        &mut self,
        mut snapshot: Snapshot,
        charge: &mut impl FnMut() -> Result<(), LimitExceeded>,
    ) -> (Option<Snapshot>, Result<(), LimitExceeded>) {
        let member = self.member;
        let part = member.presence().snapshot_part(
            member.key().shard,
            &snapshot.topic,
            snapshot.cursor.as_ref(),
            KEYS_PER_PART,
        );
        for applied in part.keys {
            self.cost += Cost::TOPIC + Cost::STEP.times(applied.entries.len());
            let sees = seen(&applied.entries, |topic| member.is_subscribed(topic));
            if let Some(entry) = sees.filter(|entry| entry.connection != member.key()) {
                if let Err(limited) = charge() {
                    return (Some(snapshot), Err(limited));
                }
                self.send(entry.message.event());
            }
            snapshot.cursor = Some(applied.cursor);
        }
        let rest = part.next.map(|next| Snapshot {
            cursor: Some(next),
            ..snapshot
        });
        (rest, Ok(()))
    }

    fn send(&mut self, event: &Arc<ClientEvent>) {
        self.cost += Cost::FRAME + self.member.push_presence(event);
    }
}
