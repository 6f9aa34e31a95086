//! Checks that at rest each client's view of who is present is what its connection sees by the
//! contract's definition.
//!
//! From outside it is not known when exactly the relay took a message. So the model has bounds: a
//! message was taken after it was sent, and before a later Ping of its connection was answered;
//! and of a topic to which its connection was about to be subscribed, it is unknown if the message
//! is on it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    client_events::{SeenMessage, user_name},
    rates::{ChargeOutcome, outcomes},
    refusals::is_refused,
};
use crate::{
    client_messages::WirePresence,
    history::{History, Moment},
    record::{ConnectionEnd, ConnectionRecord, FrameContent, RequestKind, SentRequest},
    topics::{TENANTS, TopicBits},
};

/// Time after which a connection that its client has left, even silently, has ended and no longer
/// lingers.
const GONE_WITHIN: Duration = Duration::from_secs(25);

/// The view of a client that stayed to the end.
pub(super) struct RestView {
    pub(super) connection: usize,
    pub(super) topics: TopicBits,
    pub(super) seen: BTreeMap<String, SeenMessage>,
}

/// The last presence message of a connection that stayed to the end.
#[derive(Debug)]
struct CurrentMessage {
    connection: usize,
    user: String,
    index: usize,
    /// It was taken after this time...
    sent: Duration,
    /// ...and before this.
    taken: Duration,
    /// The topics that it is on, and those that it may be on.
    topics: TopicBits,
    possible_topics: TopicBits,
}

/// Panics if a client sees something else than it should.
pub(super) fn check_at_rest(history: &History, views: &[RestView]) {
    let connections = history.connections.borrow();
    let Some(rest) = rest_time(&connections) else {
        return;
    };
    for tenant in 0..TENANTS.len() {
        let of_tenant = || {
            let all = connections.iter().enumerate();
            all.filter(move |(_, connection)| connection.tenant == tenant)
        };
        if of_tenant().any(|(_, connection)| may_linger(connection, rest)) {
            history.count("presence not at rest");
            continue;
        }
        let current = of_tenant().filter_map(|(number, it)| current_message(number, it, rest));
        let current: Vec<_> = current.collect();
        for view in views {
            let connection = &connections[view.connection];
            if connection.tenant == tenant {
                check_view(view, connection, &current, history);
            }
        }
    }
}

/// Returns the time at which the clients that stayed to the end left.
fn rest_time(connections: &[ConnectionRecord]) -> Option<Duration> {
    let stayed = connections.iter().filter(|it| stayed(it));
    let ends = stayed.filter_map(|it| it.end.map(|(when, _)| when.time));
    ends.min()
}

pub(super) fn stayed(connection: &ConnectionRecord) -> bool {
    matches!(connection.end, Some((_, ConnectionEnd::Done)))
}

fn may_linger(connection: &ConnectionRecord, rest: Duration) -> bool {
    let has_shown = connection
        .sent
        .iter()
        .any(|it| matches!(it.what, RequestKind::Presence(_)));
    let end = connection.end.map_or(rest, |(when, _)| when.time);
    has_shown && !stayed(connection) && end + GONE_WITHIN > rest
}

fn check_view(
    view: &RestView,
    connection: &ConnectionRecord,
    current: &[CurrentMessage],
    history: &History,
) {
    let own = user_name(connection);
    let must_see = |message: &&CurrentMessage| message.topics.meets(view.topics);
    let others = current.iter().filter(|message| message.user != own);
    for message in others.filter(must_see) {
        assert!(
            view.seen.contains_key(&message.user),
            "connection {} does not see {message:?}",
            view.connection
        );
    }
    for (user, seen) in view.seen.iter().filter(|(user, _)| **user != own) {
        history.count("a user who is seen at rest");
        let its = current.iter().filter(|message| message.user == *user);
        let its: Vec<_> = its.collect();
        let message = its
            .iter()
            .find(|it| it.connection == seen.connection && it.index == seen.index)
            .filter(|it| it.possible_topics.meets(view.topics));
        let message = message.unwrap_or_else(|| {
            panic!(
                "connection {} sees {user} by {seen:?}, and should {its:?}",
                view.connection
            )
        });
        if its.len() > 1 {
            history.count("a user who is seen at rest and has several connections");
        }
        let newer = its
            .iter()
            .filter(|it| must_see(it))
            .find(|it| it.sent > message.taken);
        assert!(
            newer.is_none(),
            "connection {} sees {message:?} instead of {newer:?}",
            view.connection
        );
    }
}

