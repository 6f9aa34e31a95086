//! Where a relay listens, taken from its URL. A URL that asks for TLS where there is
//! none is refused rather than spoken to in clear.

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
    /// Whether TLS is spoken there.
    pub is_tls: bool,
}

/// What URLs of one kind begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schemes {
    plain: &'static str,
    tls: Option<&'static str>,
}

impl Schemes {
    /// Of a relay's client listener.
    pub const WEBSOCKET: Self = Self {
        plain: "ws",
        tls: Some("wss"),
    };

    /// Of a relay's ingest listener, which speaks no TLS.
    pub const INGEST: Self = Self {
        plain: "http",
        tls: None,
    };
}

impl fmt::Display for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tls {
            Some(tls) => write!(f, "{}:// or {tls}://", self.plain),
            None => write!(f, "{}:// (TLS is not spoken there)", self.plain),
        }
    }
}

/// Why a URL names no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no URL.
    #[error("malformed URL: {0}")]
    Malformed(String),
    /// Its scheme is another one.
    #[error("the URL must begin with {expected}")]
    Scheme {
        /// Those that would do.
        expected: Schemes,
    },
    /// It asks for TLS, and the options have nothing to check a certificate against.
    #[error("the URL asks for TLS, and there is nothing to check a certificate against")]
    NoTrust,
    /// It has no host.
    #[error("the URL names no host")]
    NoHost,
}

impl Address {
    /// The host and port of a URL of one of these schemes; without a port 80, or 443 for
    /// TLS.
    ///
    /// # Errors
    ///
    /// When the URL has another scheme, no host, or what no address has.
    pub fn of(uri: &Uri, schemes: Schemes) -> Result<Self, AddressError> {
        let scheme = uri.scheme_str();
        let is_tls = scheme.is_some() && scheme == schemes.tls;
        if !is_tls && scheme != Some(schemes.plain) {
            return Err(AddressError::Scheme { expected: schemes });
        }
        let host = uri
            .host()
            .map(|host| host.trim_start_matches('[').trim_end_matches(']'))
            .filter(|host| !host.is_empty())
            .ok_or(AddressError::NoHost)?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            is_tls,
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
            ("wss://relay.example/ws", "relay.example:443"),
            ("wss://relay.example:3000/ws", "relay.example:3000"),
        ] {
            let address = Address::of(&url.parse().unwrap(), Schemes::WEBSOCKET).unwrap();
            assert_eq!(address.to_string(), shown, "{url}");
            assert_eq!(address.is_tls, url.starts_with("wss:"), "{url}");
        }
    }

    #[test]
    fn a_url_of_another_scheme_is_refused() {
        for url in [
            "http://127.0.0.1:3000/ws",
            "https://127.0.0.1:3000/ws",
            "127.0.0.1:3000",
            "/ws",
        ] {
            let expected = Schemes::WEBSOCKET;
            let refused = Err(AddressError::Scheme { expected });
            assert_eq!(
                Address::of(&url.parse().unwrap(), expected),
                refused,
                "{url}"
            );
        }
        let tls = Address::of(&"https://127.0.0.1".parse().unwrap(), Schemes::INGEST);
        assert!(
            tls.unwrap_err()
                .to_string()
                .contains("TLS is not spoken there")
        );
    }
}
