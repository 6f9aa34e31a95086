//! Percent-encoding in paths and query strings (RFC 3986, 2.1). In a query, `+`
//! is a space, as HTML forms write it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Reason that a part of a URL is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A `%` is not followed by two hexadecimal digits.
    #[error("has a % that does not begin an escape; write a percent sign as %25")]
    Escape,
    /// The decoded bytes are not UTF-8.
    #[error("is not UTF-8 when its %-escapes are decoded")]
    Utf8,
}

/// A pair of a query that is not text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct QueryPairError {
    /// The name of the pair; `None` if that is what is not text.
    pub name: Option<String>,
    /// The reason.
    pub fault: QueryError,
}

/// Decodes a segment of a path.
///
/// # Errors
///
/// Fails if an escape is malformed or the text is not UTF-8.
pub fn decode_percent(segment: &str) -> Result<Cow<'_, str>, QueryError> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let mut has_digit = || bytes.next().is_some_and(|it| it.is_ascii_hexdigit());
        if byte == b'%' && !(has_digit() && has_digit()) {
            return Err(QueryError::Escape);
        }
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| QueryError::Utf8)
}

/// Returns the names and values of a query, in order. Each is decoded only when it is requested:
/// a query of 64 KiB may have 8,000, and the first may decide.
///
/// An item is an error if it has a malformed escape or is not UTF-8.
pub fn query_pairs(
    query: Option<&str>,
) -> impl Iterator<Item = Result<(String, String), QueryPairError>> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_form(name).map_err(|fault| QueryPairError { name: None, fault })?;
            match decode_form(value) {
                Ok(value) => Ok((name, value)),
                Err(fault) => Err(QueryPairError {
                    name: Some(name),
                    fault,
                }),
            }
        })
}

fn decode_form(text: &str) -> Result<String, QueryError> {
    let mut text = Cow::Borrowed(text);
    if text.contains('+') {
        text = text.replace('+', " ").into();
    }
    decode_percent(&text).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_order() {
        let query = Some("topic=a%3A1&&topic=b:%2b+c&flag&x=1=2");
        let pairs: Vec<_> = query_pairs(query).map(Result::unwrap).collect();
        let expected = [
            ("topic", "a:1"),
            ("topic", "b:+ c"),
            ("flag", ""),
            ("x", "1=2"),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(query_pairs(None).count(), 0);
    }

    #[test]
    fn invalid_utf_8_and_invalid_escapes_are_refused() {
        let pairs: Vec<_> = query_pairs(Some("topic=%ff&%zz=a")).collect();
        let error = |name: Option<&str>, fault| {
            let name = name.map(str::to_owned);
            Err(QueryPairError { name, fault })
        };
        let expected = [
            error(Some("topic"), QueryError::Utf8),
            error(None, QueryError::Escape),
        ];
        assert_eq!(pairs, expected);
        assert_eq!(decode_percent("%C3%A4%2F").unwrap(), "ä/");
        for segment in ["%", "%4", "%zz", "a%2Fb%", "%%41", "%ä"] {
            assert_eq!(
                decode_percent(segment),
                Err(QueryError::Escape),
                "{segment}"
            );
        }
    }
}
