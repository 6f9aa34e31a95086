//! Parses the queries of the calls about a user: `?reconnect=` of the one that closes connections,
//! and `?topic=`, repeatable, of the one that ends subscriptions.

use sidewire_protocol::Topic;

use super::{QueryParameter, invalid_parameter, invalid_query, set_once, unknown_parameter};
use crate::{
    http::{HttpProblem, query_pairs},
    hub::RevokedTopics,
};

/// Parses the query of a call that closes connections. Returns true if the clients are to come
/// back with new tokens.
pub(in crate::ingest) fn parse_reconnect(query: Option<&str>) -> Result<bool, HttpProblem> {
    let mut reconnect = None;
    for pair in query_pairs(query) {
        let (name, value) = pair.map_err(invalid_query)?;
        if name != QueryParameter::Reconnect.name() {
            return Err(unknown_parameter(&name, &[QueryParameter::Reconnect]));
        }
        let value = match &*value {
            "true" => true,
            "false" => false,
            _ => return Err(invalid_parameter(&name, "is neither true nor false")),
        };
        set_once(&name, &mut reconnect, value)?;
    }
    Ok(reconnect.unwrap_or(false))
}

/// Parses the query of a call that ends subscriptions.
pub(in crate::ingest) fn parse_revoked_topics(
    query: Option<&str>,
) -> Result<RevokedTopics, HttpProblem> {
    let mut topics = Vec::new();
    for pair in query_pairs(query) {
        let (name, value) = pair.map_err(invalid_query)?;
        if name != QueryParameter::Topic.name() {
            return Err(unknown_parameter(&name, &[QueryParameter::Topic]));
        }
        let refuse = |reason: &str| invalid_parameter("topic", &format!("{value:?} {reason}"));
        let topic = Topic::parse(&value).map_err(|error| refuse(&error.to_string()))?;
        if topic.is_implicit() {
            return Err(refuse("is of a kind that nobody can subscribe to"));
        }
        topics.push(topic);
    }
    if topics.is_empty() {
        return Err(invalid_parameter("topic", "is missing"));
    }
    Ok(topics.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<T>(parsed: Result<T, HttpProblem>) -> Result<T, String> {
        parsed.map_err(|problem| problem.into_item_problem(0).field.unwrap_or_default())
    }

    #[test]
    fn clients_come_back_only_if_the_call_says_so() {
        for (query, expected) in [
            (None, Ok(false)),
            (Some(""), Ok(false)),
            (Some("reconnect=false"), Ok(false)),
            (Some("reconnect=true"), Ok(true)),
            (Some("reconnect=1"), Err("reconnect")),
            (Some("reconnect=%zz"), Err("reconnect")),
            (Some("reconnect=true&reconnect=true"), Err("reconnect")),
            (Some("topic=a:1"), Err("topic")),
        ] {
            let expected = expected.map_err(str::to_owned);
            assert_eq!(field(parse_reconnect(query)), expected, "{query:?}");
        }
    }

    #[test]
    fn revoked_topics_may_be_wildcards_but_not_of_implicit_kinds() {
        let topics = ["a:1", "b:*"].map(|text| Topic::parse(text).unwrap());
        assert_eq!(
            field(parse_revoked_topics(Some("topic=a:1&topic=b:*&topic=a:1"))),
            Ok(topics.into_iter().collect())
        );
        for query in [
            None,
            Some(""),
            Some("topic="),
            Some("topic=a"),
            Some("topic=user:ann"),
            Some("topic=user:*"),
            Some("topic=tenant:*"),
        ] {
            let refused = field(parse_revoked_topics(query)).map(drop);
            assert_eq!(refused, Err("topic".to_owned()), "{query:?}");
        }
        let refused = field(parse_revoked_topics(Some("topic=a:1&reconnect=true")));
        assert_eq!(refused.map(drop), Err("reconnect".to_owned()));
    }
}
