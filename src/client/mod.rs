//! A client of the relay, for `sidewire tail`, `sidewire publish` and the tests:
//! [`Connection`] is one WebSocket, [`Client`] one that comes back after it was
//! lost, [`Publisher`] the backend's side. They know the relay's protocol and
//! nothing of an application's events, which they hand out as bytes.

mod address;
mod connection;
mod envelope;
mod handshake;
mod options;
mod problem;
mod publish;
mod reconnect;
mod steady;

pub use address::{Address, AddressError};
pub use connection::{Connection, Event, MESSAGE_BYTES_MAX, ReceiveError, Received, SendError};
pub use envelope::{Control, Envelope};
pub use handshake::{OpenError, SUBPROTOCOL};
pub use options::{ClientOptions, Credential};
pub use problem::{Fault, Problem};
pub use publish::{Encoding, PublishAnswer, PublishError, Published, Publisher};
pub use reconnect::{Backoff, ClientError, DisconnectReason, RETRY_AFTER_MAX};
pub use steady::{Client, ClientEvent, Connecting, Connector, TcpConnector};

#[cfg(test)]
mod testing;
