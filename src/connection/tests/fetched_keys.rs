//! A key set that is fetched while a client's token is verified.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use sidewire_protocol::{TenantName, UserName};
use tokio::time::Instant;

use crate::{
    auth::{
        Algorithm, Authenticator, Credentials, JwksUrl, KeySet, NewToken, SigningKey, TokenError,
        TokenRules, TokenVerifier, VerificationKey,
    },
    connection::{
        authentication::{fetch_and_verify, key_sets_for, verify_now},
        testing::{ConnectionFixture, simulate},
    },
};

const KID: &str = "rotated";
const COOLDOWN: Duration = Duration::from_secs(30);

/// Returns the keys of an issuer, as a fetch returns them.
fn fetched() -> Option<Vec<VerificationKey>> {
    let pem = include_str!("../../auth/testdata/ed25519.pub.pem");
    let der = pem::parse(pem).unwrap().into_contents();
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": KID, "x": x, "use": "sig"});
    let set = json!({"keys": [key]}).to_string();
    Some(
        VerificationKey::from_fetched_jwks(set.as_bytes())
            .unwrap()
            .0,
    )
}

fn token(expires_at: Duration) -> String {
    let pem = include_bytes!("../../auth/testdata/ed25519.pem");
    let key = SigningKey::from_private_key_pem(Algorithm::EdDSA, Some(KID.to_owned()), pem);
    let token = NewToken {
        tenant: TenantName::parse("acme").unwrap(),
        user: UserName::parse("ann").unwrap(),
        expires_at: Some(expires_at),
        topics: None,
        subscribe: None,
    };
    key.unwrap().mint(&token, &TokenRules::default()).unwrap()
}

/// Returns a relay that verifies tokens with the keys of an issuer, and the key set, which has
/// been fetched without a key. Another client's token has caused a second fetch, which is in
/// progress.
fn relay_with_key_set() -> (ConnectionFixture, Arc<KeySet>) {
    let fixture = ConnectionFixture::with_settings(|config| {
        config.auth.jwks_cooldown = COOLDOWN;
    });
    let url = JwksUrl::parse("https://id.example/keys").unwrap();
    let set = Arc::new(KeySet::new(url));
    let sets = vec![Arc::clone(&set)];
    let verifier = TokenVerifier::with_sets(Vec::new(), sets, TokenRules::default());
    fixture.set_authenticator(Authenticator::Tokens(verifier.unwrap()));
    set.finish_fetch(Some(Vec::new()), Instant::now());
    assert!(set.request_fetch(Instant::now(), COOLDOWN).is_some());
    (fixture, set)
}

#[test]
fn a_key_that_arrives_after_the_first_verification_admits_the_client() {
    simulate(async {
        let (fixture, set) = relay_with_key_set();
        let relay = &fixture.shard.relay;
        let token = token(relay.clock.since_unix_epoch() + COOLDOWN);
        let credentials = Credentials {
            token: Some(&token),
            user_id: None,
        };
        let sets = key_sets_for(relay, credentials);
        let error = verify_now(relay, credentials).unwrap_err();
        assert_eq!(error, TokenError::UnknownKey);
        set.finish_fetch(fetched(), Instant::now());
        let verified = fetch_and_verify(relay, credentials, &sets, error).await;
        assert_eq!(verified.unwrap().user.as_str(), "ann");
    });
}

#[test]
fn a_token_with_an_unknown_key_is_refused_at_once_during_the_cooldown() {
    simulate(async {
        let (fixture, set) = relay_with_key_set();
        let relay = &fixture.shard.relay;
        set.finish_fetch(Some(Vec::new()), Instant::now());
        let token = token(relay.clock.since_unix_epoch() + COOLDOWN);
        let credentials = Credentials {
            token: Some(&token),
            user_id: None,
        };
        let sets = key_sets_for(relay, credentials);
        let began = Instant::now();
        let refused = fetch_and_verify(relay, credentials, &sets, TokenError::UnknownKey).await;
        assert_eq!(refused.unwrap_err(), TokenError::UnknownKey);
        assert_eq!(Instant::now(), began);
    });
}
