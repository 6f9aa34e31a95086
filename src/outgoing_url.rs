//! URLs at which the relay asks other servers. Connects to nothing.

use std::{fmt, net::IpAddr};

use hyper::Uri;

/// The reason why a URL may not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlFault {
    /// The text is not a URL with a host.
    Malformed,
    /// The URL is neither `https`, nor `http` on this machine, so an attacker on the network could
    /// read the question and forge the answer.
    Insecure,
    /// The URL contains a user or password, which would appear in logs.
    UserInfo,
}

/// Parses a URL that is `https`, or `http` on this machine.
pub(crate) fn parse_url(text: &str) -> Result<Uri, UrlFault> {
    let uri: Uri = text.parse().map_err(|_| UrlFault::Malformed)?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(UrlFault::Malformed);
    };
    let host_and_port = authority.as_str();
    if host_and_port.contains('@') {
        return Err(UrlFault::UserInfo);
    }
    let port = host_and_port.rsplit_once(':').map(|(_, port)| port);
    let has_bad_port = port.is_some_and(|port| {
        !port.ends_with(']') && port.parse::<u16>().map_or(true, |port| port == 0)
    });
    if authority.host().is_empty() || has_bad_port {
        return Err(UrlFault::Malformed);
    }
    match scheme {
        "https" => Ok(uri),
        "http" if is_on_this_machine(authority.host()) => Ok(uri),
        _ => Err(UrlFault::Insecure),
    }
}

fn is_on_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Writes a URL without its query, which may hold secrets and would appear in logs.
pub(crate) fn write_without_query(f: &mut fmt::Formatter<'_>, url: &str) -> fmt::Result {
    match url.split_once('?') {
        Some((shown, _)) => write!(f, "{shown}?…"),
        None => f.write_str(url),
    }
}
