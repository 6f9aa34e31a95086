//! The ways in which clients are connected.

use sidewire_protocol::{NamedValues, named_values};

/// The way in which a client is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// A WebSocket.
    WebSocket,
    /// Server-sent events, without a way back.
    Sse,
    /// A poll, which is answered once.
    Poll,
}

impl TransportKind {
    /// All transports, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [Self::WebSocket, Self::Sse, Self::Poll];

    /// Returns true if the client is sent one HTTP response, and can send nothing: its only Subscribe
    /// is that of its request.
    #[must_use]
    pub fn is_response(self) -> bool {
        self != Self::WebSocket
    }

    /// Returns true if the connection lasts until one of both sides ends it. A poll ends with its
    /// answer.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        self != Self::Poll
    }
}

named_values! {
    impl TransportKind {
        WebSocket = "websocket",
        Sse = "sse",
        Poll = "poll",
    }
}
