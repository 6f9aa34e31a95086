//! The subprotocols that a client offers in `Sec-WebSocket-Protocol`: the encoding it wants and,
//! from a browser, which cannot set headers, its token.

use hyper::{HeaderMap, header::SEC_WEBSOCKET_PROTOCOL};

use sidewire_protocol::EnvelopeEncoding;

/// Prefix of a token that is offered as a subprotocol.
const BEARER: &str = "bearer.";

/// The encoding and the token that a client offers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SubprotocolOffer<'a> {
    /// The encoding to use and to echo; `None` if the client offers no subprotocol.
    pub(super) encoding: Option<EnvelopeEncoding>,
    /// The token.
    pub(super) token: Option<&'a str>,
}

/// Reason to refuse an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SubprotocolError {
    #[error("Sec-WebSocket-Protocol is not a list of subprotocols")]
    Malformed,
    #[error(
        "none of the offered subprotocols is supported; offer {} or {}",
        EnvelopeEncoding::Protobuf.subprotocol(),
        EnvelopeEncoding::Json.subprotocol()
    )]
    NoneSpoken,
    #[error("more than one subprotocol carries a token")]
    SeveralTokens,
}

impl<'a> SubprotocolOffer<'a> {
    /// Parses the offer in the headers.
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Self, SubprotocolError> {
        let mut offered = Vec::new();
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            let text = value.to_str().map_err(|_| SubprotocolError::Malformed)?;
            offered.extend(
                text.split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty()),
            );
        }
        let mut tokens = offered.iter().filter_map(|name| name.strip_prefix(BEARER));
        let token = tokens.next();
        if tokens.next().is_some() {
            return Err(SubprotocolError::SeveralTokens);
        }
        let encoding = offered.iter().find_map(|name| {
            let mut spoken = EnvelopeEncoding::ALL.into_iter();
            spoken.find(|encoding| encoding.subprotocol() == *name)
        });
        if encoding.is_none() && !offered.is_empty() {
            return Err(SubprotocolError::NoneSpoken);
        }
        Ok(Self { encoding, token })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn parse(
        values: &[&'static str],
    ) -> Result<(Option<EnvelopeEncoding>, Option<String>), SubprotocolError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
        }
        SubprotocolOffer::parse(&headers)
            .map(|offer| (offer.encoding, offer.token.map(str::to_owned)))
    }

    #[test]
    fn the_first_subprotocol_that_the_relay_speaks_is_found_among_others_and_the_token() {
        let token = Some("a.b.c".to_owned());
        let (protobuf, json) = (
            Some(EnvelopeEncoding::Protobuf),
            Some(EnvelopeEncoding::Json),
        );
        assert_eq!(parse(&[]), Ok((None, None)));
        assert_eq!(parse(&["sidewire.v1.protobuf"]), Ok((protobuf, None)));
        assert_eq!(parse(&["sidewire.v1.json"]), Ok((json, None)));
        for (offer, encoding) in [
            (&["bearer.a.b.c, x , sidewire.v1.protobuf"][..], protobuf),
            (&["sidewire.v1.protobuf", "bearer.a.b.c"], protobuf),
            (&["sidewire.v1.json, bearer.a.b.c"], json),
            (
                &["bearer.a.b.c,sidewire.v1.json,sidewire.v1.protobuf"],
                json,
            ),
            (
                &["sidewire.v1.protobuf", "sidewire.v1.json, bearer.a.b.c"],
                protobuf,
            ),
        ] {
            assert_eq!(parse(offer), Ok((encoding, token.clone())), "{offer:?}");
        }
    }

    #[test]
    fn an_offer_without_a_subprotocol_that_the_relay_speaks_is_refused() {
        for offer in [
            "bearer.a.b.c",
            "graphql-ws",
            "Sidewire.v1.protobuf",
            "sidewire.v2.json",
        ] {
            assert_eq!(
                parse(&[offer]),
                Err(SubprotocolError::NoneSpoken),
                "{offer}"
            );
        }
        assert_eq!(
            parse(&["sidewire.v1.protobuf, bearer.a, bearer.b"]),
            Err(SubprotocolError::SeveralTokens)
        );
    }
}
