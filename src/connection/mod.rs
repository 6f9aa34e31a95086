//! The connection of a client, from handshake to close. Knows nothing of other connections: their
//! effects reach it through its outbox.
//!
//! `entrance` takes an accepted connection to the stream that HTTP runs over: a PROXY header
//! (`proxy_header`), then TLS (`tls_handshakes`). `client_address` finds the client's address.
//! `handshake` turns an HTTP request into a byte stream. `admission` decides on it, with the checks
//! of `upgrade`, `offer`, `origin` and `authentication`; `visible_refusal` refuses one so that a
//! browser can see why. `http_stream` makes a byte stream of one HTTP response, for clients without a
//! WebSocket: server-sent events and `polls`, between which `read_ahead` waits for the next request. `admitted` is a client that passed the handshake, with
//! its entries in metrics and limits. `conversation` is the protocol as pure functions, `pace` the
//! client's message rates, and `waiting` the requests that wait for a Subscribe. `stream` is the
//! only owner of the byte stream; `frame_walk` tells it when no message is in progress. `task`
//! drives the conversation over the stream, by the `deadlines`, for which the shard's alarms
//! wake it.

mod admission;
mod admitted;
mod authentication;
mod client_address;
mod conversation;
mod deadlines;
mod entrance;
mod frame_walk;
mod handshake;
mod http_stream;
mod offer;
mod origin;
mod pace;
mod polls;
mod proxy_header;
mod read_ahead;
mod stream;
mod task;
mod tls_handshakes;
mod upgrade;
mod visible_refusal;
mod waiting;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod wire_testing;

pub(crate) use admission::NO_MEMORY;
pub use admitted::{AdmittedClient, CONNECTION_BYTES};
pub use conversation::{
    ClientEventLimits, ClientEventRequest, ClientRequest, Conversation, ConversationAction,
    ConversationLimits, MessageKind, ParsedFrame, PresenceChange, RenewalRequest, TopicsAnswer,
    TopicsRequest,
};
pub use entrance::serve_tcp;
pub use handshake::{handshake_bytes, serve_stream};
pub use stream::Transport;
pub use task::run_connection;
