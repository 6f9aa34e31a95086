//! Finds the last event of a topic. An index covers the older part of a log; appends and
//! evictions do not touch it. A caller brings it up to date by one part, and then searches the
//! events that are not in it yet, also in parts.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use sidewire_protocol::{Topic, topic::TopicMap, topic_map::LargeTopicMap};
use tokio::time::Instant;

use crate::event::Event;

/// Time without a search after which the index is dropped.
const REST: Duration = Duration::from_mins(1);

/// Number of topics that are added or removed in a part, which takes 0.1 to 0.3 ms.
const TOPICS_PER_PART: usize = 1024;

/// Number of events that are added or searched in a part.
pub const EVENTS_PER_PART: usize = 256;

/// Searching this many events, or this many of their topics, takes as long as adding one topic.
const SEARCHED_EVENTS_PER_TOPIC: usize = 8;
const SEARCHED_TOPICS_PER_TOPIC: usize = 64;

/// The index: the last offset of every topic, up to some offset of the log. It may still contain
/// events that have left the log.
#[derive(Debug)]
pub struct LastOffsets {
    offsets: LargeTopicMap<u64>,
    /// The offsets and topics of the indexed events, oldest first.
    entered: VecDeque<(u64, Arc<[Topic]>)>,
    up_to: u64,
    asked: Instant,
}

impl LastOffsets {
    /// Creates an empty index.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            offsets: LargeTopicMap::default(),
            entered: VecDeque::new(),
            up_to: 0,
            asked: now,
        }
    }

    /// Returns the offset up to which events are indexed.
    #[must_use]
    pub fn up_to(&self) -> u64 {
        self.up_to
    }

    /// Returns true if the index has not been used for a while.
    #[must_use]
    pub fn is_unused(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) >= REST
    }

    /// Removes a part of the events up to `tail`, which have left the log. Returns the work done,
    /// in topics.
    pub fn forget_up_to(&mut self, tail: u64) -> usize {
        let mut work = 0;
        while work < TOPICS_PER_PART
            && let Some((offset, topics)) = self.entered.pop_front_if(|(it, _)| *it <= tail)
        {
            work += 1 + topics.len();
            for topic in &*topics {
                if self.offsets.get(topic) == Some(&offset) {
                    self.offsets.remove(topic);
                }
            }
        }
        work
    }

    /// Brings the index up to date for a search, by one part: removes events that have left the
    /// log, and adds some of `next`, the log's events after the indexed ones. Returns the work
    /// done, in topics.
    pub fn advance(&mut self, tail: u64, next: &[Arc<Event>], now: Instant) -> usize {
        self.asked = now;
        let forgotten = self.forget_up_to(tail);
        let mut entered = 0;
        for event in next {
            if entered >= TOPICS_PER_PART {
                break;
            }
            entered += 1 + event.topics().len();
            self.add_event(event);
        }
        forgotten + entered
    }

    fn add_event(&mut self, event: &Event) {
        let offset = event.position().offset;
        for topic in event.topics() {
            match self.offsets.get_mut(topic) {
                Some(last) => *last = offset,
                // Only now, since this clones the topic.
                None => *self.offsets.get_or_default(topic) = offset,
            }
        }
        let topics = Arc::clone(event.shared_topics());
        self.entered.push_back((offset, topics));
        self.up_to = offset;
    }
}

/// A search for the last events of some topics.
#[derive(Debug)]
pub struct TopicSearch {
    offsets: TopicMap<Option<u64>>,
    up_to: u64,
}

