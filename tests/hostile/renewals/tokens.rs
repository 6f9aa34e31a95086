//! Tokens in a message that is as it should be.

use serde_json::json;

use super::{Renewal, Wanted};
use crate::{
    campaign::Mutator,
    client_events::ATTACKER,
    forge::{Forge, TENANT, good_claims, signed, token_of},
    tokens,
};

const HEADER: &str = r#"{"alg":"HS256"}"#;

/// Valid tokens of the attacker, with its grant.
pub(super) fn good_ones() -> Vec<Mutator<Renewal>> {
    vec![
        of_token("a good token", Wanted::Renewed, |forge| {
            forge.site.token.clone()
        }),
        of_token("another good token", Wanted::Renewed, |forge| {
            let mut claims = good_claims(ATTACKER);
            claims["jti"] = json!(forge.word(20));
            signed(HEADER, claims.to_string())
        }),
    ]
}

/// Every kind of token that a handshake refuses.
pub(super) fn kinds() -> Vec<Mutator<Renewal>> {
    let kinds = tokens::kinds().into_iter();
    let mutators = kinds.map(|kind| kind.map(|token, forge| refused(forge, token.text)));
    let flipped = Mutator::new("a bit of a good token is another", |forge: &mut Forge| {
        let mut token = forge.site.token.clone().into_bytes();
        let place = forge.below(token.len());
        token[place] ^= 1 << forge.below(8);
        refused(forge, token)
    });
    mutators.chain([flipped]).collect()
}

/// Makes a case of a token that is refused, or that is not even text.
fn refused(forge: &mut Forge, token: Vec<u8>) -> Renewal {
    let wanted = match str::from_utf8(&token) {
        Ok(_) => Wanted::bad_token(),
        Err(_) => Wanted::undecodable(),
    };
    Renewal::of_token(forge, token, wanted)
}

/// Valid tokens of others.
pub(super) fn foreign() -> Vec<Mutator<Renewal>> {
    let foreign = |name: &str, tenant: &'static str, user: &'static str| {
        of_token(name, Wanted::foreign_token(), move |forge| {
            let topics: &[&str] = forge.pick(&[&["secret:*"][..], &["project:*"], &[]]);
            token_of(tenant, user, topics)
        })
    };
    vec![
        foreign("a token of the witness", TENANT, "wendy"),
        foreign("a token of a user who is not there", TENANT, "nobody"),
        foreign("a token of the same name in capitals", TENANT, "Mallory"),
        foreign("a token of the name with a blank", TENANT, "mallory "),
        foreign("a token of the user in another tenant", "hostile", ATTACKER),
        foreign("a token of a tenant in capitals", "ACME", ATTACKER),
        foreign("a token with the names swapped", ATTACKER, TENANT),
        of_token("a token of a number", Wanted::foreign_token(), |forge| {
            let mut claims = good_claims(ATTACKER);
            claims["user_id"] = json!(forge.number());
            signed(HEADER, claims.to_string())
        }),
    ]
}

fn of_token(
    name: &str,
    wanted: Wanted,
    token: impl Fn(&mut Forge) -> String + Send + Sync + 'static,
) -> Mutator<Renewal> {
    Mutator::new(name, move |forge| {
        let token = token(forge).into_bytes();
        Renewal::of_token(forge, token, wanted.clone())
    })
}
