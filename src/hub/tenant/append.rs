//! The append of a backend's submission: its checks, the permits for the inboxes, and the append
//! itself happen while the tenant is locked.

use std::sync::Arc;

use sidewire_protocol::Position;
use tokio::time::Instant;

use super::{Tenant, TenantState};
#[cfg(any(test, feature = "testing"))]
use crate::planted::fault;
use crate::{
    event::{EventDraft, JsonFrame},
    hub::{
        inbox::{
            EventBatch, FullInbox, HeldPermit, InboxContent, InboxItem, InboxPermit, InboxSender,
            ShardDelivery, SharedDelivery,
        },
        submission::{RepeatedDraft, Submission, SubmissionRefusal},
    },
    log::{EvictedEvents, MessageIdBudget, MessageIds},
};

/// A permit, and its inbox.
type ReservedPermit<'a> = (&'a InboxSender, InboxPermit);

/// The outcome of an attempt to append.
pub(in crate::hub) enum AppendAttempt {
    /// The events have been appended and sent to the shards.
    Appended {
        /// The new events, in the order of their drafts.
        events: EventBatch,
        /// The state that the shards share while they deliver them.
        delivery: Arc<SharedDelivery>,
        /// The indexes of the drafts that are duplicates, and the positions of the original
        /// events.
        repeats: Vec<(usize, Position)>,
        /// The events evicted to make room, to be dropped by the caller.
        evicted: EvictedEvents,
    },
    /// Nothing happened: a message id conflicts, or a condition does not hold.
    Refused(SubmissionRefusal),
    /// Nothing happened: an inbox has no room.
    NoRoom(FullInbox),
    /// Nothing happened: there is no memory for more events.
    NoMemory,
    /// Nothing happened: more of the log has to be searched first. Holds the permit that was
    /// waited for.
    Unsearched(HeldPermit),
    /// Nothing happened: the registry has forgotten the tenant.
    Removed,
}

impl Tenant {
    /// Appends all new events and sends them to every shard of the set, or does nothing. Takes
    /// the drafts only if it appends. A permit in `waited` that is not used is released, or
    /// returned with `Unsearched`. `has_memory`: true if there is memory for new events.
    pub(in crate::hub) fn append(
        self: &Arc<Self>,
        submission: &mut Submission<'_>,
        inboxes: &[InboxSender],
        now: Instant,
        has_memory: bool,
        mut waited: HeldPermit,
    ) -> AppendAttempt {
        let mut state = self.lock();
        if state.removed {
            return AppendAttempt::Removed;
        }
        if !submission.check.finish_search(self, &state.log) {
            return AppendAttempt::Unsearched(waited);
        }
        let repeats = match state.check_submission(submission, now) {
            Ok(repeats) => repeats,
            Err(refusal) => return AppendAttempt::Refused(refusal),
        };
        let is_all_known = repeats.len() == submission.drafts.len();
        let places = if is_all_known {
            Vec::new()
        } else if !has_memory {
            return AppendAttempt::NoMemory;
        } else {
            match state.reserve_permits(inboxes, &mut waited) {
                Ok(places) => places,
                Err(full) => {
                    #[cfg(any(test, feature = "testing"))]
                    state.append_too_early(&submission.drafts, now);
                    return AppendAttempt::NoRoom(full);
                }
            }
        };
        // Nothing below can fail.
        let mut evicted = EvictedEvents::new();
        let budget = &self.message_id_budget;
        let mut json = Vec::new();
        let new = submission.take_new(&repeats);
        let events = state.append_new(new, budget, now, &mut json, &mut evicted);
        let delivery = SharedDelivery::new(places.len(), events.as_slice().len());
        for (event, frame) in json {
            if let Some(event) = delivery.events().get(event) {
                event.json_cell().fill(frame);
            }
        }
        for (inbox, place) in places {
            inbox.send(InboxItem {
                tenant: Arc::clone(self),
                content: InboxContent::Events {
                    events: events.clone(),
                    delivery: ShardDelivery::of(&delivery),
                },
                _place: place,
            });
        }
        let epoch = state.log.head().epoch;
        drop(state);
        AppendAttempt::Appended {
            repeats: repeats
                .into_iter()
                .map(|repeat| repeat.resolve_position(epoch, &events))
                .collect(),
            events,
            delivery,
            evicted,
        }
    }
}

impl TenantState {
    /// Returns the drafts that are duplicates, or the reason for which the submission is refused.
    fn check_submission(
        &self,
        submission: &Submission<'_>,
        now: Instant,
    ) -> Result<Vec<RepeatedDraft>, SubmissionRefusal> {
        let repeats = submission.find_repeats(self.message_ids.as_deref(), now)?;
        // A retry of what has been appended is not refused, although its conditions may no longer
        // hold.
        if repeats.len() < submission.drafts.len() && !submission.check.conditions().is_empty() {
            let unmet = submission.check.unmet_conditions(&self.log, now);
            if !unmet.is_empty() {
                return Err(SubmissionRefusal::Unmet(unmet));
            }
        }
        Ok(repeats)
    }

    /// Takes one permit for the inbox of every shard of the set, or none: dropping the permits
    /// returns those that were reserved in vain.
    fn reserve_permits<'a>(
        &self,
        inboxes: &'a [InboxSender],
        waited: &mut HeldPermit,
    ) -> Result<Vec<ReservedPermit<'a>>, FullInbox> {
        let mut places = Vec::with_capacity(self.shards.len());
        for entry in &self.shards {
            // An ended shard has no connections, so it is skipped.
            let inbox = inboxes.get(entry.shard).filter(|it| !it.is_closed());
            if let Some(inbox) = inbox {
                places.push((inbox, inbox.try_reserve(&entry.share, waited)?));
            }
        }
        Ok(places)
    }

    #[cfg(any(test, feature = "testing"))]
    fn append_too_early(&mut self, drafts: &[EventDraft], now: Instant) {
        if fault!(AppendsTooEarly) {
            for draft in drafts {
                self.log
                    .append(draft.clone(), now, &mut EvictedEvents::new());
            }
        }
    }

    /// Appends the new drafts and remembers their fingerprints. JSON that was rendered beforehand
    /// is added to `json`, with the index of its event among them.
    fn append_new(
        &mut self,
        new: Vec<EventDraft>,
        budget: &Arc<MessageIdBudget>,
        now: Instant,
        json: &mut Vec<(usize, JsonFrame)>,
        evicted: &mut EvictedEvents,
    ) -> EventBatch {
        let (log, message_ids) = (&mut self.log, &mut self.message_ids);
        EventBatch::new(new.into_iter().enumerate().map(|(index, mut draft)| {
            let fingerprint = draft.fingerprint();
            let rendered = draft.take_json();
            let event = log.append(draft, now, evicted);
            if let Some(rendered) = rendered {
                json.push((index, JsonFrame::from_draft(rendered, &event)));
            }
            if let Some(fingerprint) = fingerprint {
                message_ids
                    .get_or_insert_with(|| Box::new(MessageIds::new(Arc::clone(budget))))
                    .remember(fingerprint, event.position().offset, now);
            }
            event
        }))
    }
}
