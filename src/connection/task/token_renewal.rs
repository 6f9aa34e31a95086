//! Replaces the client's token by a newer one while its connection stays open.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use sidewire_protocol::{
    ErrorCode, Topic,
    close::CloseReason,
    reply::{MessageRefusal, Reply},
    wire,
};
use tokio::time::Instant;

use super::{ConnectionPhase, ConnectionTask, open::OpenConnection};
use crate::{
    auth::{Authenticator, Credentials, Grant, Identity, TokenError},
    connection::{
        authentication::{fetch_and_verify, key_sets_for, verify_now},
        conversation::RenewalRequest,
        stream::Transport,
    },
    hub::ReplayCut,
    limits::UserKey,
    planted::fault,
    relay::Relay,
    repeated::{RepeatedLine, log_repeated},
    scheduler::Cost,
};

/// Delay after which a client should retry while another of its tokens is being verified.
const RENEWAL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A new token of which the key is being fetched. The old token counts meanwhile.
pub(super) struct TokenRenewal(Pin<Box<dyn Future<Output = VerifiedToken>>>);

/// A new token that has been verified, or refused.
pub(super) struct VerifiedToken {
    message_id: String,
    identity: Result<Identity, TokenError>,
}

impl OpenConnection {
    /// Polls for the new token of which the key is being fetched.
    pub(super) fn poll_renewal(&mut self, context: &mut Context<'_>) -> Poll<VerifiedToken> {
        let Some(renewal) = &mut self.renewal else {
            return Poll::Pending;
        };
        let verified = renewal.0.as_mut().poll(context);
        if verified.is_ready() {
            self.renewal = None;
        }
        verified
    }
}

impl<S: Transport> ConnectionTask<S> {
    /// Verifies a new token, or begins to fetch its key. Verifying is charged the time that it takes.
    pub(super) fn begin_renewal(&mut self, request: RenewalRequest) {
        let shard = Rc::clone(&self.account.shard);
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let RenewalRequest { message_id, token } = request;
        if let Err(refusal) = check_renewable(&shard.relay, open) {
            let refusal = refusal.for_message(&message_id);
            return self.push_reply(&Reply::Error(refusal));
        }
        let credentials = Credentials {
            token: Some(token.as_str()),
            user_id: None,
        };
        let sets = key_sets_for(&shard.relay, credentials);
        let begun = Instant::now();
        let verified = verify_now(&shard.relay, credentials);
        open.hub.charge(Cost::from_duration(begun.elapsed()));
        match verified {
            Err(error) if !sets.is_empty() => {
                let fetching = async move {
                    let credentials = Credentials {
                        token: Some(token.as_str()),
                        user_id: None,
                    };
                    VerifiedToken {
                        message_id,
                        identity: fetch_and_verify(&shard.relay, credentials, &sets, error).await,
                    }
                };
                open.renewal = Some(Box::new(TokenRenewal(Box::pin(fetching))));
            }
            identity => self.finish_renewal(VerifiedToken {
                message_id,
                identity,
            }),
        }
    }

    /// Replaces the client's token by one that has been verified, or refuses it.
    pub(super) fn finish_renewal(&mut self, verified: VerifiedToken) {
        let VerifiedToken {
            message_id,
            identity,
        } = verified;
        let identity = identity
            .map_err(|error| token_refusal(self.account.relay(), &error))
            .and_then(|identity| self.check_same_user(identity));
        match identity {
            Ok(identity) => self.replace_token(identity, message_id),
            Err(refusal) => {
                let UserKey { tenant, user } = self.account.user_key();
                let (connection, detail) = (self.account.key(), refusal.message.as_str());
                log_repeated!(RepeatedLine::RenewalRefused, %connection, %tenant, %user, detail);
                self.push_reply(&Reply::Error(refusal.for_message(&message_id)));
            }
        }
        // A place that was held for a request may be one that nobody uses now.
        self.leave_queue();
    }

    fn check_same_user(&self, identity: Identity) -> Result<Identity, MessageRefusal> {
        let who = self.account.user_key();
        if identity.tenant == who.tenant && identity.user == who.user {
            return Ok(identity);
        }
        Err(MessageRefusal::new(
            ErrorCode::AuthorizationFailed,
            "the token is for another tenant or user than that of the connection",
        ))
    }

    /// Puts the new token in place of the old one, in one step: its expiry, its key and its grant,
    /// which ends the subscriptions that it does not cover.
    fn replace_token(&mut self, identity: Identity, message_id: String) {
        self.take_back_subscribe();
        let ends = token_deadline(self.account.relay(), identity.expires_at);
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let lost = match &identity.grant {
            Grant::Everything => Ok(Vec::new()),
            grant => open
                .hub
                .revoke(|topic| grant.refusal_reason(topic).is_some()),
        };
        let lost = match lost {
            Ok(lost) => lost,
            Err(ReplayCut { .. }) => return self.begin_close(CloseReason::RightsReduced),
        };
        open.grant = identity.grant;
        open.key = identity.key;
        open.expires_at = identity.expires_at;
        if !fault!(KeepsTheOldDeadline) {
            self.deadlines.token = ends;
        }
        let expiry = identity.token_expires_at.map_or(0, |end| end.as_secs());
        self.push_reply(&Reply::Authenticated(wire::Authenticated {
            expires_at: i64::try_from(expiry).unwrap_or(i64::MAX),
            revoked_topics: lost.iter().map(Topic::to_string).collect(),
            request_message_id: message_id,
        }));
        self.clear_lost();
    }
}

/// Returns the time at which a token ends that expires at this time since the Unix epoch.
pub(super) fn token_deadline(relay: &Relay, expires_at: Option<Duration>) -> Option<Instant> {
    let lifetime = expires_at?.saturating_sub(relay.clock.since_unix_epoch());
    Instant::now().checked_add(lifetime)
}

/// Checks that the connection may get a new token now.
fn check_renewable(relay: &Relay, open: &OpenConnection) -> Result<(), MessageRefusal> {
    if matches!(relay.live().authenticator, Authenticator::Open) {
        return Err(MessageRefusal::invalid(
            "authenticate",
            "this relay needs no token (auth.mode = \"none\")",
        ));
    }
    if open.renewal.is_some() {
        return Err(MessageRefusal {
            retry_after: Some(RENEWAL_RETRY_AFTER),
            ..MessageRefusal::new(
                ErrorCode::RateLimitExceeded,
                "another token of this connection is being verified",
            )
        });
    }
    Ok(())
}

/// Returns the refusal of a token, and counts it.
fn token_refusal(relay: &Relay, error: &TokenError) -> MessageRefusal {
    if relay.live().authenticator.has_no_key() {
        // The token may be valid, so the client must not be asked to get another one.
        return MessageRefusal {
            retry_after: Some(relay.retry_after()),
            ..MessageRefusal::new(
                ErrorCode::InternalError,
                "no keys to verify tokens with have been fetched yet",
            )
        };
    }
    relay.metrics.client_not_authenticated(error);
    MessageRefusal {
        field: Some("authenticate.token".to_owned()),
        ..MessageRefusal::new(ErrorCode::AuthenticationFailed, error.to_string())
    }
}
