//! Builds the answers to calls that have appended their events.

use std::{iter, mem, sync::Arc, vec};

use bytes::Bytes;
use hyper::StatusCode;
use serde::{Serialize, Serializer};
use sidewire_protocol::{Epoch, MessageId, Position, Topic};

use super::{
    parts::{DocumentParts, answer_in_parts},
    route::PostKind,
};
use crate::{
    event::EventDraft,
    http::{HttpResponse, json_response},
    hub::{PlacedEvent, PublishedEvents},
    memory::MemoryReservation,
    relay::ShardContext,
    scheduler::{Cost, TenantWork},
};

/// Size of a part of a batch's answer, in bytes; a part may exceed it by one event's result.
/// Making one takes about 0.1 ms. The answers to most batches fit into one part and announce
/// their length.
const PART_BYTES: usize = 64 * 1024;

/// The parts of an event that its answer repeats.
pub(super) struct AcceptedEvent {
    message_id: MessageId,
    topics: Arc<[Topic]>,
}

impl AcceptedEvent {
    pub(super) fn from_draft(draft: &EventDraft) -> Self {
        Self {
            message_id: draft.message_id().clone(),
            topics: Arc::clone(draft.topics()),
        }
    }

    /// Returns its memory in bytes, including the event's `PlacedEvent`.
    pub(super) fn memory_bytes(&self) -> usize {
        let topics = size_of_val::<[Topic]>(&self.topics);
        size_of::<(Self, PlacedEvent)>() + self.message_id.as_str().len() + topics
    }

    pub(super) fn message_id(&self) -> &str {
        self.message_id.as_str()
    }
}

/// The result of one event.
#[derive(Serialize)]
struct EventAnswer<'a> {
    message_id: &'a str,
    position: AnswerPosition,
    #[serde(serialize_with = "as_texts")]
    topics: &'a [Topic],
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    duplicate: bool,
}

/// A position as in proto3 JSON, where 64-bit integers are strings.
#[derive(Serialize)]
pub(crate) struct AnswerPosition {
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
    serializer.serialize_str(str::from_utf8(&epoch.to_ascii()).unwrap_or_default())
}

fn offset_as_text<S: Serializer>(offset: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(offset)
}

fn as_texts<S: Serializer>(topics: &[Topic], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(topics.iter().map(Topic::as_str))
}

impl<'a> EventAnswer<'a> {
    fn new((accepted, placed): &'a (AcceptedEvent, PlacedEvent)) -> Self {
        Self {
            message_id: accepted.message_id.as_str(),
            position: placed.position.into(),
            topics: &accepted.topics,
            matched: placed.matched,
            duplicate: placed.duplicate,
        }
    }
}

/// Returns the answer to a call that has appended its events. Parts of a batch's answer are
/// charged to the tenant's flow. `memory` is the call's reservation, held until the answer is
/// complete.
pub(super) fn publish_answer(
    shard: &ShardContext,
    work: TenantWork,
    call: PostKind,
    accepted: Vec<AcceptedEvent>,
    published: PublishedEvents,
    memory: MemoryReservation,
) -> HttpResponse {
    let status = if published.acknowledged {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    match call {
        PostKind::Event => {
            let only = iter::zip(accepted, published.events).next();
            json_response(status, &only.as_ref().map(EventAnswer::new))
        }
        PostKind::Batch => {
            let answer = BatchAnswer {
                results: iter::zip(accepted, published.events),
                state: BatchAnswerState::Start,
                _memory: memory,
            };
            answer_in_parts(shard, work, status, answer)
        }
    }
}

/// The answer to a batch, made while the backend reads it. It can reach 29 MB, since it repeats
/// the topics of each event.
struct BatchAnswer {
    results: iter::Zip<vec::IntoIter<AcceptedEvent>, vec::IntoIter<PlacedEvent>>,
    state: BatchAnswerState,
    _memory: MemoryReservation,
}

/// Progress of making the JSON document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BatchAnswerState {
    Start,
    Results,
    End,
}

