//! The keys that backends authenticate with. Knows no HTTP; the caller words the refusal of
//! a key.

use std::collections::HashSet;

use sidewire_protocol::TenantName;
use subtle::ConstantTimeEq;

use super::{
    Secret,
    shared_key::{SharedKey, SharedKeyError},
};

/// A key that allows a backend to post events, for all tenants or for some.
#[derive(Debug, Clone)]
pub struct IngestKey {
    name: String,
    key: SharedKey,
    tenants: Option<HashSet<TenantName>>,
}

/// An invalid ingest key, or a conflict between two ingest keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestKeyError {
    /// The key is too short, or has characters that no request could carry.
    #[error("the ingest key `{name}` {source}")]
    Key {
        /// Name of the key in the configuration.
        name: String,
        /// The problem.
        source: SharedKeyError,
    },
    /// The key has an empty list of tenants, so it could not be used.
    #[error("the ingest key `{name}` is limited to an empty list of tenants")]
    NoTenants {
        /// Name of the key in the configuration.
        name: String,
    },
    /// Two keys have the same name.
    #[error("there are two ingest keys called `{name}`")]
    SameName {
        /// Name of both keys in the configuration.
        name: String,
    },
    /// Two entries have the same key.
    #[error("the ingest keys `{first}` and `{second}` are the same")]
    SameKey {
        /// Name of the first key in the configuration.
        first: String,
        /// Name of the second key in the configuration.
        second: String,
    },
}

impl IngestKey {
    /// Creates the key that the configuration calls `name`, for the given tenants or for all.
    ///
    /// # Errors
    ///
    /// Fails if the key has fewer than 16 bytes or characters that no header can carry, or if
    /// the list of tenants is empty.
    pub fn new(
        name: String,
        secret: &Secret,
        tenants: Option<HashSet<TenantName>>,
    ) -> Result<Self, IngestKeyError> {
        if tenants.as_ref().is_some_and(HashSet::is_empty) {
            return Err(IngestKeyError::NoTenants { name });
        }
        match SharedKey::new(secret) {
            Ok(key) => Ok(Self { name, key, tenants }),
            Err(source) => Err(IngestKeyError::Key { name, source }),
        }
    }

    /// Returns the name of the key in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns true if the key may be used for the tenant.
    #[must_use]
    pub fn allows(&self, tenant: &TenantName) -> bool {
        self.tenants
            .as_ref()
            .is_none_or(|tenants| tenants.contains(tenant))
    }
}

/// The keys of all backends.
#[derive(Debug, Clone, Default)]
pub struct IngestKeys(Vec<IngestKey>);

impl IngestKeys {
    /// Creates the set of keys.
    ///
    /// # Errors
    ///
    /// Fails if two keys have the same name or the same value.
    pub fn new(keys: Vec<IngestKey>) -> Result<Self, IngestKeyError> {
        for (index, second) in keys.iter().enumerate() {
            for first in keys.iter().take(index) {
                if first.name == second.name {
                    let name = second.name.clone();
                    return Err(IngestKeyError::SameName { name });
                }
                if bool::from(first.key.ct_eq(&second.key)) {
                    let (first, second) = (first.name.clone(), second.name.clone());
                    return Err(IngestKeyError::SameKey { first, second });
                }
            }
        }
        Ok(Self(keys))
    }

    /// Returns true if there are no keys, so that backends need none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the key that was presented, or `None` if it is unknown. Always compares all keys
    /// and every byte, so that the time taken reveals nothing about how close a guess was.
    #[must_use]
    pub fn authenticate(&self, presented: &[u8]) -> Option<&IngestKey> {
        let presented = SharedKey::of_presented(presented);
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.key.ct_eq(&presented)) {
                found = Some(key);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::parse(name).unwrap()
    }

    fn key(
        name: &str,
        secret: &str,
        tenants: Option<&[&str]>,
    ) -> Result<IngestKey, IngestKeyError> {
        let tenants = tenants.map(|names| names.iter().map(|name| tenant(name)).collect());
        IngestKey::new(name.to_owned(), &Secret::new(secret), tenants)
    }

