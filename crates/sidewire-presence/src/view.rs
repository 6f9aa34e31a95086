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
