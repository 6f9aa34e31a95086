//! Host names as in the `Host` header. Does not know which host has which name.

use std::fmt;

use serde::Deserialize;

/// A host name without a port, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(Box<str>);

impl HostName {
    /// Parses a host name and converts it to lower case.
    ///
    /// # Errors
    ///
    /// Fails if the text is empty, longer than 253 bytes, or has characters other than ASCII
    /// letters, digits, `-`, `.` and `_`, for example a port or a wildcard.
    pub fn parse(text: &str) -> Result<Self, HostNameError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if (1..=253).contains(&text.len()) && text.bytes().all(is_allowed) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(HostNameError)
        }
    }

    /// Returns true if `host` is this name, ignoring case.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        self.0.eq_ignore_ascii_case(host)
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|error| format!("{text:?} {error}"))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error in parsing a [`HostName`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a host name; write it without a port, such as \"relay.internal\"")]
pub struct HostNameError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_has_no_port_or_wildcard_and_ignores_case() {
        let name = HostName::parse("Relay.Internal").unwrap();
        assert_eq!(name.to_string(), "relay.internal");
        assert!(name.matches("RELAY.internal") && !name.matches("relay.internal.evil.example"));
        let long = "x".repeat(254);
        for text in [
            "",
            "relay:3002",
            "*.internal",
            "http://relay",
            "[::1]",
            "ä",
            &long,
        ] {
            assert_eq!(HostName::parse(text), Err(HostNameError), "{text}");
        }
    }
}
