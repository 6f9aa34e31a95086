//! How clients are told apart: by tokens, or not at all. Knows no HTTP; who
//! reads the request says what it brought.

use std::{sync::Arc, time::Duration};

use super::{Grant, Identity, KeyFingerprint, KeySet, TokenError, Verifier, claims::check_user};
use crate::protocol::{TenantName, UserName};

/// The tenant of desktop mode, and its user where none is named.
pub const DESKTOP_NAME: &str = "local";

/// The way in for clients.
#[derive(Debug, Clone)]
pub enum Authenticator {
    /// Each has to bring a token.
    Tokens(Verifier),
    /// Desktop mode: everybody is let in, to one tenant, as whom they say. Only
    /// for loopback, which is for the caller to see to.
    Open,
}

/// What a client brought along.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// Its token; desktop mode does not look at it.
    pub token: Option<&'a str>,
    /// Who it says it is; only desktop mode believes it.
    pub user_id: Option<&'a str>,
}

impl Authenticator {
    /// Who the client is, at `now` since the Unix epoch.
    ///
    /// # Errors
    ///
    /// When the token is missing or refused; in desktop mode, when what is given
    /// as `user_id` is no name.
    pub fn authenticate(
        &self,
        credentials: Credentials<'_>,
        now: Duration,
    ) -> Result<Identity, TokenError> {
        match self {
            Self::Tokens(verifier) => {
                verifier.verify(credentials.token.ok_or(TokenError::Missing)?, now)
            }
            Self::Open => desktop_identity(credentials.user_id.unwrap_or(DESKTOP_NAME)),
        }
    }

    /// Whether there is nothing to verify a token with.
    #[must_use]
    pub fn has_no_key(&self) -> bool {
        match self {
            Self::Tokens(verifier) => verifier.has_no_key(),
            Self::Open => false,
        }
    }

    /// Whether tokens of this key are still good.
    #[must_use]
    pub fn has_key(&self, key: KeyFingerprint) -> bool {
        match self {
            Self::Tokens(verifier) => verifier.has_key(key),
            Self::Open => false,
        }
    }

    /// The sets of keys that are fetched.
    #[must_use]
    pub fn key_sets(&self) -> &[Arc<KeySet>] {
        match self {
            Self::Tokens(verifier) => verifier.key_sets(),
            Self::Open => &[],
        }
    }

    /// Takes over what another has fetched from the same addresses.
    pub fn adopt_key_sets(&mut self, other: &Self) {
        if let Self::Tokens(verifier) = self {
            verifier.adopt_key_sets(other.key_sets());
        }
    }

    /// The sets that may hold the token's key once they are fetched again, where none
    /// of the keys that there are is called as the token says.
    #[must_use]
    pub fn key_sets_for(&self, token: &str) -> Vec<Arc<KeySet>> {
        match self {
            Self::Tokens(verifier) => verifier.key_sets_for(token),
            Self::Open => Vec::new(),
        }
    }
}

fn desktop_identity(user: &str) -> Result<Identity, TokenError> {
    let malformed = |problem: String| TokenError::MalformedClaim {
        claim: "user_id".into(),
        problem,
    };
    let user = UserName::parse(user).map_err(|error| malformed(error.to_string()))?;
    check_user(&user).map_err(|problem| malformed(problem.to_owned()))?;
    Ok(Identity {
        tenant: TenantName::parse(DESKTOP_NAME).map_err(|error| malformed(error.to_string()))?,
        user,
        grant: Grant::Everything,
        expires_at: None,
        key: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(user_id: Option<&str>) -> Result<Identity, TokenError> {
        let credentials = Credentials {
            token: Some("is not looked at"),
            user_id,
        };
        Authenticator::Open.authenticate(credentials, Duration::ZERO)
    }

    #[test]
    fn desktop_mode_believes_who_a_client_says_it_is() {
        let ann = enter(Some("ann")).unwrap();
        assert_eq!((ann.tenant.as_str(), ann.user.as_str()), ("local", "ann"));
        assert_eq!((ann.grant, ann.expires_at), (Grant::Everything, None));
        assert_eq!(enter(None).unwrap().user.as_str(), "local");
    }

    #[test]
    fn desktop_mode_refuses_what_is_no_name() {
        for name in ["", "a\nb", "*", &"x".repeat(129)] {
            assert_eq!(enter(Some(name)).unwrap_err().reason(), "malformed_claim");
        }
    }
}
