//! Parses the query of a call: `?topic=` and `?if_last=`, both repeatable.

use super::{
    draft::{parse_topic, too_many_topics},
    route::Call,
};
use crate::{
    http::{Problem, query_pairs},
    log::Condition,
    protocol::{Topic, topic::TopicSet},
};

/// A query parameter of calls that post events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// A topic added to each event.
    Topic,
    /// A precondition for appending the event.
    IfLast,
}

impl Parameter {
    /// All parameters.
    pub const ALL: [Self; 2] = [Self::Topic, Self::IfLast];

    /// Returns its name in the query.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::IfLast => "if_last",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// The parsed query of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Topics added to each event of the call.
    pub(super) topics: Vec<Topic>,
    /// Preconditions for appending the event.
    pub(super) conditions: Vec<Condition>,
}

impl Parameters {
    /// Parses the query of a call. Allows at most `topics_max` conditions, and as many distinct
    /// topics.
    pub(super) fn parse(
        query: Option<&str>,
        call: Call,
        topics_max: usize,
    ) -> Result<Self, Problem> {
        let mut parameters = Self::default();
        let mut topics = TopicSet::default();
        for pair in query_pairs(query) {
            let (name, value) = pair
                .map_err(|error| Problem::invalid(format!("the query {error}")))
                .map_err(|problem| problem.with_field(Some("topic")))?;
            match Parameter::of(&name) {
                Some(Parameter::Topic) => {
                    let topic = topic_parameter(&value)?;
                    if topics.insert(topic.clone()) {
                        parameters.topics.push(topic);
                    }
                    if topics.len() > topics_max {
                        return Err(too_many_topics(topics_max));
                    }
                }
                Some(Parameter::IfLast) if call == Call::Batch => {
                    return Err(refuse("if_last", "is for single events, not for batches"));
                }
                Some(Parameter::IfLast) if parameters.conditions.len() == topics_max => {
                    let reason = format!("is given more than {topics_max} times");
                    return Err(refuse("if_last", &reason));
                }
                Some(Parameter::IfLast) => parameters.conditions.push(condition(&value)?),
                None => return Err(unknown(&name)),
            }
        }
        Ok(parameters)
    }
}

/// Parses the value of a `?topic=`.
pub(super) fn topic_parameter(value: &str) -> Result<Topic, Problem> {
    parse_topic(value).map_err(|reason| refuse("topic", &format!("{value:?} {reason}")))
}

/// Parses `<topic>@<epoch>:<offset>` or `<topic>@0`. A topic's id may contain an `@`; the last
/// one is the separator.
fn condition(value: &str) -> Result<Condition, Problem> {
    let refuse = |reason: &str| refuse("if_last", &format!("{value:?} {reason}"));
    let (topic, last) = value
        .rsplit_once('@')
        .ok_or_else(|| refuse("has no @ between a topic and a position"))?;
    Ok(Condition {
        topic: parse_topic(topic)
            .map_err(|reason| refuse(&format!("has an invalid topic: {topic:?} {reason}")))?,
        last: last
            .parse()
            .map_err(|error| refuse(&format!("has an invalid position: {last:?} {error}")))?,
    })
}

fn refuse(name: &str, reason: &str) -> Problem {
    Problem::invalid(format!("{name} {reason}")).with_field(Some(name))
}

/// Refuses the query of a call that takes no parameters, unless it is empty.
pub(super) fn refuse_parameters(query: Option<&str>) -> Result<(), Problem> {
    match query_pairs(query).next() {
        Some(Ok((name, _))) => Err(unknown(&name)),
        Some(Err(error)) => Err(Problem::invalid(format!("the query {error}"))),
        None => Ok(()),
    }
}

/// Returns the problem for a parameter that the call does not have. Ignoring it would let the
/// sender believe that it takes effect.
fn unknown(name: &str) -> Problem {
    Problem::invalid(format!("unknown query parameter {name:?}")).with_field(Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        log::Last,
        protocol::{Epoch, Position},
    };

    const EPOCH: Epoch = Epoch::from_bits(0xab);

    fn parse(query: &str) -> Result<Vec<(String, Last)>, String> {
        let parsed = Parameters::parse(Some(query), Call::Event, 3);
        parsed
            .map(|parameters| {
                let conditions = parameters.conditions.into_iter();
                conditions
                    .map(|it| (it.topic.to_string(), it.last))
                    .collect()
            })
            .map_err(|problem| problem.of_item(0).field.unwrap_or_default())
    }

    #[test]
    fn the_last_at_sign_separates_topic_and_position() {
        let epoch = "000000000000000000000000000000ab";
        let at = Last::At(Position {
            epoch: EPOCH,
            offset: 42,
        });
        assert_eq!(
            parse(&format!(
                "if_last=a:1%40{epoch}:42&if_last=mail:ann@example.org@{epoch}:0&if_last=b:2@0"
            )),
            Ok(vec![
                ("a:1".to_owned(), at),
                ("mail:ann@example.org".to_owned(), Last::NoneIn(EPOCH)),
                ("b:2".to_owned(), Last::None),
            ])
        );
    }

    #[test]
    fn what_is_no_condition_is_refused_by_name() {
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
    fn a_batch_has_no_conditions() {
        let batch = |query| Parameters::parse(Some(query), Call::Batch, 3);
        assert!(batch("if_last=a:1@0").is_err());
        assert!(batch("topic=a:1").is_ok());
    }
}
