//! Simulated backends. Each posts events over its own connection, one call after another or
//! several at once, and records the answers.

use std::{cell::Cell, rc::Rc, time::Duration};

use prost::Message;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    dice::Dice,
    events::{Serial, SimulatedEvent},
    history::{History, PostAnswer, PostCondition, PostRecord, PostResult},
    messages::{EventPlace, WireBatch, WirePosition},
    pipe::{LinkKind, PipeStream, link},
    topics::{EVENT_TOPICS, TENANTS, TOPICS},
    world::{BATCH_MAX, SHARDS, SimulatedWorld},
};

/// Upper bound of the time until a call is answered, whatever is held up.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Relative numbers of events of the tenants.
const TENANT_WEIGHTS: [usize; TENANTS.len()] = [34, 22, 16, 28];

pub(super) struct SimulatedBackend {
    pub(super) world: Rc<SimulatedWorld>,
    pub(super) history: Rc<History>,
    pub(super) dice: Dice,
    pub(super) first_shard: usize,
    /// Number of events that all backends together still have to post.
    pub(super) left: Rc<Cell<usize>>,
}

/// A call, which may have to be repeated.
struct BackendCall {
    tenant: usize,
    events: Vec<SimulatedEvent>,
    is_batch: bool,
    condition: Option<PostCondition>,
}

impl SimulatedBackend {
    /// Posts until all events are posted or the relay drains. Repeats calls that were not
    /// answered.
    pub(super) async fn run(self) {
        let mut wire = self.connect();
        let mut again = Vec::new();
        while (self.left.get() > 0 || !again.is_empty()) && !self.world.relay.is_draining() {
            let calls = match again.is_empty() {
                true => self.calls(),
                false => std::mem::take(&mut again),
            };
            let exchange = self.exchange(&mut wire, &calls);
            let answered = timeout(ANSWER_TIMEOUT, exchange).await;
            if !answered.expect("every call is answered") {
                again = calls;
                wire = self.connect();
            }
            if self.dice.percent(60) {
                sleep(self.dice.millis(1..400)).await;
            } else if self.dice.percent(10) {
                sleep(self.dice.millis(500..3000)).await;
            }
        }
    }

    fn connect(&self) -> PipeStream {
        connect(&self.world, &self.dice, self.first_shard)
    }

    /// Makes the calls. Returns true if all were answered. Occasionally disconnects before.
    async fn exchange(&self, wire: &mut PipeStream, calls: &[BackendCall]) -> bool {
        let mut posts = Vec::new();
        for call in calls {
            posts.push(self.note(call));
            let bytes = request(call, self.dice.percent(50));
            if wire.write_all(&bytes).await.is_err() {
                return false;
            }
        }
        if self.dice.percent(3) {
            sleep(self.dice.millis(0..40)).await;
            return false;
        }
        let mut unparsed = Vec::new();
        for post in posts {
            let Some((status, body)) = response(wire, &mut unparsed).await else {
                return false;
            };
            self.answered(post, status, &body);
        }
        true
    }

    fn note(&self, call: &BackendCall) -> usize {
        let mut posts = self.history.posts.borrow_mut();
        posts.push(PostRecord {
            tenant: call.tenant,
            events: call.events.iter().map(|event| event.serial).collect(),
            condition: call.condition,
            sent: self.history.now(),
            answer: None,
        });
        posts.len() - 1
    }

    fn answered(&self, post: usize, status: u16, body: &[u8]) {
        self.history.trace(&(post, status, body));
        let body: Value = serde_json::from_slice(body).expect("an answer is JSON");
        let results = match &body["results"] {
            Value::Array(results) => results.iter().map(placed).collect(),
            _ if status < 300 => vec![placed(&body)],
            _ => Vec::new(),
        };
        let detail = body["detail"].as_str().unwrap_or_default();
        if status == 503 && detail.contains("a shard has no room") {
            self.history.count("503 for a full inbox");
        }
        let answer = PostAnswer {
            when: self.history.now(),
            status,
            code: body["code"].as_str().unwrap_or_default().to_owned(),
            results,
        };
        self.history.posts.borrow_mut()[post].answer = Some(answer);
    }

    fn calls(&self) -> Vec<BackendCall> {
        let count = *self.dice.pick(&[1, 1, 1, 2, 3]);
        (0..count).map(|_| self.call()).collect()
    }

    fn call(&self) -> BackendCall {
        let tenant = self.dice.weighted(&TENANT_WEIGHTS);
        let is_json = self.dice.percent(30);
        let is_batch = self.dice.percent(30);
        let count = if is_batch {
            self.dice.within(1..BATCH_MAX + 1)
        } else {
            1
        };
        self.left.set(self.left.get().saturating_sub(count));
        BackendCall {
            tenant,
            events: (0..count).map(|_| self.event(tenant, is_json)).collect(),
            is_batch,
            condition: (!is_batch && self.dice.percent(15)).then(|| self.condition(tenant)),
        }
    }

