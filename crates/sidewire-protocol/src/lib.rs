//! The vocabulary of Sidewire's protocol: topics, names, positions, control messages and
//! codes, and the [`schema`] that says which topics an event relates to. The relay, the client
//! library and the load generator share it. Performs no I/O but for reading schema files, and
//! knows nothing about connections and delivery.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

pub mod clock;
pub mod close;
pub mod code;
pub mod encoding;
pub mod envelope;
pub mod frame;
pub mod name;
pub mod named;
pub mod position;
pub mod random;
pub mod reply;
pub mod schema;
pub mod shorten;
pub mod suggest;
pub mod topic;
pub mod topic_map;

/// The control messages as they are on the wire, generated from `proto/sidewire/v1/relay.proto`.
/// For the four subscription messages, these types have only the relay's fields, 16 and up.
#[allow(
    missing_docs,
    reason = "generated; the proto file documents every field"
)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/sidewire.v1.rs"));

    /// Shows no token, so that none can be logged.
    impl std::fmt::Debug for Authenticate {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Authenticate(…)")
        }
    }
}

pub use code::ErrorCode;
pub use encoding::EnvelopeEncoding;
pub use name::{MessageId, NameError, TenantName, UserName};
pub use named::NamedValues;
pub use position::{Epoch, Position};
pub use topic::{Topic, TopicError};
