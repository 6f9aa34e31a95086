//! Where a relay listens, taken from its URL. Knows no TLS: a URL that asks for
//! it is refused rather than spoken to in clear.

use std::fmt;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// All but what RFC 3986, 2.3 leaves as it is.
pub(super) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, this without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// Why a URL names no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no URL.
    #[error("malformed URL: {0}")]
    Malformed(String),
    /// Its scheme is another one.
    #[error("the URL must begin with {expected}:// (TLS is not supported here)")]
    Scheme {
        /// The only scheme that would do.
        expected: &'static str,
    },
    /// It has no host.
    #[error("the URL names no host")]
    NoHost,
}

impl Address {
    /// The host and port of a URL of this scheme; without a port, 80.
    ///
    /// # Errors
    ///
    /// When the URL has another scheme, no host, or what no address has.
    pub fn of(uri: &Uri, scheme: &'static str) -> Result<Self, AddressError> {
        if uri.scheme_str() != Some(scheme) {
            return Err(AddressError::Scheme { expected: scheme });
        }
        let host = uri
            .host()
            .map(|host| host.trim_start_matches('[').trim_end_matches(']'))
            .filter(|host| !host.is_empty())
            .ok_or(AddressError::NoHost)?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_its_host_and_port() {
        for (url, shown) in [
            ("ws://127.0.0.1:3000/ws", "127.0.0.1:3000"),
            ("ws://[::1]:3000/ws", "[::1]:3000"),
            ("ws://relay.example/ws?x=1", "relay.example:80"),
        ] {
            let address = Address::of(&url.parse().unwrap(), "ws").unwrap();
            assert_eq!(address.to_string(), shown, "{url}");
        }
    }

    #[test]
    fn a_url_of_another_scheme_is_refused() {
        for url in [
            "wss://127.0.0.1:3000/ws",
            "http://127.0.0.1:3000/ws",
            "127.0.0.1:3000",
            "/ws",
        ] {
            let refused = AddressError::Scheme { expected: "ws" };
            assert_eq!(
                Address::of(&url.parse().unwrap(), "ws"),
                Err(refused),
                "{url}"
            );
        }
    }
}
