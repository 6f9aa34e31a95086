//! A client of the Sidewire relay. [`RelayClient`] subscribes to topics, reconnects and resumes:
//! it yields each event once and in order, and reports every gap. [`RelayConnection`] is a
//! single WebSocket, and [`EventPublisher`] posts events as a backend does. All of them pass an
//! application's envelopes on as bytes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use sidewire_client::{ClientEvent, ClientOptions, RandomSource, RelayClient};
//!
//! let random = Arc::new(RandomSource::from_system()?);
//! let options = ClientOptions::new("ws://127.0.0.1:3000/ws", random).with_token("eyJhbGciOi…");
//! let mut client = RelayClient::new(options);
//! client.subscribe(["order:42"]);
//! loop {
//!     match client.next_event().await? {
//!         ClientEvent::Event(event) => println!("{}: {:?}", event.message_id, event.envelope),
//!         // Fetch the current state from the backend: the relay no longer has every event.
//!         ClientEvent::Gap { topics, .. } => println!("reload {topics:?}"),
//!         ClientEvent::Disconnected { reason, retry_in } => {
//!             println!("{reason}; connecting again in {retry_in:?}");
//!         }
//!         _ => {}
//!     }
//! }
//! # }
//! ```
//!
//! A backend posts an event in JSON, and again with the same message id if it does not know
//! whether the first call arrived:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sidewire_client::{Credential, EventPublisher, PublishEncoding};
//!
//! let key = Credential::new("an ingest key");
//! let publisher = EventPublisher::new("http://127.0.0.1:3001", Some(&key))?;
//! let event = r#"{"messageId": "7f9c", "event": {"type": "order.shipped"}}"#;
//! let answer = publisher
//!     .post("acme", event, PublishEncoding::Json, &["order:42"], false)
//!     .await?;
//! println!("{:?}", answer.results);
//! # Ok(())
//! # }
//! ```
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

mod address;
mod admin;
mod calls;
mod client_event;
mod connection;
mod group;
mod handshake;
mod live;
mod options;
mod positions;
mod presence;
mod problem;
mod publish;
mod received;
mod reconnect;
mod renewal;
mod seen_offsets;
mod steady;
mod stream;
mod subscriptions;

pub use address::{AddressError, RelayAddress, UrlSchemes};
pub use admin::{
    AdminClient, ConnectionInfo, ConnectionPage, ConnectionQuery, LogBounds, LogPosition,
    OutboxInfo, PresencePage, PresentUser, TenantInfo, TopicPresence,
};
pub use calls::{CallFailure, ListenerEndpoint};
pub use client_event::ClientEvent;
pub use connection::{MESSAGE_BYTES_MAX, RelayConnection};
pub use handshake::{OpenError, SUBPROTOCOL};
pub use options::{ClientOptions, Credential, FetchingToken, NoNewerToken, TokenSource};
pub use problem::{EventFault, HttpRefusal};
pub use publish::{EventPublisher, PublishAnswer, PublishEncoding, PublishedEvent};
pub use received::{ReceiveError, ReceivedEvent, RelayMessage, SendError};
pub use reconnect::{Backoff, ClientError, DisconnectReason, RETRY_AFTER_MAX};
pub use renewal::RenewalError;
pub use sidewire_protocol::envelope::{ControlMessage, Envelope};
pub use steady::{ConnectFuture, Connector, RelayClient, TcpConnector};
pub use stream::RelayStream;

pub use sidewire_protocol::{clock::Clock, random::RandomSource, wire};

#[cfg(test)]
mod relay_model;
#[cfg(test)]
mod testing;