fn current_message(
    number: usize,
    connection: &ConnectionRecord,
    rest: Duration,
) -> Option<CurrentMessage> {
    if !stayed(connection) {
        return None;
    }
    let (index, presence) = last_presence(connection)?;
    if presence.is_absent() {
        return None;
    }
    let request = &connection.sent[index];
    let (topics, possible_topics) = topics_of(connection, index, presence);
    Some(CurrentMessage {
        connection: number,
        user: user_name(connection),
        index,
        sent: request.sent.time,
        taken: taken_by(connection, index).unwrap_or(rest),
        topics,
        possible_topics,
    })
}

/// Returns the last presence message that was not refused.
fn last_presence(connection: &ConnectionRecord) -> Option<(usize, &WirePresence)> {
    let sent = connection.sent.iter().enumerate().rev();
    let mut presence = sent.filter_map(|(index, request)| match &request.what {
        RequestKind::Presence(presence) if !is_refused(connection, &request.id) => {
            Some((index, presence))
        }
        _ => None,
    });
    presence.next()
}

/// Returns the time by which the relay had taken the request: a later Ping was answered. A Ping
/// overtakes what waits behind a Subscribe that a backend is asked about.
pub(super) fn taken_by(connection: &ConnectionRecord, index: usize) -> Option<Duration> {
    let outcomes = outcomes(connection);
    let earlier = connection.sent.iter().zip(&outcomes).take(index);
    let subscribes = earlier.filter(|(it, _)| matches!(it.what, RequestKind::Subscribe(_)));
    let mut free_at = Duration::ZERO;
    for (_, outcome) in subscribes {
        match outcome {
            ChargeOutcome::Taken(time)
            | ChargeOutcome::Limited(time)
            | ChargeOutcome::Unclear(time) => free_at = free_at.max(*time),
            ChargeOutcome::Unknown => return None,
        }
    }
    let later = connection.sent.iter().zip(&outcomes).skip(index + 1);
    let answered = later.filter_map(|(request, outcome)| match (&request.what, outcome) {
        (RequestKind::Ping(_), ChargeOutcome::Taken(time)) if *time > free_at => Some(*time),
        _ => None,
    });
    answered.min()
}

/// Returns the topics that the message with this index is on at rest, and those that it may be on.
///
/// A topic to which the connection is subscribed twice, exactly and by a wildcard, is kept when one
/// of the subscriptions ends. So it may also be kept by one that began later.
fn topics_of(
    connection: &ConnectionRecord,
    index: usize,
    presence: &WirePresence,
) -> (TopicBits, TopicBits) {
    let sent = connection.sent[index].sent.moment;
    let claim = connection.claim();
    let (mut certain, mut begun, mut held) = (claim, claim, claim);
    for heard in &connection.heard {
        let moment = heard.when.moment;
        let ended = match &heard.what {
            FrameContent::Subscribed(said) => {
                let begins = said.0.all();
                held |= begins;
                if index_of(connection, &said.0.request) < index {
                    begun |= begins;
                }
                if moment < sent {
                    certain |= begins;
                }
                continue;
            }
            FrameContent::Unsubscribed(said) => said.0.all(),
            what => what.lost_topics().unwrap_or_default(),
        };
        held = held.less(ended);
        if moment < sent {
            begun = begun.less(ended);
        }
        certain = certain.less(ended);
    }
    let possible = presence.topics().covered_by(begun).covered_by(held);
    (presence.topics().covered_by(certain), possible)
}

fn index_of(connection: &ConnectionRecord, id: &str) -> usize {
    let index = connection.sent.iter().position(|it| it.id == id);
    index.expect("it was sent")
}

pub(super) fn confirmed_at(connection: &ConnectionRecord, request: &SentRequest) -> Option<Moment> {
    let confirms = |what: &FrameContent| match what {
        FrameContent::Subscribed(said) | FrameContent::Unsubscribed(said) => {
            said.0.request == request.id
        }
        _ => false,
    };
    let confirmation = connection.heard.iter().find(|it| confirms(&it.what));
    confirmation.map(|heard| heard.when.moment)
}
