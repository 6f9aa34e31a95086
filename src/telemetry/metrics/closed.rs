//! Counts the connections of clients that have ended, by transport and reason.

use sidewire_protocol::{EnvelopeEncoding, NamedValues, close::CloseReason};

use super::{
    labels::CloseLabel,
    register::{CounterFamily, SeriesRegistry},
};
use crate::transport::TransportKind;

/// The counters, a family for each transport.
pub(super) struct ClosedConnections([CounterFamily<CloseLabel>; TransportKind::COUNT]);

impl ClosedConnections {
    pub(super) fn register(register: &SeriesRegistry<'_>) -> Self {
        Self(TransportKind::ALL.map(|transport| {
            register.family_with(
                "sidewire_connections_closed_total",
                "Connections of clients that have ended, by transport and reason. Each poll is a connection.",
                "reason",
                &[("transport", transport.name())],
                impossible_ends(transport),
            )
        }))
    }

    /// Counts a connection that has ended.
    pub(super) fn increment(&self, transport: TransportKind, reason: CloseLabel) {
        if let Some(family) = self.0.get(transport.index()) {
            family.increment(&reason);
        }
    }
}

/// Returns the reasons for which no connection with this transport ends: only WebSockets are sent
/// frames, and only polls are answered.
fn impossible_ends(transport: TransportKind) -> &'static [CloseLabel] {
    use CloseLabel::{Answered, BadUtf8, ByRelay, ProtocolError, TooBig};
    const WRONG_FRAME_TYPE: CloseLabel = ByRelay(CloseReason::WrongFrameType {
        spoken: EnvelopeEncoding::Json,
    });
    const UNFINISHED: CloseLabel = ByRelay(CloseReason::Unfinished);
    match transport {
        TransportKind::WebSocket => &[Answered],
        TransportKind::Sse => &[
            Answered,
            ProtocolError,
            TooBig,
            BadUtf8,
            WRONG_FRAME_TYPE,
            UNFINISHED,
        ],
        TransportKind::Poll => &[
            ProtocolError,
            TooBig,
            BadUtf8,
            WRONG_FRAME_TYPE,
            UNFINISHED,
            ByRelay(CloseReason::Idle),
            ByRelay(CloseReason::PresenceOwed),
        ],
    }
}
