//! The `Authorization` header of scheme Bearer (RFC 6750, 2.1).

use hyper::{HeaderMap, header::AUTHORIZATION};

/// Error for an `Authorization` header of scheme Bearer without exactly one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// There are several, and it would be unclear which one counts.
    #[error("there is more than one Authorization header of scheme Bearer")]
    Several,
    /// The header contains no token.
    #[error("the Authorization header of scheme Bearer has no token")]
    Malformed,
}

/// Returns the token of the only header of scheme Bearer, if there is one. Headers of other
/// schemes are meant for proxies and ignored.
///
/// # Errors
///
/// Fails if there are several, or if it contains no token.
pub fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, BearerError> {
    let mut tokens = headers
        .get_all(AUTHORIZATION)
        .into_iter()
        .filter_map(|value| {
            let bytes = value.as_bytes();
            let end = bytes
                .iter()
                .position(|byte| *byte == b' ')
                .unwrap_or(bytes.len());
            let (scheme, rest) = bytes.split_at_checked(end)?;
            scheme.eq_ignore_ascii_case(b"bearer").then_some(rest)
        });
    let Some(token) = tokens.next() else {
        return Ok(None);
    };
    if tokens.next().is_some() {
        return Err(BearerError::Several);
    }
    str::from_utf8(token)
        .ok()
        .map(|token| token.trim_matches(' '))
        .filter(|token| !token.is_empty())
        .map(Some)
        .ok_or(BearerError::Malformed)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn token(values: &[&[u8]]) -> Result<Option<String>, BearerError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        bearer_token(&headers).map(|token| token.map(str::to_owned))
    }

    #[test]
    fn the_only_bearer_header_is_used_and_several_are_refused() {
        let some = Ok(Some("t.o.k".to_owned()));
        assert_eq!(token(&[]), Ok(None));
        assert_eq!(token(&[b"Basic dTpw"]), Ok(None));
        assert_eq!(token(&[b"Bearer t.o.k"]), some);
        assert_eq!(token(&[b"bEARER   t.o.k "]), some);
        assert_eq!(token(&[b"Basic dTpw", b"Bearer t.o.k"]), some);
        assert_eq!(
            token(&[b"Bearer a", b"Bearer a"]),
            Err(BearerError::Several)
        );
        for empty in [&b"Bearer"[..], b"Bearer ", b"Bearer \xff"] {
            assert_eq!(token(&[empty]), Err(BearerError::Malformed));
        }
    }
}
