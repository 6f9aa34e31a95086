//! Authenticates clients by token, or not at all in desktop mode. Knows no HTTP; the caller
//! extracts the credentials from the request.

use std::{sync::Arc, time::Duration};

use sidewire_protocol::{TenantName, UserName};

use super::{
    Grant, Identity, KeyFingerprint, KeySet, TokenError, TokenVerifier, claims::check_user_name,
};

/// The tenant in desktop mode, and the user if the client names none.
pub const DESKTOP_NAME: &str = "local";

/// Authenticates clients.
#[derive(Debug, Clone)]
pub enum Authenticator {
    /// Each client must present a token.
    Tokens(TokenVerifier),
    /// Desktop mode: every client is accepted, into one tenant, as the user that it names. Only
    /// for loopback, which the caller must ensure.
    Open,
}

/// The credentials that a client presented.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The token; ignored in desktop mode.
    pub token: Option<&'a str>,
    /// The user that the client claims to be; used only in desktop mode.
    pub user_id: Option<&'a str>,
}

impl Authenticator {
    /// Returns the identity of the client. `now` is the time since the Unix epoch.
    ///
    /// # Errors
    ///
    /// Fails if the token is missing or refused; in desktop mode, if `user_id` is not a valid
    /// name.
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

    /// Returns true if there is no key yet to verify a token with.
    #[must_use]
    pub fn has_no_key(&self) -> bool {
        match self {
            Self::Tokens(verifier) => verifier.has_no_key(),
            Self::Open => false,
        }
    }

    /// Returns true if tokens signed with this key are still accepted.
    #[must_use]
    pub fn has_key(&self, key: KeyFingerprint) -> bool {
        match self {
            Self::Tokens(verifier) => verifier.has_key(key),
            Self::Open => false,
        }
    }

    /// Returns the key sets that are fetched.
    #[must_use]
    pub fn key_sets(&self) -> &[Arc<KeySet>] {
        match self {
            Self::Tokens(verifier) => verifier.key_sets(),
            Self::Open => &[],
        }
    }

    /// Reuses another authenticator's key sets with the same URLs, with their fetched keys.
    pub fn adopt_key_sets(&mut self, other: &Self) {
        if let Self::Tokens(verifier) = self {
            verifier.adopt_key_sets(other.key_sets());
        }
    }

    /// Returns the key sets that may have the token's key after another fetch; none if a key
    /// with the token's `kid` is known.
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
    check_user_name(&user).map_err(|problem| malformed(problem.to_owned()))?;
    Ok(Identity {
        tenant: TenantName::parse(DESKTOP_NAME).map_err(|error| malformed(error.to_string()))?,
        user,
        grant: Grant::Everything,
        subscriptions: None,
        expires_at: None,
        token_expires_at: None,
        key: None,
    })
}

#[cfg(test)]
mod tests {
    use sidewire_protocol::NamedValues;

    use super::*;

    fn enter(user_id: Option<&str>) -> Result<Identity, TokenError> {
        let credentials = Credentials {
            token: Some("is not looked at"),
            user_id,
        };
        Authenticator::Open.authenticate(credentials, Duration::ZERO)
    }

    #[test]
    fn desktop_mode_trusts_the_user_name_that_a_client_gives() {
        let ann = enter(Some("ann")).unwrap();
        assert_eq!((ann.tenant.as_str(), ann.user.as_str()), ("local", "ann"));
        assert_eq!((ann.grant, ann.expires_at), (Grant::Everything, None));
        assert_eq!(enter(None).unwrap().user.as_str(), "local");
    }

    #[test]
    fn desktop_mode_refuses_an_invalid_name() {
        for name in ["", "a\nb", "*", &"x".repeat(129)] {
            assert_eq!(enter(Some(name)).unwrap_err().name(), "malformed_claim");
        }
    }
}
