//! Entries for the unit tests.

use sidewire_protocol::Topic;

use crate::{ConnectionKey, Entry};

/// An entry of connection `id` with this number, on these topics, which are all that it names.
pub(crate) fn entry(id: u64, order: u64, topics: &[&str]) -> Entry<()> {
    let topics = topics.iter().map(|text| topic(text));
    let topics: std::sync::Arc<[Topic]> = topics.collect();
    Entry {
        connection: connection(id),
        message: (),
        named: topics.clone(),
        topics,
        order,
        lingers: false,
        since: 0,
        bytes: 0,
    }
}

pub(crate) fn lingering(entry: Entry<()>) -> Entry<()> {
    Entry {
        lingers: true,
        ..entry
    }
}

pub(crate) fn connection(id: u64) -> ConnectionKey {
    ConnectionKey { shard: 0, id }
}

pub(crate) fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}
