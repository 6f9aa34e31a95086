//! What memory is held for, by whom, and how much each holder is guaranteed.

/// What memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryUse {
    /// Events in logs, inboxes and outboxes, with their JSON.
    Events,
    /// Requests of backends, from the first byte of a body until the answer is made.
    Requests,
    /// Topics that clients are subscribed to.
    Subscriptions,
    /// Messages of clients that have begun to arrive and are not complete.
    BegunMessages,
    /// JSON and large envelopes that a worker thread decodes or renders.
    Decoding,
    /// Connections of clients, without what they say and are sent.
    ClientConnections,
    /// Connections of backends, without their requests.
    BackendConnections,
    /// TLS sessions of clients.
    Tls,
    /// Handshakes of clients that are under way.
    Handshakes,
}

impl MemoryUse {
    /// All uses.
    pub const ALL: [Self; 9] = [
        Self::Events,
        Self::Requests,
        Self::Subscriptions,
        Self::BegunMessages,
        Self::Decoding,
        Self::ClientConnections,
        Self::BackendConnections,
        Self::Tls,
        Self::Handshakes,
    ];

    /// The value of the label `use`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Requests => "requests",
            Self::Subscriptions => "subscriptions",
            Self::BegunMessages => "begun_messages",
            Self::Decoding => "decoding",
            Self::ClientConnections => "client_connections",
            Self::BackendConnections => "backend_connections",
            Self::Tls => "tls",
            Self::Handshakes => "handshakes",
        }
    }

    pub(super) fn holder(self) -> Holder {
        match self {
            Self::Events => Holder::Events,
            Self::Requests => Holder::Backends,
            Self::BackendConnections => Holder::BackendConnections,
            Self::Subscriptions => Holder::Clients,
            Self::BegunMessages => Holder::BegunMessages,
            Self::Decoding => Holder::Decoding,
            Self::ClientConnections | Self::Tls | Self::Handshakes => Holder::Connections,
        }
    }
}

/// For whom memory is held. Each has a guaranteed share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Events,
    Backends,
    BackendConnections,
    Clients,
    BegunMessages,
    Decoding,
    Connections,
}

impl Holder {
    pub(super) const ALL: [Self; 7] = [
        Self::Events,
        Self::Backends,
        Self::BackendConnections,
        Self::Clients,
        Self::BegunMessages,
        Self::Decoding,
        Self::Connections,
    ];

    pub(super) fn guarantee(self, limits: MemoryLimits) -> u64 {
        match self {
            Self::Events => limits.window,
            Self::Backends | Self::Clients => limits.share(),
            Self::BackendConnections | Self::BegunMessages | Self::Decoding | Self::Connections => {
                limits.small_share()
            }
        }
    }
}

/// The memory that a request holds beside its body, in bytes: its head, and what the hub
/// keeps of it until it is answered.
pub const REQUEST_BYTES: usize = 16 * 1024;

/// How often a body is in memory: as it came, and in the events that are made of it.
pub const BODY_COPIES: usize = 2;

/// The least by which the memory of a body grows that does not say how long it is, in bytes.
pub const BODY_GROWTH_BYTES: usize = 64 * 1024;

/// How the memory is divided, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// The most that may be held in all.
    pub max: u64,
    /// What the replay window may take, which nobody else gets.
    pub window: u64,
}

impl MemoryLimits {
    /// Without a bound.
    pub const UNBOUNDED: Self = Self {
        max: u64::MAX,
        window: 0,
    };

    /// The guaranteed share of clients, and that of backends: a quarter each of what the
    /// replay window leaves.
    #[must_use]
    pub fn share(self) -> u64 {
        self.max.saturating_sub(self.window) / 4
    }

    /// What large requests of backends may have of their share, in bytes. They must neither
    /// have all the others refused nor take the memory in which bodies are decoded.
    #[must_use]
    pub fn large_requests(self) -> u64 {
        self.share() / 4 * 3
    }

    /// The largest body that a request may have, in bytes, where no other is under way.
    #[must_use]
    pub fn body_max(self) -> u64 {
        let beside = (REQUEST_BYTES + BODY_GROWTH_BYTES) as u64;
        self.large_requests().saturating_sub(beside) / BODY_COPIES as u64
    }

    /// The guaranteed share of each of the others: a sixteenth of what the replay window
    /// leaves.
    #[must_use]
    pub fn small_share(self) -> u64 {
        self.max.saturating_sub(self.window) / 16
    }
}
