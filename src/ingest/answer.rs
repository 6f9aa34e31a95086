//! What a backend is told of its events that are in the log.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Serialize, Serializer};
use tokio::task::yield_now;

use super::route::Call;
use crate::{
    event::Draft,
    http::{Response, json, json_text},
    hub::{PlacedEvent, Published},
    protocol::{Epoch, MessageId, Position, Topic},
};

/// How many bytes of a batch's answer are written before others have their turn: some
/// 0.1 ms.
const BYTES_A_TURN: usize = 64 * 1024;

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

impl<'a> Answer<'a> {
    fn new((accepted, placed): &'a (Accepted, PlacedEvent)) -> Self {
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
pub(super) async fn answer(call: Call, accepted: Vec<Accepted>, published: Published) -> Response {
    let status = if published.acknowledged {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let mut answered = accepted.into_iter().zip(published.events);
    match call {
        Call::Event => {
            let only = answered.next();
            json(status, &only.as_ref().map(Answer::new))
        }
        Call::Batch => json_text(status, batch(answered).await),
    }
}

/// The document with an answer for each of these, which is written in parts.
async fn batch(answered: impl Iterator<Item = (Accepted, PlacedEvent)>) -> Vec<u8> {
    let mut document = br#"{"results":["#.to_vec();
    let mut pause_at = BYTES_A_TURN;
    for (index, event) in answered.enumerate() {
        if document.len() >= pause_at {
            yield_now().await;
            pause_at = document.len() + BYTES_A_TURN;
        }
        if index > 0 {
            document.push(b',');
        }
        // There is nothing in it that JSON cannot hold.
        drop(serde_json::to_writer(&mut document, &Answer::new(&event)));
    }
    document.extend_from_slice(b"]}");
    document
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

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
        let response = answer(call, accepted, published).await;
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
    async fn a_long_answer_is_written_in_parts_so_that_others_have_their_turn() {
        let matched = vec![Some(1); 1000];
        let mut answer = std::pin::pin!(answered(Call::Batch, &matched));
        let mut turns = 1;
        let (status, document) = poll_fn(|context| {
            let polled = answer.as_mut().poll(context);
            turns += u32::from(polled.is_pending());
            polled
        })
        .await;
        let results = document["results"].as_array().unwrap();
        assert_eq!((status, results.len()), (StatusCode::OK, 1000));
        for (index, result) in results.iter().enumerate() {
            assert_eq!(result["message_id"], format!("m{}", index + 1));
            assert_eq!(result["position"]["offset"], (index + 7).to_string());
        }
        // Of 150 KB.
        assert_eq!(turns, 3);
    }

    #[tokio::test]
    async fn a_batch_of_one_is_a_batch() {
        let mut only = expected("m1", "7");
        only["matched"] = json!(0);
        let answer = answered(Call::Batch, &[Some(0)]).await;
        assert_eq!(answer, (StatusCode::OK, json!({"results": [only]})));
    }
}
