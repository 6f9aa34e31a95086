//! What a client offers in `Sec-WebSocket-Protocol`: how it wants to speak, and,
//! from a browser, which cannot set headers, its token.

use hyper::{HeaderMap, header::SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol of binary frames, also spoken where none is offered.
pub(super) const PROTOBUF: &str = "sidewire.v1.protobuf";

/// What stands before a token that is offered as a subprotocol.
const BEARER: &str = "bearer.";

/// What a client offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offer<'a> {
    /// The subprotocol to echo; `None` where the client offered none at all.
    pub(super) subprotocol: Option<&'static str>,
    /// The token.
    pub(super) token: Option<&'a str>,
}

/// Why an offer cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum OfferError {
    #[error("Sec-WebSocket-Protocol is no list of subprotocols")]
    Malformed,
    #[error("of the subprotocols offered the relay speaks none; offer {PROTOBUF}")]
    NoneSpoken,
    #[error("more than one token is offered as a subprotocol")]
    SeveralTokens,
}

impl<'a> Offer<'a> {
    /// What the headers offer.
    pub(super) fn parse(headers: &'a HeaderMap) -> Result<Self, OfferError> {
        let mut offered = Vec::new();
        for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
            let text = value.to_str().map_err(|_| OfferError::Malformed)?;
            offered.extend(
                text.split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty()),
            );
        }
        let mut tokens = offered.iter().filter_map(|name| name.strip_prefix(BEARER));
        let token = tokens.next();
        if tokens.next().is_some() {
            return Err(OfferError::SeveralTokens);
        }
        let subprotocol = if offered.is_empty() {
            None
        } else if offered.contains(&PROTOBUF) {
            Some(PROTOBUF)
        } else {
            return Err(OfferError::NoneSpoken);
        };
        Ok(Self { subprotocol, token })
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn parse(
        values: &[&'static str],
    ) -> Result<(Option<&'static str>, Option<String>), OfferError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
        }
        Offer::parse(&headers).map(|offer| (offer.subprotocol, offer.token.map(str::to_owned)))
    }

    #[test]
    fn the_relays_subprotocol_is_found_among_others_and_the_token_beside_it() {
        let token = Some("a.b.c".to_owned());
        assert_eq!(parse(&[]), Ok((None, None)));
        assert_eq!(parse(&[PROTOBUF]), Ok((Some(PROTOBUF), None)));
        assert_eq!(
            parse(&["bearer.a.b.c, x , sidewire.v1.protobuf"]),
            Ok((Some(PROTOBUF), token.clone()))
        );
        assert_eq!(
            parse(&["sidewire.v1.protobuf", "bearer.a.b.c"]),
            Ok((Some(PROTOBUF), token))
        );
    }

    #[test]
    fn an_offer_without_a_subprotocol_that_the_relay_speaks_is_refused() {
        for offer in ["bearer.a.b.c", "graphql-ws", "Sidewire.v1.protobuf"] {
            assert_eq!(parse(&[offer]), Err(OfferError::NoneSpoken), "{offer}");
        }
        assert_eq!(
            parse(&["sidewire.v1.protobuf, bearer.a, bearer.b"]),
            Err(OfferError::SeveralTokens)
        );
    }
}
