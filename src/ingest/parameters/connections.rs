//! Parses the query that lists connections: `?user=`, `?topic=`, `?limit=` and `?after=`.

use sidewire_presence::ConnectionKey;
use sidewire_protocol::UserName;

use super::{
    QueryParameter, invalid_parameter, invalid_query, parse_limit, set_once, topic_parameter,
    unknown_parameter,
};
use crate::{
    http::{HttpProblem, query_pairs},
    hub::ConnectionFilter,
};

/// Most connections that a page lists.
const CONNECTIONS_MAX: usize = 1_000;

/// Connections that a page lists if the call does not say how many.
const CONNECTIONS_DEFAULT: usize = 100;

/// The parameters of such a call.
const PARAMETERS: [QueryParameter; 4] = [
    QueryParameter::User,
    QueryParameter::Topic,
    QueryParameter::Limit,
    QueryParameter::After,
];

/// The parsed query of a call that lists connections.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConnectionsParameters {
    /// The connections that are listed.
    pub(crate) filter: ConnectionFilter,
    /// Most connections that the page lists.
    pub(crate) limit: usize,
    /// The connection behind which the page begins.
    pub(crate) after: Option<ConnectionKey>,
}

impl ConnectionsParameters {
    /// Parses the query.
    pub(crate) fn parse(query: Option<&str>) -> Result<Self, HttpProblem> {
        let mut filter = ConnectionFilter::default();
        let (mut limit, mut after) = (None, None);
        for pair in query_pairs(query) {
            let (name, value) = pair.map_err(invalid_query)?;
            match PARAMETERS.into_iter().find(|it| it.name() == name) {
                Some(QueryParameter::User) => {
                    let user = UserName::parse(&value)
                        .map_err(|error| invalid_parameter(&name, &error.to_string()))?;
                    set_once(&name, &mut filter.user, user)?;
                }
                Some(QueryParameter::Topic) => {
                    set_once(&name, &mut filter.topic, topic_parameter(&value)?)?;
                }
                Some(QueryParameter::Limit) => {
                    set_once(&name, &mut limit, parse_limit(&value, CONNECTIONS_MAX)?)?;
                }
                Some(_) => {
                    let key = value
                        .parse()
                        .map_err(|_| invalid_parameter(&name, "is no `next` of a listing"))?;
                    set_once(&name, &mut after, key)?;
                }
                None => return Err(unknown_parameter(&name, &PARAMETERS)),
            }
        }
        Ok(Self {
            filter,
            limit: limit.unwrap_or(CONNECTIONS_DEFAULT),
            after,
        })
    }
}

#[cfg(test)]
mod tests {
    use sidewire_protocol::Topic;

    use super::*;

    fn parse(query: &str) -> Result<ConnectionsParameters, String> {
        ConnectionsParameters::parse(Some(query))
            .map_err(|problem| problem.into_item_problem(0).field.unwrap_or_default())
    }

    #[test]
    fn a_page_has_100_connections_of_the_tenant_unless_the_call_says_otherwise() {
        assert_eq!(
            parse(""),
            Ok(ConnectionsParameters {
                filter: ConnectionFilter::default(),
                limit: 100,
                after: None,
            })
        );
        assert_eq!(
            parse("user=ann%40x&topic=a:1&limit=1000&after=1-42"),
            Ok(ConnectionsParameters {
                filter: ConnectionFilter {
                    user: Some(UserName::parse("ann@x").unwrap()),
                    topic: Some(Topic::parse("a:1").unwrap()),
                },
                limit: 1_000,
                after: Some(ConnectionKey { shard: 1, id: 42 }),
            })
        );
    }

    #[test]
    fn invalid_parameters_are_refused_by_name() {
        for (query, field) in [
            ("user=", "user"),
            ("user=ann&user=bob", "user"),
            ("topic=a", "topic"),
            ("topic=a:*", "topic"),
            ("topic=a:1&topic=a:2", "topic"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=1&limit=1", "limit"),
            ("after=", "after"),
            ("after=1", "after"),
            ("after=1-", "after"),
            ("after=-1-2", "after"),
            ("after=1-%2B2", "after"),
            ("after=01-2", "after"),
            ("after=1-99999999999999999999", "after"),
            ("after=1-2&after=1-2", "after"),
            ("reconnect=true", "reconnect"),
        ] {
            assert_eq!(parse(query).unwrap_err(), field, "{query}");
        }
    }
}
