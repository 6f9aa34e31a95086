//! Checks that clients lack no more events of other clients than the relay has dropped and counted.

use super::{
    presence::{confirmed_at, stayed, taken_by},
    refusals::is_refused,
};
use crate::{
    history::{History, Moment},
    record::{ConnectionRecord, FrameContent, RequestKind},
    topics::TopicBits,
};

/// Panics if more events are missing than were `dropped`.
pub(super) fn check(history: &History, dropped: u64) {
    let connections = history.connections.borrow();
    let (mut due, mut lacking) = (0, 0);
    for (number, sender) in connections.iter().enumerate() {
        for (index, request) in sender.sent.iter().enumerate() {
            let RequestKind::Typing(typing) = &request.what else {
                continue;
            };
            if is_refused(sender, &request.id) || taken_by(sender, index).is_none() {
                continue;
            }
            let topics = typing.topics().covered_by(
                sender
                    .subscribed_when_sent(index)
                    .less(sender.lost_topics()),
            );
            for (other, receiver) in connections.iter().enumerate() {
                let is_due = other != number
                    && receiver.tenant == sender.tenant
                    && stayed(receiver)
                    && subscribed_since(receiver, request.sent.moment).meets(topics);
                due += u64::from(is_due);
                lacking += u64::from(is_due && !has_heard(receiver, &request.id));
            }
        }
    }
    assert!(
        lacking <= dropped,
        "{lacking} of {due} events of clients are missing, and {dropped} were dropped"
    );
}

/// Returns the topics of the connection that were confirmed before this moment, and that it never
/// unsubscribed from nor lost.
fn subscribed_since(connection: &ConnectionRecord, moment: Moment) -> TopicBits {
    let claim = connection.token.claim;
    let claim = claim.filter(|_| connection.opened.moment < moment);
    let requests = connection.sent.iter();
    let held = requests.fold(claim.unwrap_or_default(), |held, request| {
        match &request.what {
            RequestKind::Subscribe(asked)
                if confirmed_at(connection, request).is_some_and(|at| at < moment) =>
            {
                held | asked.all()
            }
            RequestKind::Unsubscribe(asked) => held.less(asked.all()),
            _ => held,
        }
    });
    held.less(connection.lost_topics())
}

fn has_heard(connection: &ConnectionRecord, id: &str) -> bool {
    let is_it =
        |what: &FrameContent| matches!(what, FrameContent::Typing { id: heard, .. } if heard == id);
    connection.heard.iter().any(|heard| is_it(&heard.what))
}
