//! How a client and the relay write envelopes: the two subprotocols.

/// How envelopes are written on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Binary frames with Protocol Buffers: `sidewire.v1.protobuf`, also where a
    /// client offers no subprotocol.
    #[default]
    Protobuf,
    /// Text frames with canonical proto3 JSON: `sidewire.v1.json`.
    Json,
}

impl Encoding {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Protobuf => "sidewire.v1.protobuf",
            Self::Json => "sidewire.v1.json",
        }
    }
}
