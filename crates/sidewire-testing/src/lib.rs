//! What the tests share: running programs, a relay as a process, and clients that write their
//! own bytes and parse the relay's answers. It implements WebSocket frames, HTTP answers and
//! Protocol Buffers from the standards, so that a test does not judge the relay by the relay's
//! own code. From `sidewire-protocol` it takes only the generated control messages, the clock and
//! random numbers; the module `relay` also connects the Rust client, for tests of other things.
//! It does not depend on the relay's crate, whose unit tests use it too.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::new_without_default,
    reason = "a test may fail loudly; errors are texts for its report"
)]

pub mod http;
pub mod process;
pub mod protobuf;
pub mod relay;
pub mod socket;
pub mod token;
pub mod websocket;

use std::{env, fmt, str::FromStr};

/// Reads a number from the environment.
#[must_use]
pub fn setting<T: FromStr<Err: fmt::Debug>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|error| panic!("{name}={text}: {error:?}")))
}
