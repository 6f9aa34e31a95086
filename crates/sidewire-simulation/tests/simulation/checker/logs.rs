//! Reconstructs each tenant's log from the recorded answers and frames.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
};

use crate::{
    events::Serial,
    history::{History, Moment, PostRecord, Timestamp},
    messages::EventPlace,
    record::FrameContent,
    topics::{TENANTS, TopicBits},
    world::{COST_MAX, SimulationSettings},
};

pub(super) struct ModelLogs {
    logs: BTreeMap<(usize, u128), ModelLog>,
    empty: ModelLog,
}

/// A tenant's log of one epoch.
#[derive(Default)]
pub(super) struct ModelLog {
    events: BTreeMap<u64, ModelEvent>,
    /// The times at which events with lost answers were sent. It is unknown if they are in the
    /// log.
    lost: Vec<Moment>,
    window: ModelWindow,
}

#[derive(Default, Clone, Copy)]
struct ModelWindow {
    is_open: bool,
    events: u64,
    bytes: usize,
    /// The tenant's guaranteed share of the process-wide bytes.
    share_bytes: usize,
    age: std::time::Duration,
}

pub(super) struct ModelEvent {
    pub(super) serial: Serial,
    /// Its topics and the wildcards that bring it.
    pub(super) topics: TopicBits,
    /// When it was sent; it was not in the log before.
    pub(super) sent: Timestamp,
    /// When it was known to be in the log and queued by every shard.
    pub(super) queued: Option<Timestamp>,
    /// When it was known to be in the log.
    pub(super) acknowledged: Option<Timestamp>,
    cost_max: usize,
}

impl ModelLogs {
    pub(super) fn reconstruct(history: &History, settings: &SimulationSettings) -> Self {
        let replay = &settings.config.replay;
        let mut logs = Self {
            logs: BTreeMap::new(),
            empty: ModelLog::default(),
        };
        for post in history.posts.borrow().iter() {
            let placed = post.answer.iter().flat_map(|answer| &answer.results);
            for (serial, placed) in post.events.iter().zip(placed) {
                logs.insert_event(history, *serial, placed.place);
            }
        }
        for connection in history.connections.borrow().iter() {
            for heard in &connection.heard {
                if let FrameContent::Event { serial, place, .. } = heard.what {
                    logs.insert_event(history, serial, place);
                }
            }
        }
        for response in history.responses.borrow().iter() {
            for event in &response.events {
                logs.insert_event(history, event.serial, event.place);
            }
        }
        for log in logs.logs.values_mut() {
            log.window = ModelWindow {
                is_open: replay.enabled,
                events: replay.events as u64,
                bytes: replay.bytes,
                share_bytes: replay.process_bytes / 64 * 63 / TENANTS.len(),
                age: replay.age,
            };
        }
        logs.check_epochs();
        logs.note_times(history);
        logs.check_no_place_is_lost(history);
        logs
    }

    pub(super) fn log_of(&self, tenant: usize, epoch: u128) -> &ModelLog {
        self.logs.get(&(tenant, epoch)).unwrap_or(&self.empty)
    }

    pub(super) fn logs_of_tenant(&self, tenant: usize) -> impl Iterator<Item = (u128, &ModelLog)> {
        let its = self.logs.iter().filter(move |((of, _), _)| *of == tenant);
        its.map(|((_, epoch), log)| (*epoch, log))
    }

    fn insert_event(&mut self, history: &History, serial: Serial, place: EventPlace) {
        let event = &history.events.borrow()[serial];
        let log = self.logs.entry((event.tenant, place.epoch)).or_default();
        match log.events.entry(place.offset) {
            Entry::Occupied(there) => assert_eq!(there.get().serial, serial, "two at {place:?}"),
            Entry::Vacant(free) => {
                free.insert(ModelEvent {
                    serial,
                    topics: event.topics.with_wildcards(),
                    sent: first_sent(history, serial),
                    queued: None,
                    acknowledged: None,
                    cost_max: event.cost_max(),
                });
            }
        }
    }

    fn note_times(&mut self, history: &History) {
        for post in history.posts.borrow().iter() {
            let Some(answer) = &post.answer else {
                self.note_lost(post);
                continue;
            };
            for placed in &answer.results {
                let log = self.logs.get_mut(&(post.tenant, placed.place.epoch));
                let logged = log.unwrap().events.get_mut(&placed.place.offset).unwrap();
                let earlier = |it: &Timestamp| it.moment < answer.when.moment;
                if !logged.acknowledged.as_ref().is_some_and(earlier) {
                    logged.acknowledged = Some(answer.when);
                }
                let is_queued = answer.status == 200 && !placed.is_duplicate;
                if is_queued && !logged.queued.as_ref().is_some_and(earlier) {
                    logged.queued = Some(answer.when);
                }
            }
        }
    }

