//! Listening sockets inherited from the process's parent, such as systemd (sd_listen_fds(3)),
//! and their assignment to listeners. Opens no sockets itself.

use std::{
    env, io,
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixListener},
    process,
};

use listenfd::ListenFd;
use socket2::SockRef;

use super::ListenerName;

/// Name that systemd gives a socket if its unit sets none.
const UNNAMED: &str = "unknown";

/// Suffix of the names of socket units. A socket has its unit's name if the unit sets none.
const UNIT: &str = ".socket";

/// The sockets that a process has inherited; none by default.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    pub(super) client: Option<TcpListener>,
    pub(super) ingest: Option<LocalSocket>,
    pub(super) ops: Option<LocalSocket>,
}

/// An inherited socket of the ingest or ops listener.
#[derive(Debug)]
pub(super) enum LocalSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An error that keeps inherited sockets from being used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// A socket has a name that is not a listener's.
    #[error(
        "an inherited socket is called {0:?}: FileDescriptorName= must be client, ingest or ops; it may be omitted for a single socket, which is then used for clients"
    )]
    UnknownName(String),
    /// Two sockets have the same name.
    #[error(
        "two inherited sockets are called {0}: each listener has one; \"[::]:3000\" accepts IPv4 connections too"
    )]
    SameName(ListenerName),
    /// The number of names differs from the number of sockets.
    #[error("{sockets} sockets were inherited with {names} names (LISTEN_FDNAMES)")]
    Names {
        /// Number of sockets.
        sockets: usize,
        /// Number of names.
        names: usize,
    },
    /// A socket is not of the type that its listener needs, or is not listening.
    #[error("cannot use the inherited socket for the {listener} listener: {source}")]
    Unusable {
        /// The listener.
        listener: ListenerName,
        /// The reason.
        source: io::Error,
    },
}

impl InheritedSockets {
    /// Takes the inherited sockets of this process. Works once: it removes their variables from
    /// the environment, so it must be called before any thread is started.
    ///
    /// # Errors
    ///
    /// If a socket cannot be assigned to a listener, or cannot be used for it.
    pub fn from_env() -> Result<Self, InheritError> {
        let is_ours =
            env::var("LISTEN_PID").is_ok_and(|number| number.parse().ok() == Some(process::id()));
        if !is_ours {
            return Ok(Self::default());
        }
        let names = env::var("LISTEN_FDNAMES").ok();
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for (index, listener) in listeners_by_name(sockets.len(), names.as_deref())?
            .into_iter()
            .enumerate()
        {
            inherited
                .take_socket(&mut sockets, index, listener)
                .map_err(|source| InheritError::Unusable { listener, source })?;
        }
        Ok(inherited)
    }

    /// Returns true if no socket was inherited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client.is_none() && self.ingest.is_none() && self.ops.is_none()
    }

    fn take_socket(
        &mut self,
        sockets: &mut ListenFd,
        index: usize,
        listener: ListenerName,
    ) -> io::Result<()> {
        match listener {
            ListenerName::Client => self.client = Some(take_tcp(sockets, index)?),
            ListenerName::Ingest => self.ingest = Some(take_local(sockets, index)?),
            ListenerName::Ops => self.ops = Some(take_local(sockets, index)?),
        }
        Ok(())
    }
}

fn take_tcp(sockets: &mut ListenFd, index: usize) -> io::Result<TcpListener> {
    let socket = sockets.take_tcp_listener(index)?;
    check_listening(socket)
}

fn take_local(sockets: &mut ListenFd, index: usize) -> io::Result<LocalSocket> {
    if let Ok(Some(socket)) = sockets.take_unix_listener(index) {
        return check_listening(Some(socket)).map(LocalSocket::Unix);
    }
    take_tcp(sockets, index).map(LocalSocket::Tcp)
}

fn check_listening<S: AsFd>(socket: Option<S>) -> io::Result<S> {
    let socket = socket.ok_or(io::ErrorKind::NotFound)?;
    if SockRef::from(&socket).is_listener()? {
        Ok(socket)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not listening",
        ))
    }
}

/// Returns the listener of each socket. `names` are the sockets' names, separated by colons.
fn listeners_by_name(
    sockets: usize,
    names: Option<&str>,
) -> Result<Vec<ListenerName>, InheritError> {
    let names: Vec<&str> = match names {
        Some(names) if !names.is_empty() => names.split(':').collect(),
        _ => vec![UNNAMED; sockets],
    };
    if names.len() != sockets {
        return Err(InheritError::Names {
            sockets,
            names: names.len(),
        });
    }
    let mut found = Vec::new();
    for name in names {
        let listener = match name {
            "client" => ListenerName::Client,
            "ingest" => ListenerName::Ingest,
            "ops" => ListenerName::Ops,
            _ if sockets == 1 && (name == UNNAMED || name.ends_with(UNIT)) => ListenerName::Client,
            _ => return Err(InheritError::UnknownName(name.to_owned())),
        };
        if found.contains(&listener) {
            return Err(InheritError::SameName(listener));
        }
        found.push(listener);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_identified_by_their_names() {
        use ListenerName::{Client, Ingest, Ops};
        for (names, found) in [
            (Some("client:ingest:ops"), vec![Client, Ingest, Ops]),
            (Some("ops:client"), vec![Ops, Client]),
            (Some("ingest"), vec![Ingest]),
            (Some("sidewire.socket"), vec![Client]),
            (Some("unknown"), vec![Client]),
            (None, vec![Client]),
        ] {
            assert_eq!(
                listeners_by_name(found.len(), names).unwrap(),
                found,
                "{names:?}"
            );
        }
        assert_eq!(listeners_by_name(0, None).unwrap(), []);
    }

    #[test]
    fn a_socket_that_matches_no_listener_is_an_error() {
        let refused = |sockets, names| listeners_by_name(sockets, names).unwrap_err().to_string();
        assert!(refused(1, Some("http")).contains("\"http\""));
        assert!(refused(2, None).contains("\"unknown\""));
        assert!(refused(2, Some("client:sidewire.socket")).contains("\"sidewire.socket\""));
        assert!(refused(2, Some("client:client")).contains("called client"));
        assert!(refused(2, Some("client")).contains("2 sockets were inherited with 1 names"));
    }
}
