//! The address of a relay, parsed from its URL. A URL that asks for TLS where TLS is
//! not available is an error; the client never falls back to plain text.

use std::fmt;

use hyper::Uri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// All characters except the unreserved ones of RFC 3986, section 2.3.
pub(super) const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayAddress {
    /// A host name or an IP address; an IPv6 address has no brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// True if the relay speaks TLS on this port.
    pub is_tls: bool,
}

/// The URL schemes of one kind of listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UrlSchemes {
    plain: &'static str,
    tls: Option<&'static str>,
}

impl UrlSchemes {
    /// The schemes of a relay's client listener.
    pub const WEBSOCKET: Self = Self {
        plain: "ws",
        tls: Some("wss"),
    };

    /// The scheme of a relay's ingest listener, which does not support TLS.
    pub const INGEST: Self = Self {
        plain: "http",
        tls: None,
    };
}

impl fmt::Display for UrlSchemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tls {
            Some(tls) => write!(f, "{}:// or {tls}://", self.plain),
            None => write!(f, "{}:// (this listener does not support TLS)", self.plain),
        }
    }
}

/// Why a URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not a URL.
    #[error("malformed URL: {0}")]
    Malformed(String),
    /// The scheme is not one of the expected ones.
    #[error("the URL must begin with {expected}")]
    Scheme {
        /// The schemes that are accepted.
        expected: UrlSchemes,
    },
    /// The URL asks for TLS, and the options have no TLS configuration.
    #[error("the URL asks for TLS, but no trusted certificates are configured")]
    NoTrust,
    /// The URL has no host.
    #[error("the URL has no host")]
    NoHost,
}

impl RelayAddress {
    /// Returns the host and port of a URL with one of these schemes. The default port is
    /// 80, or 443 for TLS.
    ///
    /// # Errors
    ///
    /// When the URL has another scheme, no host, a user name, or a port that is no port.
    pub fn from_uri(uri: &Uri, schemes: UrlSchemes) -> Result<Self, AddressError> {
        let scheme = uri.scheme_str();
        let is_tls = scheme.is_some() && scheme == schemes.tls;
        if !is_tls && scheme != Some(schemes.plain) {
            return Err(AddressError::Scheme { expected: schemes });
        }
        check_authority(uri)?;
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

/// Refuses what would be ignored otherwise: hyper takes a port that is no number for none, so that
/// a credential would be sent to the default port.
fn check_authority(uri: &Uri) -> Result<(), AddressError> {
    let malformed = |what: &str| Err(AddressError::Malformed(what.to_owned()));
    let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
        return Ok(());
    };
    let authority = authority.as_str();
    if authority.contains('@') {
        return malformed("it has a user name, which is not used");
    }
    let has_port = authority.len() > host.len();
    if has_port && uri.port_u16().is_none_or(|port| port == 0) {
        return malformed("the port is not a number from 1 to 65535");
    }
    Ok(())
}

impl fmt::Display for RelayAddress {
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
            let address =
                RelayAddress::from_uri(&url.parse().unwrap(), UrlSchemes::WEBSOCKET).unwrap();
            assert_eq!(address.to_string(), shown, "{url}");
            assert_eq!(address.is_tls, url.starts_with("wss:"), "{url}");
        }
    }

    #[test]
    fn a_url_with_a_user_name_or_a_bad_port_is_refused() {
        for url in [
            "ws://127.0.0.1:99999/ws",
            "ws://127.0.0.1:65536/ws",
            "ws://127.0.0.1:0/ws",
            "ws://127.0.0.1:/ws",
            "ws://[::1]:99999/ws",
            "ws://user:secret@127.0.0.1:3000/ws",
        ] {
            // Some of them hyper refuses itself.
            let Ok(uri) = url.parse() else { continue };
            let refused = RelayAddress::from_uri(&uri, UrlSchemes::WEBSOCKET);
            assert!(
                matches!(refused, Err(AddressError::Malformed(_))),
                "{url}: {refused:?}"
            );
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
            let expected = UrlSchemes::WEBSOCKET;
            let refused = Err(AddressError::Scheme { expected });
            assert_eq!(
                RelayAddress::from_uri(&url.parse().unwrap(), expected),
                refused,
                "{url}"
            );
        }
        let tls = RelayAddress::from_uri(&"https://127.0.0.1".parse().unwrap(), UrlSchemes::INGEST);
        assert!(
            tls.unwrap_err()
                .to_string()
                .contains("does not support TLS")
        );
    }
}