    fn note_lost(&mut self, post: &PostRecord) {
        for ((tenant, _), log) in &mut self.logs {
            if *tenant == post.tenant {
                let sent = post.events.iter().map(|_| post.sent.moment);
                log.lost.extend(sent);
            }
        }
    }

    /// Checks that each tenant has one epoch, since no tenant is forgotten during a simulation.
    fn check_epochs(&self) {
        for pair in self.logs.keys().collect::<Vec<_>>().windows(2) {
            assert_ne!(pair[0].0, pair[1].0, "a tenant has two epochs");
        }
    }

    /// Checks that every offset has an event, except for lost answers.
    fn check_no_place_is_lost(&self, history: &History) {
        let posts = history.posts.borrow();
        for ((tenant, _), log) in &self.logs {
            let is_unanswered =
                |post: &&PostRecord| post.tenant == *tenant && post.answer.is_none();
            let unanswered = posts.iter().filter(is_unanswered);
            let may_lack: usize = unanswered.map(|post| post.events.len()).sum();
            let known = log.events.len();
            let head = log.events.last_key_value().map_or(0, |(head, _)| *head);
            let head = usize::try_from(head).unwrap();
            assert!(
                known + may_lack >= head,
                "{} offsets have no event",
                head - known
            );
        }
    }
}

fn first_sent(history: &History, serial: Serial) -> Timestamp {
    let posts = history.posts.borrow();
    let mut with_it = posts.iter().filter(|post| post.events.contains(&serial));
    with_it.next().expect("it was posted").sent
}

impl ModelLog {
    pub(super) fn get(&self, offset: u64) -> Option<&ModelEvent> {
        self.events.get(&offset)
    }

    /// Returns the events after the first offset, up to and including the second.
    pub(super) fn range(&self, behind: Range<u64>) -> impl Iterator<Item = (u64, &ModelEvent)> {
        let end = behind.end.max(behind.start);
        let range = self
            .events
            .range(behind.start + 1..=end.max(behind.start + 1));
        range
            .filter(move |(offset, _)| **offset <= end)
            .map(|(offset, logged)| (*offset, logged))
    }

    /// Returns the number of offsets in the range with unknown events.
    pub(super) fn unplaced_events(&self, behind: Range<u64>) -> u64 {
        let known = self.range(behind.clone()).count() as u64;
        (behind.end - behind.start.min(behind.end)) - known
    }

    /// Returns the offsets of the events that relate to one of the topics.
    pub(super) fn offsets_relating(
        &self,
        behind: Range<u64>,
        topics: TopicBits,
    ) -> impl Iterator<Item = u64> {
        self.range(behind)
            .filter(move |(_, logged)| logged.topics.meets(topics))
            .map(|(offset, _)| offset)
    }

    /// Returns true if the log may hold events that are not known.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    pub(super) fn head(&self) -> u64 {
        self.events.last_key_value().map_or(0, |(head, _)| *head)
    }

    /// Returns a lower bound of the head at a moment.
    pub(super) fn head_min(&self, moment: Moment) -> u64 {
        let was_there =
            |logged: &ModelEvent| logged.acknowledged.is_some_and(|at| at.moment < moment);
        let there = self.events.iter().rev().find(|(_, it)| was_there(it));
        there.map_or(0, |(offset, _)| *offset)
    }

    /// Returns an upper bound of the head at a moment.
    pub(super) fn head_max(&self, moment: Moment) -> u64 {
        let mut sent = self.events.iter().rev();
        let sent = sent.find(|(_, logged)| logged.sent.moment < moment);
        let lost = self.lost.iter().filter(|sent| **sent < moment).count() as u64;
        sent.map_or(0, |(offset, _)| *offset) + lost
    }

    /// Returns true if the event may have left the window by then.
    pub(super) fn may_be_evicted(&self, offset: u64, when: Timestamp) -> bool {
        // If an event's answer was lost and no client received it, only its offset is known.
        let sent = self.events.get(&offset).map(|logged| logged.sent.time);
        let head = self.head_max(when.moment);
        let known: usize = self
            .range(offset - 1..head)
            .map(|(_, logged)| logged.cost_max)
            .sum();
        let unknown = usize::try_from(self.unplaced_events(offset - 1..head)).unwrap();
        let bytes = known + unknown * usize::try_from(COST_MAX).unwrap();
        !self.window.is_open
            || head >= offset + self.window.events
            || bytes > self.window.bytes.min(self.window.share_bytes)
            || when.time.saturating_sub(sent.unwrap_or_default()) >= self.window.age
    }
}
