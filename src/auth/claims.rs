//! From a token's claims to an identity (RFC 7519, 4). Knows no signatures: the
//! claims it sees are already known to be authentic.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};

use super::{Grant, Identity, TokenError};
use crate::protocol::{NameError, TenantName, Topic, UserName};

/// How far ahead [`Identity::expires_at`] may lie: a hundred years, so that
/// timers can reckon with it in any unit. A token may be valid for longer; its
/// connection is closed then.
pub const EXPIRY_AHEAD_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// What a token has to say to be accepted, and where.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// What `iss` must be; `None` does not look at it.
    pub issuer: Option<String>,
    /// What `aud` must be or contain; `None` does not look at it, so a token for
    /// any audience is accepted.
    pub audience: Option<String>,
    /// By how much the clocks may differ, for `exp` and `nbf`.
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub require_exp: bool,
    /// The name of the claim with the tenant.
    pub tenant_claim: Arc<str>,
    /// The name of the claim with the user.
    pub user_claim: Arc<str>,
    /// The name of the claim with the grant.
    pub topics_claim: Arc<str>,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(5),
            require_exp: true,
            tenant_claim: "tenant_id".into(),
            user_claim: "user_id".into(),
            topics_claim: "topics".into(),
        }
    }
}

/// The identity that the claims give under the rules, at `now` since the Unix
/// epoch.
pub(super) fn identity(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    now: Duration,
) -> Result<Identity, TokenError> {
    let expires_at = expiry(claims, rules, now)?;
    check_start(claims, rules, now)?;
    check_issuer(claims, rules)?;
    check_audience(claims, rules)?;
    Ok(Identity {
        tenant: name(claims, &rules.tenant_claim, TenantName::parse)?,
        user: name(claims, &rules.user_claim, UserName::parse).and_then(|user| {
            check_user(&user).map_err(|problem| malformed(rules.user_claim.clone(), problem))?;
            Ok(user)
        })?,
        grant: grant(claims, &rules.topics_claim)?,
        expires_at,
        key: None,
    })
}

/// When the token ends, leeway included. It is accepted before that moment, not
/// at it (RFC 7519, 4.1.4).
fn expiry(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    now: Duration,
) -> Result<Option<Duration>, TokenError> {
    let Some(exp) = numeric_date(claims, "exp")? else {
        return if rules.require_exp {
            Err(missing("exp"))
        } else {
            Ok(None)
        };
    };
    let end = exp.saturating_add(rules.leeway);
    if now >= end {
        return Err(TokenError::Expired);
    }
    Ok(Some(end.min(now.saturating_add(EXPIRY_AHEAD_MAX))))
}

/// `nbf` (RFC 7519, 4.1.5); `iat` need only be a date.
fn check_start(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    now: Duration,
) -> Result<(), TokenError> {
    numeric_date(claims, "iat")?;
    match numeric_date(claims, "nbf")? {
        Some(nbf) if now.saturating_add(rules.leeway) < nbf => Err(TokenError::NotYetValid),
        _ => Ok(()),
    }
}

/// A NumericDate: seconds since the Unix epoch, with or without a fraction
/// (RFC 7519, 2). What no duration can hold is the longest one.
fn numeric_date(
    claims: &Map<String, Value>,
    claim: &'static str,
) -> Result<Option<Duration>, TokenError> {
    let Some(value) = claims.get(claim) else {
        return Ok(None);
    };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(Duration::from_secs(seconds)));
    }
    match value.as_f64() {
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(Some(
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        )),
        _ => Err(malformed(claim, "is not a number of seconds from 0 up")),
    }
}

fn check_issuer(claims: &Map<String, Value>, rules: &TokenRules) -> Result<(), TokenError> {
    let Some(wanted) = &rules.issuer else {
        return Ok(());
    };
    match claims.get("iss") {
        None => Err(missing("iss")),
        Some(Value::String(issuer)) if issuer == wanted => Ok(()),
        Some(Value::String(_)) => Err(TokenError::WrongIssuer),
        Some(_) => Err(malformed("iss", "is not a string")),
    }
}

fn check_audience(claims: &Map<String, Value>, rules: &TokenRules) -> Result<(), TokenError> {
    let Some(wanted) = &rules.audience else {
        return Ok(());
    };
    let names = match claims.get("aud") {
        None => return Err(missing("aud")),
        Some(Value::Array(names)) => names.as_slice(),
        Some(name) => std::slice::from_ref(name),
    };
    if !names.iter().all(Value::is_string) {
        Err(malformed(
            "aud",
            "is neither a string nor a list of strings",
        ))
    } else if names.iter().any(|name| name == wanted) {
        Ok(())
    } else {
        Err(TokenError::WrongAudience)
    }
}

/// Refuses the one name that no user can have: of the topics of users, `user:*` would be
/// its own, and an id of a topic is never `*`.
pub(crate) fn check_user(user: &UserName) -> Result<(), &'static str> {
    if user.as_str() == "*" {
        return Err("is `*`, which no user can be called: events for one could not be sent");
    }
    Ok(())
}

/// A name: a string, or an integer taken as decimal.
fn name<T>(
    claims: &Map<String, Value>,
    claim: &Arc<str>,
    parse: fn(&str) -> Result<T, NameError>,
) -> Result<T, TokenError> {
    let parsed = match claims.get(claim.as_ref()) {
        None => return Err(missing(claim.clone())),
        Some(Value::String(text)) => parse(text),
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
            parse(&number.to_string())
        }
        Some(_) => {
            return Err(malformed(
                claim.clone(),
                "is neither a string nor an integer",
            ));
        }
    };
    parsed.map_err(|error| malformed(claim.clone(), error.to_string()))
}

/// The list of topics and kinds; everything where there is no claim.
fn grant(claims: &Map<String, Value>, claim: &Arc<str>) -> Result<Grant, TokenError> {
    let entries = match claims.get(claim.as_ref()) {
        None => return Ok(Grant::Everything),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(malformed(claim.clone(), "is not a list")),
    };
    let topics = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| topic(entry).map_err(|problem| (index, problem)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|(index, problem)| malformed(claim.clone(), format!("[{index}] {problem}")))?;
    Ok(Grant::listed(topics))
}

fn topic(entry: &Value) -> Result<Topic, String> {
    let text = entry.as_str().ok_or("is not a string")?;
    Topic::parse(text).map_err(|error| error.to_string())
}

fn missing(claim: impl Into<Arc<str>>) -> TokenError {
    TokenError::MissingClaim {
        claim: claim.into(),
    }
}

fn malformed(claim: impl Into<Arc<str>>, problem: impl Into<String>) -> TokenError {
    TokenError::MalformedClaim {
        claim: claim.into(),
        problem: problem.into(),
    }
}
