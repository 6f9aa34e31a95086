//! Parses the query that lists presence: `?topic=`, repeatable, `?limit=` and `?after=`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sidewire_protocol::{Topic, UserName, topic::TopicSet};

use super::{
    QueryParameter, invalid_parameter, invalid_query, parse_limit, set_once, topic_parameter,
    unknown_parameter,
};
use crate::{
    http::{HttpProblem, query_pairs},
    hub::PageCursor,
};

/// Most topics of a call.
const TOPICS_MAX: usize = 100;

/// Most users that a page lists, and what it lists if the call does not say.
const USERS_MAX: usize = 1_000;

/// The parameters of such a call.
const PARAMETERS: [QueryParameter; 3] = [
    QueryParameter::Topic,
    QueryParameter::Limit,
    QueryParameter::After,
];

/// The parsed query of a call that lists presence.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ingest) struct PresenceParameters {
    /// The topics whose users are listed, without duplicates.
    pub(in crate::ingest) topics: Vec<Topic>,
    /// Most users that the page lists.
    pub(in crate::ingest) limit: usize,
    /// Where the page begins.
    pub(in crate::ingest) after: Option<PageCursor>,
}

impl PresenceParameters {
    /// Parses the query.
    pub(in crate::ingest) fn parse(query: Option<&str>) -> Result<Self, HttpProblem> {
        let (mut topics, mut known) = (Vec::new(), TopicSet::default());
        let (mut limit, mut after) = (None, None);
        for pair in query_pairs(query) {
            let (name, value) = pair.map_err(invalid_query)?;
            match PARAMETERS.into_iter().find(|it| it.name() == name) {
                Some(QueryParameter::Limit) => {
                    set_once("limit", &mut limit, parse_limit(&value, USERS_MAX)?)?;
                }
                Some(QueryParameter::After) => {
                    set_once("after", &mut after, parse_cursor(&value)?)?;
                }
                Some(_) => {
                    let topic = topic_parameter(&value)?;
                    if known.insert(topic.clone()) {
                        topics.push(topic);
                    }
                }
                None => return Err(unknown_parameter(&name, &PARAMETERS)),
            }
            if topics.len() > TOPICS_MAX {
                let reason = format!("is given more than {TOPICS_MAX} times");
                return Err(invalid_parameter("topic", &reason));
            }
        }
        if topics.is_empty() {
            return Err(invalid_parameter("topic", "is missing"));
        }
        if after
            .as_ref()
            .is_some_and(|it: &PageCursor| !topics.contains(&it.topic))
        {
            return Err(invalid_parameter(
                "after",
                "is of a listing of other topics",
            ));
        }
        Ok(Self {
            topics,
            limit: limit.unwrap_or(USERS_MAX),
            after,
        })
    }
}

/// Returns the text of a cursor, which is opaque to backends.
pub(in crate::ingest) fn cursor_text(cursor: &PageCursor) -> String {
    // Neither has a control character in it.
    URL_SAFE_NO_PAD.encode(format!("{}\n{}", cursor.topic, cursor.user))
}

fn parse_cursor(value: &str) -> Result<PageCursor, HttpProblem> {
    read_cursor(value).ok_or_else(|| invalid_parameter("after", "is no `next` of a listing"))
}

fn read_cursor(value: &str) -> Option<PageCursor> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
    let (topic, user) = text.split_once('\n')?;
    Some(PageCursor {
        topic: Topic::parse(topic).ok()?,
        user: UserName::parse(user).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<PresenceParameters, String> {
        PresenceParameters::parse(Some(query))
            .map_err(|problem| problem.into_item_problem(0).field.unwrap_or_default())
    }

    fn cursor(topic: &str, user: &str) -> PageCursor {
        PageCursor {
            topic: Topic::parse(topic).unwrap(),
            user: UserName::parse(user).unwrap(),
        }
    }

    #[test]
    fn topics_are_listed_once_and_a_page_has_1000_users_unless_the_call_says_less() {
        let topics = ["b:2", "a:1"].map(|text| Topic::parse(text).unwrap());
        let expected = |limit, after| {
            Ok(PresenceParameters {
                topics: topics.to_vec(),
                limit,
                after,
            })
        };
        let query = "topic=b:2&topic=a:1&topic=b:2";
        assert_eq!(parse(query), expected(1_000, None));
        let after = cursor("a:1", "ann ü@x");
        let query = format!("limit=7&{query}&after={}", cursor_text(&after));
        assert_eq!(parse(&query), expected(7, Some(after)));
    }

    #[test]
    fn invalid_parameters_are_refused_by_name() {
        let elsewhere = cursor_text(&cursor("c:3", "ann"));
        let other = format!("topic=a:1&after={elsewhere}");
        let no_user = URL_SAFE_NO_PAD.encode("a:1");
        let no_user = format!("topic=a:1&after={no_user}");
        let too_many: Vec<_> = (0..101).map(|n| format!("topic=a:{n}")).collect();
        for (query, field) in [
            ("", "topic"),
            ("limit=1", "topic"),
            ("topic=a", "topic"),
            ("topic=a:*", "topic"),
            (&too_many.join("&"), "topic"),
            ("topic=a:1&limit=0", "limit"),
            ("topic=a:1&limit=1001", "limit"),
            ("topic=a:1&limit=ten", "limit"),
            ("topic=a:1&limit=%2B5", "limit"),
            ("topic=a:1&limit=1&limit=1", "limit"),
            ("topic=a:1&after=", "after"),
            ("topic=a:1&after=$", "after"),
            (&no_user, "after"),
            (&other, "after"),
            ("topic=a:1&if_last=a:1@0", "if_last"),
            ("topic=a:1&user=ann", "user"),
        ] {
            assert_eq!(parse(query), Err(field.to_owned()), "{query}");
        }
        assert!(parse(&too_many[1..].join("&")).is_ok());
    }
}
