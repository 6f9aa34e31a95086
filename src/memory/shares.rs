//! The uses of memory, their holders, and the share that each holder is guaranteed.

use sidewire_protocol::named_values;

named_values! {
    /// A use of memory.
    pub enum MemoryUse {
        /// Events in logs, inboxes and outboxes, with their JSON.
        Events = "events",
        /// Requests of backends, from the first byte of a body until the answer is made.
        Requests = "requests",
        /// Topics that clients are subscribed to.
        Subscriptions = "subscriptions",
        /// Presence messages of clients, kept while these are connected.
        Presence = "presence",
        /// Questions to the backend about subscriptions, and its remembered answers.
        Authorization = "authorization",
        /// Messages of clients that have begun to arrive and are not complete.
        BegunMessages = "begun_messages",
        /// JSON and large envelopes that a worker thread decodes or renders.
        Decoding = "decoding",
        /// Connections of clients, without the messages that they receive or send.
        ClientConnections = "client_connections",
        /// Connections of backends, without their requests.
        BackendConnections = "backend_connections",
        /// TLS sessions of clients.
        Tls = "tls",
        /// Handshakes of clients that are under way.
        Handshakes = "handshakes",
    }
}

impl MemoryUse {
    pub(super) fn holder(self) -> MemoryHolder {
        match self {
            Self::Events => MemoryHolder::Events,
            Self::Requests => MemoryHolder::Backends,
            Self::BackendConnections => MemoryHolder::BackendConnections,
            Self::Subscriptions | Self::Presence | Self::Authorization => MemoryHolder::Clients,
            Self::BegunMessages => MemoryHolder::BegunMessages,
            Self::Decoding => MemoryHolder::Decoding,
            Self::ClientConnections | Self::Tls | Self::Handshakes => MemoryHolder::Connections,
        }
    }
}

/// A group of uses with a guaranteed share of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryHolder {
    Events,
    Backends,
    BackendConnections,
    Clients,
    BegunMessages,
    Decoding,
    Connections,
}

impl MemoryHolder {
    pub(super) const ALL: [Self; 7] = [
        Self::Events,
        Self::Backends,
        Self::BackendConnections,
        Self::Clients,
        Self::BegunMessages,
        Self::Decoding,
        Self::Connections,
    ];

    pub(super) fn guaranteed_bytes(self, limits: MemoryLimits) -> u64 {
        match self {
            Self::Events => limits.window,
            Self::Backends | Self::Clients => limits.share(),
            Self::BackendConnections | Self::BegunMessages | Self::Decoding | Self::Connections => {
                limits.small_share()
            }
        }
    }
}

/// Bytes of memory that a request holds in addition to its body: its head, and the state
/// that the hub keeps until the request is answered.
pub const REQUEST_BYTES: usize = 16 * 1024;

/// Number of copies of a body in memory: the body itself and the events made from it.
pub const BODY_COPIES: usize = 2;

/// Minimum growth, in bytes, of the memory reserved for a body of unknown length.
pub const BODY_GROWTH_BYTES: usize = 64 * 1024;

/// The bounds by which the memory is divided, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Maximum for all uses together.
    pub max: u64,
    /// Bytes reserved for events in the replay window.
    pub window: u64,
}

impl MemoryLimits {
    /// No bound.
    pub const UNBOUNDED: Self = Self {
        max: u64::MAX,
        window: 0,
    };

    /// Returns the guaranteed share of clients' subscriptions, and that of backends' requests,
    /// in bytes: each gets a quarter of the memory beyond the replay window.
    #[must_use]
    pub fn share(self) -> u64 {
        self.max.saturating_sub(self.window) / 4
    }

    /// Returns the part of the backends' share that large requests may take, in bytes. The
    /// rest is left for small requests and for decoding admitted bodies.
    #[must_use]
    pub fn large_requests(self) -> u64 {
        self.share() / 4 * 3
    }

    /// Returns the size in bytes of the largest body that is admitted if no other request runs.
    #[must_use]
    pub fn body_max(self) -> u64 {
        let beside = (REQUEST_BYTES + BODY_GROWTH_BYTES) as u64;
        self.large_requests().saturating_sub(beside) / BODY_COPIES as u64
    }

    /// Returns the guaranteed share of each other holder, in bytes: a sixteenth of the memory
    /// beyond the replay window.
    #[must_use]
    pub fn small_share(self) -> u64 {
        self.max.saturating_sub(self.window) / 16
    }
}
