//! Compares the listing for the HTTP call with the truth.

use std::collections::BTreeSet;

use sidewire_presence::{PageCursor, PresenceBook};
use sidewire_protocol::{Topic, UserName};

use crate::{message::Message, schedule::all_topics, truth::Truth, world::same};

/// A user on a topic: connections, since, whether it lingers, and the messages' numbers.
type Listed = (Topic, UserName, usize, i64, bool, Vec<u64>);

/// Reads the listing of all topics in pages of different sizes.
pub(crate) fn check(book: &PresenceBook<Message>, truth: &Truth) -> Result<(), String> {
    let expected = expected(truth);
    for limit in [1, 2, 1_000] {
        same("listing", &read_pages(book, limit), &expected)?;
    }
    Ok(())
}

fn expected(truth: &Truth) -> Vec<Listed> {
    let mut listed = Vec::new();
    for topic in all_topics() {
        for user in truth.users_on(&topic) {
            let mut there = truth.0.clone();
            there.retain(|record| record.key.user == user && record.topics.contains(&topic));
            there.sort_by_key(|record| std::cmp::Reverse(record.number));
            let connections: BTreeSet<_> = there.iter().map(|record| record.connection).collect();
            listed.push((
                topic.clone(),
                user,
                connections.len(),
                there.iter().map(|record| record.since).min().unwrap(),
                there.iter().all(|record| record.lingers),
                there.iter().map(|record| record.number).collect(),
            ));
        }
    }
    listed
}

fn read_pages(book: &PresenceBook<Message>, limit: usize) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut after: Option<PageCursor> = None;
    loop {
        let page = book.page(&all_topics(), after.as_ref(), limit);
        let users: usize = page.topics.iter().map(|topic| topic.users.len()).sum();
        assert!(users <= limit);
        for topic in page.topics {
            listed.extend(topic.users.into_iter().map(|user| {
                let numbers = user.messages.iter().map(|message| message.number).collect();
                let topic = topic.topic.clone();
                (
                    topic,
                    user.user,
                    user.connections,
                    user.since,
                    user.lingers,
                    numbers,
                )
            }));
        }
        after = page.next;
        if after.is_none() {
            return listed;
        }
    }
}
