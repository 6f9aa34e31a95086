//! Web origins as browsers write them. Does not know what an origin is allowed to do.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::Deserialize;

/// A web origin, normalized as browsers write it in the `Origin` header (RFC 6454, 6.2):
/// `scheme://host`, or `scheme://host:port` if the port is not the scheme's default, in
/// lower case. Values are equal if they are the same origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct WebOrigin(String);

/// An error in parsing a [`WebOrigin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// The text has no `scheme://` before the host.
    #[error("has no scheme; write it as https://app.example.com")]
    NoScheme,
    /// The scheme is not a letter followed by letters, digits, `+`, `-` or `.`.
    #[error("has a malformed scheme; write it as https://app.example.com")]
    MalformedScheme,
    /// The text has a path, query, fragment or user.
    #[error("has more than scheme, host and port; leave out the path and everything after it")]
    NotBare,
    /// The text contains `*`.
    #[error("has a wildcard, which could match more than was meant; list each origin in full")]
    Wildcard,
    /// The host is empty or has characters that browsers do not write.
    #[error("has a malformed host; write it as the browser does, international names in punycode")]
    MalformedHost,
    /// The port is not a number from 1 to 65535.
    #[error("has a malformed port, which must be 1 to 65535")]
    MalformedPort,
}

impl WebOrigin {
    /// Parses an origin and normalizes its case and default port.
    ///
    /// # Errors
    ///
    /// Fails if the text is not an origin; the error says why and how to write it.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text.contains('*') {
            return Err(OriginError::Wildcard);
        }
        let (scheme, authority) = text.split_once("://").ok_or(OriginError::NoScheme)?;
        let scheme = parse_scheme(scheme)?;
        if authority.contains(['/', '?', '#', '@']) {
            return Err(OriginError::NotBare);
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        let port = port
            .map(parse_port)
            .transpose()?
            .filter(|port| Some(*port) != default_port(&scheme));
        Ok(Self(match port {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }))
    }

    /// Returns the text that a browser sends.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for WebOrigin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| format!("{text:?} {error}"))
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parse_scheme(scheme: &str) -> Result<String, OriginError> {
    let well_formed = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if well_formed {
        Ok(scheme.to_ascii_lowercase())
    } else {
        Err(OriginError::MalformedScheme)
    }
}

/// Splits host and port, ignoring colons within the brackets of an IPv6 address. The
/// returned host lacks the closing bracket.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), OriginError> {
    if !authority.starts_with('[') {
        return Ok(match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        });
    }
    match authority.rsplit_once("]:") {
        Some((host, port)) => Ok((host, Some(port))),
        None => authority
            .strip_suffix(']')
            .map(|host| (host, None))
            .ok_or(OriginError::MalformedHost),
    }
}

fn parse_host(host: &str) -> Result<String, OriginError> {
    if let Some(address) = host.strip_prefix('[') {
        return address
            .parse::<Ipv6Addr>()
            .map(|address| format!("[{address}]"))
            .map_err(|_| OriginError::MalformedHost);
    }
    let well_formed = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if well_formed {
        Ok(host.to_ascii_lowercase())
    } else {
        Err(OriginError::MalformedHost)
    }
}

fn parse_port(port: &str) -> Result<u16, OriginError> {
    port.parse()
        .ok()
        .filter(|number| *number != 0 && port.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or(OriginError::MalformedPort)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_normalised_to_what_browsers_send() {
        for (text, normal) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.COM:443", "https://app.example.com"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("http://127.0.0.1:08080", "http://127.0.0.1:8080"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("tauri://localhost", "tauri://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(WebOrigin::parse(text).unwrap().as_str(), normal, "{text}");
            assert_eq!(WebOrigin::parse(normal).unwrap().as_str(), normal);
        }
    }

    #[test]
    fn a_value_that_is_not_a_bare_origin_is_refused_with_the_reason() {
        use OriginError::{
            MalformedHost, MalformedPort, MalformedScheme, NoScheme, NotBare, Wildcard,
        };
        for (text, reason) in [
            ("", NoScheme),
            ("null", NoScheme),
            ("app.example.com", NoScheme),
            ("://app.example.com", MalformedScheme),
            ("ht tp://app.example.com", MalformedScheme),
            ("*", Wildcard),
            ("https://*.example.com", Wildcard),
            ("https://app.example.com/", NotBare),
            ("https://app.example.com/path", NotBare),
            ("https://app.example.com?q", NotBare),
            ("https://app.example.com#f", NotBare),
            ("https://user@app.example.com", NotBare),
            ("https://", MalformedHost),
            ("https://:443", MalformedHost),
            ("https://app example.com", MalformedHost),
            ("https://ünlü.example", MalformedHost),
            ("http://[::1", MalformedHost),
            ("http://[::1]x", MalformedHost),
            ("http://[app]", MalformedHost),
            ("https://app.example.com:", MalformedPort),
            ("https://app.example.com:0", MalformedPort),
            ("https://app.example.com:65536", MalformedPort),
            ("https://app.example.com:+80", MalformedPort),
            ("https://app.example.com:80:80", MalformedPort),
        ] {
            assert_eq!(WebOrigin::parse(text), Err(reason), "{text:?}");
        }
    }
}
