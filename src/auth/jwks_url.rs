//! The URL that a key set is fetched from. Fetches nothing.

use std::{fmt, net::IpAddr};

use hyper::Uri;
use serde::{
    Deserialize,
    de::{Deserializer, Error as _},
};

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
        let uri: Uri = text.parse().map_err(|_| JwksUrlError::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(JwksUrlError::Malformed);
        };
        if authority.as_str().contains('@') {
            return Err(JwksUrlError::UserInfo);
        }
        let has_bad_port = authority
            .as_str()
            .rsplit_once(':')
            .is_some_and(|(_, port)| {
                !port.ends_with(']') && port.parse::<u16>().map_or(true, |port| port == 0)
            });
        if authority.host().is_empty() || has_bad_port {
            return Err(JwksUrlError::Malformed);
        }
        match scheme {
            "https" => Ok(Self(uri)),
            "http" if is_loopback(authority.host()) => Ok(Self(uri)),
            _ => Err(JwksUrlError::Insecure),
        }
    }

    /// Returns the URL as hyper's type.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for JwksUrl {
    /// Leaves out the query, which may hold secrets and would appear in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match text.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?…"),
            None => f.write_str(&text),
        }
    }
}

impl<'de> Deserialize<'de> for JwksUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        // The text may contain a password.
        Self::parse(&text).map_err(|error| D::Error::custom(format_args!("the URL {error}")))
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
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
