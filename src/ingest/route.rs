//! Which call a path names.

use crate::{
    http::{Problem, decode_percent},
    protocol::TenantName,
};

/// A call of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) tenant: TenantName,
    pub(super) call: Call,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// `POST …/events`: one event.
    Event,
    /// `POST …/events:batch`: several.
    Batch,
}

/// A path below `/v1/tenants/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path<'a> {
    /// Still percent-encoded.
    tenant: &'a str,
    /// The call that the rest of the path names, if it names one.
    pub(super) call: Option<Call>,
}

impl<'a> Path<'a> {
    /// The path, if it is a tenant's.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v1/tenants/")?;
        let (tenant, call) = path.split_once('/').unwrap_or((path, ""));
        let call = match call {
            "events" => Some(Call::Event),
            "events:batch" => Some(Call::Batch),
            _ => None,
        };
        Some(Self { tenant, call })
    }

    /// The tenant, when what stands in its place is a name.
    pub(super) fn tenant(self) -> Result<TenantName, Problem> {
        let refuse = |reason: String| {
            Problem::invalid(format!("the tenant {reason}")).with_field(Some("tenant"))
        };
        let name = decode_percent(self.tenant).map_err(|error| refuse(error.to_string()))?;
        TenantName::parse(&name).map_err(|error| refuse(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(path: &str) -> Option<Result<String, String>> {
        let tenant = Path::parse(path)?.tenant();
        Some(match tenant {
            Ok(tenant) => Ok(tenant.to_string()),
            Err(problem) => Err(problem.of_item(0).message),
        })
    }

    #[test]
    fn a_tenant_is_percent_decoded_after_the_path_is_split() {
        let path = "/v1/tenants/a%2Fb%20%C3%A4%3A/events";
        assert_eq!(tenant(path), Some(Ok("a/b ä:".to_owned())));
        let path = "/v1/tenants/events/events:batch";
        assert_eq!(Path::parse(path).unwrap().call, Some(Call::Batch));
    }

    #[test]
    fn a_tenant_that_is_no_name_is_refused() {
        let long = format!("/v1/tenants/{}/events", "x".repeat(129));
        for (path, reason) in [
            ("/v1/tenants//events", "the tenant is empty"),
            (
                "/v1/tenants/a%00/events",
                "the tenant has a control character in it",
            ),
            (
                "/v1/tenants/a%ff/events",
                "the tenant is not UTF-8 when its %-escapes are decoded",
            ),
            (&long, "the tenant has more than 128 bytes"),
        ] {
            assert_eq!(tenant(path), Some(Err(reason.to_owned())), "{path}");
        }
        assert!(
            tenant(&format!("/v1/tenants/{}/events", "x".repeat(128)))
                .unwrap()
                .is_ok()
        );
    }

    #[test]
    fn other_paths_are_no_calls() {
        for path in [
            "/v1/tenants/acme",
            "/v1/tenants/acme/",
            "/v1/tenants/acme/events/",
            "/v1/tenants/acme/events:batch2",
            "/v1/tenants/a/b/events",
        ] {
            assert_eq!(Path::parse(path).unwrap().call, None, "{path}");
        }
        for path in ["/", "/v1/tenants", "/v2/tenants/acme/events"] {
            assert_eq!(Path::parse(path), None, "{path}");
        }
    }
}
