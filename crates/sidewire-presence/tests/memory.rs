//! Measures what an entry takes in memory, besides its message and the text of its topics.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::Arc;

use allocation_counter::measure;
use sidewire_presence::{
    ConnectionKey, ENTRY_BYTES, FURTHER_TOPIC_BYTES, NewMessage, PresenceBook, PresenceLimits,
};
use sidewire_protocol::{Topic, UserName};

const USERS: usize = 1_000;

#[test]
fn a_user_on_one_topic_takes_no_more_than_an_entry_counts_for() {
    let everyone_on_one = bytes_per_user(|_| vec![topic(0)]);
    assert!(everyone_on_one <= ENTRY_BYTES, "{everyone_on_one}");
    let each_on_its_own = bytes_per_user(|user| vec![topic(user)]);
    assert!(each_on_its_own <= ENTRY_BYTES, "{each_on_its_own}");
}

#[test]
fn each_further_topic_takes_no_more_than_it_counts_for() {
    let with_one = bytes_per_user(|user| vec![topic(user)]);
    let own_topics = |user: usize| (0..11).map(|n| topic(user * 11 + n)).collect();
    let with_eleven = bytes_per_user(own_topics);
    let further = with_eleven.saturating_sub(with_one) / 10;
    assert!(further <= FURTHER_TOPIC_BYTES, "{further}");
}

/// What a book of users takes, each of whom is on the given topics, less what the names and topics
/// themselves take.
fn bytes_per_user(topics: impl Fn(usize) -> Vec<Topic>) -> usize {
    let users: Vec<_> = (0..USERS).map(|user| (name(user), topics(user))).collect();
    let mut book = PresenceBook::default();
    book.enter_shard(0);
    let allocated = measure(|| {
        for (id, (user, topics)) in users.iter().enumerate() {
            set(&mut book, id, user, topics);
        }
        while book.next_transition(0).is_some() {}
    });
    assert_eq!(book.len(), USERS);
    usize::try_from(allocated.bytes_current).unwrap() / USERS
}

fn set(book: &mut PresenceBook<Arc<()>>, id: usize, user: &UserName, topics: &[Topic]) {
    let connection = ConnectionKey {
        shard: 0,
        id: id as u64,
    };
    let new = NewMessage {
        payload: 7,
        message: SHARED.with(Arc::clone),
        message_bytes: 0,
        named: topics.to_vec(),
        topics: topics.to_vec(),
    };
    let limits = PresenceLimits {
        messages_per_user: 16,
        users_per_topic: USERS,
        bytes_per_tenant: 16 << 20,
    };
    book.set(connection, user, new, &limits, 0).unwrap();
}

thread_local! {
    /// A message that takes no memory in the book.
    static SHARED: Arc<()> = Arc::new(());
}

fn name(user: usize) -> UserName {
    UserName::parse(&format!("user-{user}")).unwrap()
}

fn topic(number: usize) -> Topic {
    Topic::new("item", &number.to_string()).unwrap()
}
