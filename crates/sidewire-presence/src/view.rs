//! What a connection is sent when what it sees has changed.

use sidewire_protocol::Topic;

use crate::{ConnectionKey, Entry, seen};

/// What a connection is to be sent.
#[derive(Debug)]
pub enum ViewUpdate<'e, M> {
    /// The message of this entry, which the connection now sees.
    Present(&'e Entry<M>),
    /// The connection sees nothing any more. It is sent the message of this entry, which it saw
    /// last, with the absent value in place.
    Absent(&'e Entry<M>),
}

/// What a connection is to be sent if it saw the entry `before` of a key and now sees `after`.
///
/// It is not sent its own messages, nor that its own message has ended. An entry that has begun to
/// linger has the same message as before, so there is nothing to send.
pub fn update_after_change<'e, M>(
    receiver: ConnectionKey,
    before: Option<&'e Entry<M>>,
    after: Option<&'e Entry<M>>,
) -> Option<ViewUpdate<'e, M>> {
    match (before, after) {
        (Some(before), Some(after)) if before.order == after.order => None,
        (_, Some(after)) if after.connection != receiver => Some(ViewUpdate::Present(after)),
        (Some(before), None) if before.connection != receiver => Some(ViewUpdate::Absent(before)),
        _ => None,
    }
}

/// What a connection is to be sent of a key after some of its subscriptions have ended: `had` are
/// the topics before that, `has` those that remain, and `entries` is what its shard has applied.
///
/// Clients forget a user whose last message names none of their remaining topics. So the absent
/// message is needed only if the last message names one: a message may name a topic on which its
/// sender is not present. `is_up_to_date` says that the last message that the client was sent of
/// the key is the one it saw. It is false if the key is owed, or a snapshot of a lost topic is not
/// complete; then the client may know an older message, and the absent message is always sent.
///
/// This has to be asked of every key on the lost topics, in the same step in which they are lost.
pub fn update_after_unsubscribe<M>(
    receiver: ConnectionKey,
    entries: &[Entry<M>],
    had: impl Fn(&Topic) -> bool,
    has: impl Fn(&Topic) -> bool,
    is_up_to_date: bool,
) -> Option<ViewUpdate<'_, M>> {
    let update = update_after_change(receiver, seen(entries, had), seen(entries, &has));
    match update {
        Some(ViewUpdate::Absent(last)) if is_up_to_date && !last.named.iter().any(has) => None,
        update => update,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{connection, entry, lingering, topic};

    /// The kind of the update, and the number of its entry.
    fn shown(update: Option<ViewUpdate<'_, ()>>) -> Option<(&'static str, u64)> {
        update.map(|update| match update {
            ViewUpdate::Present(entry) => ("present", entry.order),
            ViewUpdate::Absent(entry) => ("absent", entry.order),
        })
    }

    #[test]
    fn a_connection_is_sent_what_it_now_sees_but_nothing_of_its_own() {
        let (old, new) = (entry(1, 1, &["a:1"]), entry(1, 2, &["a:1"]));
        let (other, own) = (entry(2, 3, &["a:1"]), entry(9, 4, &["a:1"]));
        let faded = lingering(old.clone());
        for (before, after, expected) in [
            (None, None, None),
            (None, Some(&old), Some(("present", 1))),
            (Some(&old), Some(&new), Some(("present", 2))),
            (Some(&other), Some(&old), Some(("present", 1))),
            (Some(&old), None, Some(("absent", 1))),
            (Some(&old), Some(&faded), None),
            (Some(&faded), None, Some(("absent", 1))),
            (Some(&old), Some(&own), None),
            (None, Some(&own), None),
            (Some(&own), None, None),
            (Some(&own), Some(&old), Some(("present", 1))),
        ] {
            let update = update_after_change(connection(9), before, after);
            assert_eq!(shown(update), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn the_absent_message_is_sent_after_an_unsubscribe_if_the_client_does_not_forget() {
        let mut names_both = entry(1, 1, &["a:1"]);
        names_both.named = [topic("a:1"), topic("a:2")].into();
        let names_lost = entry(1, 1, &["a:1"]);
        let had = |topic: &Topic| ["a:1", "a:2"].contains(&topic.as_str());
        let has = |topic: &Topic| topic.as_str() == "a:2";
        for (seen, is_up_to_date, expected) in [
            (&names_both, true, Some(("absent", 1))),
            (&names_lost, true, None),
            (&names_lost, false, Some(("absent", 1))),
        ] {
            let entries = [seen.clone()];
            let update = update_after_unsubscribe(connection(9), &entries, had, has, is_up_to_date);
            assert_eq!(shown(update), expected, "{seen:?}");
        }
    }

    #[test]
    fn an_older_message_that_is_seen_instead_is_sent_after_an_unsubscribe() {
        let entries = [entry(2, 2, &["a:1"]), entry(1, 1, &["a:2"])];
        let has = |topic: &Topic| topic.as_str() == "a:2";
        let update = update_after_unsubscribe(connection(9), &entries, |_| true, has, true);
        assert_eq!(shown(update), Some(("present", 1)));
    }
}
