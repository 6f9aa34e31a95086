//! Protection against DNS rebinding: a web page with a name that is rebound to this machine's
//! address reaches every port of it, and the browser then sends that name in `Host`. Where no
//! token or key is required, such requests are refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::{
    Request, StatusCode, Version,
    header::{HOST, HeaderValue, ORIGIN},
};
use sidewire_protocol::ErrorCode;

use super::{HttpProblem, only_header};
use crate::config::HostName;

/// The kind of listener that received a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// A TCP listener, which web pages can reach too.
    Tcp,
    /// A Unix socket, which no web page can reach.
    UnixSocket,
}

/// Checks that `Host` is an IP address, `localhost` or one of `names`, with any port. A request
/// of HTTP/1.0 may lack it; browsers send none of those. `remedy` says what the operator can do.
///
/// # Errors
///
/// Returns 403 if it is anything else, 400 if it is missing, given twice or malformed.
pub fn check_host<B>(
    request: &Request<B>,
    names: &[HostName],
    remedy: &str,
) -> Result<(), HttpProblem> {
    if let Some(value) = only_host(request)? {
        check_authority(value.to_str().ok(), names, remedy)?;
    }
    // A target in absolute form has a host of its own, which takes precedence over the header.
    match request.uri().authority() {
        Some(authority) => check_authority(Some(authority.as_str()), names, remedy),
        None => Ok(()),
    }
}

/// Returns the value of `Host`, which a request of HTTP/1.0 may lack (RFC 9112, 3.2).
///
/// # Errors
///
/// Returns 400 if it is missing or given twice.
pub fn only_host<B>(request: &Request<B>) -> Result<Option<&HeaderValue>, HttpProblem> {
    match only_header(request.headers(), &HOST)? {
        None if request.version() != Version::HTTP_10 => {
            Err(HttpProblem::bad_request("the Host header is missing"))
        }
        value => Ok(value),
    }
}

/// Checks that the request has no `Origin`, which browsers add to the requests of web pages.
///
/// # Errors
///
/// Returns 403 if it has one.
pub fn check_no_origin<B>(request: &Request<B>, remedy: &str) -> Result<(), HttpProblem> {
    if request.headers().contains_key(ORIGIN) {
        return Err(forbidden_problem(format!(
            "requests with an Origin header come from web pages and are refused: {remedy}"
        )));
    }
    Ok(())
}

fn check_authority(
    authority: Option<&str>,
    names: &[HostName],
    remedy: &str,
) -> Result<(), HttpProblem> {
    let host = authority
        .and_then(parse_host)
        .ok_or_else(|| HttpProblem::bad_request("the Host header is not a host and a port"))?;
    let is_allowed = match host {
        HostKind::Address => true,
        HostKind::Name(name) => {
            name.eq_ignore_ascii_case("localhost")
                || names.iter().any(|listed| listed.matches(name))
        }
    };
    if is_allowed {
        return Ok(());
    }
    Err(forbidden_problem(format!(
        "the Host header is neither an IP address nor localhost, so a web page may have sent \
         this request by DNS rebinding: {remedy}"
    )))
}

fn forbidden_problem(detail: String) -> HttpProblem {
    HttpProblem::new(
        StatusCode::FORBIDDEN,
        ErrorCode::AuthorizationFailed,
        detail,
    )
}

enum HostKind<'a> {
    Address,
    Name(&'a str),
}

/// Returns the host of `host[:port]`; `None` if it is malformed.
fn parse_host(authority: &str) -> Option<HostKind<'_>> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        return (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
            .then_some(HostKind::Address);
    }
    let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
    if name.is_empty() || !is_port(port) {
        return None;
    }
    Some(match name.parse::<Ipv4Addr>() {
        Ok(_) => HostKind::Address,
        Err(_) => HostKind::Name(name),
    })
}

/// Returns true if the text is a port, which may be empty (RFC 3986, 3.2.3).
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status with which a request with these headers is refused, or 200.
    fn status(version: Version, target: &str, hosts: &[&str]) -> u16 {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let request = request.body(()).unwrap();
        let names = [HostName::parse("relay.internal").unwrap()];
        match check_host(&request, &names, "do this") {
            Ok(()) => 200,
            Err(problem) => problem.status().as_u16(),
        }
    }

    fn status_of(host: &str) -> u16 {
        status(Version::HTTP_11, "/", &[host])
    }

    #[test]
    fn addresses_localhost_and_listed_names_are_accepted_with_any_port() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:3001",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:3001",
            "[2001:db8::1]:",
            "localhost",
            "LocalHost:3001",
            "relay.internal",
            "Relay.Internal:3002",
        ] {
            assert_eq!(status_of(host), 200, "{host}");
        }
    }

    #[test]
    fn another_name_is_forbidden_and_an_invalid_host_is_malformed() {
        for host in [
            "evil.example",
            "evil.example:3001",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost.",
            "relay.internal.evil.example",
            "user@localhost",
        ] {
            assert_eq!(status_of(host), 403, "{host}");
        }
        for host in [
            "",
            ":3001",
            "localhost:x",
            "[::1",
            "[::1]x",
            "[evil]",
            "::1",
        ] {
            assert_eq!(status_of(host), 400, "{host}");
        }
    }

    #[test]
    fn only_http_1_0_may_omit_the_host_and_two_hosts_are_refused() {
        assert_eq!(status(Version::HTTP_10, "/", &[]), 200);
        assert_eq!(status(Version::HTTP_11, "/", &[]), 400);
        assert_eq!(status(Version::HTTP_10, "/", &["evil.example"]), 403);
        let twice = ["localhost", "localhost"];
        assert_eq!(status(Version::HTTP_11, "/", &twice), 400);
    }

    #[test]
    fn the_host_of_a_target_in_absolute_form_is_checked_too() {
        for (target, expected) in [
            ("http://localhost:3001/", 200),
            ("http://evil.example/", 403),
        ] {
            let status = status(Version::HTTP_11, target, &["localhost"]);
            assert_eq!(status, expected, "{target}");
        }
    }
}
