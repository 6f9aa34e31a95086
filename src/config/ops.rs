//! `[ops]`: the listener for metrics and health, and the inspector on it. Names the key file but
//! never reads it.

use std::{net::Ipv4Addr, path::PathBuf};

use super::{
    error::ConfigProblems,
    host_name::HostName,
    listen::{ListenAddress, SocketMode},
    paths::PathResolver,
    reload::{live, restart},
    section::config_section,
    values,
};

/// Maximum of `tenant_labels`: each tenant is a time series, which Prometheus keeps for weeks.
const TENANT_LABELS_MAX: usize = 1_000;

config_section! {
    /// The `[ops]` section.
    pub struct OpsSection("ops") {
        /// Address and port, or a Unix socket; `127.0.0.1:3002`. Port 0 picks a free port.
        restart listen: ListenAddress = ListenAddress::Tcp((Ipv4Addr::LOCALHOST, 3002).into());
        /// The mode of the Unix socket; `0660`.
        restart socket_mode: SocketMode = SocketMode::default();
        /// The group of the Unix socket; with `None`, the default, the relay's own group.
        restart socket_group: Option<String> = None;
        /// Host names accepted in the `Host` header, in addition to `localhost` and IP addresses;
        /// none by default.
        live hosts: Vec<HostName> = Vec::new();
        /// Number of tenants, those with most connections, whose connections are a time series of
        /// their own; 20. With 0 there are none, nor one for the others.
        #[serde(deserialize_with = "values::count")]
        live tenant_labels: usize = 20;
        /// Serves the inspector, a page for people, at `/inspect`; false. The listener must be
        /// loopback or a Unix socket.
        restart inspector: bool = false;
        /// The file with the key of the inspector, which needs one; none by default.
        live inspector_key_file: Option<PathBuf> = None;
    }
}

impl OpsSection {
    pub(super) fn check(&self, problems: &mut ConfigProblems) {
        self.check_bounds(problems);
        if self.tenant_labels > TENANT_LABELS_MAX {
            problems.add_problem(
                "ops.tenant_labels",
                format!("is {}", self.tenant_labels),
                format!(
                    "the maximum is {TENANT_LABELS_MAX}; the other tenants are counted together"
                ),
            );
        }
        self.listen
            .check_group("ops.socket_group", self.socket_group.as_deref(), problems);
        self.check_inspector(problems);
    }

    fn check_inspector(&self, problems: &mut ConfigProblems) {
        if !self.inspector {
            return;
        }
        if !self.listen.is_local() {
            problems.add_problem(
                "ops.inspector",
                format!(
                    "shows events to people, but ops.listen is {}, which is not loopback",
                    self.listen
                ),
                "listen on 127.0.0.1 or a Unix socket, and reach it through `ssh -L`, or set it to false",
            );
        }
        if self.inspector_key_file.is_none() {
            problems.add_problem(
                "ops.inspector_key_file",
                "is missing, and the inspector shows events only to those who have its key",
                "name a file with a key, such as `openssl rand -hex 32` makes",
            );
        }
    }

    pub(super) fn resolve_paths(&mut self, paths: &PathResolver, problems: &mut ConfigProblems) {
        self.listen.resolve_path("ops.listen", paths, problems);
        if let Some(file) = &mut self.inspector_key_file {
            paths.resolve("ops.inspector_key_file".to_owned(), file, problems);
        }
    }
}
