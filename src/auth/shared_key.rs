//! A secret that a caller presents to prove who it is. Knows neither its holder nor HTTP.

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq};

use super::Secret;

/// Minimum length of a shared key in bytes.
pub const SHARED_KEY_BYTES_MIN: usize = 16;

/// A key that is presented in a header. It holds a digest in place of the key: digests have one
/// length, so comparing them reveals nothing about the length of the key.
#[derive(Clone)]
pub struct SharedKey([u8; SHA256_OUTPUT_LEN]);

/// A secret that cannot be a shared key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedKeyError {
    /// The key is so short that it could be guessed.
    #[error(
        "has {bytes} bytes and needs at least {SHARED_KEY_BYTES_MIN}; `openssl rand -hex 32` makes one"
    )]
    TooShort {
        /// Length of the key in bytes.
        bytes: usize,
    },
    /// The key has characters that no request could carry.
    #[error("must consist of visible ASCII characters, since it travels in an HTTP header")]
    Characters,
}

impl SharedKey {
    /// Creates the key.
    ///
    /// # Errors
    ///
    /// Fails if the secret has fewer than 16 bytes, or characters that no header can carry.
    pub fn new(secret: &Secret) -> Result<Self, SharedKeyError> {
        let bytes = secret.as_bytes();
        if bytes.len() < SHARED_KEY_BYTES_MIN {
            let bytes = bytes.len();
            return Err(SharedKeyError::TooShort { bytes });
        }
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(SharedKeyError::Characters);
        }
        Ok(Self::of_presented(bytes))
    }

    /// Returns the key that a caller presents, whether there is one like it or not.
    #[must_use]
    pub fn of_presented(bytes: &[u8]) -> Self {
        let mut output = [0; SHA256_OUTPUT_LEN];
        output.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(output)
    }
}

/// Compares every byte, so that the time taken reveals nothing about how close a guess was.
impl ConstantTimeEq for SharedKey {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(masked)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<SharedKey, SharedKeyError> {
        SharedKey::new(&Secret::new(text))
    }

    #[test]
    fn only_the_same_bytes_are_the_same_key() {
        let key = key("0123456789abcdef").unwrap();
        for (presented, expected) in [
            ("0123456789abcdef", true),
            ("0123456789abcdeF", false),
            ("0123456789abcdef ", false),
            ("0123456789abcde", false),
            ("", false),
        ] {
            let presented_key = SharedKey::of_presented(presented.as_bytes());
            assert_eq!(
                bool::from(key.ct_eq(&presented_key)),
                expected,
                "{presented:?}"
            );
        }
    }

    #[test]
    fn a_short_key_and_one_that_no_header_can_carry_are_refused() {
        assert!(matches!(
            key("0123456789abcde"),
            Err(SharedKeyError::TooShort { bytes: 15 })
        ));
        for text in [
            "0123456789 abcdef",
            "0123456789abcdef\n",
            "0123456789abcdeé",
        ] {
            assert!(
                matches!(key(text), Err(SharedKeyError::Characters)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn debug_output_masks_a_key() {
        let output = format!("{:?}", key("0123456789abcdef").unwrap());
        assert_eq!(output, "SharedKey(masked)");
    }
}
