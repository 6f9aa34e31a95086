//! What one call wants appended, and which of it is known already. Knows no
//! tenants and no inboxes.

use std::{collections::HashMap, mem};

use tokio::time::Instant;

use super::{condition_check::ConditionCheck, inbox::Events};
use crate::{
    event::Draft,
    log::{Known, MessageIds, Unmet},
    protocol::{Epoch, Position},
};

/// Events that are appended next to each other, all or none.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    pub(super) drafts: Vec<Draft>,
    pub(super) check: ConditionCheck<'a>,
}

/// A draft that is no new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeat {
    /// Its place among the drafts.
    index: usize,
    first: First,
}

/// What a draft repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// What has been appended before, at this offset.
    Offset(u64),
    /// The new one of the same call that is the so manieth, from 0.
    New(usize),
}

/// Why nothing of a submission may be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The message ids of these drafts were given to other bodies.
    Conflicts(Vec<usize>),
    /// These conditions do not hold.
    Unmet(Vec<Unmet>),
}

impl Submission<'_> {
    /// The drafts that are no new events, in order.
    pub(super) fn repeats(
        &self,
        known: Option<&MessageIds>,
        now: Instant,
    ) -> Result<Vec<Repeat>, Refusal> {
        let (mut repeats, mut conflicts) = (Vec::new(), Vec::new());
        // By the hash of the id: the hash of the body, and which of the new ones.
        let mut earlier: HashMap<[u8; 16], ([u8; 16], usize)> = HashMap::new();
        for (index, draft) in self.drafts.iter().enumerate() {
            let Some(fingerprint) = draft.fingerprint() else {
                continue;
            };
            let new = index - repeats.len() - conflicts.len();
            match known.and_then(|known| known.find(&fingerprint, now)) {
                Some(Known::Conflict) => conflicts.push(index),
                Some(Known::Duplicate(offset)) => repeats.push(Repeat {
                    index,
                    first: First::Offset(offset),
                }),
                // Nothing of this call comes after its last event.
                None if index + 1 == self.drafts.len() && earlier.is_empty() => {}
                None => match earlier.get(&fingerprint.id) {
                    None => {
                        earlier.insert(fingerprint.id, (fingerprint.body, new));
                    }
                    Some((body, new)) if *body == fingerprint.body => repeats.push(Repeat {
                        index,
                        first: First::New(*new),
                    }),
                    Some(_) => conflicts.push(index),
                },
            }
        }
        if conflicts.is_empty() {
            Ok(repeats)
        } else {
            Err(Refusal::Conflicts(conflicts))
        }
    }

    /// Takes the drafts out, less those that are no new events.
    pub(super) fn take_new(&mut self, repeats: &[Repeat]) -> Vec<Draft> {
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

impl Repeat {
    /// Its place among the drafts, and the position that the event had first.
    /// `new` are the events of the same call that are new.
    pub(super) fn placed(self, epoch: Epoch, new: &Events) -> (usize, Position) {
        let offset = match self.first {
            First::Offset(offset) => offset,
            First::New(rank) => new
                .as_slice()
                .get(rank)
                .map_or(0, |event| event.position().offset),
        };
        (self.index, Position { epoch, offset })
    }
}