    /// Returns a condition from the last known event of the tenant, or from there being none.
    fn condition(&self, tenant: usize) -> PostCondition {
        let posts = self.history.posts.borrow();
        let mut answered = posts.iter().rev().filter(|post| post.tenant == tenant);
        let last = answered.find_map(|post| post.answer.as_ref()?.results.last());
        let topic = self.dice.below(EVENT_TOPICS);
        match (last, self.dice.below(8)) {
            (_, 0) | (None, _) => PostCondition { topic, last: None },
            (Some(last), 1) => PostCondition {
                topic,
                last: Some(EventPlace {
                    offset: 0,
                    ..last.place
                }),
            },
            (Some(last), _) => PostCondition {
                topic: last.topics.indices().next().unwrap_or(topic),
                last: Some(last.place),
            },
        }
    }

    /// Returns a new event, an event that was posted before, or a new event with the id of an
    /// earlier one.
    fn event(&self, tenant: usize, is_json: bool) -> SimulatedEvent {
        let mut events = self.history.events.borrow_mut();
        let like = self.dice.weighted(&[85, 12, 3]);
        let mut earlier = events.iter().rev().skip(self.dice.below(12)).filter(|it| {
            it.tenant == tenant && it.is_json == is_json && !it.envelope.message_id.is_empty()
        });
        let earlier = earlier.next().filter(|_| like > 0).cloned();
        if let (1, Some(earlier)) = (like, &earlier) {
            return earlier.clone();
        }
        let mut event = SimulatedEvent::drawn(events.len() as Serial, tenant, is_json, &self.dice);
        if let Some(earlier) = earlier {
            event.envelope.message_id = earlier.envelope.message_id;
        }
        events.push(event.clone());
        event
    }
}

/// Connects to a shard that serves backends.
pub(super) fn connect(world: &SimulatedWorld, dice: &Dice, first_shard: usize) -> PipeStream {
    let kind = LinkKind {
        room_bytes: *dice.pick(&[300, 64 * 1024]),
        latency: dice.millis(0..10),
        piece_bytes: *dice.pick(&[100, 64 * 1024]),
    };
    let (ours, theirs, _) = link(kind);
    let shard = dice.within(first_shard..SHARDS);
    world.shards[shard].serve_backend(theirs);
    ours
}

/// Returns the call as an HTTP request. The extra topics of a single event may be in the query.
fn request(call: &BackendCall, by_query: bool) -> Vec<u8> {
    let is_batch = call.is_batch;
    let envelopes = call.events.iter().map(|event| event.envelope.clone());
    let mut envelopes: Vec<_> = envelopes.collect();
    let mut path = format!("/v1/tenants/{}/events", TENANTS[call.tenant]);
    let mut query = Vec::new();
    if is_batch {
        path.push_str(":batch");
    } else if by_query {
        let topics = std::mem::take(&mut envelopes[0].topics);
        query.extend(topics.iter().map(|topic| format!("topic={topic}")));
    }
    if let Some(PostCondition { topic, last }) = call.condition {
        let last = last.map_or("0".to_owned(), |place| {
            format!("{:032x}:{}", place.epoch, place.offset)
        });
        query.push(format!("if_last={}@{last}", TOPICS[topic]));
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let (media_type, body) = if call.events[0].is_json {
        let mut all: Vec<_> = envelopes.iter().map(|it| it.to_json()).collect();
        let json = match is_batch {
            true => json!({ "messages": all }),
            false => all.remove(0),
        };
        ("json", json.to_string().into_bytes())
    } else if is_batch {
        let messages = envelopes;
        ("x-protobuf", WireBatch { messages }.encode_to_vec())
    } else {
        ("x-protobuf", envelopes[0].encode_to_vec())
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{media_type}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// Reads one response and returns its status and body.
pub(super) async fn response(
    wire: &mut PipeStream,
    unparsed: &mut Vec<u8>,
) -> Option<(u16, Vec<u8>)> {
    loop {
        if let Some(found) = take_response(unparsed) {
            return Some(found);
        }
        if wire.read_buf(unparsed).await.ok()? == 0 {
            return None;
        }
    }
}

fn take_response(unparsed: &mut Vec<u8>) -> Option<(u16, Vec<u8>)> {
    let head_len = unparsed.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&unparsed[..head_len]).unwrap();
    let body_len: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .expect("a length")
        .parse()
        .unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    if unparsed.len() < head_len + body_len {
        return None;
    }
    let response: Vec<u8> = unparsed.drain(..head_len + body_len).collect();
    Some((status, response[head_len..].to_vec()))
}

fn placed(result: &Value) -> PostResult {
    let position = WirePosition {
        epoch: result["position"]["epoch"].as_str().unwrap().to_owned(),
        offset: result["position"]["offset"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap(),
    };
    let topics = result["topics"].as_array().unwrap();
    PostResult {
        message_id: result["message_id"].as_str().unwrap().to_owned(),
        place: position.place(),
        topics: topics.iter().map(|it| it.as_str().unwrap()).collect(),
        matched: result.get("matched").map(|it| it.as_u64().unwrap()),
        is_duplicate: result["duplicate"].as_bool().unwrap(),
    }
}
