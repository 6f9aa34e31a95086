//! The JSON of questions and answers. Pure.

use std::{borrow::Cow, collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};
use sidewire_protocol::{
    Topic,
    topic::{TopicSet, WILDCARD_ID},
};

use crate::{backend::InvalidAnswer, config::ANSWER_AGE_MAX, limits::UserKey};

#[derive(Serialize)]
struct QuestionJson<'a> {
    tenant: &'a str,
    user: &'a str,
    topics: Vec<&'a str>,
}

/// Members that it does not name are ignored, so that backends may add some.
#[derive(Deserialize)]
struct AnswerJson<'a> {
    #[serde(borrow)]
    allow: Vec<TopicText<'a>>,
    ttl_s: Option<u64>,
}

#[derive(Deserialize)]
struct TopicText<'a>(#[serde(borrow)] Cow<'a, str>);

/// The backend's answer to a question about topics.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SubscribeAnswer {
    /// The topics of the question that are not allowed.
    pub(super) denied: TopicSet,
    /// The time for which the others may be remembered, if the answer says so.
    pub(super) ttl: Option<Duration>,
}

/// Returns the question whether the user may subscribe to the topics.
pub(super) fn question_json(who: &UserKey, topics: &[Topic]) -> Vec<u8> {
    let question = QuestionJson {
        tenant: who.tenant.as_str(),
        user: who.user.as_str(),
        topics: topics.iter().map(Topic::as_str).collect(),
    };
    // A map of texts can always be written.
    serde_json::to_vec(&question).unwrap_or_default()
}

impl SubscribeAnswer {
    /// Reads the answer to a question about these topics. `kind:*` in it allows the topics of the
    /// kind that were asked about, and the wildcard itself only if it was.
    ///
    /// # Errors
    ///
    /// Fails if it is not the JSON of an answer.
    pub(super) fn read(json: &[u8], asked: &[Topic]) -> Result<Self, InvalidAnswer> {
        // serde would also take the members from an array.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(InvalidAnswer("it is not a JSON object".to_owned()));
        }
        let answer: AnswerJson<'_> = serde_json::from_slice(json).map_err(|error| {
            let (category, line, column) = (error.classify(), error.line(), error.column());
            // The whole error may repeat what the backend wrote.
            InvalidAnswer(format!(
                "it is not {{\"allow\": [...]}} ({category:?} error at {line}:{column})"
            ))
        })?;
        let allowed: HashSet<&str> = answer.allow.iter().map(|text| &*text.0).collect();
        let kinds: HashSet<&str> = allowed
            .iter()
            .filter_map(|text| text.split_once(':'))
            .filter_map(|(kind, id)| (id == WILDCARD_ID).then_some(kind))
            .collect();
        let is_allowed =
            |topic: &Topic| allowed.contains(topic.as_str()) || kinds.contains(topic.kind());
        let denied = asked.iter().filter(|topic| !is_allowed(topic)).cloned();
        Ok(Self {
            denied: denied.collect(),
            ttl: answer
                .ttl_s
                .map(|seconds| Duration::from_secs(seconds).min(ANSWER_AGE_MAX)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::tests::user_key;

    fn topics(texts: &[&str]) -> Vec<Topic> {
        texts.iter().map(|it| Topic::parse(it).unwrap()).collect()
    }

    fn denied(json: &str, asked: &[&str]) -> Vec<String> {
        let answer = SubscribeAnswer::read(json.as_bytes(), &topics(asked)).unwrap();
        let mut denied: Vec<_> = answer.denied.iter().map(Topic::to_string).collect();
        denied.sort_unstable();
        denied
    }

    #[test]
    fn a_question_has_its_names_escaped() {
        let who = user_key("a\"c\\me", "änn");
        let json = question_json(&who, &topics(&["project:\"1", "sprint:*"]));
        let expected = r#"{"tenant":"a\"c\\me","user":"änn","topics":["project:\"1","sprint:*"]}"#;
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }

    #[test]
    fn what_is_not_allowed_is_denied() {
        let asked = ["project:1", "project:2", "project:*", "sprint:1"];
        for (allow, expected) in [
            (r#"[]"#, &asked[..]),
            (
                r#"["project:1", "x:1"]"#,
                &["project:*", "project:2", "sprint:1"],
            ),
            (r#"["project:*"]"#, &["sprint:1"]),
            (r#"["sprint:*"]"#, &["project:*", "project:1", "project:2"]),
            (
                r#"["project:\u0031"]"#,
                &["project:*", "project:2", "sprint:1"],
            ),
            (r#"["project", "*", ":", "", "project:1 "]"#, &asked),
        ] {
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            let json = format!(r#"{{"allow": {allow}, "reason": {{"x": [1]}}}}"#);
            assert_eq!(denied(&json, &asked), expected, "{allow}");
        }
        // A wildcard that was not asked about grants nothing but what was.
        let one = topics(&["project:1"]);
        let answer = SubscribeAnswer::read(br#"{"allow":["project:*"]}"#, &one);
        assert!(answer.unwrap().denied.is_empty());
    }

    #[test]
    fn the_time_to_keep_an_answer_is_at_most_an_hour() {
        for (member, expected) in [
            ("", None),
            (r#", "ttl_s": null"#, None),
            (r#", "ttl_s": 0"#, Some(0)),
            (r#", "ttl_s": 30"#, Some(30)),
            (r#", "ttl_s": 86400"#, Some(3600)),
            (r#", "ttl_s": 18446744073709551615"#, Some(3600)),
        ] {
            let json = format!(r#"{{"allow": []{member}}}"#);
            let answer = SubscribeAnswer::read(json.as_bytes(), &[]).unwrap();
            assert_eq!(answer.ttl, expected.map(Duration::from_secs), "{member}");
        }
    }

    #[test]
    fn any_other_json_is_no_answer_and_is_not_repeated() {
        for json in [
            "",
            "hunter2",
            "[]",
            "null",
            "{}",
            r#"[["project:1"], null]"#,
            r#"{"allow": null}"#,
            r#"{"allow": "hunter2"}"#,
            r#"{"allow": ["project:1", 1]}"#,
            r#"{"allow": [["hunter2"]]}"#,
            r#"{"allow": []} hunter2"#,
            r#"{"allow": [], "allow": ["project:1"]}"#,
            r#"{"allow": [], "ttl_s": -1}"#,
            r#"{"allow": [], "ttl_s": 1.5}"#,
            r#"{"allow": [], "ttl_s": "hunter2"}"#,
            r#"{"Allow": ["project:1"]}"#,
        ] {
            let refused = SubscribeAnswer::read(json.as_bytes(), &topics(&["project:1"]));
            let error = refused.expect_err(json).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
