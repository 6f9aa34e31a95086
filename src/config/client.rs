//! `[client]`: the listener of the WebSocket clients and what holds for each of
//! their connections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    error::Problems,
    origin::Origin,
    paths::Paths,
    values::{self, GIB, KIB, MIB},
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
    /// The most time from the first byte of a client's message to its last; 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub message_timeout: Duration,
    /// After so much time without a byte from a client it is sent a ping, which it has
    /// to answer; 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub ping_interval: Duration,
    /// After so much time without a byte from a client its connection is closed, more
    /// than `ping_interval`; 60 s.
    #[serde(deserialize_with = "values::duration")]
    pub idle_timeout: Duration,
    /// The addresses of proxies, and of networks of them, that are believed when they
    /// say for whom they connect; none by default.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the connections of these proxies begin with a header of the PROXY
    /// protocol, version 1 or 2; `false`. Else their `X-Forwarded-For` is looked at.
    pub proxy_protocol: bool,
    /// `[client.tls]`: the certificate that is shown to clients; `None`, the default:
    /// the listener speaks no TLS.
    pub tls: Option<Tls>,
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

/// `[client.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those between it and the root, as PEM.
    pub cert_file: PathBuf,
    /// Its private key, as PEM.
    pub key_file: PathBuf,
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
            message_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls: None,
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
        problems.check_size("client.head_max", self.head_max, HEAD_BYTES_MIN..=MIB);
        problems.check_size("client.message_max", self.message_max, 1..=GIB);
        problems.check_duration("client.write_timeout", self.write_timeout);
        problems.check_duration("client.message_timeout", self.message_timeout);
        problems.check_duration("client.ping_interval", self.ping_interval);
        problems.check_duration("client.idle_timeout", self.idle_timeout);
        if self.idle_timeout <= self.ping_interval {
            // The one that the file names is the one to point at.
            let key = if self.idle_timeout == Self::default().idle_timeout {
                "client.ping_interval"
            } else {
                "client.idle_timeout"
            };
            problems.refuse(
                key,
                "leaves no client time to answer a ping: client.idle_timeout must be more than client.ping_interval",
                "twice as much is a good start",
            );
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            problems.refuse(
                "client.proxy_protocol",
                "is true, and no proxy is trusted to speak it",
                "name the addresses of the proxies in client.trusted_proxies",
            );
        }
        problems.check_duration("client.drain_timeout", self.drain_timeout);
        problems.check_duration_or_zero("client.drain_spread", self.drain_spread);
        problems.check_size("client.send_buffer", self.send_buffer, 1..=GIB);
        problems.check_size("client.receive_buffer", self.receive_buffer, 1..=GIB);
    }

    pub(super) fn resolve(&mut self, paths: &Paths, problems: &mut Problems) {
        if let Some(tls) = &mut self.tls {
            paths.resolve(
                "client.tls.cert_file".to_owned(),
                &mut tls.cert_file,
                problems,
            );
            paths.resolve(
                "client.tls.key_file".to_owned(),
                &mut tls.key_file,
                problems,
            );
        }
    }
}
