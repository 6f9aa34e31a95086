//! Reads the events of a batch in parts.

use std::{iter::Enumerate, vec};

use sidewire_protocol::Topic;

use super::{
    draft::{ParsedEvent, ReadLimits, read_draft, refused_cost},
    json::{JsonCheck, UncheckedEvent, batch_problem},
};
use crate::{
    event::EventDraft,
    http::{HttpProblem, ItemProblem},
    relay::Relay,
    scheduler::{Cost, QUANTUM},
};

/// A batch that is being read, with its events and errors so far.
pub(super) struct BatchReader<'a> {
    /// Maximum size of an envelope, in bytes.
    envelope_max: usize,
    envelopes: Enumerate<vec::IntoIter<&'a [u8]>>,
    pub(super) drafts: Vec<EventDraft>,
    /// Drafts that still need a check of their JSON.
    in_doubt: Vec<UncheckedEvent>,
    errors: Vec<ItemProblem>,
}

/// The outcome of reading a part of a batch.
pub(super) struct BatchPart<'a> {
    /// Cost of reading the part.
    pub(super) cost: Cost,
    /// An envelope that takes too long to be read on the shard, with its index in the batch.
    pub(super) large: Option<(usize, &'a [u8])>,
}

impl<'a> BatchReader<'a> {
    pub(super) fn new(relay: &Relay, batch: &'a [u8]) -> Result<Self, HttpProblem> {
        let live = relay.live();
        let ingest = &live.config.ingest;
        let envelopes = live
            .schema
            .batch_messages(batch, ingest.batch_events_max)
            .map_err(batch_problem)?;
        if envelopes.is_empty() {
            return Err(HttpProblem::bad_request("the batch is empty"));
        }
        Ok(Self {
            envelope_max: ingest.body_max,
            drafts: Vec::with_capacity(envelopes.len()),
            in_doubt: Vec::new(),
            errors: Vec::new(),
            envelopes: envelopes.into_iter().enumerate(),
        })
    }

    /// Reads envelopes until a quantum is used up, or until one takes too long to be read here.
    pub(super) fn read_part(&mut self, relay: &Relay, more_topics: &[Topic]) -> BatchPart<'a> {
        let mut cost = Cost::ZERO;
        while let Some((index, envelope)) = self.envelopes.next() {
            cost += Cost::EVENT + Cost::BYTE.times(envelope.len());
            if envelope.len() > self.envelope_max {
                self.record_result(index, Err(envelope_too_large(self.envelope_max)));
                continue;
            }
            match read_draft(relay, envelope, more_topics, ReadLimits::ON_SHARD).transpose() {
                Some(read) => {
                    cost += read_cost(&read, envelope);
                    self.record_result(index, read);
                }
                None => {
                    return BatchPart {
                        cost,
                        large: Some((index, envelope)),
                    };
                }
            }
            if cost >= QUANTUM {
                break;
            }
        }
        BatchPart { cost, large: None }
    }

    /// Records the result of reading the envelope at `index`.
    pub(super) fn record_result(&mut self, index: usize, read: Result<ParsedEvent, HttpProblem>) {
        match read {
            Err(problem)
            | Ok(ParsedEvent {
                checked: JsonCheck::Refused(problem),
                ..
            }) => self.errors.push(problem.into_item_problem(index)),
            Ok(read) => {
                if matches!(read.checked, JsonCheck::InDoubt) {
                    let draft = self.drafts.len();
                    self.in_doubt.push(UncheckedEvent { index, draft });
                }
                self.drafts.push(read.draft);
            }
        }
    }

    /// Returns true if all envelopes are read.
    pub(super) fn is_finished(&self) -> bool {
        self.envelopes.len() == 0
    }

    /// Returns the drafts, those that still need a check of their JSON, and the errors.
    pub(super) fn into_parts(self) -> (Vec<EventDraft>, Vec<UncheckedEvent>, Vec<ItemProblem>) {
        (self.drafts, self.in_doubt, self.errors)
    }
}

/// Returns the cost of reading an envelope, without its bytes.
pub(super) fn read_cost(read: &Result<ParsedEvent, HttpProblem>, envelope: &[u8]) -> Cost {
    match read {
        Ok(read) => read.cost + Cost::TOPIC.times(read.draft.topics().len()),
        Err(_) => refused_cost(envelope),
    }
}

fn envelope_too_large(bytes_max: usize) -> HttpProblem {
    HttpProblem::bad_request(format!(
        "the event has more than {bytes_max} bytes (ingest.body_max)"
    ))
}
