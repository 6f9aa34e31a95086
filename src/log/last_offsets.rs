//! Where each topic's last event stands, for those who ask: an index over the
//! ring, which is made when somebody asks first, kept up with the ring, and
//! dropped when nobody has asked for a while. A log of which nobody asks pays a
//! comparison for each event.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    event::Event,
    protocol::{Topic, topic::TopicMap},
};

/// After so long without a question the index is dropped.
const REST: Duration = Duration::from_mins(1);

/// The offsets by topic, if there is an index.
#[derive(Debug, Default)]
pub(super) struct LastOffsets(Option<Box<Index>>);

/// As large as the topics of the events in the window, and no larger.
#[derive(Debug)]
struct Index {
    offsets: TopicMap<u64>,
    asked: Instant,
}

impl LastOffsets {
    /// The offset of the topic's last event among those of `ring`, oldest first.
    pub(super) fn of<'a>(
        &mut self,
        topic: &Topic,
        ring: impl Iterator<Item = &'a Event>,
        now: Instant,
    ) -> Option<u64> {
        let index = self.0.get_or_insert_with(|| {
            let mut index = Box::new(Index {
                offsets: TopicMap::default(),
                asked: now,
            });
            ring.for_each(|event| index.appended(event));
            index
        });
        index.asked = now;
        index.offsets.get(topic).copied()
    }

    /// An event has become the ring's newest.
    pub(super) fn appended(&mut self, event: &Event) {
        if let Some(index) = &mut self.0 {
            index.appended(event);
        }
    }

    /// An event has left the ring.
    pub(super) fn evicted(&mut self, event: &Event) {
        if let Some(index) = &mut self.0 {
            index.evicted(event);
        }
    }

    /// Drops the index if nobody has asked for a while.
    pub(super) fn rest(&mut self, now: Instant) {
        let asked = self.0.as_ref().map(|index| index.asked);
        if asked.is_some_and(|asked| now.saturating_duration_since(asked) >= REST) {
            self.0 = None;
        }
    }
}

impl Index {
    fn appended(&mut self, event: &Event) {
        let offset = event.position().offset;
        for topic in event.topics() {
            match self.offsets.get_mut(topic) {
                Some(last) => *last = offset,
                None => {
                    self.offsets.insert(topic.clone(), offset);
                }
            }
        }
    }

    fn evicted(&mut self, event: &Event) {
        let offset = event.position().offset;
        for topic in event.topics() {
            if self.offsets.get(topic) == Some(&offset) {
                self.offsets.remove(topic);
            }
        }
    }
}
