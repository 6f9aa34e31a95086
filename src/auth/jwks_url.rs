//! The URL that a key set is fetched from. Fetches nothing.

use std::fmt;

use hyper::Uri;
use serde::{
    Deserialize,
    de::{Deserializer, Error as _},
};

use crate::outgoing_url::{UrlFault, parse_url, write_without_query};

/// The URL of a JSON Web Key Set: `https`, or `http` on this machine, where nobody can
/// change the set in transit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwksUrl(Uri);

/// An error in parsing a [`JwksUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwksUrlError {
    /// The text is not a URL with a host.
    #[error("is not a URL; write it as \"https://login.example.com/.well-known/jwks.json\"")]
    Malformed,
    /// An attacker on the network could replace the keys.
    #[error("is neither https nor http on loopback, so the keys could be replaced in transit")]
    Insecure,
    /// The URL contains a user or password, which would appear in logs.
    #[error("contains a user or password, which would appear in logs")]
    UserInfo,
}

impl JwksUrl {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a URL that keys may be fetched from.
    pub fn parse(text: &str) -> Result<Self, JwksUrlError> {
        parse_url(text).map(Self).map_err(|fault| match fault {
            UrlFault::Malformed => JwksUrlError::Malformed,
            UrlFault::Insecure => JwksUrlError::Insecure,
            UrlFault::UserInfo => JwksUrlError::UserInfo,
        })
    }

    /// Returns the URL as hyper's type.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        write_without_query(f, &text)
    }
}

impl<'de> Deserialize<'de> for JwksUrl {
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
    fn the_query_of_a_url_is_not_shown() {
        let url = JwksUrl::parse("https://login.example.com/jwks?key=hunter2").unwrap();
        assert_eq!(url.to_string(), "https://login.example.com/jwks?…");
        assert_eq!(url.uri().query(), Some("key=hunter2"));
    }

    #[test]
    fn a_key_set_url_uses_https_or_loopback() {
        for good in [
            "https://login.example.com/.well-known/jwks.json",
            "https://10.0.0.7:8443/keys?v=1",
            "http://127.0.0.1:8080/keys",
            "http://[::1]:8080/keys",
            "http://[::1]/keys",
            "http://localhost/keys",
        ] {
            assert!(JwksUrl::parse(good).is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", JwksUrlError::Malformed),
            ("/keys", JwksUrlError::Malformed),
            ("login.example.com", JwksUrlError::Malformed),
            ("http://127.0.0.1:99999/", JwksUrlError::Malformed),
            ("https://login.example.com:0/", JwksUrlError::Malformed),
            ("http://login.example.com/keys", JwksUrlError::Insecure),
            ("http://127.0.0.1.example.com/keys", JwksUrlError::Insecure),
            ("ftp://127.0.0.1/keys", JwksUrlError::Insecure),
            ("https://a:b@login.example.com/keys", JwksUrlError::UserInfo),
        ] {
            assert_eq!(JwksUrl::parse(bad), Err(error), "{bad}");
        }
    }
}
