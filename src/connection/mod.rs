//! One client, from handshake to close. Knows nothing of other connections: what
//! they cause reaches it through its outbox.
//!
//! `entrance` is the way from an accepted connection to the stream that HTTP is spoken
//! over: a PROXY header (`proxy_header`), TLS (`tls_turns`); `client_address` says whose it is;
//! `handshake` turns an HTTP request into an identity and a byte stream; `admitted`
//! is a client that got through, and what is counted of it;
//! `behind` is what there is of one that is being sent what it missed;
//! `conversation` is the protocol as a pure state machine; `pace` is how fast the
//! client may speak; `stream` is the one
//! owner of the byte stream, which `frame_walk` tells when no message is begun;
//! `task` drives the conversation over it, by the `deadlines`, for which the
//! shard's `alarms` wake it.

mod admitted;
mod alarms;
mod behind;
mod client_address;
mod conversation;
mod deadlines;
mod entrance;
mod frame_walk;
mod handshake;
mod offer;
mod origin;
mod pace;
mod proxy_header;
mod stream;
mod task;
mod tls_handshakes;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod wire_testing;

pub use admitted::{Admitted, CONNECTION_BYTES};
pub use alarms::Alarms;
pub use conversation::{Action, Conversation, Heard, Kind, TopicsRequest};
pub use entrance::serve_tcp;
pub(crate) use handshake::NO_MEMORY;
pub use handshake::{handshake_bytes, serve};
pub use stream::Transport;
pub use task::converse;
