//! Random schemas: events reach the connections of the topics that a naive walk finds in
//! them, and no others.

use std::{collections::BTreeSet, sync::Arc};

use prost::Message;
use sidewire_protocol::{
    Epoch, Position,
    random::RandomSource,
    schema::{
        Schema,
        oracle::{naive_topics, random_envelope, random_schema},
    },
};

use crate::{
    connection::{
        testing::{ConnectionFixture, FrameClient, WIDE, event, simulate},
        wire_testing::{ReceivedFrame, json as text, subscribe},
    },
    event::{EventDraft, JsonFrame},
    ingest,
};

const SCHEMAS: u64 = 120;

/// Number of envelopes that are tried with each schema.
const ENVELOPES: usize = 30;

#[derive(Clone, PartialEq, Message)]
struct ExtraTopics {
    #[prost(string, repeated, tag = "18")]
    topics: Vec<String>,
}

/// An event and the topics that it relates to.
struct Accepted {
    draft: EventDraft,
    topics: BTreeSet<String>,
}

fn tape(random: &RandomSource, bytes_max: u64) -> Vec<u8> {
    let bytes = usize::try_from(random.below(bytes_max)).unwrap();
    let mut tape = vec![0; bytes];
    random.fill_bytes(&mut tape);
    tape
}

/// Ingests the envelope, in binary or as JSON; `None` if it is refused.
fn accepted(
    fixture: &ConnectionFixture,
    schema: &Schema,
    envelope: &[u8],
    is_json: bool,
) -> Option<Accepted> {
    // prost-reflect accepts some that the relay does not.
    schema.inspect(envelope).ok()?;
    let body = if is_json {
        schema.envelope_to_json_text(envelope).ok()?.into_bytes()
    } else {
        envelope.to_vec()
    };
    let draft = ingest::fuzzing::event(&fixture.shard.relay, &body, is_json, &[]).ok()?;
    let found = naive_topics(schema, envelope).expect("what is taken can be decoded");
    assert!(!found.has_invalid, "{found:?}");
    let extra = ExtraTopics::decode(envelope).unwrap().topics;
    let topics: BTreeSet<_> = found.valid.into_iter().chain(extra).collect();
    let related = draft.topics().iter().map(ToString::to_string);
    assert_eq!(related.collect::<BTreeSet<_>>(), topics);
    Some(Accepted { draft, topics })
}

/// Checks that JSON clients get the JSON of what binary clients get.
fn check_json(schema: &Schema, draft: &EventDraft) {
    let position = Position {
        epoch: Epoch::from_bits(1),
        offset: 7,
    };
    let now = tokio::time::Instant::now();
    let event = draft.clone().into_event(position, &Arc::default(), now);
    let frame = JsonFrame::render_event(&event).expect("what is taken has JSON");
    let start = frame.bytes().iter().position(|byte| *byte == b'{').unwrap();
    let text = schema.envelope_to_json_text(&event.envelope()).unwrap();
    let [sent, whole] = [&frame.bytes()[start..], text.as_bytes()]
        .map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap());
    assert_eq!(sent, whole);
}

/// A client that is subscribed to this topic alone, in either encoding.
async fn follow(fixture: &ConnectionFixture, topic: &str, speaks_json: bool) -> FrameClient {
    let mut client = if speaks_json {
        fixture.connect_json(WIDE)
    } else {
        fixture.connect(WIDE)
    };
    let request = if speaks_json {
        let subscribe = serde_json::json!({"messageId": "s", "subscribe": {"topics": [topic]}});
        text(&subscribe.to_string())
    } else {
        subscribe("s", topic)
    };
    client.send(request).await;
    assert_eq!(
        client.next().await,
        Some(ReceivedFrame::Subscribed("s".to_owned()))
    );
    client
}

/// The offsets of the events that come before the one at `end`.
async fn heard_until(client: &mut FrameClient, end: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    loop {
        match client.next().await {
            Some(ReceivedFrame::Event(offset)) if offset == end => return offsets,
            Some(ReceivedFrame::Event(offset)) => offsets.push(offset),
            other => panic!("{other:?}"),
        }
    }
}

/// Runs one schema. Returns the numbers of events that were delivered to a client and that were
/// not.
async fn run(seed: u64) -> (usize, usize) {
    let random = RandomSource::from_seed(seed);
    let text = random_schema(&tape(&random, 1_500));
    let schema = Arc::new(text.compile().unwrap());
    let fixture = ConnectionFixture::new();
    fixture.set_schema(Arc::clone(&schema));
    let events: Vec<_> = (0..ENVELOPES)
        .filter_map(|number| {
            let envelope = random_envelope(&schema, &tape(&random, 400));
            accepted(&fixture, &schema, &envelope, number % 3 == 0)
        })
        .collect();
    let is_askable = |topic: &&String| !topic.starts_with("user:") && *topic != "tenant:*";
    let mut asked: BTreeSet<_> = events.iter().flat_map(|it| &it.topics).collect();
    let nobodys = "nobody:x".to_owned();
    asked.insert(&nobodys);
    let mut clients = Vec::new();
    for topic in asked.into_iter().filter(is_askable) {
        for speaks_json in [false, true] {
            clients.push((
                topic,
                follow(&fixture, topic, speaks_json).await,
                Vec::new(),
            ));
        }
    }
    let mut reached = 0;
    for Accepted { draft, topics } in &events {
        check_json(&schema, draft);
        // The ids of random events are not unique: two may have the same.
        let draft = draft.clone().with_fingerprint(None);
        let published = fixture.publish([draft]).await;
        let offset = published.events[0].position.offset;
        let mut matched = 0;
        for (topic, _, expected) in &mut clients {
            if topics.contains(*topic) || topics.contains("tenant:*") {
                expected.push(offset);
                matched += 1;
            }
        }
        assert_eq!(published.events[0].matched, Some(matched));
        reached += usize::from(matched > 0);
    }
    let end = fixture.publish([event(1)]).await.events[0].position.offset;
    for (topic, client, expected) in &mut clients {
        let heard = heard_until(client, end).await;
        assert_eq!(heard, *expected, "seed {seed}, {topic}\n{}", text.main);
    }
    (reached, events.len() - reached)
}

#[test]
fn events_of_random_schemas_reach_the_topics_that_a_naive_walk_finds() {
    simulate(async {
        let mut sum = (0, 0);
        for seed in 0..SCHEMAS {
            let (reached, missed) = run(seed).await;
            sum = (sum.0 + reached, sum.1 + missed);
        }
        assert!(sum.0 > 150 && sum.1 > 0, "{sum:?}");
    });
}
