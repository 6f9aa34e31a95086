//! Names that come from outside: tenants, users and message ids. A value of these types is always
//! a valid name.

use std::{borrow::Borrow, fmt, sync::Arc};

/// Maximum size of a tenant's or user's name or a message id, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Reason that a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("is empty")]
    Empty,
    /// The text has more than [`NAME_BYTES_MAX`] bytes.
    #[error("has more than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// The text has a control character in it.
    #[error("has a control character in it")]
    ControlCharacter,
}

/// Returns true if any character is in Unicode's category Cc.
#[must_use]
pub fn has_control_character(text: &str) -> bool {
    // Most text is ASCII, which is checked much faster as bytes.
    text.bytes().any(|byte| byte.is_ascii_control())
        || (!text.is_ascii() && text.chars().any(char::is_control))
}

fn check_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        Err(NameError::Empty)
    } else if text.len() > NAME_BYTES_MAX {
        Err(NameError::TooLong)
    } else if has_control_character(text) {
        Err(NameError::ControlCharacter)
    } else {
        Ok(())
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to 128 bytes of UTF-8 without control characters; a clone shares them.
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the text as a name.
            ///
            /// # Errors
            ///
            /// Fails if it is empty, too long, or has a control character in it.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }
    };
}

name! {
    /// The isolation boundary: nothing crosses it.
    TenantName
}

name! {
    /// The identity of a client inside its tenant.
    UserName
}

name! {
    /// The id that the maker of a message gave it.
    MessageId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_128_bytes_and_no_control_characters() {
        for (text, verdict) in [
            ("a".to_owned(), Ok(())),
            ("Größe / 100 % ünlü ☃".to_owned(), Ok(())),
            ("x".repeat(128), Ok(())),
            (String::new(), Err(NameError::Empty)),
            ("x".repeat(129), Err(NameError::TooLong)),
            ("ü".repeat(65), Err(NameError::TooLong)),
            ("a\0".to_owned(), Err(NameError::ControlCharacter)),
            ("a\u{7f}".to_owned(), Err(NameError::ControlCharacter)),
        ] {
            assert_eq!(TenantName::parse(&text).map(drop), verdict, "{text:?}");
        }
    }
}
