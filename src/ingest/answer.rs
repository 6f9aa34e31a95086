//! What a backend is told of its events that are in the log.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Serialize, Serializer};

use super::route::Call;
use crate::{
    event::Draft,
    http::Response,
    hub::{PlacedEvent, Published},
    protocol::{Epoch, MessageId, Position, Topic},
};

pub(super) use crate::http::json;

/// What an answer repeats of an event.
pub(super) struct Accepted {
    message_id: MessageId,
    topics: Arc<[Topic]>,
}

impl Accepted {
    pub(super) fn of(draft: &Draft) -> Self {
        Self {
            message_id: draft.message_id().clone(),
            topics: Arc::clone(draft.topics()),
        }
    }

    pub(super) fn message_id(&self) -> &str {
        self.message_id.as_str()
    }
}

/// An event's part of an answer.
#[derive(Serialize)]
struct Answer<'a> {
    message_id: &'a str,
    position: AnswerPosition,
    #[serde(serialize_with = "as_texts")]
    topics: &'a [Topic],
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    duplicate: bool,
}

/// As in proto3 JSON, where 64-bit integers are strings.
#[derive(Serialize)]
pub(super) struct AnswerPosition {
    #[serde(serialize_with = "epoch_as_text")]
    epoch: Epoch,
    #[serde(serialize_with = "offset_as_text")]
    offset: u64,
}

impl From<Position> for AnswerPosition {
    fn from(position: Position) -> Self {
        Self {
            epoch: position.epoch,
            offset: position.offset,
        }
    }
}

fn epoch_as_text<S: Serializer>(epoch: &Epoch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(str::from_utf8(&epoch.text()).unwrap_or_default())
}

fn offset_as_text<S: Serializer>(offset: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(offset)
}

fn as_texts<S: Serializer>(topics: &[Topic], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(topics.iter().map(Topic::as_str))
}

#[derive(Serialize)]
struct BatchAnswer<'a> {
    results: Vec<Answer<'a>>,
}

impl<'a> Answer<'a> {
    fn new((accepted, placed): (&'a Accepted, &PlacedEvent)) -> Self {
        Self {
            message_id: accepted.message_id.as_str(),
            position: placed.position.into(),
            topics: &accepted.topics,
            matched: placed.matched,
            duplicate: placed.duplicate,
        }
    }
}

/// The answer to a call whose events are in the log.
pub(super) fn answer(call: Call, accepted: &[Accepted], published: &Published) -> Response {
    let mut answers = accepted.iter().zip(&published.events).map(Answer::new);
    let status = if published.acknowledged {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    match call {
        Call::Event => json(status, &answers.next()),
        Call::Batch => json(
            status,
            &BatchAnswer {
                results: answers.collect(),
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::header::CONTENT_TYPE;
    use serde_json::{Value, json};

    use super::*;
    use crate::event::tests::draft;

    const EPOCH: &str = "000000000000000000000000000000ab";

    /// The answer to a call whose events are `matched` so often.
    async fn answered(call: Call, matched: &[Option<u64>]) -> (StatusCode, Value) {
        let accepted: Vec<_> = (1..=matched.len())
            .map(|n| Accepted::of(&draft(&format!("m{n}"), &["a:1", "b:2"])))
            .collect();
        let placed = |(index, matched): (usize, &Option<u64>)| PlacedEvent {
            position: Position {
                epoch: Epoch::from_bits(0xab),
                offset: index as u64 + 7,
            },
            matched: *matched,
            duplicate: false,
        };
        let published = Published {
            events: matched.iter().enumerate().map(placed).collect(),
            acknowledged: matched.iter().all(Option::is_some),
        };
        let response = answer(call, &accepted, &published);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn expected(id: &str, offset: &str) -> Value {
        json!({
            "message_id": id,
            "position": {"epoch": EPOCH, "offset": offset},
            "topics": ["a:1", "b:2"],
            "duplicate": false,
        })
    }

    #[tokio::test]
    async fn an_event_that_all_shards_have_queued_is_answered_with_whom_it_matched() {
        let mut only = expected("m1", "7");
        only["matched"] = json!(3);
        let answer = answered(Call::Event, &[Some(3)]).await;
        assert_eq!(answer, (StatusCode::OK, only));
    }

    #[tokio::test]
    async fn what_a_shard_has_not_acknowledged_is_accepted_and_says_nothing_of_matches() {
        let answer = answered(Call::Event, &[None]).await;
        assert_eq!(answer, (StatusCode::ACCEPTED, expected("m1", "7")));
        let answer = answered(Call::Batch, &[None, None]).await;
        let both = json!({"results": [expected("m1", "7"), expected("m2", "8")]});
        assert_eq!(answer, (StatusCode::ACCEPTED, both));
    }

    #[tokio::test]
    async fn a_batch_of_one_is_a_batch() {
        let mut only = expected("m1", "7");
        only["matched"] = json!(0);
        let answer = answered(Call::Batch, &[Some(0)]).await;
        assert_eq!(answer, (StatusCode::OK, json!({"results": [only]})));
    }
}
