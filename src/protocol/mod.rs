//! The vocabulary of the relay's own protocol: topics, names, positions, control
//! messages and codes. Knows no socket and no routing.

pub mod close;
pub mod code;
pub mod encoding;
pub mod frame;
pub mod name;
pub mod position;
pub mod reply;
pub mod topic;

/// The control messages as they are on the wire, generated from `proto/sidewire/v1/relay.proto`.
/// For the four subscription messages, these types have only the relay's fields, 16 and up.
#[allow(
    missing_docs,
    reason = "generated; the proto file documents every field"
)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/sidewire.v1.rs"));
}

pub use code::ErrorCode;
pub use encoding::EnvelopeEncoding;
pub use name::{MessageId, NameError, TenantName, UserName};
pub use position::{Epoch, Position};
pub use topic::{Topic, TopicError};
