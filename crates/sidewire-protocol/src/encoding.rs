//! The encodings of envelopes, of which each is a subprotocol.

/// The encoding of the envelopes on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum EnvelopeEncoding {
    /// Binary frames with Protocol Buffers: `sidewire.v1.protobuf`, also used if a client offers
    /// no subprotocol.
    #[default]
    Protobuf,
    /// Text frames with canonical proto3 JSON: `sidewire.v1.json`.
    Json,
}

impl EnvelopeEncoding {
    /// Both encodings.
    pub const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    /// Returns the name in the log and in listings: `protobuf` or `json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "protobuf",
            Self::Json => "json",
        }
    }

    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Protobuf => "sidewire.v1.protobuf",
            Self::Json => "sidewire.v1.json",
        }
    }
}
