//! Parses the path of a call.

use sidewire_protocol::{TenantName, UserName, name::NameError};

use crate::http::{HttpProblem, decode_percent};

/// A documented endpoint of the ingest listener.
#[derive(Debug)]
pub struct IngestEndpoint {
    /// Allowed methods, in the form of the `Allow` header.
    pub methods: &'static str,
    /// Path, with `{tenant}` and `{user}` as placeholders.
    pub path: &'static str,
}

/// All endpoints of the ingest listener.
pub const ENDPOINTS: [IngestEndpoint; 7] = [
    IngestEndpoint {
        methods: "GET, HEAD",
        path: "/v1/tenants/{tenant}",
    },
    IngestEndpoint {
        methods: "POST",
        path: "/v1/tenants/{tenant}/events",
    },
    IngestEndpoint {
        methods: "POST",
        path: "/v1/tenants/{tenant}/events:batch",
    },
    IngestEndpoint {
        methods: "GET, HEAD",
        path: "/v1/tenants/{tenant}/connections",
    },
    IngestEndpoint {
        methods: "DELETE",
        path: "/v1/tenants/{tenant}/users/{user}/connections",
    },
    IngestEndpoint {
        methods: "DELETE",
        path: "/v1/tenants/{tenant}/users/{user}/subscriptions",
    },
    IngestEndpoint {
        methods: "GET, HEAD",
        path: "/v1/tenants/{tenant}/presence",
    },
];

/// A call that posts events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PostRoute {
    pub(super) tenant: TenantName,
    pub(super) call: PostKind,
}

/// Single event or batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostKind {
    /// `POST …/events`: one event.
    Event,
    /// `POST …/events:batch`: several.
    Batch,
}

/// The resource named by the part of a path after the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathTarget<'a> {
    /// The tenant itself.
    Tenant,
    /// Its events.
    Events(PostKind),
    /// Its connections.
    Connections,
    /// The connections of a user.
    UserConnections(PathSegment<'a>),
    /// The subscriptions of a user.
    UserSubscriptions(PathSegment<'a>),
    /// The users who are present on its topics.
    Presence,
}

impl PathTarget<'_> {
    /// Returns the allowed methods, in the form of the `Allow` header.
    pub(super) fn allowed_methods(self) -> &'static str {
        self.endpoint().methods
    }

    /// Returns the endpoint with this path.
    pub(super) fn endpoint(self) -> &'static IngestEndpoint {
        let [
            tenant,
            event,
            batch,
            connections,
            user_connections,
            user_subscriptions,
            presence,
        ] = &ENDPOINTS;
        match self {
            Self::Tenant => tenant,
            Self::Events(PostKind::Event) => event,
            Self::Events(PostKind::Batch) => batch,
            Self::Connections => connections,
            Self::UserConnections(_) => user_connections,
            Self::UserSubscriptions(_) => user_subscriptions,
            Self::Presence => presence,
        }
    }
}

/// A segment of a path, still percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathSegment<'a>(&'a str);

impl PathSegment<'_> {
    /// Decodes the segment as a user name.
    pub(super) fn parse_user(self) -> Result<UserName, HttpProblem> {
        self.parse_name("user", UserName::parse)
    }

    fn parse_name<T>(
        self,
        what: &'static str,
        parse: impl Fn(&str) -> Result<T, NameError>,
    ) -> Result<T, HttpProblem> {
        let refuse = |reason: String| {
            HttpProblem::bad_request(format!("the {what} {reason}")).with_field(Some(what))
        };
        let name = decode_percent(self.0).map_err(|error| refuse(error.to_string()))?;
        parse(&name).map_err(|error| refuse(error.to_string()))
    }
}

/// A path below `/v1/tenants/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TenantPath<'a> {
    tenant: PathSegment<'a>,
    /// The resource named by the rest of the path; `None` if there is no such resource.
    pub(super) target: Option<PathTarget<'a>>,
}

