//! `[client]`: the listener of the WebSocket clients and what holds for each of
//! their connections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde::Deserialize;

use super::{
    error::Problems,
    origin::Origin,
    values::{self, GIB, KIB},
};

/// The least that hyper takes for a request's head.
const HEAD_BYTES_MIN: usize = 8 * KIB;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Client {
    /// Address and port; `0.0.0.0:3000`. Port 0 is a free one.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
    /// The origins whose pages may connect. Empty, the default: all where a
    /// token is required, else those of this machine.
    pub origins: Vec<Origin>,
    /// Whether the token may come as `?access_token=`, where logs of proxies can
    /// see it; `false`.
    pub query_token: bool,
    /// The most time from accepting a connection to its upgrade; 10 s.
    #[serde(deserialize_with = "values::duration")]
    pub handshake_timeout: Duration,
    /// The most bytes of a request's head; 16 KiB.
    #[serde(deserialize_with = "values::size")]
    pub head_max: usize,
    /// The most bytes of a frame and of a message; 64 KiB.
    #[serde(deserialize_with = "values::size")]
    pub message_max: usize,
    /// The most time that one frame may take once the kernel has refused to take it
    /// whole; 10 s.
    #[serde(deserialize_with = "values::duration")]
    pub write_timeout: Duration,
    /// The most time from the signal to stop to the end of the process; 25 s.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// The time over which the clients are asked to come back after the relay has
    /// stopped; 10 s. 0 s asks all to come back at once.
    #[serde(deserialize_with = "values::duration")]
    pub drain_spread: Duration,
    /// The kernel's send buffer of a connection in bytes (`SO_SNDBUF`); the
    /// kernel doubles it. It bounds what a client that does not read holds there;
    /// 64 KiB.
    #[serde(deserialize_with = "values::size")]
    pub send_buffer: usize,
    /// The kernel's receive buffer of a connection in bytes (`SO_RCVBUF`); the
    /// kernel doubles it. It bounds what a client that is not read from, since it
    /// does not take its answers, holds there; 64 KiB.
    #[serde(deserialize_with = "values::size")]
    pub receive_buffer: usize,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::UNSPECIFIED, 3000).into(),
            origins: Vec::new(),
            query_token: false,
            handshake_timeout: Duration::from_secs(10),
            head_max: 16 * KIB,
            message_max: 64 * KIB,
            write_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(25),
            drain_spread: Duration::from_secs(10),
            send_buffer: 64 * KIB,
            receive_buffer: 64 * KIB,
        }
    }
}

impl Client {
    pub(super) fn check(&self, problems: &mut Problems) {
        problems.check_duration("client.handshake_timeout", self.handshake_timeout);
        problems.check_size("client.head_max", self.head_max, HEAD_BYTES_MIN..=GIB);
        problems.check_size("client.message_max", self.message_max, 1..=GIB);
        problems.check_duration("client.write_timeout", self.write_timeout);
        problems.check_duration("client.drain_timeout", self.drain_timeout);
        problems.check_duration_or_zero("client.drain_spread", self.drain_spread);
        problems.check_size("client.send_buffer", self.send_buffer, 1..=GIB);
        problems.check_size("client.receive_buffer", self.receive_buffer, 1..=GIB);
    }
}
