//! `[ops]`: the listener for metrics and health.

use std::net::Ipv4Addr;

use serde::Deserialize;

use super::{
    error::ConfigProblems,
    host_name::HostName,
    listen::{ListenAddress, SocketMode},
    paths::PathResolver,
};

/// The `[ops]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpsSection {
    /// Address and port, or a Unix socket; `127.0.0.1:3002`. Port 0 picks a free port.
    pub listen: ListenAddress,
    /// The mode of the Unix socket; `0660`.
    pub socket_mode: SocketMode,
    /// The group of the Unix socket; with `None`, the default, the relay's own group.
    pub socket_group: Option<String>,
    /// Host names accepted in the `Host` header, in addition to `localhost` and IP addresses;
    /// none by default.
    pub hosts: Vec<HostName>,
}

impl Default for OpsSection {
    fn default() -> Self {
        Self {
            listen: ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 3002).into()),
            socket_mode: SocketMode::default(),
            socket_group: None,
            hosts: Vec::new(),
        }
    }
}

impl OpsSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.listen
            .check_group("ops.socket_group", self.socket_group.as_deref(), problems);
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        self.listen.resolve_path("ops.listen", paths, problems);
    }
}
