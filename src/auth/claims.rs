//! Turns a token's claims into an identity (RFC 7519, 4). Knows no signatures: the caller
//! has already verified that the claims are authentic.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use sidewire_protocol::{NameError, TenantName, Topic, UserName};

use super::{Grant, Identity, TokenError};

/// Maximum distance of [`Identity::expires_at`] into the future: a hundred years, so that
/// timers can represent it in any unit. A token may be valid for longer, but its connection
/// is closed at that time.
pub const EXPIRY_AHEAD_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The rules by which a token's claims are accepted, and the names of the claims.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// Required value of `iss`; not checked if `None`.
    pub issuer: Option<String>,
    /// Value that `aud` must equal or contain; if `None`, a token for any audience is accepted.
    pub audience: Option<String>,
    /// Tolerated clock difference for `exp` and `nbf`.
    pub leeway: Duration,
    /// True if a token without `exp` is refused.
    pub require_exp: bool,
    /// Name of the claim with the tenant.
    pub tenant_claim: Arc<str>,
    /// Name of the claim with the user.
    pub user_claim: Arc<str>,
    /// Name of the claim with the grant.
    pub topics_claim: Arc<str>,
    /// Name of the claim with the topics to subscribe to when the client connects.
    pub subscribe_claim: Arc<str>,
    /// Maximum number of topics in that claim, duplicates included.
    pub subscribe_topics_max: usize,
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
            subscribe_claim: "subscribe".into(),
            subscribe_topics_max: 1_000,
        }
    }
}

/// Checks the claims against the rules and returns the identity. `now` is the time since the
/// Unix epoch.
pub(super) fn identity_from_claims(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    now: Duration,
) -> Result<Identity, TokenError> {
    let token_expires_at = check_expiry(claims, rules, now)?;
    let expires_at = token_expires_at.map(|exp| {
        exp.saturating_add(rules.leeway)
            .min(now.saturating_add(EXPIRY_AHEAD_MAX))
    });
    check_start(claims, rules, now)?;
    check_issuer(claims, rules)?;
    check_audience(claims, rules)?;
    let grant = grant_claim(claims, &rules.topics_claim)?;
    Ok(Identity {
        tenant: name_claim(claims, &rules.tenant_claim, TenantName::parse)?,
        user: name_claim(claims, &rules.user_claim, UserName::parse).and_then(|user| {
            check_user_name(&user)
                .map_err(|problem| malformed_claim(rules.user_claim.clone(), problem))?;
            Ok(user)
        })?,
        subscriptions: subscribe_claim(claims, rules, &grant)?,
        grant,
        expires_at,
        token_expires_at,
        key: None,
    })
}

/// Returns the time at which the token expires. With the leeway added, it is accepted before that
/// time, not at it (RFC 7519, 4.1.4).
fn check_expiry(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    now: Duration,
) -> Result<Option<Duration>, TokenError> {
    let Some(exp) = numeric_date(claims, "exp")? else {
        return if rules.require_exp {
            Err(missing_claim("exp"))
        } else {
            Ok(None)
        };
    };
    if now >= exp.saturating_add(rules.leeway) {
        return Err(TokenError::Expired);
    }
    Ok(Some(exp))
}

/// Checks `nbf` (RFC 7519, 4.1.5); `iat` only has to be a date.
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

/// Reads a NumericDate: seconds since the Unix epoch, with or without a fraction (RFC 7519,
/// 2). A value too large for a `Duration` becomes `Duration::MAX`.
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
        _ => Err(malformed_claim(
            claim,
            "is not a non-negative number of seconds",
        )),
    }
}

fn check_issuer(claims: &Map<String, Value>, rules: &TokenRules) -> Result<(), TokenError> {
    let Some(wanted) = &rules.issuer else {
        return Ok(());
    };
    match claims.get("iss") {
        None => Err(missing_claim("iss")),
        Some(Value::String(issuer)) if issuer == wanted => Ok(()),
        Some(Value::String(_)) => Err(TokenError::WrongIssuer),
        Some(_) => Err(malformed_claim("iss", "is not a string")),
    }
}

