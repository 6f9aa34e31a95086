//! `[ops]`: the listener for metrics and health.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::values;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Address and port; `127.0.0.1:3002`. Port 0 is a free one.
    #[serde(deserialize_with = "values::listen")]
    pub listen: SocketAddr,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 3002).into(),
        }
    }
}
