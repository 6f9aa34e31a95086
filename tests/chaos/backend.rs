//! Backends that publish one event or one batch per call, at a steady rate.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use prost::Message;
use sidewire_client::{CallFailure, EventPublisher, PublishEncoding};
use sidewire_protocol::random::RandomSource;
use tokio::time::{MissedTickBehavior, interval};

use crate::ledger::{EVERYBODY, Entry, Ledger, PROJECTS, Topics, each, name, user_topic};

const BATCH_EVENTS_MAX: u64 = 50;

/// The parts of the bundled schema's envelope that are needed here: a WorkItemCreated whose
/// item has only a title.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(string, tag = "1")]
    pub(crate) message_id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) work_item_created: Option<WorkItemCreated>,
    #[prost(string, repeated, tag = "18")]
    pub(crate) topics: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WorkItemCreated {
    #[prost(message, optional, tag = "1")]
    pub(crate) work_item: Option<WorkItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WorkItem {
    #[prost(string, tag = "7")]
    pub(crate) title: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub(crate) messages: Vec<Envelope>,
}

pub(crate) fn envelope(message_id: String, topics: Vec<String>, title: &str) -> Envelope {
    let work_item = WorkItem {
        title: title.to_owned(),
    };
    Envelope {
        message_id,
        work_item_created: Some(WorkItemCreated {
            work_item: Some(work_item),
        }),
        topics,
    }
}

/// A backend of a tenant.
pub(crate) struct Backend {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) publisher: EventPublisher,
    pub(crate) random: RandomSource,
    pub(crate) users: u32,
    /// Number of the next event, shared by all backends.
    pub(crate) next: Arc<AtomicU32>,
}

impl Backend {
    /// Publishes until `is_enough` returns true.
    pub(crate) async fn publish(self, pause: Duration, is_enough: impl Fn() -> bool) {
        let mut pace = interval(pause);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !is_enough() {
            pace.tick().await;
            let is_batch = self.random.below(2) == 0;
            let events = if is_batch {
                1 + self.random.below(BATCH_EVENTS_MAX)
            } else {
                1
            };
            let entries: Vec<_> = (0..events).map(|_| self.entry()).collect();
            self.post(&entries, is_batch).await;
        }
    }

    /// Posts the entries, and retries those for which the relay had no room.
    pub(crate) async fn post(&self, entries: &[Entry], is_batch: bool) {
        self.ledger.posting(entries.len());
        loop {
            match self.try_post(entries, is_batch).await {
                Ok(published) => {
                    self.ledger.acknowledged(entries, &published);
                    return;
                }
                Err(CallFailure::Refused(problem)) if problem.status == 503 => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn try_post(
        &self,
        entries: &[Entry],
        is_batch: bool,
    ) -> Result<Vec<sidewire_client::PublishedEvent>, CallFailure> {
        let mut envelopes: Vec<_> = entries.iter().map(|it| self.envelope(it)).collect();
        let (body, topics) = if is_batch {
            let batch = Batch {
                messages: envelopes,
            };
            (batch.encode_to_vec(), Vec::new())
        } else {
            let topics = envelopes[0].topics.split_off(1);
            (envelopes[0].encode_to_vec(), topics)
        };
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let tenant = &self.ledger.tenant;
        let posting =
            self.publisher
                .post(tenant, body, PublishEncoding::Protobuf, &topics, is_batch);
        Ok(posting.await?.results)
    }

    fn envelope(&self, entry: &Entry) -> Envelope {
        let title = "x".repeat(self.random.below(300) as usize);
        let topics = each(entry.topics).map(name).collect();
        envelope(entry.message_id(), topics, &title)
    }

    /// Returns an event that mostly relates to one or two projects, and sometimes to a user
    /// or to all.
    pub(crate) fn entry(&self) -> Entry {
        let project = || 1 << self.random.below(u64::from(PROJECTS));
        let topics: Topics = match self.random.below(40) {
            0 => 1 << EVERYBODY,
            1 | 2 => 1 << user_topic(self.random.below(u64::from(self.users)) as u32) | project(),
            3..10 => project() | project(),
            _ => project(),
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Entry { number, topics }
    }
}
