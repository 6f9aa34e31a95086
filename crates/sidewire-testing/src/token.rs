//! Tokens, signed without the relay's code, so that they can also be wrong.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use sidewire_protocol::clock::Clock;

/// Returns a token with this secret for HS256, for any topics, valid for an hour.
#[must_use]
pub fn hour_long(secret: &str, tenant: &str, user: &str) -> String {
    let expiry = Clock::system().since_unix_epoch() + Duration::from_hours(1);
    let claims = json!({"exp": expiry.as_secs(), "tenant_id": tenant, "user_id": user});
    signed(secret.as_bytes(), r#"{"alg":"HS256"}"#, claims.to_string())
}

/// Returns a token with this header and these claims, signed with HMAC and SHA-256.
#[must_use]
pub fn signed(secret: &[u8], header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    let text = format!("{}.{}", base64url(header), base64url(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, text.as_bytes());
    format!("{text}.{}", base64url(signature))
}

/// Encodes bytes as base64url without padding.
#[must_use]
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
