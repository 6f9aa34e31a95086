//! Decides which web pages may open connections, by the header `WebOrigin`, in which a browser names
//! the page's origin (RFC 6455, 10.2).

use hyper::{HeaderMap, header::ORIGIN};

use crate::config::WebOrigin;

/// The names of this machine, as written in an origin.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Returns true if the request's origin may connect. A request without the header does not come
/// from a browser and may. An empty list allows every origin if a token is required, and only the
/// pages of this machine if not.
pub(super) fn is_allowed(headers: &HeaderMap, listed: &[WebOrigin], token_required: bool) -> bool {
    let mut values = headers.get_all(ORIGIN).into_iter();
    let Some(value) = values.next() else {
        return true;
    };
    if values.next().is_some() {
        return false;
    }
    if listed.is_empty() && token_required {
        return true;
    }
    let Some(origin) = value
        .to_str()
        .ok()
        .and_then(|text| WebOrigin::parse(text).ok())
    else {
        return false;
    };
    if listed.is_empty() {
        is_loopback(&origin)
    } else {
        listed.contains(&origin)
    }
}

fn is_loopback(origin: &WebOrigin) -> bool {
    let Some((scheme, authority)) = origin.as_str().split_once("://") else {
        return false;
    };
    matches!(scheme, "http" | "https")
        && LOOPBACK_HOSTS.into_iter().any(|host| {
            authority
                .strip_prefix(host)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn allowed(origin: &'static str, listed: &[&str], token_required: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static(origin));
        let listed: Vec<_> = listed
            .iter()
            .map(|text| WebOrigin::parse(text).unwrap())
            .collect();
        is_allowed(&headers, &listed, token_required)
    }

    #[test]
    fn a_request_without_the_header_is_allowed() {
        let listed = [WebOrigin::parse("https://app.example").unwrap()];
        assert!(is_allowed(&HeaderMap::new(), &listed, true));
        assert!(is_allowed(&HeaderMap::new(), &[], false));
    }

    #[test]
    fn only_local_pages_are_allowed_if_no_token_is_required() {
        for origin in [
            "http://localhost",
            "https://localhost:5173",
            "http://127.0.0.1:8080",
            "http://[::1]:1",
            "https://[::1]",
        ] {
            assert!(allowed(origin, &[], false), "{origin}");
        }
        for origin in [
            "null",
            "https://evil.example",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "ftp://localhost",
            "http://localhost:5173/",
            "",
        ] {
            assert!(!allowed(origin, &[], false), "{origin}");
            assert!(allowed(origin, &[], true), "{origin}");
        }
    }

    #[test]
    fn a_list_allows_exactly_the_listed_origins() {
        let listed = ["https://app.example", "http://localhost:5173"];
        assert!(allowed("https://app.example", &listed, true));
        assert!(allowed("https://app.example:443", &listed, true));
        assert!(!allowed("http://app.example", &listed, true));
        assert!(!allowed("https://app.example:8443", &listed, true));
        assert!(!allowed("http://localhost", &listed, false));
        assert!(!allowed("null", &listed, true));
    }
}
