//! `[client]`: the listener for WebSocket clients, and the settings of their connections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    error::ConfigProblems,
    origin::WebOrigin,
    paths::PathResolver,
    values::{self, GIB, KIB, MIB},
};

/// Minimum size of a request's head that hyper accepts as its limit, in bytes.
const HEAD_BYTES_MIN: usize = 8 * KIB;

/// The `[client]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSection {
    /// Address and port; `0.0.0.0:3000`. Port 0 picks a free port.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
    /// The web origins that may connect. If empty, the default: all origins if a token is
    /// required, else those of this machine.
    pub origins: Vec<WebOrigin>,
    /// True if the token may be passed as `?access_token=`, where it can end up in proxy logs;
    /// default: `false`.
    pub query_token: bool,
    /// Maximum time from accepting a connection to its upgrade; 10 s.
    #[serde(deserialize_with = "values::duration")]
    pub handshake_timeout: Duration,
    /// Maximum size of a request's head; 16 KiB.
    #[serde(deserialize_with = "values::size")]
    pub head_max: usize,
    /// Maximum size of a frame and of a message from a client; 64 KiB.
    #[serde(deserialize_with = "values::size")]
    pub message_max: usize,
    /// Maximum time to write the rest of a frame that the kernel did not take as a whole;
    /// 10 s.
    #[serde(deserialize_with = "values::duration")]
    pub write_timeout: Duration,
    /// Maximum time from the first byte of a client's message to its last; 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub message_timeout: Duration,
    /// Time without a byte from a client after which it is sent a ping, which it must answer;
    /// 30 s.
    #[serde(deserialize_with = "values::duration")]
    pub ping_interval: Duration,
    /// Time without a byte from a client after which its connection is closed; must be more
    /// than `ping_interval`; 60 s.
    #[serde(deserialize_with = "values::duration")]
    pub idle_timeout: Duration,
    /// Addresses and networks of the proxies that are trusted to name the client's address;
    /// none by default.
    #[serde(deserialize_with = "values::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// True if connections from these proxies begin with a PROXY protocol header, version 1 or
    /// 2; default: `false`, in which case `X-Forwarded-For` is used.
    pub proxy_protocol: bool,
    /// `[client.tls]`: the certificate for clients; with `None`, the default, the listener does
    /// not use TLS.
    pub tls: Option<TlsFiles>,
    /// Maximum time from the stop signal to the end of the process; 25 s.
    #[serde(deserialize_with = "values::duration")]
    pub drain_timeout: Duration,
    /// Time over which clients are asked to spread their reconnects after the relay has
    /// stopped; 10 s. 0 s asks all of them to reconnect immediately.
    #[serde(deserialize_with = "values::duration")]
    pub drain_spread: Duration,
    /// Kernel send buffer of a connection in bytes (`SO_SNDBUF`), which the kernel doubles. It
    /// bounds the kernel memory held by a client that does not read; 64 KiB.
    #[serde(deserialize_with = "values::size")]
    pub send_buffer: usize,
    /// Kernel receive buffer of a connection in bytes (`SO_RCVBUF`), which the kernel doubles.
    /// This bounds the kernel memory held by a client that the relay does not read from, because
    /// the client does not take its replies; 64 KiB.
    #[serde(deserialize_with = "values::size")]
    pub receive_buffer: usize,
}

/// The `[client.tls]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The file with the certificate and its intermediates, as PEM.
    pub cert_file: PathBuf,
    /// The file with the certificate's private key, as PEM.
    pub key_file: PathBuf,
}

impl Default for ClientSection {
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

impl ClientSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        problems.check_duration("client.handshake_timeout", self.handshake_timeout);
        problems.check_size("client.head_max", self.head_max, HEAD_BYTES_MIN..=MIB);
        problems.check_size("client.message_max", self.message_max, 1..=GIB);
        problems.check_duration("client.write_timeout", self.write_timeout);
        problems.check_duration("client.message_timeout", self.message_timeout);
        problems.check_duration("client.ping_interval", self.ping_interval);
        problems.check_duration("client.idle_timeout", self.idle_timeout);
        if self.idle_timeout <= self.ping_interval {
            // Report the key that the file sets: the other one has its default.
            let key = if self.idle_timeout == Self::default().idle_timeout {
                "client.ping_interval"
            } else {
                "client.idle_timeout"
            };
            problems.add_problem(
                key,
                "leaves no client time to answer a ping: client.idle_timeout must be more than client.ping_interval",
                "twice client.ping_interval is a good choice",
            );
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            problems.add_problem(
                "client.proxy_protocol",
                "is true, but no proxy is trusted to send its header",
                "name the addresses of the proxies in client.trusted_proxies",
            );
        }
        problems.check_duration("client.drain_timeout", self.drain_timeout);
        problems.check_duration_or_zero("client.drain_spread", self.drain_spread);
        problems.check_size("client.send_buffer", self.send_buffer, 1..=GIB);
        problems.check_size("client.receive_buffer", self.receive_buffer, 1..=GIB);
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
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