impl<'a> TenantPath<'a> {
    /// Parses the path. Returns `None` if it is not below `/v1/tenants/`.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/v1/tenants/")?;
        let mut segments = path.split('/');
        let tenant = PathSegment(segments.next().unwrap_or_default());
        let rest = [segments.next(), segments.next(), segments.next()];
        let target = match (rest, segments.next()) {
            ([None, ..], _) => Some(PathTarget::Tenant),
            ([Some("events"), None, _], _) => Some(PathTarget::Events(PostKind::Event)),
            ([Some("events:batch"), None, _], _) => Some(PathTarget::Events(PostKind::Batch)),
            ([Some("connections"), None, _], _) => Some(PathTarget::Connections),
            ([Some("presence"), None, _], _) => Some(PathTarget::Presence),
            ([Some("users"), Some(user), Some("connections")], None) => {
                Some(PathTarget::UserConnections(PathSegment(user)))
            }
            ([Some("users"), Some(user), Some("subscriptions")], None) => {
                Some(PathTarget::UserSubscriptions(PathSegment(user)))
            }
            _ => None,
        };
        Some(Self { tenant, target })
    }

    /// Decodes the tenant's name.
    pub(super) fn parse_tenant(self) -> Result<TenantName, HttpProblem> {
        self.tenant.parse_name("tenant", TenantName::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(path: &str) -> Option<Result<String, String>> {
        let tenant = TenantPath::parse(path)?.parse_tenant();
        Some(match tenant {
            Ok(tenant) => Ok(tenant.to_string()),
            Err(problem) => Err(problem.into_item_problem(0).message),
        })
    }

    #[test]
    fn a_tenant_is_percent_decoded_after_the_path_is_split() {
        let path = "/v1/tenants/a%2Fb%20%C3%A4%3A/events";
        assert_eq!(tenant(path), Some(Ok("a/b ä:".to_owned())));
        let path = "/v1/tenants/events/events:batch";
        assert_eq!(
            TenantPath::parse(path).unwrap().target,
            Some(PathTarget::Events(PostKind::Batch))
        );
    }

    #[test]
    fn a_tenant_with_an_invalid_name_is_refused() {
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
    fn each_path_leads_to_its_endpoint() {
        for endpoint in &ENDPOINTS {
            let path = endpoint.path.replace(['{', '}'], "");
            let target = TenantPath::parse(&path).unwrap().target.unwrap();
            assert_eq!(target.endpoint().path, endpoint.path);
        }
    }

    #[test]
    fn other_paths_lead_to_no_endpoint() {
        for path in [
            "/v1/tenants/acme/",
            "/v1/tenants/acme/events/",
            "/v1/tenants/acme/events:batch2",
            "/v1/tenants/acme/presence/",
            "/v1/tenants/acme/connections/",
            "/v1/tenants/acme/connections/1-2",
            "/v1/tenants/a/b/events",
            "/v1/tenants/acme/users",
            "/v1/tenants/acme/users/ann",
            "/v1/tenants/acme/users/ann/",
            "/v1/tenants/acme/users/ann/connections/",
            "/v1/tenants/acme/users/ann/b/connections",
        ] {
            assert_eq!(TenantPath::parse(path).unwrap().target, None, "{path}");
        }
        for path in ["/", "/v1/tenants", "/v2/tenants/acme/events"] {
            assert_eq!(TenantPath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_user_is_percent_decoded_after_the_path_is_split() {
        let user = |path| match TenantPath::parse(path).unwrap().target {
            Some(PathTarget::UserConnections(user)) => {
                let user = user.parse_user();
                user.map(|user| user.to_string())
                    .map_err(|problem| problem.into_item_problem(0).message)
            }
            other => panic!("{other:?}"),
        };
        for (path, expected) in [
            (
                "/v1/tenants/acme/users/a%2Fb%20%C3%A4/connections",
                Ok("a/b ä"),
            ),
            ("/v1/tenants/acme/users/users/connections", Ok("users")),
            (
                "/v1/tenants/acme/users//connections",
                Err("the user is empty"),
            ),
            (
                "/v1/tenants/acme/users/%0A/connections",
                Err("the user has a control character in it"),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(user(path), expected, "{path}");
        }
        assert_eq!(
            TenantPath::parse("/v1/tenants/acme").unwrap().target,
            Some(PathTarget::Tenant)
        );
    }
}
