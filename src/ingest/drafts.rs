//! The events of a batch, read in parts.

use std::{iter::Enumerate, vec};

use super::{
    draft::{ReadEvent, ReadLimits, draft, refused_cost},
    json::{Checked, InDoubt, no_batch},
};
use crate::{
    event::Draft,
    http::{ItemProblem, Problem},
    protocol::Topic,
    relay::Relay,
    scheduler::{Cost, QUANTUM},
};

/// What becomes of the envelopes of a batch.
pub(super) struct Drafts<'a> {
    /// The most bytes of one of them.
    envelope_max: usize,
    envelopes: Enumerate<vec::IntoIter<&'a [u8]>>,
    pub(super) drafts: Vec<Draft>,
    /// Those whose JSON is still to be looked at.
    in_doubt: Vec<InDoubt>,
    errors: Vec<ItemProblem>,
}

/// A part of a batch that was read in one go.
pub(super) struct Part<'a> {
    /// What reading it cost.
    pub(super) cost: Cost,
    /// The envelope, with its place in the batch, that takes too long to be read here.
    pub(super) large: Option<(usize, &'a [u8])>,
}

impl<'a> Drafts<'a> {
    pub(super) fn new(relay: &Relay, batch: &'a [u8]) -> Result<Self, Problem> {
        let live = relay.live();
        let ingest = &live.config.ingest;
        let envelopes = live
            .schema
            .batch_messages(batch, ingest.batch_events_max)
            .map_err(no_batch)?;
        if envelopes.is_empty() {
            return Err(Problem::invalid("the batch is empty"));
        }
        Ok(Self {
            envelope_max: ingest.body_max,
            drafts: Vec::with_capacity(envelopes.len()),
            in_doubt: Vec::new(),
            errors: Vec::new(),
            envelopes: envelopes.into_iter().enumerate(),
        })
    }

    /// Reads as many as one may before others have their turn.
    pub(super) fn read_some(&mut self, relay: &Relay, more_topics: &[Topic]) -> Part<'a> {
        let mut cost = Cost::ZERO;
        while let Some((index, envelope)) = self.envelopes.next() {
            cost += Cost::EVENT + Cost::BYTE.times(envelope.len());
            if envelope.len() > self.envelope_max {
                self.add(index, Err(envelope_too_large(self.envelope_max)));
                continue;
            }
            match draft(relay, envelope, more_topics, ReadLimits::ON_SHARD).transpose() {
                Some(read) => {
                    cost += read_cost(&read, envelope);
                    self.add(index, read);
                }
                None => {
                    return Part {
                        cost,
                        large: Some((index, envelope)),
                    };
                }
            }
            if cost >= QUANTUM {
                break;
            }
        }
        Part { cost, large: None }
    }

    /// Adds what has become of the envelope in this place.
    pub(super) fn add(&mut self, index: usize, read: Result<ReadEvent, Problem>) {
        match read {
            Ok(read) => {
                if matches!(read.checked, Checked::InDoubt) {
                    let draft = self.drafts.len();
                    self.in_doubt.push(InDoubt { index, draft });
                }
                self.drafts.push(read.draft);
            }
            Err(problem) => self.errors.push(problem.of_item(index)),
        }
    }

    /// Whether none is left.
    pub(super) fn is_read(&self) -> bool {
        self.envelopes.len() == 0
    }

    /// The events, those of them that are in doubt, and what is wrong with others.
    pub(super) fn into_parts(self) -> (Vec<Draft>, Vec<InDoubt>, Vec<ItemProblem>) {
        (self.drafts, self.in_doubt, self.errors)
    }
}

/// What reading an envelope has cost, beside its bytes.
pub(super) fn read_cost(read: &Result<ReadEvent, Problem>, envelope: &[u8]) -> Cost {
    match read {
        Ok(read) => read.cost + Cost::TOPIC.times(read.draft.topics().len()),
        Err(_) => refused_cost(envelope),
    }
}

fn envelope_too_large(bytes_max: usize) -> Problem {
    Problem::invalid(format!(
        "the event has more than {bytes_max} bytes (ingest.body_max)"
    ))
}
