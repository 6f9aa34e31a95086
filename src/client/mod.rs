//! A client of the relay, for `sidewire tail`, `sidewire publish` and the tests:
//! [`RelayConnection`] is one WebSocket, [`RelayClient`] reconnects after a connection is
//! lost, and [`EventPublisher`] posts events as a backend does. They know the relay's
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

pub use address::{AddressError, RelayAddress, UrlSchemes};
pub use connection::{MESSAGE_BYTES_MAX, RelayConnection};
pub use envelope::{ControlMessage, Envelope};
pub use handshake::{OpenError, SUBPROTOCOL};
pub use options::{ClientOptions, Credential, FetchingToken, TokenSource};
pub use problem::{EventFault, HttpRefusal};
pub use publish::{
    EventPublisher, PublishAnswer, PublishEncoding, PublishEndpoint, PublishFailure, PublishedEvent,
};
pub use received::{ReceiveError, ReceivedEvent, RelayMessage, SendError};
pub use reconnect::{Backoff, ClientError, DisconnectReason, RETRY_AFTER_MAX};
pub use steady::{ClientEvent, ConnectFuture, Connector, RelayClient, TcpConnector};
pub use stream::RelayStream;

#[cfg(test)]
mod relay_model;
#[cfg(test)]
mod testing;
