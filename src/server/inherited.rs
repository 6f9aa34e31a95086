//! Sockets that whoever started the process has opened for it, as systemd does
//! (sd_listen_fds(3)): which of them is which listener's. Opens none itself.

use std::{
    env, io,
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixListener},
    process,
};

use listenfd::ListenFd;
use socket2::SockRef;

use super::ListenerName;

/// What systemd calls a socket whose unit gives it no name.
const UNNAMED: &str = "unknown";

/// How the names of units of sockets end; a socket has its unit's where the unit
/// gives it none.
const UNIT: &str = ".socket";

/// The sockets that a process has begun with; none by default.
#[derive(Debug, Default)]
pub struct Inherited {
    pub(super) client: Option<TcpListener>,
    pub(super) ingest: Option<LocalSocket>,
    pub(super) ops: Option<LocalSocket>,
}

/// A socket of the machine's own side.
#[derive(Debug)]
pub(super) enum LocalSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Why sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// One has a name that no listener has.
    #[error(
        "a socket that was handed over is called {0:?}: FileDescriptorName= must be client, ingest or ops, and may be left out for a single one, which is the clients'"
    )]
    UnknownName(String),
    /// Two have the same name.
    #[error(
        "two sockets that were handed over are called {0}: each listener has one; \"[::]:3000\" takes IPv4 connections too"
    )]
    SameName(ListenerName),
    /// There are as many names as sockets, or none.
    #[error("{sockets} sockets were handed over with {names} names (LISTEN_FDNAMES)")]
    Names {
        /// How many sockets.
        sockets: usize,
        /// How many names.
        names: usize,
    },
    /// One is not what a listener needs.
    #[error("the socket that was handed over for {listener} is of no use: {source}")]
    Unusable {
        /// The listener.
        listener: ListenerName,
        /// What is the matter.
        source: io::Error,
    },
}

impl Inherited {
    /// The sockets of this process. They can be had once: what tells of them is taken
    /// out of the environment, so this is to be called before there are threads.
    ///
    /// # Errors
    ///
    /// When one of them has no place, or cannot be used in it.
    pub fn from_env() -> Result<Self, InheritError> {
        let is_ours =
            env::var("LISTEN_PID").is_ok_and(|number| number.parse().ok() == Some(process::id()));
        if !is_ours {
            return Ok(Self::default());
        }
        let names = env::var("LISTEN_FDNAMES").ok();
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for (index, listener) in listeners(sockets.len(), names.as_deref())?
            .into_iter()
            .enumerate()
        {
            inherited
                .take(&mut sockets, index, listener)
                .map_err(|source| InheritError::Unusable { listener, source })?;
        }
        Ok(inherited)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.client.is_none() && self.ingest.is_none() && self.ops.is_none()
    }

    fn take(
        &mut self,
        sockets: &mut ListenFd,
        index: usize,
        listener: ListenerName,
    ) -> io::Result<()> {
        match listener {
            ListenerName::Client => self.client = Some(tcp(sockets, index)?),
            ListenerName::Ingest => self.ingest = Some(local(sockets, index)?),
            ListenerName::Ops => self.ops = Some(local(sockets, index)?),
        }
        Ok(())
    }
}

fn tcp(sockets: &mut ListenFd, index: usize) -> io::Result<TcpListener> {
    let socket = sockets.take_tcp_listener(index)?;
    listening(socket)
}

fn local(sockets: &mut ListenFd, index: usize) -> io::Result<LocalSocket> {
    if let Ok(Some(socket)) = sockets.take_unix_listener(index) {
        return listening(Some(socket)).map(LocalSocket::Unix);
    }
    tcp(sockets, index).map(LocalSocket::Tcp)
}

fn listening<S: AsFd>(socket: Option<S>) -> io::Result<S> {
    let socket = socket.ok_or(io::ErrorKind::NotFound)?;
    if SockRef::from(&socket).is_listener()? {
        Ok(socket)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it does not listen",
        ))
    }
}

/// Which listener each of the sockets is for, by their names, which stand with colons
/// between them.
fn listeners(sockets: usize, names: Option<&str>) -> Result<Vec<ListenerName>, InheritError> {
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
    fn sockets_are_known_by_their_names() {
        use ListenerName::{Client, Ingest, Ops};
        for (names, found) in [
            (Some("client:ingest:ops"), vec![Client, Ingest, Ops]),
            (Some("ops:client"), vec![Ops, Client]),
            (Some("ingest"), vec![Ingest]),
            (Some("sidewire.socket"), vec![Client]),
            (Some("unknown"), vec![Client]),
            (None, vec![Client]),
        ] {
            assert_eq!(listeners(found.len(), names).unwrap(), found, "{names:?}");
        }
        assert_eq!(listeners(0, None).unwrap(), []);
    }

    #[test]
    fn a_socket_without_a_place_is_an_error() {
        let refused = |sockets, names| listeners(sockets, names).unwrap_err().to_string();
        assert!(refused(1, Some("http")).contains("\"http\""));
        assert!(refused(2, None).contains("\"unknown\""));
        assert!(refused(2, Some("client:sidewire.socket")).contains("\"sidewire.socket\""));
        assert!(refused(2, Some("client:client")).contains("called client"));
        assert!(refused(2, Some("client")).contains("2 sockets were handed over with 1 names"));
    }
}
