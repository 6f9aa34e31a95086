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
    reload::{live, restart},
    section::config_section,
    values::{self, GIB, KIB, MIB},
};

/// Minimum size of a request's head that hyper accepts as its limit, in bytes.
const HEAD_BYTES_MIN: usize = 8 * KIB;

config_section! {
    /// The `[client]` section.
    pub struct ClientSection("client") {
        /// Address and port; `0.0.0.0:3000`. Port 0 picks a free port.
        #[serde(deserialize_with = "values::listen")]
        restart listen: SocketAddr = (Ipv4Addr::UNSPECIFIED, 3000).into();
        /// The web origins that may connect. If empty, the default: all origins if a token is
        /// required, else those of this machine.
        live origins: Vec<WebOrigin> = Vec::new();
        /// True if the token may be passed as `?access_token=`, where it can end up in proxy logs;
        /// default: `false`.
        live query_token: bool = false;
        /// True if clients may take server-sent events at `/sse`; default: `true`.
        live sse: bool = true;
        /// True if clients may poll for events at `/poll`; default: `true`.
        live poll: bool = true;
        /// Maximum time from accepting a connection to its upgrade; 10 s.
        #[serde(deserialize_with = "values::duration")]
        live handshake_timeout: Duration = Duration::from_secs(10), check_duration();
        /// Maximum size of a request's head; 16 KiB.
        #[serde(deserialize_with = "values::size")]
        live head_max: usize = 16 * KIB, check_size(HEAD_BYTES_MIN..=MIB);
        /// Maximum size of a frame and of a message from a client; 64 KiB.
        #[serde(deserialize_with = "values::size")]
        live message_max: usize = 64 * KIB, check_size(1..=GIB);
        /// True if clients may send the payloads that the schema marks with `client_publish` or
        /// `presence`; default: `true`.
        live events: bool = true;
        /// Maximum time to write the rest of a frame that the kernel did not take as a whole;
        /// 10 s.
        #[serde(deserialize_with = "values::duration")]
        live write_timeout: Duration = Duration::from_secs(10), check_duration();
        /// Maximum time from the first byte of a client's message to its last; 30 s.
        #[serde(deserialize_with = "values::duration")]
        live message_timeout: Duration = Duration::from_secs(30), check_duration();
        /// Time without a byte from a client after which it is sent a ping, which it must answer;
        /// 30 s.
        #[serde(deserialize_with = "values::duration")]
        live ping_interval: Duration = Duration::from_secs(30), check_duration();
        /// Time without a byte from a client after which its connection is closed; must be more
        /// than `ping_interval`; 60 s.
        #[serde(deserialize_with = "values::duration")]
        live idle_timeout: Duration = Duration::from_secs(60), check_duration();
        /// Addresses and networks of the proxies that are trusted to name the client's address;
        /// none by default.
        #[serde(deserialize_with = "values::networks")]
        live trusted_proxies: Vec<IpNet> = Vec::new();
        /// True if connections from these proxies begin with a PROXY protocol header, version 1 or
        /// 2; default: `false`, in which case `X-Forwarded-For` is used.
        live proxy_protocol: bool = false;
        /// `[client.tls]`: the certificate for clients; with `None`, the default, the listener does
        /// not use TLS.
        restart_if_toggled tls: Option<TlsFiles> = None;
        /// Maximum time from the stop signal to the end of the process; 25 s.
        #[serde(deserialize_with = "values::duration")]
        live drain_timeout: Duration = Duration::from_secs(25), check_duration();
        /// Maximum time over which clients are asked to spread their reconnects after the relay
        /// has stopped; 10 s. With few clients it is 1 ms for each. 0 s asks all of them to
        /// reconnect immediately.
        #[serde(deserialize_with = "values::duration")]
        live drain_spread: Duration = Duration::from_secs(10), check_duration_or_zero();
        /// Kernel send buffer of a connection in bytes (`SO_SNDBUF`), which the kernel doubles. It
        /// bounds the kernel memory held by a client that does not read; 64 KiB.
        #[serde(deserialize_with = "values::size")]
        restart send_buffer: usize = 64 * KIB, check_size(1..=GIB);
        /// Kernel receive buffer of a connection in bytes (`SO_RCVBUF`), which the kernel doubles.
        /// This bounds the kernel memory held by a client that the relay does not read from,
        /// because the client does not take its replies; 64 KiB.
        #[serde(deserialize_with = "values::size")]
        restart receive_buffer: usize = 64 * KIB, check_size(1..=GIB);
    }
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

impl ClientSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
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

/// The class of a section: turning it on or off needs a restart. A reload reads the files that it
/// names again.
fn restart_if_toggled<T: Clone>(new: &mut Option<T>, running: &Option<T>) -> bool {
    let toggled = new.is_some() != running.is_some();
    if toggled {
        new.clone_from(running);
    }
    toggled
}
