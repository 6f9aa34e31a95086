//! The events that the relay has acknowledged to the backends of one tenant: the offset of
//! each and its topics.

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use sidewire_client::PublishedEvent;
use sidewire_protocol::wire::Position;
use tokio::sync::watch;

pub(crate) const PROJECTS: u32 = 8;

/// The topics of one event or client, one bit each: the projects, then `tenant:*`, then
/// each user's own.
pub(crate) type Topics = u64;

pub(crate) const EVERYBODY: u32 = PROJECTS;

pub(crate) fn user_topic(user: u32) -> u32 {
    EVERYBODY + 1 + user
}

/// Returns a topic's name.
pub(crate) fn name(topic: u32) -> String {
    match topic {
        0..PROJECTS => format!("project:p{topic}"),
        EVERYBODY => "tenant:*".to_owned(),
        _ => format!("user:{}", user_name(topic - EVERYBODY - 1)),
    }
}

pub(crate) fn user_name(user: u32) -> String {
    format!("u{user}")
}

/// Returns the numbers of the topics in a set.
pub(crate) fn each(topics: Topics) -> impl Iterator<Item = u32> {
    (0..Topics::BITS).filter(move |topic| topics >> topic & 1 == 1)
}

/// Returns the number of the topic with this name.
pub(crate) fn named(topic: &str) -> u32 {
    let number = |prefix| topic.strip_prefix(prefix).and_then(|it| it.parse().ok());
    number("project:p")
        .or_else(|| number("user:u").map(user_topic))
        .unwrap_or(EVERYBODY)
}

/// An event. Its number is also in its message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u32,
    pub(crate) topics: Topics,
}

impl Entry {
    pub(crate) fn message_id(&self) -> String {
        format!("event-{}", self.number)
    }
}

/// Returns the number in a message id.
pub(crate) fn number_in(message_id: &str) -> u32 {
    let number = message_id.strip_prefix("event-");
    number.unwrap().parse().unwrap()
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) tenant: String,
    epoch: OnceLock<String>,
    posted: AtomicU64,
    /// Events by offset.
    entries: Mutex<Vec<Option<Entry>>>,
    head: watch::Sender<u64>,
}

impl Ledger {
    pub(crate) fn new(tenant: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            epoch: OnceLock::new(),
            posted: AtomicU64::new(0),
            entries: Mutex::default(),
            head: watch::Sender::default(),
        }
    }

    /// Records that this many events are about to be posted.
    pub(crate) fn posting(&self, events: usize) {
        self.posted.fetch_add(events as u64, Ordering::SeqCst);
    }

    /// Returns the upper bound of the number of events in the log.
    pub(crate) fn posted(&self) -> u64 {
        self.posted.load(Ordering::SeqCst)
    }

    /// Records events that the relay has acknowledged.
    pub(crate) fn acknowledged(&self, entries: &[Entry], published: &[PublishedEvent]) {
        assert_eq!(entries.len(), published.len());
        let mut known = self.entries.lock().unwrap();
        for (entry, published) in entries.iter().zip(published) {
            assert_eq!(published.message_id, entry.message_id());
            assert!(!published.duplicate);
            let topics = published.topics.iter().map(|topic| 1 << named(topic));
            assert_eq!(
                topics.fold(0, |all, topic: Topics| all | topic),
                entry.topics
            );
            let Position { epoch, offset } = &published.position;
            assert_eq!(self.epoch.get_or_init(|| epoch.clone()), epoch);
            let place = usize::try_from(*offset).unwrap();
            if known.len() <= place {
                known.resize(place + 1, None);
            }
            assert_eq!(
                known[place].replace(*entry),
                None,
                "{offset} is taken twice"
            );
        }
        let head = known.len() as u64 - 1;
        drop(known);
        self.head.send_replace(head);
    }

    pub(crate) fn epoch(&self) -> &str {
        self.epoch.get().unwrap()
    }

    /// Returns the offset of the last event.
    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Waits until the log has reached this offset.
    pub(crate) async fn reaches(&self, head: u64) {
        let mut heads = self.head.subscribe();
        heads.wait_for(|it| *it >= head).await.unwrap();
    }

    /// Returns the event at an offset, once all events were acknowledged.
    pub(crate) fn entry(&self, offset: u64) -> Entry {
        self.entries.lock().unwrap()[offset as usize].unwrap()
    }
}
