//! The drafts that one call submits, and which of them are known already. Knows no tenants and no
//! inboxes.

use std::{collections::HashMap, mem};

use sidewire_protocol::{Epoch, Position};
use tokio::time::Instant;

use super::{condition_check::ConditionCheck, inbox::EventBatch};
use crate::{
    event::EventDraft,
    log::{MessageIdMatch, MessageIds, UnmetCondition},
};

/// Events that are appended consecutively, all or none.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    pub(super) drafts: Vec<EventDraft>,
    pub(super) check: ConditionCheck<'a>,
}

/// A draft that duplicates an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepeatedDraft {
    /// Index among the drafts.
    index: usize,
    first: OriginalEvent,
}

/// The event that a draft duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OriginalEvent {
    /// An event that was appended earlier, at this offset.
    Offset(u64),
    /// A new event of the same call: its index among the call's new events, from 0.
    New(usize),
}

/// The reason for which a whole submission is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SubmissionRefusal {
    /// The message ids of these drafts were used with different bodies.
    Conflicts(Vec<usize>),
    /// These conditions do not hold.
    Unmet(Vec<UnmetCondition>),
}

impl Submission<'_> {
    /// Returns the drafts that duplicate events, in order.
    pub(super) fn find_repeats(
        &self,
        known: Option<&MessageIds>,
        now: Instant,
    ) -> Result<Vec<RepeatedDraft>, SubmissionRefusal> {
        let (mut repeats, mut conflicts) = (Vec::new(), Vec::new());
        // Maps the hash of the id to the hash of the body and the index among the new events.
        let mut earlier: HashMap<[u8; 16], ([u8; 16], usize)> = HashMap::new();
        for (index, draft) in self.drafts.iter().enumerate() {
            let Some(fingerprint) = draft.fingerprint() else {
                continue;
            };
            let new = index - repeats.len() - conflicts.len();
            match known.and_then(|known| known.find(&fingerprint, now)) {
                Some(MessageIdMatch::Conflict) => conflicts.push(index),
                Some(MessageIdMatch::Duplicate(offset)) => repeats.push(RepeatedDraft {
                    index,
                    first: OriginalEvent::Offset(offset),
                }),
                // No draft follows the last one, so it need not be remembered.
                None if index + 1 == self.drafts.len() && earlier.is_empty() => {}
                None => match earlier.get(&fingerprint.id) {
                    None => {
                        earlier.insert(fingerprint.id, (fingerprint.body, new));
                    }
                    Some((body, new)) if *body == fingerprint.body => repeats.push(RepeatedDraft {
                        index,
                        first: OriginalEvent::New(*new),
                    }),
                    Some(_) => conflicts.push(index),
                },
            }
        }
        if conflicts.is_empty() {
            Ok(repeats)
        } else {
            Err(SubmissionRefusal::Conflicts(conflicts))
        }
    }

    /// Takes the drafts out, except those that duplicate events.
    pub(super) fn take_new(&mut self, repeats: &[RepeatedDraft]) -> Vec<EventDraft> {
        let mut drafts = mem::take(&mut self.drafts);
        let mut repeats = repeats.iter().map(|repeat| repeat.index).peekable();
        if repeats.peek().is_some() {
            let mut index = 0..;
            drafts.retain(|_| {
                let index = index.next();
                repeats.next_if(|repeat| Some(*repeat) == index).is_none()
            });
        }
        drafts
    }
}

impl RepeatedDraft {
    /// Returns the index among the drafts and the position of the original event. `new` are the
    /// new events of the same call.
    pub(super) fn resolve_position(self, epoch: Epoch, new: &EventBatch) -> (usize, Position) {
        let offset = match self.first {
            OriginalEvent::Offset(offset) => offset,
            OriginalEvent::New(rank) => new
                .as_slice()
                .get(rank)
                .map_or(0, |event| event.position().offset),
        };
        (self.index, Position { epoch, offset })
    }
}
