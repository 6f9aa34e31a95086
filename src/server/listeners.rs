//! Opens the listening sockets of a relay as configured, or takes over inherited ones. Accepts
//! no connections.

use std::io;

use super::{
    InheritedSockets, ListenAddresses, ListenerName, StartError,
    inherited::LocalSocket,
    listener::{LocalListener, SocketBuffers, SocketListener},
    unix_socket::SocketAccess,
};
use crate::{
    config::{Config, ListenAddress},
    setup::RelaySetup,
};

/// The listeners of a relay.
pub(super) struct RelayListeners {
    pub(super) client: SocketListener,
    pub(super) ingest: LocalListener,
    pub(super) ops: LocalListener,
    pub(super) addresses: ListenAddresses,
}

impl RelayListeners {
    /// Takes over the inherited sockets and opens the others.
    pub(super) fn open(
        setup: &RelaySetup,
        inherited: InheritedSockets,
    ) -> Result<Self, StartError> {
        let config = &setup.live.config;
        let groups = setup.socket_groups;
        let buffers = Some(SocketBuffers {
            send: config.client.send_buffer,
            receive: config.client.receive_buffer,
        });
        let is_handed_over = !inherited.is_empty();
        let client = match inherited.client {
            Some(socket) => SocketListener::inherit(socket, buffers),
            None => SocketListener::bind(config.client.listen, buffers),
        };
        let client_address = ListenAddress::Tcp(config.client.listen);
        let (client, client_address) = map_listen_error(
            ListenerName::Client,
            &client_address,
            client.and_then(|it| it.address().map(|address| (it, address))),
        )?;
        let (ingest, ingest_address) = open_local(
            ListenerName::Ingest,
            &config.ingest.listen,
            inherited.ingest,
            SocketAccess {
                mode: config.ingest.socket_mode.bits(),
                group: groups.ingest,
            },
        )?;
        let (ops, ops_address) = open_local(
            ListenerName::Ops,
            &config.ops.listen,
            inherited.ops,
            SocketAccess {
                mode: config.ops.socket_mode.bits(),
                group: groups.ops,
            },
        )?;
        let addresses = ListenAddresses {
            client: client_address,
            ingest: ingest_address,
            ops: ops_address,
        };
        if is_handed_over {
            check_addresses(config, &addresses)?;
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
fn check_addresses(config: &Config, addresses: &ListenAddresses) -> Result<(), StartError> {
    let mut config = config.clone();
    config.client.listen = addresses.client;
    config.ingest.listen = addresses.ingest.clone();
    config.ops.listen = addresses.ops.clone();
    config.check().map_err(StartError::Inherited)
}

fn open_local(
    listener: ListenerName,
    listen: &ListenAddress,
    inherited: Option<LocalSocket>,
    access: SocketAccess,
) -> Result<(LocalListener, ListenAddress), StartError> {
    let found = match inherited {
        Some(LocalSocket::Tcp(socket)) => LocalListener::inherit_tcp(socket),
        Some(LocalSocket::Unix(socket)) => LocalListener::inherit_unix(socket),
        None => LocalListener::bind(listen, access),
    };
    map_listen_error(
        listener,
        listen,
        found.and_then(|it| it.address().map(|address| (it, address))),
    )
}

fn map_listen_error<T>(
    listener: ListenerName,
    address: &ListenAddress,
    outcome: io::Result<T>,
) -> Result<T, StartError> {
    outcome.map_err(|source| StartError::Listen {
        listener,
        address: address.clone(),
        source,
    })
}
