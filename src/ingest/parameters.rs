//! Parses the query of a call: `?topic=` and `?if_last=`, both repeatable, of calls that post
//! events, the queries that list connections (`connections`) and presence (`presence`), and those
//! of calls about a user (`user`).

mod connections;
mod presence;
mod user;

use sidewire_protocol::{Topic, suggest::nearest_name, topic::TopicSet};

use super::{
    draft::{parse_topic, too_many_topics},
    route::PostKind,
};
use crate::{
    http::{HttpProblem, QueryPairError, query_pairs},
    log::AppendCondition,
};

pub(crate) use self::connections::ConnectionsParameters;
pub(super) use self::{
    presence::{PresenceParameters, cursor_text},
    user::{parse_reconnect, parse_revoked_topics},
};

/// A query parameter of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryParameter {
    /// A topic added to each event, a topic whose users or connections are listed, or a topic to
    /// which subscriptions end.
    Topic,
    /// A precondition for appending the event.
    IfLast,
    /// Most users or connections that a page lists.
    Limit,
    /// Where a page begins.
    After,
    /// True if disconnected clients are to come back with new tokens.
    Reconnect,
    /// The user whose connections are listed.
    User,
}

impl QueryParameter {
    /// All parameters.
    pub const ALL: [Self; 6] = [
        Self::Topic,
        Self::IfLast,
        Self::Limit,
        Self::After,
        Self::Reconnect,
        Self::User,
    ];

    /// Returns its name in the query.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::IfLast => "if_last",
            Self::Limit => "limit",
            Self::After => "after",
            Self::Reconnect => "reconnect",
            Self::User => "user",
        }
    }

    fn taken_by(call: PostKind) -> &'static [Self] {
        match call {
            PostKind::Event => &[Self::Topic, Self::IfLast],
            PostKind::Batch => &[Self::Topic],
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// The parsed query of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct QueryParameters {
    /// Topics added to each event of the call.
    pub(super) topics: Vec<Topic>,
    /// Preconditions for appending the event.
    pub(super) conditions: Vec<AppendCondition>,
}

impl QueryParameters {
    /// Parses the query of a call. Allows at most `topics_max` conditions, and as many distinct
    /// topics.
    pub(super) fn parse(
        query: Option<&str>,
        call: PostKind,
        topics_max: usize,
    ) -> Result<Self, HttpProblem> {
        let mut parameters = Self::default();
        let mut topics = TopicSet::default();
        for pair in query_pairs(query) {
            let (name, value) = pair.map_err(invalid_query)?;
            match QueryParameter::from_name(&name) {
                Some(QueryParameter::Topic) => {
                    let topic = topic_parameter(&value)?;
                    if topics.insert(topic.clone()) {
                        parameters.topics.push(topic);
                    }
                    if topics.len() > topics_max {
                        return Err(too_many_topics(topics_max));
                    }
                }
                Some(QueryParameter::IfLast) if call == PostKind::Batch => {
                    return Err(invalid_parameter(
                        "if_last",
                        "is for single events, not for batches",
                    ));
                }
                Some(QueryParameter::IfLast) if parameters.conditions.len() == topics_max => {
                    let reason = format!("is given more than {topics_max} times");
                    return Err(invalid_parameter("if_last", &reason));
                }
                Some(QueryParameter::IfLast) => {
                    parameters.conditions.push(parse_condition(&value)?);
                }
                Some(
                    QueryParameter::Limit
                    | QueryParameter::After
                    | QueryParameter::Reconnect
                    | QueryParameter::User,
                )
                | None => {
                    return Err(unknown_parameter(&name, QueryParameter::taken_by(call)));
                }
            }
        }
        Ok(parameters)
    }
}

/// Refuses a query that cannot be decoded.
fn invalid_query(error: QueryPairError) -> HttpProblem {
    HttpProblem::bad_request(format!("the query {error}")).with_field(error.name.as_deref())
}

/// Parses the value of a `?topic=`.
pub(super) fn topic_parameter(value: &str) -> Result<Topic, HttpProblem> {
    parse_topic(value).map_err(|reason| invalid_parameter("topic", &format!("{value:?} {reason}")))
}

/// Parses `<topic>@<epoch>:<offset>` or `<topic>@0`. A topic's id may contain an `@`; the last
/// one is the separator.
fn parse_condition(value: &str) -> Result<AppendCondition, HttpProblem> {
    let refuse = |reason: &str| invalid_parameter("if_last", &format!("{value:?} {reason}"));
    let (topic, last) = value
        .rsplit_once('@')
        .ok_or_else(|| refuse("has no @ between a topic and a position"))?;
    Ok(AppendCondition {
        topic: parse_topic(topic)
            .map_err(|reason| refuse(&format!("has an invalid topic: {topic:?} {reason}")))?,
        last: last
            .parse()
            .map_err(|error| refuse(&format!("has an invalid position: {last:?} {error}")))?,
    })
}

fn invalid_parameter(name: &str, reason: &str) -> HttpProblem {
    HttpProblem::bad_request(format!("{name} {reason}")).with_field(Some(name))
}