    fn keys() -> IngestKeys {
        IngestKeys::new(vec![
            key("tracker", "0123456789abcdef", None).unwrap(),
            key(
                "billing",
                "fedcba9876543210-billing",
                Some(&["acme", "globex"]),
            )
            .unwrap(),
        ])
        .unwrap()
    }

    #[test]
    fn a_key_is_found_only_if_it_matches_byte_for_byte() {
        let keys = keys();
        for (presented, name) in [
            ("0123456789abcdef", Some("tracker")),
            ("fedcba9876543210-billing", Some("billing")),
            ("", None),
            ("0123456789abcde", None),
            ("0123456789abcdeg", None),
            ("1123456789abcdef", None),
            ("0123456789abcdef ", None),
            ("0123456789abcdef\0", None),
            ("0123456789ABCDEF", None),
            ("0123456789abcdef0123456789abcdef", None),
            ("fedcba9876543210", None),
            ("tracker", None),
        ] {
            let found = keys.authenticate(presented.as_bytes()).map(IngestKey::name);
            assert_eq!(found, name, "{presented:?}");
        }
    }

    #[test]
    fn a_key_is_valid_only_for_its_tenants() {
        let keys = keys();
        let tracker = keys.authenticate(b"0123456789abcdef").unwrap();
        let billing = keys.authenticate(b"fedcba9876543210-billing").unwrap();
        for (name, allowed) in [
            ("acme", true),
            ("globex", true),
            ("ACME", false),
            ("acme2", false),
        ] {
            assert_eq!(billing.allows(&tenant(name)), allowed, "{name}");
            assert!(tracker.allows(&tenant(name)));
        }
    }

    #[test]
    fn an_empty_key_set_matches_no_key() {
        assert!(IngestKeys::default().is_empty());
        assert!(IngestKeys::default().authenticate(b"").is_none());
    }

    #[test]
    fn a_short_key_or_one_that_does_not_fit_into_a_header_is_refused() {
        let refused = |source| IngestKeyError::Key {
            name: "k".into(),
            source,
        };
        for (secret, error) in [
            ("", SharedKeyError::TooShort { bytes: 0 }),
            ("0123456789abcde", SharedKeyError::TooShort { bytes: 15 }),
            ("0123456789 abcdef", SharedKeyError::Characters),
            ("0123456789abcdef\n", SharedKeyError::Characters),
            ("0123456789abcdéf", SharedKeyError::Characters),
        ] {
            let found = key("k", secret, None).unwrap_err();
            assert_eq!(found, refused(error), "{secret:?}");
        }
        let error = key("k", "0123456789abcdef", Some(&[])).unwrap_err();
        assert_eq!(error, IngestKeyError::NoTenants { name: "k".into() });
    }

    #[test]
    fn two_keys_cannot_share_a_name_or_a_value() {
        let pair = |a: (&str, &str), b: (&str, &str)| {
            let keys = [a, b].map(|(name, secret)| key(name, secret, None).unwrap());
            IngestKeys::new(keys.into()).map(drop)
        };
        assert_eq!(
            pair(("a", "0123456789abcdef"), ("a", "0123456789abcdeg")),
            Err(IngestKeyError::SameName { name: "a".into() })
        );
        assert_eq!(
            pair(("a", "0123456789abcdef"), ("b", "0123456789abcdef")),
            Err(IngestKeyError::SameKey {
                first: "a".into(),
                second: "b".into()
            })
        );
    }

    #[test]
    fn debug_output_and_errors_do_not_show_the_key() {
        let shown = format!("{:?}", keys());
        assert!(shown.contains("tracker") && shown.contains("acme"));
        assert!(
            !shown.contains("abcdef") && !shown.contains("fedcba"),
            "{shown}"
        );
        assert!(!shown.contains("digest"), "{shown}");
        let error = key("k", "hunter2", None).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
