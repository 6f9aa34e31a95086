//! Authenticates the client of a handshake: finds its token, verifies it, and waits for a fetch of
//! the issuer's keys if the token's key is unknown. Knows nothing of WebSockets.

use std::sync::Arc;

use futures_util::future::join_all;
use hyper::{Request, body::Incoming};
use sidewire_protocol::ErrorCode;
use tokio::time::{Instant, timeout};

use super::offer::SubprotocolOffer;
use crate::{
    auth::{Credentials, Identity, KeySet, TokenError},
    http::{HttpProblem, bearer_token, query_pairs},
    relay::Relay,
};

/// Returns the identity of the client that sends this request. Its token is in the header, in the
/// subprotocols, or in the query if `client.query_token` allows it.
///
/// # Errors
///
/// 400 for a malformed query, 401 if the token is not accepted, and 503 if no key to verify it
/// with has been fetched yet.
pub(super) async fn authenticate_request(
    relay: &Relay,
    request: &Request<Incoming>,
    offer: &SubprotocolOffer<'_>,
) -> Result<Identity, HttpProblem> {
    let query: Vec<_> = query_pairs(request.uri().query())
        .collect::<Result<_, _>>()
        .map_err(|error| HttpProblem::bad_request(format!("the query {error}")))?;
    let header = bearer_token(request.headers()).map_err(|error| {
        relay
            .metrics
            .client_not_authenticated(&TokenError::Malformed("authorization header"));
        HttpProblem::unauthenticated(error.to_string())
    })?;
    let from_query = if relay.live().config.client.query_token {
        only_query_value(&query, "access_token")?
    } else {
        None
    };
    let credentials = Credentials {
        token: header.or(offer.token).or(from_query),
        user_id: only_query_value(&query, "user_id")?,
    };
    verify_or_fetch_keys(relay, credentials)
        .await
        .map_err(|error| {
            if error != TokenError::Missing && relay.live().authenticator.has_no_key() {
                // The token may be valid, so the client must not be asked to get another one.
                return HttpProblem::unavailable(
                    ErrorCode::InternalError,
                    "no keys to verify tokens with have been fetched yet",
                    relay.retry_after(),
                );
            }
            relay.metrics.client_not_authenticated(&error);
            HttpProblem::unauthenticated(error.to_string())
        })
}

/// Returns the identity of the client. If its token names an unknown key that a fetched key set
/// may hold by now, those key sets are fetched first.
async fn verify_or_fetch_keys(
    relay: &Relay,
    credentials: Credentials<'_>,
) -> Result<Identity, TokenError> {
    // Another thread fetches the sets, so they are looked up before the verification: keys that
    // arrive in between then only make it succeed.
    let sets = key_sets_for(relay, credentials);
    match verify_now(relay, credentials) {
        Err(error) if !sets.is_empty() => fetch_and_verify(relay, credentials, &sets, error).await,
        verified => verified,
    }
}

/// Verifies the token again after a fetch of the sets that may have its key. Returns `error`, that
/// of the first verification, if a fetch is not allowed now and would not help.
pub(super) async fn fetch_and_verify(
    relay: &Relay,
    credentials: Credentials<'_>,
    sets: &[Arc<KeySet>],
    error: TokenError,
) -> Result<Identity, TokenError> {
    let (patience, ends) = {
        let live = relay.live();
        let auth = &live.config.auth;
        let now = Instant::now();
        let ends: Vec<_> = sets
            .iter()
            .filter_map(|set| set.request_fetch(now, auth.jwks_cooldown))
            .collect();
        (auth.jwks_timeout, ends)
    };
    // The fetch of a set may have ended since; then its cooldown has begun, but the key is here.
    if key_sets_for(relay, credentials).len() < sets.len() {
        return verify_now(relay, credentials);
    }
    if ends.is_empty() {
        return Err(error);
    }
    let fetched = join_all(
        ends.into_iter()
            .map(async |mut end| end.changed().await.ok()),
    );
    // A client that joins in the middle of a fetch waits no longer than for a whole one.
    drop(timeout(patience, fetched).await);
    verify_now(relay, credentials)
}

/// Returns the key sets that may have the token's key after another fetch.
pub(super) fn key_sets_for(relay: &Relay, credentials: Credentials<'_>) -> Vec<Arc<KeySet>> {
    credentials.token.map_or_else(Vec::new, |token| {
        relay.live().authenticator.key_sets_for(token)
    })
}

pub(super) fn verify_now(
    relay: &Relay,
    credentials: Credentials<'_>,
) -> Result<Identity, TokenError> {
    let now = relay.clock.since_unix_epoch();
    relay.live().authenticator.authenticate(credentials, now)
}

/// Returns the value of the query's only pair with this name. Duplicates are refused, since it
/// would be unclear which one counts.
fn only_query_value<'a>(
    query: &'a [(String, String)],
    name: &str,
) -> Result<Option<&'a str>, HttpProblem> {
    let mut values = query
        .iter()
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value.as_str());
    let value = values.next();
    if values.next().is_some() {
        let detail = format!("{name} is given more than once");
        return Err(HttpProblem::bad_request(detail).with_field(Some(name)));
    }
    Ok(value)
}