/// Parses the value of a `?limit=`, which may be at most `max`.
fn parse_limit(value: &str, max: usize) -> Result<usize, HttpProblem> {
    // `parse` would take a sign.
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let limit = value.parse().ok().filter(|_| is_number);
    limit
        .filter(|limit| (1..=max).contains(limit))
        .ok_or_else(|| invalid_parameter("limit", &format!("is a number from 1 to {max}")))
}

fn set_once<T>(name: &str, parameter: &mut Option<T>, value: T) -> Result<(), HttpProblem> {
    match parameter.replace(value) {
        Some(_) => Err(invalid_parameter(name, "is given twice")),
        None => Ok(()),
    }
}

/// Refuses the query of a call that takes no parameters, unless it is empty.
pub(super) fn refuse_parameters(query: Option<&str>) -> Result<(), HttpProblem> {
    match query_pairs(query).next() {
        Some(Ok((name, _))) => Err(unknown_parameter(&name, &[])),
        Some(Err(error)) => Err(HttpProblem::bad_request(format!("the query {error}"))),
        None => Ok(()),
    }
}

/// Returns the problem for a parameter that is not one of the `known` ones of the call. Ignoring
/// it would let the sender believe that it takes effect.
fn unknown_parameter(name: &str, known: &[QueryParameter]) -> HttpProblem {
    let known: Vec<_> = known.iter().map(|it| it.name()).collect();
    let hint = match nearest_name(name, known.iter().copied()) {
        Some(nearest) => format!("did you mean {nearest:?}?"),
        None if known.is_empty() => "this call takes none".to_owned(),
        None => format!("this call takes {}", listed(&known)),
    };
    HttpProblem::bad_request(format!("unknown query parameter {name:?}; {hint}"))
        .with_field(Some(name))
}

/// Returns the names as a list: "a, b and c".
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::ExpectedLast;
    use sidewire_protocol::{Epoch, Position};

    const EPOCH: Epoch = Epoch::from_bits(0xab);

    fn parse(query: &str) -> Result<Vec<(String, ExpectedLast)>, String> {
        let parsed = QueryParameters::parse(Some(query), PostKind::Event, 3);
        parsed
            .map(|parameters| {
                let conditions = parameters.conditions.into_iter();
                conditions
                    .map(|it| (it.topic.to_string(), it.last))
                    .collect()
            })
            .map_err(|problem| problem.into_item_problem(0).field.unwrap_or_default())
    }

    #[test]
    fn the_last_at_sign_separates_topic_and_position() {
        let epoch = "000000000000000000000000000000ab";
        let at = ExpectedLast::At(Position {
            epoch: EPOCH,
            offset: 42,
        });
        assert_eq!(
            parse(&format!(
                "if_last=a:1%40{epoch}:42&if_last=mail:ann@example.org@{epoch}:0&if_last=b:2@0"
            )),
            Ok(vec![
                ("a:1".to_owned(), at),
                (
                    "mail:ann@example.org".to_owned(),
                    ExpectedLast::NoneIn(EPOCH)
                ),
                ("b:2".to_owned(), ExpectedLast::None),
            ])
        );
    }

    #[test]
    fn an_invalid_condition_is_refused_by_name() {
        for value in [
            "",
            "a:1",
            "@0",
            "a@0",
            "a:*@0",
            "tenant:acme@0",
            "a:1@",
            "a:1@1",
            "a:1@0@",
            "a:1@000000000000000000000000000000ab",
            "a:1@000000000000000000000000000000AB:1",
        ] {
            let refused = parse(&format!("if_last={value}"));
            assert_eq!(refused, Err("if_last".to_owned()), "{value}");
        }
        let too_many = ["if_last=a:1@0"; 4].join("&");
        assert_eq!(parse(&too_many), Err("if_last".to_owned()));
        assert_eq!(parse("if_last=tenant:*@0").map(|it| it.len()), Ok(1));
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_the_nearest_or_the_known_ones() {
        let refusal = |name: &str, known| {
            let problem = unknown_parameter(name, known);
            problem.detail().to_owned()
        };
        let event = QueryParameter::taken_by(PostKind::Event);
        let batch = QueryParameter::taken_by(PostKind::Batch);
        for (name, known, hint) in [
            ("topik", event, "did you mean \"topic\"?"),
            ("iflast", event, "did you mean \"if_last\"?"),
            ("x", event, "this call takes topic and if_last"),
            ("x", batch, "this call takes topic"),
            (
                "x",
                &[
                    QueryParameter::User,
                    QueryParameter::Limit,
                    QueryParameter::After,
                ],
                "this call takes user, limit and after",
            ),
            ("topic", &[], "this call takes none"),
        ] {
            let expected = format!("unknown query parameter {name:?}; {hint}");
            assert_eq!(refusal(name, known), expected);
        }
    }

    #[test]
    fn a_batch_cannot_have_conditions() {
        let batch = |query| QueryParameters::parse(Some(query), PostKind::Batch, 3);
        assert!(batch("if_last=a:1@0").is_err());
        assert!(batch("topic=a:1").is_ok());
    }
}
