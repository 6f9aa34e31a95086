//! Handles `POST …/events` and `POST …/events:batch`: from the body to events in the log.

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

use std::sync::Arc;

use bytes::Bytes;
use hyper::{Request, body::Incoming};
use sidewire_protocol::Topic;
use tokio::task::yield_now;

use super::{
    answer::{AcceptedEvent, publish_answer},
    body::{self, BodyFormat},
    call::with_unread_body,
    draft::{ParsedEvent, ReadLimits, read_draft},
    drafts::{BatchReader, read_cost},
    json::{JsonCheck, UncheckedEvent, check_large_json, json_to_protobuf, run_offloaded},
    parameters::QueryParameters,
    refused::{batch_invalid, limit_problem, no_batches, not_appended},
    render::render_drafts,
    route::{PostKind, PostRoute},
};
use crate::{
    event::EventDraft,
    http::{HttpProblem, HttpResponse, ItemProblem},
    hub::ConditionCheck,
    limits::EventBudget,
    memory::{MemoryReservation, MemoryUse, REQUEST_BYTES},
    relay::{Relay, ShardContext},
    scheduler::{Cost, TenantWork},
};

/// Reads the events of a call, appends them, and waits until the shards have queued them.
pub(super) async fn publish_events(
    shard: &ShardContext,
    route: &PostRoute,
    budget: &EventBudget,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpProblem> {
    let relay = &shard.relay;
    let unread = |problem| with_unread_body(problem, request.body());
    let format = BodyFormat::from_headers(request.headers()).map_err(unread)?;
    // A full load, since a guard should not be held while the body is awaited.
    let live = relay.live_shared();
    if route.call == PostKind::Batch && !live.schema.has_batch() {
        return Err(unread(no_batches()));
    }
    let (ingest, limits) = (&live.config.ingest, &live.config.limits);
    let work = shard.hub.work_queue().tenant_work(&route.tenant);
    let query = request.uri().query();
    if let Some(query) = query {
        work.wait_for_quantum().await;
        work.charge(Cost::JSON_BYTE.times(query.len()));
    }
    let parameters =
        QueryParameters::parse(query, route.call, limits.topics_per_event).map_err(unread)?;
    let body_max = match route.call {
        PostKind::Event => ingest.body_max,
        PostKind::Batch => ingest.batch_body_max,
    };
    let (body, mut memory) = body::read_body(request, body_max, relay).await?;
    let posted = PostedBody {
        call: route.call,
        format,
        body,
    };
    let drafts = read_drafts(relay, &work, posted, &parameters.topics, &mut memory).await?;
    budget
        .charge_rest(drafts.len())
        .map_err(|exceeded| limit_problem(relay, exceeded))?;
    let drafts = render_drafts(shard, &work, &route.tenant, drafts, &mut memory).await?;
    if route.call == PostKind::Batch {
        // The append itself cannot be split; the events that it evicts are dropped afterwards.
        work.wait_for_quantum().await;
    }
    work.charge(append_cost(&drafts));
    let mut check = ConditionCheck::new(&parameters.conditions);
    while !check.is_searched() {
        work.charge(relay.publisher.search_conditions(&route.tenant, &mut check));
        if !check.is_searched() {
            yield_now().await;
            work.wait_for_quantum().await;
        }
    }
    let accepted: Vec<_> = drafts.iter().map(AcceptedEvent::from_draft).collect();
    let mut appended = relay
        .publisher
        .append_if(&route.tenant, drafts, check)
        .await
        .map_err(|error| not_appended(relay, route.call, &accepted, error))?;
    // Counted before waiting for the shards: a backend that disconnects meanwhile cancels this
    // call, but its events stay.
    relay.metrics.events_ingested(
        appended.new_len() as u64,
        appended.new_bytes() as u64,
        appended.duplicates_len() as u64,
    );
    // Delivers on this shard at once: a backend that posts one event after another then has
    // many queued before the first is written.
    work.charge(shard.hub.deliver_one_slice(&route.tenant));
    while appended.evicted_len() > 0 {
        if appended.evicted_len() > 1 {
            work.wait_for_quantum().await;
        }
        work.charge(appended.drop_evicted());
    }
    let published = appended.wait_acknowledged().await;
    // The body and the drafts are freed by now.
    memory.shrink_to(
        REQUEST_BYTES
            + accepted
                .iter()
                .map(AcceptedEvent::memory_bytes)
                .sum::<usize>(),
    );
    Ok(publish_answer(
        shard, work, route.call, accepted, published, memory,
    ))
}

/// A posted body that has been received.
struct PostedBody {
    call: PostKind,
    format: BodyFormat,
    body: Bytes,
}

/// Reads the events of a body once the tenant is scheduled; a batch is read in parts.
async fn read_drafts(
    relay: &Arc<Relay>,
    work: &TenantWork,
    posted: PostedBody,
    more_topics: &[Topic],
    memory: &mut MemoryReservation,
) -> Result<Vec<EventDraft>, HttpProblem> {
    let body = match posted.format {
        BodyFormat::Protobuf => posted.body,
        BodyFormat::Json => {
            let text_len = posted.body.len();
            let body = json_to_protobuf(relay, work, posted.body, posted.call).await?;
            body::grow_reservation(relay, memory, text_len, body.len())?;
            body
        }
    };
    work.wait_for_quantum().await;
    work.charge(Cost::CALL);
    match posted.call {
        PostKind::Event => read_event(relay, work, body, more_topics).await,
        PostKind::Batch => read_batch(relay, work, body, more_topics).await,
    }
}

async fn read_event(
    relay: &Arc<Relay>,
    work: &TenantWork,
    envelope: Bytes,
    more_topics: &[Topic],
) -> Result<Vec<EventDraft>, HttpProblem> {
    work.charge(Cost::EVENT + Cost::BYTE.times(envelope.len()));
    let read = match read_draft(relay, &envelope, more_topics, ReadLimits::ON_SHARD).transpose() {
        Some(read) => {
            work.charge(read_cost(&read, &envelope));
            read?
        }
        None => read_event_offloaded(relay, work, envelope, more_topics).await??,
    };
    let drafts = vec![read.draft];
    match read.checked {
        JsonCheck::Passed => return Ok(drafts),
        JsonCheck::Refused(problem) => return Err(problem),
        JsonCheck::InDoubt => {}
    }
    let in_doubt = vec![UncheckedEvent { index: 0, draft: 0 }];
    let (drafts, refused) = check_large_json(relay, work, drafts, in_doubt).await?;
    match refused.into_iter().next() {
        Some((_, problem)) => Err(problem),
        None => Ok(drafts),
    }
}

/// Reads an event that takes long on another thread.
async fn read_event_offloaded(
    relay: &Arc<Relay>,
    work: &TenantWork,
    envelope: Bytes,
    more_topics: &[Topic],
) -> Result<Result<ParsedEvent, HttpProblem>, HttpProblem> {
    let more_topics = more_topics.to_vec();
    run_offloaded(relay, work, move |relay, memory| {
        let read = read_draft(relay, &envelope, &more_topics, ReadLimits::UNDECODED);
        if let Some(read) = read.transpose() {
            return Ok(read);
        }
        let bytes = relay.live().schema.decoded_memory_max(&envelope);
        let _memory = memory.reserve(MemoryUse::Decoding, bytes)?;
        Ok(read_event_unlimited(relay, &envelope, &more_topics))
    })
    .await
}

/// Reads an event without a limit on its size.
fn read_event_unlimited(
    relay: &Relay,
    envelope: &[u8],
    more_topics: &[Topic],
) -> Result<ParsedEvent, HttpProblem> {
    read_draft(relay, envelope, more_topics, ReadLimits::NONE)?
        .ok_or_else(|| HttpProblem::bad_request("the envelope cannot be decoded"))
}

async fn read_batch(
    relay: &Arc<Relay>,
    work: &TenantWork,
    batch: Bytes,
    more_topics: &[Topic],
) -> Result<Vec<EventDraft>, HttpProblem> {
    let mut drafts = BatchReader::new(relay, &batch)?;
    loop {
        let part = drafts.read_part(relay, more_topics);
        work.charge(part.cost);
        if let Some((index, envelope)) = part.large {
            let envelope = batch.slice_ref(envelope);
            let read = read_event_offloaded(relay, work, envelope, more_topics).await?;
            drafts.record_result(index, read);
        }
        if drafts.is_finished() {
            break;
        }
        yield_now().await;
        work.wait_for_quantum().await;
    }
    let (read, in_doubt, errors) = drafts.into_parts();
    let (drafts, refused) = check_large_json(relay, work, read, in_doubt).await?;
    drafts_or_errors(drafts, errors, refused)
}

/// Returns all events of a batch, or a problem that lists the errors.
fn drafts_or_errors(
    drafts: Vec<EventDraft>,
    mut errors: Vec<ItemProblem>,
    refused: Vec<(usize, HttpProblem)>,
) -> Result<Vec<EventDraft>, HttpProblem> {
    let refused = refused.into_iter();
    errors.extend(refused.map(|(index, problem)| problem.into_item_problem(index)));
    if errors.is_empty() {
        return Ok(drafts);
    }
    errors.sort_by_key(|error| error.index);
    Err(batch_invalid(errors))
}

/// Returns the cost of appending the events.
fn append_cost(drafts: &[EventDraft]) -> Cost {
    let topics = drafts.iter().map(|draft| draft.topics().len()).sum();
    Cost::EVENT.times(drafts.len()) + Cost::TOPIC.times(topics)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use tokio::task::spawn_local;

    use sidewire_testing::protobuf::bytes as field;

    use super::*;
    use crate::{
        connection::testing::{ConnectionFixture, settle, simulate},
        ingest::json::{batch_from_json, envelope_from_json},
        scheduler::QUANTUM,
    };
    use sidewire_protocol::{TenantName, schema::BundledSchema};

    /// Starts a call that is recorded in the journal when its events are read.
    fn call(
        fixture: &ConnectionFixture,
        journal: &Rc<RefCell<Vec<PostKind>>>,
        tenant: &str,
        posted: PostedBody,
    ) {
        let (shard, journal) = (Rc::clone(&fixture.shard), Rc::clone(journal));
        let name = TenantName::parse(tenant).unwrap();
        spawn_local(async move {
            let work = shard.hub.work_queue().tenant_work(&name);
            let call = posted.call;
            let account = shard.relay.publisher.memory();
            let mut memory = account.reserve(MemoryUse::Requests, 0).unwrap();
            read_drafts(&shard.relay, &work, posted, &[], &mut memory)
                .await
                .unwrap();
            journal.borrow_mut().push(call);
        });
    }

    #[test]
    fn an_event_is_read_before_the_earlier_batches_of_another_tenant() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let journal = Rc::default();
            let typing = r#"{"userTyping": {"projectId": "p1"}}"#;
            let json = format!(r#"{{"messages": [{}]}}"#, [typing; 100].join(","));
            let batch = batch_from_json(&fixture.shard.relay, json.as_bytes()).unwrap();
            let batch = Bytes::from(batch);
            let event = || PostedBody {
                call: PostKind::Event,
                format: BodyFormat::Json,
                body: Bytes::from_static(typing.as_bytes()),
            };
            // A tenant that has called before may call again.
            call(&fixture, &journal, "quiet", event());
            settle().await;
            for _ in 0..20 {
                let posted = PostedBody {
                    call: PostKind::Batch,
                    format: BodyFormat::Protobuf,
                    body: batch.clone(),
                };
                call(&fixture, &journal, "loud", posted);
            }
            call(&fixture, &journal, "quiet", event());
            while journal.borrow().len() < 22 {
                yield_now().await;
            }
            let events = journal.take().into_iter().enumerate();
            let places: Vec<_> = events
                .filter(|(_, call)| *call == PostKind::Event)
                .collect();
            assert_eq!(places, [(0, PostKind::Event), (1, PostKind::Event)]);
        });
    }

    #[test]
    fn a_batch_is_read_in_parts_without_delaying_others() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let relay = &fixture.shard.relay;
            let typing = r#"{"userTyping": {"projectId": "p1"}}"#;
            let json = format!(r#"{{"messages": [{}]}}"#, [typing; 300].join(","));
            let batch = batch_from_json(relay, json.as_bytes()).unwrap();
            let mut drafts = BatchReader::new(relay, &batch).unwrap();
            let mut read = Vec::new();
            while !drafts.is_finished() {
                let part = drafts.read_part(relay, &[]);
                read.push((drafts.drafts.len(), part.cost));
            }
            let event = Cost::EVENT + Cost::TOPIC + Cost::STEP.times(2) + Cost::BYTE.times(7);
            let a_part = 1 + event.fits_into(QUANTUM);
            let costs = [a_part, 300].map(|count| (count, event.times(count)));
            assert_eq!(read[0], costs[0]);
            assert_eq!(read.len(), 300_usize.div_ceil(a_part));
            assert_eq!(
                read.iter().fold(Cost::ZERO, |sum, it| sum + it.1),
                costs[1].1
            );
            let (read, in_doubt, errors) = drafts.into_parts();
            assert_eq!((read.len(), in_doubt.len(), errors.len()), (300, 0, 0));

            let topics: Vec<_> = (0..91).map(|n| format!("board:{n}")).collect();
            let topics: Vec<_> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
            let mut drafts = BatchReader::new(relay, &batch).unwrap();
            let event = event + Cost::TOPIC.times(91);
            let a_part = 1 + event.fits_into(QUANTUM);
            assert_eq!(drafts.read_part(relay, &topics).cost, event.times(a_part));
            assert_eq!(drafts.drafts.len(), a_part);
        });
    }

    /// An envelope with a WorkItemUpdated that has `changes` empty changes; a second work item
    /// makes it ambiguous.
    fn updated(changes: usize, is_ambiguous: bool) -> Vec<u8> {
        let item = field(1, &[field(1, b"i"), field(3, b"p")].concat());
        let items = item.repeat(if is_ambiguous { 2 } else { 1 });
        let payload = [items, [0x12, 0x00].repeat(changes)].concat();
        field(3, &payload)
    }

    #[test]
    fn an_event_slow_to_read_is_offloaded_and_others_are_charged_by_their_fields() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let relay = &fixture.shard.relay;
            for (changes, is_ambiguous, expected) in [
                (4_000, true, Some(4 * 4_000)),
                (4_200, true, None),
                (32_000, false, Some(32_000)),
                (33_000, false, None),
            ] {
                let batch = field(1, &updated(changes, is_ambiguous));
                let mut drafts = BatchReader::new(relay, &batch).unwrap();
                let part = drafts.read_part(relay, &[]);
                assert_eq!(part.large.is_none(), expected.is_some(), "{changes}");
                if let Some(steps) = expected {
                    let least = Cost::STEP.times(steps) + Cost::BYTE.times(2 * changes);
                    let most = least + Cost::EVENT + Cost::TOPIC.times(8);
                    assert!(
                        (least..most).contains(&part.cost),
                        "{changes}: {:?}",
                        part.cost
                    );
                }
            }
        });
    }

    #[test]
    fn a_check_of_json_is_charged_by_the_fields_that_it_visits_even_if_it_refuses() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let generic = BundledSchema::by_name("generic").unwrap().compile();
            let generic = Arc::new(generic.unwrap());
            fixture.replace_settings(|live| live.schema = generic);
            let relay = &fixture.shard.relay;
            let cost = |event: &[u8]| {
                let batch = field(1, event);
                let mut reader = BatchReader::new(relay, &batch).unwrap();
                let part = reader.read_part(relay, &[]);
                assert!(part.large.is_none());
                let (_, in_doubt, errors) = reader.into_parts();
                assert!(in_doubt.is_empty());
                (part.cost, errors.len())
            };
            let event_with = |data: &[u8]| [field(18, b"a:1"), field(32, &field(2, data))].concat();
            let a_field = Cost::CHECKED_FIELD + Cost::STEP;
            let few = Cost::CALL + Cost::BYTE.times(2 * 4096);
            // Each empty list is a google.protobuf.Value in the list around it.
            let empty_lists = field(1, &field(6, b"")).repeat(900);
            let (lists, errors) = cost(&event_with(&field(6, &empty_lists)));
            assert_eq!(errors, 0);
            assert!(lists > a_field.times(2 * 900) && lists < a_field.times(2 * 900) + few);
            // The last value is NaN, which has no JSON.
            let nan = field(1, b"\x11\0\0\0\0\0\0\xf8\x7f");
            let (refused, errors) = cost(&event_with(&field(6, &[empty_lists, nan].concat())));
            assert_eq!(errors, 1);
            assert!(refused > lists);
            let (text, errors) = cost(&event_with(&field(3, &[b'x'; 4000])));
            assert_eq!(errors, 0);
            assert!(text < few);
            // The check of an ordinary event costs at most 60 ns for each of its bytes.
            let json = br#"{"topics": ["a:1"], "event": {"type": "order.shipped", "data": {
                "order": 7, "carrier": "dhl", "gift": false,
                "items": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}]}}}"#;
            let event = envelope_from_json(relay, json).unwrap();
            let (ordinary, errors) = cost(&event);
            assert_eq!(errors, 0);
            let read = Cost::EVENT + Cost::TOPIC + Cost::STEP.times(41);
            assert!(ordinary <= read + Cost::from_nanos(61).times(event.len()));
        });
    }

    #[test]
    fn an_event_of_a_batch_may_be_as_large_as_one_posted_alone() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let relay = &fixture.shard.relay;
            let body_max = relay.live().config.ingest.body_max;
            let large = updated(body_max / 2, false);
            let batch = [field(1, &updated(1, false)), field(1, &large)].concat();
            let mut drafts = BatchReader::new(relay, &batch).unwrap();
            let part = drafts.read_part(relay, &[]);
            assert!(part.large.is_none() && drafts.is_finished());
            assert!(part.cost < Cost::BYTE.times(2 * body_max));
            let (drafts, _, errors) = drafts.into_parts();
            assert_eq!((drafts.len(), errors.len()), (1, 1));
            let message = "the event has more than 1048576 bytes (ingest.body_max)";
            assert_eq!((errors[0].index, &*errors[0].message), (1, message));
        });
    }

    #[test]
    fn topics_are_counted_while_they_are_read() {
        simulate(async {
            let fixture = ConnectionFixture::new();
            let relay = &fixture.shard.relay;
            let topics_max = relay.live().config.limits.topics_per_event;
            let extra = |count: usize| {
                let topics = (0..count).flat_map(|n| field(18, format!("a:{n}").as_bytes()));
                [updated(1, false), topics.collect()].concat()
            };
            // The work item and its project are two topics.
            let most = extra(topics_max - 2);
            let read = read_draft(relay, &most, &[], ReadLimits::ON_SHARD).unwrap();
            assert_eq!(read.unwrap().draft.topics().len(), topics_max);
            let refused = read_draft(relay, &extra(topics_max - 1), &[], ReadLimits::ON_SHARD);
            let says = format!("the event relates to more than {topics_max} topics");
            assert!(refused.err().unwrap().detail().starts_with(&says));
        });
    }
}
