//! `[ops]`: the listener for metrics and health.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::{
    error::Problems,
    host_name::HostName,
    listen::{Listen, SocketMode},
    paths::Paths,
};

/// The `[ops]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Address and port, or a Unix socket; `127.0.0.1:3002`. Port 0 picks a free port.
    pub listen: Listen,
    /// The mode of the Unix socket; `0660`.
    pub socket_mode: SocketMode,
    /// The group of the Unix socket; with `None`, the default, the relay's own group.
    pub socket_group: Option<String>,
    /// Host names accepted in the `Host` header, in addition to `localhost` and IP addresses;
    /// none by default.
    pub hosts: Vec<HostName>,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            listen: Listen::Tcp((Ipv4Addr::LOCALHOST, 3002).into()),
            socket_mode: SocketMode::default(),
            socket_group: None,
            hosts: Vec::new(),
        }
    }
}

impl Ops {
    pub(super) fn check(&self, problems: &mut Problems) {
        self.listen
            .check_group("ops.socket_group", self.socket_group.as_deref(), problems);
    }

    pub(super) fn resolve(&mut self, paths: &Paths, problems: &mut Problems) {
        self.listen.resolve("ops.listen", paths, problems);
    }
}
