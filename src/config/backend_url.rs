//! The URL at which a backend is asked: `https`, or `http` on this machine, over TCP or a Unix
//! socket. Connects to nothing.

use std::{fmt, path::PathBuf};

use hyper::{Uri, http::uri::PathAndQuery};
use serde::{
    Deserialize,
    de::{Deserializer, Error as _},
};

use super::{
    error::ConfigProblems,
    listen::{SOCKET_PATH_BYTES_MAX, UNIX},
    paths::PathResolver,
};
use crate::outgoing_url::{UrlFault, parse_url, write_without_query};

/// The URL of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendUrl {
    /// An `https` URL, or an `http` URL with a host on this machine.
    Tcp(Uri),
    /// A Unix socket, over which HTTP is spoken: `unix:/run/app.sock:/path`.
    Unix {
        /// The path of the socket.
        socket: PathBuf,
        /// The path of the request, with its query.
        request: PathAndQuery,
    },
}

/// An error in parsing a [`BackendUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackendUrlError {
    /// The text is not a URL with a host, or a Unix socket with a path of a request.
    #[error(
        "is not a URL; write it as \"https://app.example.com/subscribe\", \"http://127.0.0.1:8080/subscribe\" or \"unix:/run/app.sock:/subscribe\""
    )]
    Malformed,
    /// An attacker on the network could read the questions and forge the answers.
    #[error(
        "is neither https, nor http on loopback, nor a Unix socket, so answers could be forged in transit"
    )]
    Insecure,
    /// The URL contains a user or password, which would appear in logs.
    #[error("contains a user or password, which would appear in logs")]
    UserInfo,
}

impl BackendUrl {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a URL at which a backend may be asked.
    pub fn parse(text: &str) -> Result<Self, BackendUrlError> {
        if let Some(rest) = text.strip_prefix(UNIX) {
            return Self::parse_unix(rest);
        }
        parse_url(text).map(Self::Tcp).map_err(|fault| match fault {
            UrlFault::Malformed => BackendUrlError::Malformed,
            UrlFault::Insecure => BackendUrlError::Insecure,
            UrlFault::UserInfo => BackendUrlError::UserInfo,
        })
    }

    /// Parses a socket and the path of a request, which the first `:/` after the socket's name
    /// separates.
    fn parse_unix(text: &str) -> Result<Self, BackendUrlError> {
        let (socket, request) = match text.split_once(":/") {
            Some((socket, _)) => (socket, text.get(socket.len() + 1..).unwrap_or("/")),
            None => (text, "/"),
        };
        if socket.is_empty() || socket.ends_with('/') {
            return Err(BackendUrlError::Malformed);
        }
        Ok(Self::Unix {
            socket: socket.into(),
            request: request.parse().map_err(|_| BackendUrlError::Malformed)?,
        })
    }

    /// Makes the path of a Unix socket absolute; reports problems under `key`.
    pub(super) fn resolve_path(
        &mut self,
        key: &str,
        paths: &PathResolver,
        problems: &mut ConfigProblems,
    ) {
        let Self::Unix { socket, .. } = self else {
            return;
        };
        paths.resolve(key.to_owned(), socket, problems);
        let bytes = socket.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            problems.add_problem(
                key,
                format!("has a socket path of {bytes} bytes, including its directory"),
                format!("the maximum is {SOCKET_PATH_BYTES_MAX} bytes"),
            );
        }
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Tcp(uri) => uri.to_string(),
            Self::Unix { socket, request } => format!("{UNIX}{}:{request}", socket.display()),
        };
        write_without_query(f, &text)
    }
}

impl<'de> Deserialize<'de> for BackendUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // The text may contain a password.
        Self::parse(&text).map_err(|error| D::Error::custom(format_args!("the URL {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_asked_over_https_or_on_this_machine() {
        for good in [
            "https://app.example.com/subscribe",
            "https://10.0.0.7:8443/ask?v=1",
            "http://127.0.0.1:8080/subscribe",
            "http://[::1]:8080/",
            "http://[::1]",
            "http://localhost/ask",
            "unix:/run/app.sock:/subscribe?v=1",
            "unix:app.sock",
        ] {
            assert!(BackendUrl::parse(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", BackendUrlError::Malformed),
            ("/subscribe", BackendUrlError::Malformed),
            ("http://127.0.0.1:99999/", BackendUrlError::Malformed),
            ("https://app.example.com:0/", BackendUrlError::Malformed),
            ("unix:", BackendUrlError::Malformed),
            ("unix::/subscribe", BackendUrlError::Malformed),
            ("unix:/run/:/subscribe", BackendUrlError::Malformed),
            ("unix:/run/app.sock:/a b", BackendUrlError::Malformed),
            ("http://app.example.com/ask", BackendUrlError::Insecure),
            ("http://127.0.0.1.example.com/", BackendUrlError::Insecure),
            ("ftp://127.0.0.1/ask", BackendUrlError::Insecure),
            ("https://a:b@app.example.com/", BackendUrlError::UserInfo),
        ] {
            assert_eq!(BackendUrl::parse(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn the_request_follows_the_socket_after_a_colon() {
        for (text, socket, request) in [
            (
                "unix:/run/app.sock:/ask?v=1",
                "/run/app.sock",
                Some("/ask?v=1"),
            ),
            ("unix:/run/a:b.sock:/a:/b", "/run/a:b.sock", Some("/a:/b")),
            ("unix:/run/app.sock", "/run/app.sock", None),
        ] {
            let expected = BackendUrl::Unix {
                socket: socket.into(),
                request: request.unwrap_or("/").parse().unwrap(),
            };
            assert_eq!(BackendUrl::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn the_query_of_a_url_is_not_shown() {
        for (url, shown) in [
            (
                "https://app.example.com/ask?key=hunter2",
                "https://app.example.com/ask?…",
            ),
            (
                "unix:/run/app.sock:/ask?key=hunter2",
                "unix:/run/app.sock:/ask?…",
            ),
            ("unix:/run/app.sock", "unix:/run/app.sock:/"),
        ] {
            assert_eq!(BackendUrl::parse(url).unwrap().to_string(), shown);
        }
    }
}