impl TopicSearch {
    /// Creates a search for these topics that has not begun.
    #[must_use]
    pub fn new<'a>(topics: impl Iterator<Item = &'a Topic>) -> Self {
        Self {
            offsets: topics.map(|topic| (topic.clone(), None)).collect(),
            up_to: 0,
        }
    }

    /// Returns the offset up to which the log has been searched.
    #[must_use]
    pub fn up_to(&self) -> u64 {
        self.up_to
    }

    /// Starts the search with the content of the index.
    pub fn begin_with(&mut self, index: &LastOffsets) {
        for (topic, offset) in &mut self.offsets {
            *offset = index.offsets.get(topic).copied();
        }
        self.up_to = index.up_to;
    }

    /// Searches the next events. Returns the work done, in topics added to the index.
    pub fn search_events<'a>(&mut self, next: impl Iterator<Item = &'a Arc<Event>>) -> usize {
        let (mut events, mut topics) = (0, 0);
        for event in next {
            events += 1;
            topics += event.topics().len();
            self.up_to = event.position().offset;
            for topic in event.topics() {
                if let Some(offset) = self.offsets.get_mut(topic) {
                    *offset = Some(self.up_to);
                }
            }
        }
        events / SEARCHED_EVENTS_PER_TOPIC + topics / SEARCHED_TOPICS_PER_TOPIC
    }

    /// Returns the offset of the topic's last event in the part of the log that has been
    /// searched. The event may have left the log.
    #[must_use]
    pub fn last_of(&self, topic: &Topic) -> Option<u64> {
        self.offsets.get(topic).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event::tests::draft,
        log::{EvictedEvents, Log, LogAccounts, LogWindow},
    };
    use sidewire_protocol::{Epoch, Position};

    fn log(window: LogWindow) -> Log {
        let head = Position {
            epoch: Epoch::from_bits(3),
            offset: 0,
        };
        Log::new(head, window, LogAccounts::default())
    }

    const WIDE: LogWindow = LogWindow {
        events: 1000,
        bytes: 1 << 30,
        age: Duration::from_secs(100),
    };

    fn append(log: &mut Log, topics: &[&str], now: Instant) {
        log.append(draft("m", topics), now, &mut EvictedEvents::new());
    }

    fn after(log: &Log, offset: u64) -> Vec<Arc<Event>> {
        log.events_after(offset).cloned().collect()
    }

    #[test]
    fn the_size_of_a_part_is_bounded_when_indexing_and_when_forgetting() {
        let (mut log, now) = (log(WIDE), Instant::now());
        let topics: Vec<_> = (0..100).map(|number| format!("a:{number}")).collect();
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        for _ in 0..200 {
            append(&mut log, &topics, now);
        }
        let mut index = LastOffsets::new(now);
        // Events of 1 and 100.
        for part in 1..=200_u64.div_ceil(11) {
            let next = after(&log, index.up_to());
            assert!(index.advance(0, &next, now) <= 11 * 101);
            assert_eq!(index.up_to(), (11 * part).min(200));
        }
        let mut parts = Vec::new();
        while parts.last() != Some(&0) {
            parts.push(index.forget_up_to(150));
        }
        assert!(parts.iter().all(|part| *part <= 11 * 101));
        assert_eq!(parts.iter().sum::<usize>(), 150 * 101);
        assert_eq!((index.entered.len(), index.offsets.len()), (50, 100));
        while index.forget_up_to(200) > 0 {}
        assert!(index.entered.is_empty() && index.offsets.is_empty());
    }

    proptest! {
        /// Holds at any point of a search, and for any indexed part of the log. At times there is
        /// no search for long, and the index is rebuilt.
        #[test]
        fn the_last_event_of_a_topic_is_what_a_search_of_the_whole_window_finds(
            events in 1..8_usize,
            steps in prop::collection::vec(
                (0..6_u8, 0..6_u8, 0..40_u64, any::<bool>(), 0..4_usize),
                1..100,
            ),
        ) {
            let mut log = log(LogWindow { events, ..WIDE });
            let mut now = Instant::now();
            let mut index = LastOffsets::new(now);
            for (a, b, wait, asks, part) in steps {
                now += Duration::from_secs(wait);
                if wait > 30 {
                    log.evict(now);
                }
                if index.is_unused(now) {
                    index = LastOffsets::new(now);
                } else if wait > 20 {
                    index.forget_up_to(log.tail().offset);
                }
                let mut topics = vec![format!("a:{a}"), format!("a:{b}")];
                topics.dedup();
                let topics: Vec<_> = topics.iter().map(String::as_str).collect();
                append(&mut log, &topics, now);
                for id in 0..if asks { 6 } else { 0 } {
                    let topic = Topic::new("a", &id.to_string()).unwrap();
                    let mut next = after(&log, index.up_to());
                    next.truncate(part);
                    index.advance(log.tail().offset, &next, now);
                    let mut search = TopicSearch::new([&topic].into_iter());
                    search.begin_with(&index);
                    search.search_events(after(&log, search.up_to()).iter());
                    let found = search.last_of(&topic).filter(|it| *it > log.tail().offset);
                    let all = after(&log, 0);
                    let mut of_topic = all.iter().filter(|it| it.topics().contains(&topic));
                    let expected = of_topic.next_back().map(|it| it.position().offset);
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