fn check_audience(claims: &Map<String, Value>, rules: &TokenRules) -> Result<(), TokenError> {
    let Some(wanted) = &rules.audience else {
        return Ok(());
    };
    let names = match claims.get("aud") {
        None => return Err(missing_claim("aud")),
        Some(Value::Array(names)) => names.as_slice(),
        Some(name) => std::slice::from_ref(name),
    };
    if !names.iter().all(Value::is_string) {
        Err(malformed_claim(
            "aud",
            "is neither a string nor a list of strings",
        ))
    } else if names.iter().any(|name| name == wanted) {
        Ok(())
    } else {
        Err(TokenError::WrongAudience)
    }
}

/// Refuses the user name `*`: the user's own topic would be `user:*`, which is a wildcard and
/// cannot be addressed.
pub(crate) fn check_user_name(user: &UserName) -> Result<(), &'static str> {
    if user.as_str() == "*" {
        return Err(
            "is `*`, which cannot be a user name: no event could be addressed to that user",
        );
    }
    Ok(())
}

/// Reads a name from a claim: a string, or an integer in decimal.
fn name_claim<T>(
    claims: &Map<String, Value>,
    claim: &Arc<str>,
    parse: fn(&str) -> Result<T, NameError>,
) -> Result<T, TokenError> {
    let parsed = match claims.get(claim.as_ref()) {
        None => return Err(missing_claim(claim.clone())),
        Some(Value::String(text)) => parse(text),
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
            parse(&number.to_string())
        }
        Some(_) => {
            return Err(malformed_claim(
                claim.clone(),
                "is neither a string nor an integer",
            ));
        }
    };
    parsed.map_err(|error| malformed_claim(claim.clone(), error.to_string()))
}

/// Reads the list of topics and kinds; without the claim, everything is granted.
fn grant_claim(claims: &Map<String, Value>, claim: &Arc<str>) -> Result<Grant, TokenError> {
    let topics = topics_claim(claims, claim)?;
    Ok(topics.map_or(Grant::Everything, Grant::from_topics))
}

/// Reads the list of topics to subscribe to; `None` without the claim.
fn subscribe_claim(
    claims: &Map<String, Value>,
    rules: &TokenRules,
    grant: &Grant,
) -> Result<Option<Vec<Topic>>, TokenError> {
    let claim = &rules.subscribe_claim;
    let Some(mut topics) = topics_claim(claims, claim)? else {
        return Ok(None);
    };
    let (count, max) = (topics.len(), rules.subscribe_topics_max);
    if count > max {
        let problem = format!("names {count} topics; the maximum is {max}");
        return Err(malformed_claim(claim.clone(), problem));
    }
    for (index, topic) in topics.iter().enumerate() {
        if let Some(reason) = grant.refusal_reason(topic) {
            let problem = format!("[{index}] {reason}");
            return Err(malformed_claim(claim.clone(), problem));
        }
    }
    let mut seen = HashSet::with_capacity(count);
    topics.retain(|topic| seen.insert(topic.clone()));
    Ok(Some(topics))
}

/// Reads a list of topics and wildcards; `None` without the claim.
fn topics_claim(
    claims: &Map<String, Value>,
    claim: &Arc<str>,
) -> Result<Option<Vec<Topic>>, TokenError> {
    let entries = match claims.get(claim.as_ref()) {
        None => return Ok(None),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(malformed_claim(claim.clone(), "is not a list")),
    };
    let topics = entries.iter().enumerate().map(|(index, entry)| {
        parse_topic(entry)
            .map_err(|problem| malformed_claim(claim.clone(), format!("[{index}] {problem}")))
    });
    topics.collect::<Result<Vec<_>, _>>().map(Some)
}

fn parse_topic(entry: &Value) -> Result<Topic, String> {
    let text = entry.as_str().ok_or("is not a string")?;
    Topic::parse(text).map_err(|error| error.to_string())
}

fn missing_claim(claim: impl Into<Arc<str>>) -> TokenError {
    TokenError::MissingClaim {
        claim: claim.into(),
    }
}

fn malformed_claim(claim: impl Into<Arc<str>>, problem: impl Into<String>) -> TokenError {
    TokenError::MalformedClaim {
        claim: claim.into(),
        problem: problem.into(),
    }
}