impl DocumentParts for BatchAnswer {
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
            // Cannot fail: all its values can be represented in JSON.
            drop(serde_json::to_writer(&mut part, &EventAnswer::new(&event)));
        }
        Some(part.into())
    }

    fn is_complete(&self) -> bool {
        self.state == BatchAnswerState::End
    }

    /// The bytes are mostly copies of topics, which take less time than other JSON.
    fn making_cost(bytes: usize) -> Cost {
        Cost::BYTE.times(2 * bytes)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;
    use http_body_util::BodyExt as _;
    use hyper::header::CONTENT_TYPE;
    use serde_json::{Value, json};
    use tokio::task::yield_now;

    use super::*;
    use crate::{
        connection::testing::{ConnectionFixture, settle, simulate},
        event::tests::draft,
        memory::{MemoryAccount, MemoryUse},
        scheduler::QUANTUM,
    };
    use sidewire_protocol::TenantName;

    const EPOCH: &str = "000000000000000000000000000000ab";

    /// Returns the answer to a call of one event for each item of `matched`.
    fn answered(call: PostKind, matched: &[Option<u64>]) -> (StatusCode, Value) {
        simulate(answered_now(call, matched.to_vec()))
    }

    async fn answered_now(call: PostKind, matched: Vec<Option<u64>>) -> (StatusCode, Value) {
        let accepted: Vec<_> = (1..=matched.len())
            .map(|n| AcceptedEvent::from_draft(&draft(&format!("m{n}"), &["a:1", "b:2"])))
            .collect();
        let placed = |(index, matched): (usize, &Option<u64>)| PlacedEvent {
            position: Position {
                epoch: Epoch::from_bits(0xab),
                offset: index as u64 + 7,
            },
            matched: *matched,
            duplicate: false,
        };
        let published = PublishedEvents {
            events: matched.iter().enumerate().map(placed).collect(),
            acknowledged: matched.iter().all(Option::is_some),
        };
        let memory = Arc::<MemoryAccount>::default()
            .reserve(MemoryUse::Requests, 1)
            .unwrap();
        let fixture = ConnectionFixture::new();
        let work = fixture
            .shard
            .hub
            .work_queue()
            .tenant_work(&TenantName::parse("acme").unwrap());
        let response = publish_answer(&fixture.shard, work, call, accepted, published, memory);
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

    #[test]
    fn an_event_that_all_shards_have_queued_is_answered_with_its_match_count() {
        let mut only = expected("m1", "7");
        only["matched"] = json!(3);
        let answer = answered(PostKind::Event, &[Some(3)]);
        assert_eq!(answer, (StatusCode::OK, only));
    }

    #[test]
    fn an_unacknowledged_event_is_answered_with_202_and_no_match_count() {
        let answer = answered(PostKind::Event, &[None]);
        assert_eq!(answer, (StatusCode::ACCEPTED, expected("m1", "7")));
        let answer = answered(PostKind::Batch, &[None, None]);
        let both = json!({"results": [expected("m1", "7"), expected("m2", "8")]});
        assert_eq!(answer, (StatusCode::ACCEPTED, both));
    }

    /// Returns 1,000 events with their positions.
    fn many() -> (Vec<AcceptedEvent>, Vec<PlacedEvent>) {
        let placed = PlacedEvent {
            position: Position {
                epoch: Epoch::from_bits(0xab),
                offset: 7,
            },
            matched: Some(1),
            duplicate: false,
        };
        let accepted =
            (0..1000).map(|n| AcceptedEvent::from_draft(&draft(&format!("m{n}"), &["a:1"])));
        (accepted.collect(), vec![placed; 1000])
    }

    #[test]
    fn a_long_answer_is_rendered_a_quantum_at_a_time_while_it_is_read() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let account = Arc::<MemoryAccount>::default();
            let work = || {
                let queue = fixture.shard.hub.work_queue();
                queue.tenant_work(&TenantName::parse("acme").unwrap())
            };
            let (accepted, events) = many();
            let published = PublishedEvents {
                events,
                acknowledged: true,
            };
            let memory = account.reserve(MemoryUse::Requests, 5000).unwrap();
            // In debt for 40 turns of the shard.
            work().charge(QUANTUM.times(40));
            let response = publish_answer(
                &fixture.shard,
                work(),
                PostKind::Batch,
                accepted,
                published,
                memory,
            );
            let mut body = response.into_body();
            assert!(body.frame().await.is_some());
            for _ in 0..20 {
                yield_now().await;
            }
            assert!(poll_immediate(body.frame()).await.is_none());
            settle().await;
            assert!(body.frame().await.is_some());
            assert_eq!(account.held_bytes(MemoryUse::Requests), 5000);
            drop(body);
            settle().await;
            assert_eq!(account.held_bytes(MemoryUse::Requests), 0);
        });
    }

    #[test]
    fn the_answer_to_a_batch_is_rendered_in_parts() {
        let account = Arc::<MemoryAccount>::default();
        let (accepted, placed) = many();
        let mut answer = BatchAnswer {
            results: iter::zip(accepted, placed),
            state: BatchAnswerState::Start,
            _memory: account.reserve(MemoryUse::Requests, 5000).unwrap(),
        };
        let parts: Vec<_> = iter::from_fn(|| answer.next_part()).collect();
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| part.len() < PART_BYTES + 1000));
        let document: Value = serde_json::from_slice(&parts.concat()).unwrap();
        let results = document["results"].as_array().unwrap();
        let ids: Vec<_> = results.iter().map(|it| it["message_id"].clone()).collect();
        assert_eq!(ids, (0..1000).map(|n| format!("m{n}")).collect::<Vec<_>>());
        assert_eq!(account.held_bytes(MemoryUse::Requests), 5000);
        drop(answer);
        assert_eq!(account.held_bytes(MemoryUse::Requests), 0);
    }

    #[test]
    fn a_batch_of_one_event_is_answered_as_a_batch() {
        let mut only = expected("m1", "7");
        only["matched"] = json!(0);
        let answer = answered(PostKind::Batch, &[Some(0)]);
        assert_eq!(answer, (StatusCode::OK, json!({"results": [only]})));
    }
}
