//! From the bytes of an envelope to the frame that every client receives.

use std::{hint::black_box, sync::Arc};

use sidewire::{
    event::{Event, EventDraft, EventDraftParts},
    memory::MemoryAccount,
};
use sidewire_protocol::{Epoch, MessageId, Position, Topic, schema::Schema};
use tokio::time::Instant;

use super::{Case, Subject, events::payload};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("frame/complete".to_owned(), || Frame::new(false)),
        Case::new("frame/id_and_timestamp_appended".to_owned(), || {
            Frame::new(true)
        }),
    ]
}

struct Frame {
    payload: Vec<u8>,
    topics: Vec<Topic>,
    schema: Arc<Schema>,
    message_id: MessageId,
    appends: bool,
    parts: Vec<(MessageId, Arc<[Topic]>)>,
    /// Kept until the next round, so that dropping them is not measured.
    made: Vec<Event>,
    account: Arc<MemoryAccount>,
    position: Position,
    now: Instant,
}

impl Frame {
    fn new(appends: bool) -> Self {
        Self {
            payload: payload(),
            topics: ["project:project-1", "work_item:item-1"]
                .map(|topic| Topic::parse(topic).unwrap())
                .into(),
            schema: Arc::new(Schema::bundled().unwrap()),
            message_id: MessageId::parse("0199f0a4-7c5e-7d3b-9a51-3f0c8e6b2d17").unwrap(),
            appends,
            parts: Vec::new(),
            made: Vec::new(),
            account: Arc::default(),
            position: Position {
                epoch: Epoch::from_bits(1 << 127),
                offset: 1_000_000,
            },
            now: Instant::now(),
        }
    }
}

impl Subject for Frame {
    fn prepare(&mut self, operations: u64) {
        self.made.clear();
        self.parts.clear();
        for _ in 0..operations {
            let topics = self.topics.clone().into();
            self.parts.push((self.message_id.clone(), topics));
        }
        self.made.reserve(self.parts.len());
    }

    fn operate(&mut self) {
        let (message_id, topics) = self.parts.pop().unwrap();
        let draft = EventDraft::new(EventDraftParts {
            kept: black_box(&[&self.payload]),
            message_id,
            append_message_id: self.appends,
            append_timestamp: self.appends.then_some(1_800_000_000),
            topics,
            schema: Arc::clone(&self.schema),
        });
        self.position.offset += 1;
        self.made
            .push(draft.into_event(self.position, &self.account, self.now));
    }
}
