//! The address of the ingest or ops listener: TCP, or a Unix socket. Opens neither.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, Unexpected},
};

use super::{error::ConfigProblems, is_loopback, paths::PathResolver};

/// The prefix of a Unix socket's path.
pub(super) const UNIX: &str = "unix:";

/// Maximum length in bytes of a Unix socket's path (unix(7)), without the terminating zero.
pub(super) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Maximum length in bytes of the temporary name that a socket is created under, in the same
/// directory: a dot and the process id.
const HIDDEN_NAME_BYTES_MAX: usize = 8;

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Returns true if only this machine can connect to it.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => is_loopback(*address),
            Self::Unix(_) => true,
        }
    }

    /// Returns the TCP address; `None` for a Unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    pub(super) fn resolve_path(
        &mut self,
        key: &str,
        paths: &PathResolver,
        problems: &mut ConfigProblems,
    ) {
        let Self::Unix(path) = self else {
            return;
        };
        paths.resolve(key.to_owned(), path, problems);
        let name_bytes = path.file_name().map_or(0, |name| name.len());
        let bytes = path.as_os_str().len() + HIDDEN_NAME_BYTES_MAX.saturating_sub(name_bytes);
        if bytes > SOCKET_PATH_BYTES_MAX {
            problems.add_problem(
                key,
                format!("is a path of {bytes} bytes, including its directory"),
                format!(
                    "the maximum is {SOCKET_PATH_BYTES_MAX} bytes; for example \"unix:/run/sidewire/NAME.sock\""
                ),
            );
        }
    }

    /// Reports a group that is set for a TCP listener: only a Unix socket has a group.
    pub(super) fn check_group(
        &self,
        key: &str,
        group: Option<&str>,
        problems: &mut ConfigProblems,
    ) {
        if group.is_some() && self.tcp_address().is_some() {
            problems.add_problem(
                key,
                "is the group of a Unix socket, but the listener is a TCP address",
                "listen on \"unix:/run/sidewire/NAME.sock\", or remove it",
            );
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for ListenAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix(UNIX) {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| {
            D::Error::invalid_value(
                Unexpected::Str(&text),
                &"an IP address and a port, such as \"127.0.0.1:3000\" or \"[::1]:3000\", or \"unix:\" and a path",
            )
        })
    }
}

/// The file mode of a Unix socket, in octal as for chmod(1), such as `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketMode(u32);

impl SocketMode {
    /// Returns the permission bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl<'de> Deserialize<'de> for SocketMode {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
        u32::from_str_radix(&text, 8)
            .ok()
            .filter(|bits| is_octal && *bits <= 0o777)
            .map(Self)
            .ok_or_else(|| {
                D::Error::invalid_value(
                    Unexpected::Str(&text),
                    &"the mode of a file in octal, such as \"0660\"",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listen_address_reads_back_as_written() {
        for text in [
            "127.0.0.1:3001",
            "[::1]:3001",
            "unix:/run/sidewire/ingest.sock",
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["", "localhost:3001", "127.0.0.1", "/run/ingest.sock"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn unix_sockets_and_loopback_addresses_are_local() {
        for (text, is_local) in [
            ("unix:a", true),
            ("127.0.0.2:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
        ] {
            assert_eq!(
                text.parse::<ListenAddress>().unwrap().is_local(),
                is_local,
                "{text}"
            );
        }
    }
}
