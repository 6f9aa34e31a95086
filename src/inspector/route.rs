//! The paths of the data calls. Knows nothing of what they return.

use hyper::Method;
use sidewire_protocol::{Position, TenantName};

use crate::http::{HttpProblem, decode_percent};

/// The path below which all data calls are.
const DATA: &str = "/inspect/api/";

/// A data call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DataCall {
    /// `session`: what the page needs first.
    Session,
    /// `overview`: the counters.
    Overview,
    /// `schema`: the events, each with an example.
    Schema,
    /// `tenants`: the tenants.
    Tenants,
    /// `tenants/{tenant}`: one of them.
    Tenant(TenantName),
    /// `tenants/{tenant}/connections`
    Connections(TenantName),
    /// `tenants/{tenant}/topics`
    Topics(TenantName),
    /// `tenants/{tenant}/events`: the newest.
    Events(TenantName),
    /// `tenants/{tenant}/events/{position}`: one of them, whole.
    Event(TenantName, Position),
    /// `tenants/{tenant}/route`: the topics of a posted event, and who would get it.
    Route(TenantName),
    /// `tenants/{tenant}/publish`: publishes an event; only in `sidewire dev`.
    Publish(TenantName),
    /// `token`: makes a token; only in `sidewire dev`.
    Token,
}

/// Returns the part of a path that names a data call, if it is one's.
pub(super) fn data_path(path: &str) -> Option<&str> {
    path.strip_prefix(DATA)
}

impl DataCall {
    /// Parses the part of a path after `/inspect/api/`.
    ///
    /// # Errors
    ///
    /// Returns 404 if there is no such call, 400 for an invalid name or position.
    pub(super) fn parse(path: &str) -> Result<Self, HttpProblem> {
        let segments: Vec<_> = path.split('/').collect();
        Ok(match segments.as_slice() {
            ["session"] => Self::Session,
            ["overview"] => Self::Overview,
            ["schema"] => Self::Schema,
            ["token"] => Self::Token,
            ["tenants"] => Self::Tenants,
            ["tenants", tenant] => Self::Tenant(parse_tenant(tenant)?),
            ["tenants", tenant, "connections"] => Self::Connections(parse_tenant(tenant)?),
            ["tenants", tenant, "topics"] => Self::Topics(parse_tenant(tenant)?),
            ["tenants", tenant, "events"] => Self::Events(parse_tenant(tenant)?),
            ["tenants", tenant, "events", position] => {
                let position = position.parse().map_err(|_| {
                    HttpProblem::bad_request("the position is not <epoch>:<offset>")
                })?;
                Self::Event(parse_tenant(tenant)?, position)
            }
            ["tenants", tenant, "route"] => Self::Route(parse_tenant(tenant)?),
            ["tenants", tenant, "publish"] => Self::Publish(parse_tenant(tenant)?),
            _ => return Err(HttpProblem::no_such_path()),
        })
    }

    /// Returns the method of the call.
    pub(super) fn method(&self) -> Method {
        match self {
            Self::Route(_) | Self::Publish(_) | Self::Token => Method::POST,
            _ => Method::GET,
        }
    }

    /// Returns the method for the header `Allow`.
    pub(super) fn allowed_method(&self) -> &'static str {
        match self.method() {
            Method::POST => "POST",
            _ => "GET",
        }
    }
}

fn parse_tenant(segment: &str) -> Result<TenantName, HttpProblem> {
    let refuse = |reason: String| {
        HttpProblem::bad_request(format!("the tenant {reason}")).with_field(Some("tenant"))
    };
    let name = decode_percent(segment).map_err(|error| refuse(error.to_string()))?;
    TenantName::parse(&name).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use sidewire_protocol::Epoch;

    use super::*;

    #[test]
    fn each_path_names_its_call() {
        let acme = || TenantName::parse("a/b").unwrap();
        let position = Position {
            epoch: Epoch::from_bits(0xab),
            offset: 7,
        };
        for (path, call) in [
            ("session", DataCall::Session),
            ("overview", DataCall::Overview),
            ("schema", DataCall::Schema),
            ("token", DataCall::Token),
            ("tenants", DataCall::Tenants),
            ("tenants/a%2Fb", DataCall::Tenant(acme())),
            ("tenants/a%2Fb/connections", DataCall::Connections(acme())),
            ("tenants/a%2Fb/topics", DataCall::Topics(acme())),
            ("tenants/a%2Fb/events", DataCall::Events(acme())),
            (
                "tenants/a%2Fb/events/000000000000000000000000000000ab:7",
                DataCall::Event(acme(), position),
            ),
            ("tenants/a%2Fb/route", DataCall::Route(acme())),
            ("tenants/a%2Fb/publish", DataCall::Publish(acme())),
        ] {
            assert_eq!(DataCall::parse(path), Ok(call), "{path}");
        }
        for (path, status) in [
            ("", 404),
            ("overview/", 404),
            ("tenants/", 400),
            ("tenants/a/", 404),
            ("tenants/a/b", 404),
            ("tenants/%ff", 400),
            ("tenants/a/events/7", 400),
        ] {
            let problem = DataCall::parse(path).unwrap_err();
            assert_eq!(problem.status(), status, "{path}");
        }
    }
}
