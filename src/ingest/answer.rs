//! What a backend is told of its events that are in the log.

use std::{
    convert::Infallible,
    iter, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    vec,
};

use bytes::Bytes;
use hyper::{
    StatusCode,
    body::{Body, Frame},
};
use serde::{Serialize, Serializer};

use super::route::Call;
use crate::{
    event::Draft,
    http::{Response, json, json_stream, json_text},
    hub::{PlacedEvent, Published},
    memory::Reservation,
    protocol::{Epoch, MessageId, Position, Topic},
};

/// The size of a part of a batch's answer, in bytes, which an event's result may exceed.
/// Making one takes some 0.1 ms. The answers to most batches have one, and say how long
/// they are.
const PART_BYTES: usize = 64 * 1024;

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

/// The answer to a call whose events are in the log. `memory` is what the call holds, for
/// as long as its answer is being made.
pub(super) fn answer(
    call: Call,
    accepted: Vec<Accepted>,
    published: Published,
    memory: Reservation,
) -> Response {
    let status = if published.acknowledged {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    match call {
        Call::Event => {
            let only = iter::zip(accepted, published.events).next();
            json(status, &only.as_ref().map(Answer::new))
        }
        Call::Batch => {
            let mut answer = BatchAnswer {
                results: iter::zip(accepted, published.events),
                state: BatchAnswerState::Start,
                made: None,
                _memory: memory,
            };
            answer.made = answer.next_part();
            match answer.state {
                // Most answers are short, and say how long they are.
                BatchAnswerState::End => json_text(status, answer.made.unwrap_or_default()),
                BatchAnswerState::Start | BatchAnswerState::Results => json_stream(status, answer),
            }
        }
    }
}

/// The answer to a batch, made while the backend reads it. It can be 29 MB long, since it
/// repeats the topics of each event.
struct BatchAnswer {
    results: iter::Zip<vec::IntoIter<Accepted>, vec::IntoIter<PlacedEvent>>,
    state: BatchAnswerState,
    /// The first part, which is made beforehand.
    made: Option<Bytes>,
    _memory: Reservation,
}

/// How far the document is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BatchAnswerState {
    Start,
    Results,
    End,
}

impl BatchAnswer {
    /// The next part of the document; `None` after the last one.
    fn next_part(&mut self) -> Option<Bytes> {
        let mut part = Vec::new();
        let mut is_first = match self.state {
            BatchAnswerState::Start => {
                part.extend_from_slice(br#"{"results":["#);
                true
            }
            BatchAnswerState::Results => false,
            BatchAnswerState::End => return None,
        };
        self.state = BatchAnswerState::Results;
        while part.len() < PART_BYTES {
            let Some(event) = self.results.next() else {
                part.extend_from_slice(b"]}");
                self.state = BatchAnswerState::End;
                break;
            };
            if !mem::take(&mut is_first) {
                part.push(b',');
            }
            // There is nothing in it that JSON cannot hold.
            drop(serde_json::to_writer(&mut part, &Answer::new(&event)));
        }
        Some(part.into())
    }
}

impl Body for BatchAnswer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let answer = self.get_mut();
        let part = answer.made.take().or_else(|| answer.next_part());
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.state == BatchAnswerState::End && self.made.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use hyper::header::CONTENT_TYPE;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        event::tests::draft,
        memory::{MemoryAccount, MemoryUse},
    };

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
        let memory = Arc::<MemoryAccount>::default()
            .reserve(MemoryUse::Requests, 1)
            .unwrap();
        let response = answer(call, accepted, published, memory);
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

    #[test]
    fn the_answer_to_a_batch_is_made_in_parts() {
        let account = Arc::<MemoryAccount>::default();
        let placed = PlacedEvent {
            position: Position {
                epoch: Epoch::from_bits(0xab),
                offset: 7,
            },
            matched: Some(1),
            duplicate: false,
        };
        let accepted: Vec<_> = (0..1000)
            .map(|n| Accepted::of(&draft(&format!("m{n}"), &["a:1"])))
            .collect();
        let mut answer = BatchAnswer {
            results: iter::zip(accepted, vec![placed; 1000]),
            state: BatchAnswerState::Start,
            made: None,
            _memory: account.reserve(MemoryUse::Requests, 5000).unwrap(),
        };
        let parts: Vec<_> = iter::from_fn(|| answer.next_part()).collect();
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| part.len() < PART_BYTES + 1000));
        let document: Value = serde_json::from_slice(&parts.concat()).unwrap();
        let results = document["results"].as_array().unwrap();
        let ids: Vec<_> = results.iter().map(|it| it["message_id"].clone()).collect();
        assert_eq!(ids, (0..1000).map(|n| format!("m{n}")).collect::<Vec<_>>());
        assert_eq!(account.held(MemoryUse::Requests), 5000);
        drop(answer);
        assert_eq!(account.held(MemoryUse::Requests), 0);
    }

    #[tokio::test]
    async fn a_batch_of_one_is_a_batch() {
        let mut only = expected("m1", "7");
        only["matched"] = json!(0);
        let answer = answered(Call::Batch, &[Some(0)]).await;
        assert_eq!(answer, (StatusCode::OK, json!({"results": [only]})));
    }
}
