//! What a [`RelayClient`](super::RelayClient) tells its caller.

use std::time::Duration;

use sidewire_protocol::wire;

use super::{
    group::EventGap, received::ReceivedEvent, reconnect::DisconnectReason, renewal::RenewalError,
};

/// An event in the life of a [`RelayClient`](super::RelayClient).
#[derive(Debug)]
pub enum ClientEvent {
    /// The relay accepted the connection; the topics are being subscribed.
    Connected,
    /// The relay confirmed a Subscribe of this client.
    Subscribed(wire::SubscriptionConfirmed),
    /// The relay confirmed an Unsubscribe.
    Unsubscribed(wire::UnsubscribeConfirmed),
    /// The relay took a new token on the open connection.
    Renewed {
        /// When the token expires, in Unix seconds; `None` if it does not.
        expires_at: Option<i64>,
    },
    /// The token was not renewed. The connection lives on until the token expires; then the client
    /// connects again with a new one.
    RenewalFailed {
        /// The reason.
        reason: RenewalError,
        /// The time until the next attempt; `None` if there is none on this connection.
        retry_in: Option<Duration>,
    },
    /// The relay ended subscriptions: a new token does not cover them, or a backend revoked them.
    /// The client does not subscribe to these topics again by itself. Presence that names one of
    /// them may be refused on the next connection, so set it again without them.
    Revoked {
        /// The topics.
        topics: Vec<String>,
    },
    /// An event arrived that had not arrived before. Without a position it was sent by a client,
    /// or tells the presence of a user.
    Event(ReceivedEvent),
    /// The relay no longer has all events after a position: fetch the current state from
    /// the backend. No later event is missing.
    Gap {
        /// Every event up to this position was received. If the next events have another
        /// epoch, the relay has started a new log since.
        since: wire::Position,
        /// The topics with possibly missing events.
        topics: Vec<String>,
        /// True if events for the user, for the whole tenant, and of the topics that the token
        /// subscribes to may be missing too.
        implicit: bool,
    },
    /// The relay refused a Subscribe, so that none of its topics is subscribed, or an event or
    /// presence of this client, or says why it is about to close. A Subscribe refused with `retry_after_ms` is sent again
    /// after that time, any other on the next connection.
    Refused(wire::ErrorResponse),
    /// The connection ended or could not be opened.
    Disconnected {
        /// The reason.
        reason: DisconnectReason,
        /// The time until the next attempt.
        retry_in: Duration,
    },
}

impl From<EventGap> for ClientEvent {
    fn from(gap: EventGap) -> Self {
        Self::Gap {
            since: gap.since,
            topics: gap.topics,
            implicit: gap.implicit,
        }
    }
}
