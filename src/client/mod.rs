//! A client of the relay, for `sidewire tail`, `sidewire publish` and the tests:
//! [`Connection`] is one WebSocket, [`Client`] reconnects after a connection is
//! lost, and [`Publisher`] posts events as a backend does. They know the relay's
//! protocol and pass an application's events on as bytes.

mod address;
mod connection;
mod envelope;
mod group;
mod had;
mod handshake;
mod options;
mod positions;
mod problem;
mod publish;
mod received;
mod reconnect;
mod steady;
mod stream;
mod subscriptions;

pub use address::{Address, AddressError, Schemes};
pub use connection::{Connection, MESSAGE_BYTES_MAX};
pub use envelope::{Control, Envelope};
pub use handshake::{OpenError, SUBPROTOCOL};
pub use options::{ClientOptions, Credential, FetchingToken, TokenSource};
pub use problem::{Fault, Problem};
pub use publish::{Encoding, Place, PublishAnswer, PublishError, Published, Publisher};
pub use received::{Event, ReceiveError, Received, SendError};
pub use reconnect::{Backoff, ClientError, DisconnectReason, RETRY_AFTER_MAX};
pub use steady::{Client, ClientEvent, Connecting, Connector, TcpConnector};
pub use stream::Stream;

#[cfg(test)]
mod relay_model;
#[cfg(test)]
mod testing;
