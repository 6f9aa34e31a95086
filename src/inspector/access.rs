//! Who may use the inspector: the page's own script, with the key. Knows no data.

use hyper::{
    Request, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN,
        REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    },
};
use sidewire_protocol::ErrorCode;
use subtle::ConstantTimeEq;

use super::route;
use crate::{
    auth::SharedKey,
    config::HostName,
    http::{HttpProblem, HttpResponse, bearer_token, check_host, only_header},
};

/// What the browser may load and do for the page: its own files and calls, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

/// The headers of every response of the inspector.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Adds the headers that protect the page.
pub(super) fn protect_response(response: &mut HttpResponse) {
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
}

/// Checks that the request comes from the page itself, from a person who opens it, or from a
/// program. Also over a Unix socket, which a tunnel may connect to a port of a browser's machine.
///
/// # Errors
///
/// Returns 403 if another page may have sent it, 400 if a header is malformed.
pub(super) fn check_page<B>(request: &Request<B>, hosts: &[HostName]) -> Result<(), HttpProblem> {
    let remedy = "to use the inspector under another name, list it in ops.hosts";
    check_host(request, hosts, remedy)?;
    let headers = request.headers();
    if let Some(site) = only_header(headers, &SEC_FETCH_SITE)? {
        let is_own = [&b"same-origin"[..], b"none"].contains(&site.as_bytes());
        if !is_own && !opens_page(request) {
            return Err(from_another_page());
        }
    }
    let Some(origin) = only_header(headers, &ORIGIN)? else {
        return Ok(());
    };
    let host = only_header(headers, &HOST)?.map_or(&b""[..], HeaderValue::as_bytes);
    let origin = origin.as_bytes();
    let of_origin = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    match of_origin {
        Some(named) if !host.is_empty() && named.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(from_another_page()),
    }
}

/// Returns true if a person follows a link to the page, which shows nothing without the key.
fn opens_page<B>(request: &Request<B>) -> bool {
    let mode = request.headers().get(SEC_FETCH_MODE);
    mode.is_some_and(|mode| mode.as_bytes() == b"navigate")
        && route::data_path(request.uri().path()).is_none()
}

fn from_another_page() -> HttpProblem {
    HttpProblem::new(
        StatusCode::FORBIDDEN,
        ErrorCode::AuthorizationFailed,
        "requests of other web pages are refused",
    )
}

/// Checks that the caller presents the key.
///
/// # Errors
///
/// Returns 401 if it does not.
pub(super) fn check_key<B>(
    request: &Request<B>,
    key: Option<&SharedKey>,
) -> Result<(), HttpProblem> {
    let presented = bearer_token(request.headers())
        .map_err(|error| HttpProblem::unauthenticated(error.to_string()))?
        .ok_or_else(|| {
            HttpProblem::unauthenticated(
                "the key of ops.inspector_key_file is required: Authorization: Bearer <key>",
            )
        })?;
    let presented = SharedKey::of_presented(presented.as_bytes());
    match key {
        Some(key) if bool::from(key.ct_eq(&presented)) => Ok(()),
        _ => Err(HttpProblem::unauthenticated(
            "this is not the key of ops.inspector_key_file",
        )),
    }
}
