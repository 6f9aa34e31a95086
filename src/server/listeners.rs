//! Opens the listening sockets of a relay as configured, or takes over inherited ones. Accepts
//! no connections.

use std::io;

use super::{
    Addresses, Inherited, ListenerName, StartError,
    inherited::LocalSocket,
    listener::{Buffers, Listener, LocalListener},
    unix_socket::Access,
};
use crate::{
    config::{Config, Listen},
    setup::Setup,
};

/// The listeners of a relay.
pub(super) struct Listeners {
    pub(super) client: Listener,
    pub(super) ingest: LocalListener,
    pub(super) ops: LocalListener,
    pub(super) addresses: Addresses,
}

impl Listeners {
    /// Takes over the inherited sockets and opens the others.
    pub(super) fn open(setup: &Setup, inherited: Inherited) -> Result<Self, StartError> {
        let config = &setup.live.config;
        let groups = setup.socket_groups;
        let buffers = Some(Buffers {
            send: config.client.send_buffer,
            receive: config.client.receive_buffer,
        });
        let is_handed_over = !inherited.is_empty();
        let client = match inherited.client {
            Some(socket) => Listener::inherit(socket, buffers),
            None => Listener::bind(config.client.listen, buffers),
        };
        let client_address = Listen::Tcp(config.client.listen);
        let (client, client_address) = opened(
            ListenerName::Client,
            &client_address,
            client.and_then(|it| it.address().map(|address| (it, address))),
        )?;
        let (ingest, ingest_address) = local(
            ListenerName::Ingest,
            &config.ingest.listen,
            inherited.ingest,
            Access {
                mode: config.ingest.socket_mode.bits(),
                group: groups.ingest,
            },
        )?;
        let (ops, ops_address) = local(
            ListenerName::Ops,
            &config.ops.listen,
            inherited.ops,
            Access {
                mode: config.ops.socket_mode.bits(),
                group: groups.ops,
            },
        )?;
        let addresses = Addresses {
            client: client_address,
            ingest: ingest_address,
            ops: ops_address,
        };
        if is_handed_over {
            check(config, &addresses)?;
        }
        Ok(Self {
            client,
            ingest,
            ops,
            addresses,
        })
    }
}

/// Checks the configuration with the actual addresses: an inherited socket may listen on an
/// address that the configuration does not allow, for example without authentication.
fn check(config: &Config, addresses: &Addresses) -> Result<(), StartError> {
    let mut config = config.clone();
    config.client.listen = addresses.client;
    config.ingest.listen = addresses.ingest.clone();
    config.ops.listen = addresses.ops.clone();
    config.check().map_err(StartError::Inherited)
}

fn local(
    listener: ListenerName,
    listen: &Listen,
    inherited: Option<LocalSocket>,
    access: Access,
) -> Result<(LocalListener, Listen), StartError> {
    let found = match inherited {
        Some(LocalSocket::Tcp(socket)) => LocalListener::inherit_tcp(socket),
        Some(LocalSocket::Unix(socket)) => LocalListener::inherit_unix(socket),
        None => LocalListener::bind(listen, access),
    };
    opened(
        listener,
        listen,
        found.and_then(|it| it.address().map(|address| (it, address))),
    )
}

fn opened<T>(
    listener: ListenerName,
    address: &Listen,
    outcome: io::Result<T>,
) -> Result<T, StartError> {
    outcome.map_err(|source| StartError::Listen {
        listener,
        address: address.clone(),
        source,
    })
}
