//! Measures what a published event allocates and how much memory stays allocated after a
//! burst. The hub, the outboxes and the connection tasks are the real ones, on one thread,
//! over streams that only count bytes.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    net::Ipv4Addr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use bytes::Bytes;
use sidewire::{
    auth::{Grant, Identity},
    config::Config,
    connection::{
        AdmittedClient, CONNECTION_BYTES, Transport, handshake_bytes, run_connection, serve_stream,
    },
    event::{EventDraft, EventDraftParts},
    http::ListenerKind,
    hub::{ConnectionProfile, LOOK_INTERVAL},
    ingest::{self, BACKEND_CONNECTION_BYTES},
    limits::UserKey,
    outbox::Outbox,
    relay::{LiveSettings, RelayBuilder, ShardContext},
    transport::TransportKind,
};
use sidewire_protocol::{
    EnvelopeEncoding, MessageId, TenantName, Topic, UserName,
    clock::Clock,
    random::RandomSource,
    schema::{BundledSchema, Schema},
};
use sidewire_testing::{protobuf, websocket};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    runtime::{Builder, LocalOptions, LocalRuntime},
    task::{spawn_local, yield_now},
};

const TOPIC: &str = "project:project-1";

/// Number of events that the log keeps: small enough that it is full before anything is measured.
const LOG_EVENTS: usize = 16;

/// Upper bound of the memory that the outboxes of a shard keep for later events.
const KEPT_BYTES_MAX: i64 = 3 << 20;

#[test]
fn an_event_costs_as_many_allocations_with_1000_subscribers_as_with_10() {
    let [few, many] = [10, 1000].map(|clients| {
        let fixture = Fixture::with_clients(clients);
        fixture.publish(100);
        measure(|| fixture.publish(256)).count_total
    });
    assert_eq!(many, few);
}

#[test]
fn a_batch_costs_as_many_allocations_with_1000_subscribers_as_with_10() {
    let [few, many] = [10, 1000].map(|clients| {
        let fixture = Fixture::with_clients(clients);
        // The queues of all outboxes grow to their largest size at once.
        fixture.publish_to_late_readers(40);
        fixture.publish_batch(40);
        measure(|| fixture.publish_batch(40)).count_total
    });
    assert_eq!(many, few);
}

#[test]
fn a_client_that_reads_late_costs_allocations_but_not_for_each_event() {
    let [few, many] = [10, 1000].map(|clients| {
        let fixture = Fixture::with_clients(clients);
        fixture.publish_to_late_readers(60);
        // Occasionally the event loop allocates a block for its channels, so take the
        // minimum of several runs.
        let [less, more] = [20, 60].map(|events| {
            let counts = (0..8).map(|_| measure(|| fixture.publish_to_late_readers(events)));
            counts.map(|it| it.count_total).min().unwrap()
        });
        more - less
    });
    assert_eq!(many, few);
}

#[test]
fn a_burst_releases_the_memory_that_it_took() {
    let fixture = Fixture::with_clients(200);
    fixture.publish_to_late_readers(500);
    let burst = measure(|| fixture.publish_to_late_readers(500));
    assert_eq!((burst.bytes_current, burst.count_current), (0, 0));
    // Checks that there was a burst at all: each waiting frame is a pointer.
    assert!(burst.bytes_max > 200 * 500 * 8, "{burst:?}");
}

#[test]
fn the_memory_that_a_shard_keeps_for_the_next_burst_is_bounded() {
    let fixture = Fixture::with_clients(5000);
    fixture.publish(LOG_EVENTS as u64);
    let kept: i64 = [1, 64, 65, 64, 1]
        .map(|events| measure(|| fixture.publish_to_late_readers(events)).bytes_current)
        .iter()
        .sum();
    assert!((0..KEPT_BYTES_MAX).contains(&kept), "{kept}");
}

#[test]
fn a_tenant_with_only_the_head_of_its_log_takes_less_than_200_bytes() {
    const TENANTS: i64 = 10_000;
    let shard = shard_for(10_000);
    let remembered = measure(|| {
        for number in 0..TENANTS {
            let name = TenantName::parse(&format!("a-customer-with-a-name-{number:06}")).unwrap();
            let user = UserName::parse("ann").unwrap();
            let outbox = Rc::new(Outbox::new(&shard.outboxes));
            let profile = ConnectionProfile {
                user,
                address: Ipv4Addr::LOCALHOST.into(),
                transport: TransportKind::WebSocket,
                since: 0,
            };
            drop(shard.hub.join_tenant(&name, profile, outbox).unwrap());
        }
    });
    let each = remembered.bytes_current / TENANTS;
    assert!((50..200).contains(&each), "{each}");
}

/// Returns a schema with all kinds of fields, and one with events that can hold any JSON.
fn schemas() -> [Schema; 2] {
    let files = [
        (
            "torture.proto",
            include_str!("../crates/sidewire-protocol/src/schema/tests/torture.proto"),
        ),
        (
            "legacy.proto",
            include_str!("../crates/sidewire-protocol/src/schema/tests/legacy.proto"),
        ),
    ];
    let generic = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    let torture = Schema::from_texts(&files, "test.v1.Envelope").unwrap();
    [torture, generic]
}

/// Returns a JSON array of `count` copies of the item.
fn list(item: &str, count: usize) -> String {
    format!("[{}]", vec![item; count].join(","))
}

/// Returns a JSON object of `count` members with this value.
fn object(value: &str, count: usize) -> String {
    let members: Vec<_> = (0..count).map(|n| format!("\"{n}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Returns JSON envelopes that take much memory for their size.
fn heavy_json() -> Vec<String> {
    const COUNT: usize = 5_000;
    let nested = format!("{}{}", "[".repeat(90), "]".repeat(90));
    let any = [
        list("1", COUNT),
        list("null", COUNT),
        list("[]", COUNT),
        list("{}", COUNT),
        list("[[]]", COUNT),
        list(r#"{"a":1}"#, COUNT),
        list(r#""a""#, COUNT),
        list(&nested, COUNT / 90),
        object("1", COUNT),
        object("[]", COUNT),
        format!("\"{}\"", "x".repeat(COUNT * 10)),
        list(&format!("\"{}\"", "x".repeat(1000)), COUNT / 10),
    ];
    let scalars = [
        ("packedA", "1"),
        ("packedC", "1"),
        ("packedM", "true"),
        ("packedP", "0"),
        ("unpackedF", "1"),
        ("strings", "\"\""),
        ("blobs", "\"\""),
    ];
    let trees = [
        format!("{{\"children\":{}}}", list("{}", COUNT)),
        format!(
            "{{\"children\":{}}}",
            list(r#"{"plain":{"list":[{}]}}"#, COUNT)
        ),
        format!("{{\"children\":{}}}", list(r#"{"left":{"id":""}}"#, COUNT)),
        format!("{{\"named\":{}}}", object("{}", COUNT)),
        format!("{{\"numbered\":{}}}", object(r#"{"scalars":{}}"#, COUNT)),
        format!("{{\"tags\":{}}}", list("\"a\"", COUNT)),
        format!("{{\"scalars\":{{\"byText\":{}}}}}", object("\"\"", COUNT)),
        format!("{{\"scalars\":{{\"byFixed\":{}}}}}", object("1", COUNT)),
    ];
    let any = any.into_iter().flat_map(|value| {
        [
            format!(r#"{{"event":{{"type":"a","data":{value}}}}}"#),
            format!(r#"{{"anything":{{"value":{value}}}}}"#),
        ]
    });
    let scalars = scalars
        .into_iter()
        .map(|(name, value)| format!(r#"{{"scalars":{{"{name}":{}}}}}"#, list(value, COUNT)));
    let trees = trees
        .into_iter()
        .map(|tree| format!(r#"{{"tree":{tree}}}"#));
    let due = list(r#""1970-01-01T00:00:00Z""#, COUNT);
    let wrapped = list("1", COUNT);
    any.chain(scalars)
        .chain(trees)
        .chain([
            format!(r#"{{"anything":{{"due":{due}}}}}"#),
            format!(r#"{{"anything":{{"floatValues":{wrapped}}}}}"#),
            // Envelopes that are refused, before or after they are decoded.
            format!(
                r#"{{"anything":{{"value":{},"valeu":1}}}}"#,
                list("{}", COUNT)
            ),
            format!(r#"{{"nothing":{}}}"#, list("{}", COUNT)),
            format!(r#"{{"anything":{{"value":{}"#, list("{}", COUNT)),
        ])
        .collect()
}

/// Returns the memory taken as a percentage of the memory reserved. Panics if more was
/// taken than was reserved.
fn check_reserved(taken: u64, reserved: usize, of: &str) -> u64 {
    let shown = of.get(..60).unwrap_or(of);
    let percent = taken * 100 / reserved as u64;
    assert!(percent <= 100, "{taken} of {reserved} bytes: {shown}");
    percent
}

#[test]
fn reading_json_takes_no_more_memory_than_is_reserved() {
    let (mut single, mut batches, mut rendered) = (0, 0, 0);
    for schema in schemas() {
        for json in heavy_json() {
            let mut envelope = None;
            let reading = measure(|| envelope = schema.envelope_from_json(json.as_bytes()).ok());
            let reserved = Schema::json_memory_max(json.as_bytes());
            single = check_reserved(reading.bytes_max, reserved, &json).max(single);

            let batch = format!(r#"{{"messages":{}}}"#, list(&json, 3));
            let reading = measure(|| drop(schema.batch_from_json(batch.as_bytes(), usize::MAX)));
            let reserved = Schema::json_batch_memory_max(batch.as_bytes(), usize::MAX);
            batches = check_reserved(reading.bytes_max, reserved, &json).max(batches);
            // The third event exceeds the limit.
            let encoded_max = envelope.as_ref().map_or(0, |it: &Vec<u8>| 5 * it.len() / 2);
            let reading = measure(|| drop(schema.batch_from_json(batch.as_bytes(), encoded_max)));
            let reserved = Schema::json_batch_memory_max(batch.as_bytes(), encoded_max);
            check_reserved(reading.bytes_max, reserved, &json);

            let Some(envelope) = envelope else { continue };
            let mut text = String::new();
            let rendering = measure(|| text = schema.envelope_to_json_text(&envelope).unwrap());
            // The text counts once more as itself, in a buffer that doubles.
            let reserved = schema.decoded_memory_max(&envelope) + 3 * text.len();
            rendered = check_reserved(rendering.bytes_max, reserved, &json).max(rendered);
        }
    }
    // Checks that the test came close to the bound.
    assert!(
        [single, batches, rendered].iter().all(|it| *it > 50),
        "{single} {batches} {rendered}"
    );
}

#[test]
fn decoding_an_envelope_for_its_topics_takes_no_more_memory_than_is_reserved() {
    const COUNT: usize = 5_000;
    let [schema, _] = schemas();
    let field = protobuf::bytes;
    // A tree with a left child that occurs twice, so that it has to be decoded.
    let ambiguous = |content: Vec<u8>| {
        let left = field(2, &field(1, b"i"));
        field(2, &[left.clone(), left, content].concat())
    };
    let mut nearest = 0;
    for content in [
        field(4, b"").repeat(COUNT),
        field(4, &field(2, b"")).repeat(COUNT),
        field(10, b"").repeat(COUNT),
        field(5, b"").repeat(COUNT),
        field(11, &field(3, b"").repeat(COUNT)),
        field(12, &field(103, &vec![0; COUNT])),
        field(12, &field(113, &vec![1; COUNT])),
        field(12, &field(116, &vec![1; COUNT])),
        field(12, &field(101, &vec![0; 8 * COUNT])),
        field(12, &field(109, &vec![0; 4 * COUNT])),
        field(12, &field(214, b"").repeat(COUNT)),
        field(12, &field(15, &vec![0; 100 * COUNT])),
        // Fields that the schema does not know.
        field(12, &field(9999, b"").repeat(COUNT)),
        field(9999, &vec![0; 100 * COUNT]),
    ] {
        let envelope = ambiguous(content);
        let decoding = measure(|| drop(schema.inspect(&envelope)));
        let reserved = schema.decoded_memory_max(&envelope);
        let percent = check_reserved(decoding.bytes_max, reserved, &format!("{envelope:?}"));
        nearest = nearest.max(percent);
    }
    assert!(nearest > 20, "{nearest}");
}

/// Serves many streams, each of which has received these bytes and no more, and returns the
/// memory that each of them takes.
fn bytes_of_each<F>(begun: &[u8], serve: impl Fn(Rc<ShardContext>, DuplexStream) -> F) -> i64
where
    F: Future<Output = ()> + 'static,
{
    const PEERS: i64 = 50;
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap();
    let (shard, streams) = runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..PEERS {
            let (ours, mut theirs) = duplex(begun.len());
            theirs.write_all(begun).await.unwrap();
            streams.push((ours, theirs));
        }
        (shard(), streams)
    });
    // Let the connections that wait to be scheduled run.
    let hub = Rc::clone(&shard.hub);
    runtime.block_on(async move {
        drop(spawn_local(async move { hub.run(LOOK_INTERVAL).await }));
        yield_now().await;
    });
    let mut peers = Vec::new();
    let held = measure(|| {
        runtime.block_on(async {
            for (ours, theirs) in streams {
                spawn_local(serve(Rc::clone(&shard), ours));
                peers.push(theirs);
            }
            for _ in 0..100 {
                yield_now().await;
            }
        });
    });
    held.bytes_current / PEERS
}

#[test]
fn a_handshake_and_a_call_with_partial_heads_take_no_more_than_is_accounted() {
    let head = |line: &str, bytes: usize| {
        let begun = format!("{line} HTTP/1.1\r\nHost: localhost\r\nX: ");
        let filler = "x".repeat(bytes - 1 - begun.len());
        format!("{begun}{filler}").into_bytes()
    };
    let peer = Ipv4Addr::LOCALHOST.into();
    let handshake = bytes_of_each(&head("GET /ws", 16 << 10), |shard, stream| async move {
        drop(serve_stream(shard, stream, peer, ()).await);
    });
    assert!(handshake > 16 << 10, "{handshake}");
    assert!(
        handshake <= handshake_bytes(16 * 1024) as i64,
        "{handshake}"
    );
    let call = bytes_of_each(&head("GET /", 64 << 10), |shard, stream| {
        ingest::serve(shard, stream, ListenerKind::Tcp, ())
    });
    assert!(call > 64 << 10, "{call}");
    assert!(call <= BACKEND_CONNECTION_BYTES as i64, "{call}");
}

#[test]
fn a_connection_takes_about_as_much_memory_as_is_accounted() {
    const CLIENTS: u64 = 2000;
    let mut fixture = None;
    let held = measure(|| fixture = Some(Fixture::with_clients(CLIENTS)));
    let each = held.bytes_current / CLIENTS as i64;
    let counted = CONNECTION_BYTES as i64;
    assert!((counted / 2..counted).contains(&each), "{each}");
}

/// A relay with one shard, and clients that follow one topic.
struct Fixture {
    runtime: LocalRuntime,
    shard: Rc<ShardContext>,
    clients: u64,
    network: Rc<Network>,
    topic: Topic,
}

impl Fixture {
    fn with_clients(clients: u64) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build_local(LocalOptions::default())
            .unwrap();
        let network = Rc::<Network>::default();
        let shard = runtime.block_on(async {
            let shard = shard();
            for task in shard.background_tasks(LOOK_INTERVAL) {
                spawn_local(task);
            }
            for number in 0..clients {
                connect(&shard, number, &network);
            }
            while shard.hub.tally().subscriptions.get() < clients {
                yield_now().await;
            }
            shard
        });
        Self {
            runtime,
            shard,
            clients,
            network,
            topic: Topic::parse(TOPIC).unwrap(),
        }
    }

    /// Publishes this many events one after the other, each after all clients have received
    /// the one before.
    fn publish(&self, events: u64) {
        self.runtime.block_on(async {
            for _ in 0..events {
                self.append(1).await;
                self.all_written().await;
            }
        });
    }

    /// Publishes this many events at once.
    fn publish_batch(&self, events: usize) {
        self.runtime.block_on(async {
            self.append(events).await;
            self.all_written().await;
        });
    }

    /// Publishes this many events while no client reads, and then lets the clients read.
    fn publish_to_late_readers(&self, events: u64) {
        self.runtime.block_on(async {
            self.network.block();
            self.append(1).await;
            while self.network.writers() < self.clients {
                yield_now().await;
            }
            for _ in 1..events {
                self.append(1).await;
            }
            self.network.unblock();
            self.all_written().await;
        });
    }

    async fn append(&self, events: usize) {
        let drafts = (0..events).map(|_| self.draft()).collect();
        let publisher = &self.shard.relay.publisher;
        let appended = publisher.append(&tenant(), drafts).await.unwrap();
        let published = appended.wait_acknowledged().await;
        assert_eq!(
            published.events.first().unwrap().matched,
            Some(self.clients)
        );
    }

    /// Waits until every event is written to every client that it matched.
    async fn all_written(&self) {
        // Yield at least once: the event loop allocates the first time a task yields.
        loop {
            yield_now().await;
            if self.shard.hub.tally().queued.get() == 0 {
                return;
            }
        }
    }

    fn draft(&self) -> EventDraft {
        EventDraft::new(EventDraftParts {
            kept: &[&[0xa2, 0x06, 3, 1, 2, 3]],
            message_id: MessageId::parse("event").unwrap(),
            append_message_id: true,
            append_timestamp: Some(1_800_000_000),
            topics: [self.topic.clone()].into(),
            schema: Arc::clone(&self.shard.relay.live().schema),
        })
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let tally = self.shard.hub.tally();
        assert_eq!(tally.matched.get(), tally.written.get());
        let connections = tally.connections.of(TransportKind::WebSocket);
        assert_eq!(connections.get(), self.clients);
    }
}

/// State shared by all streams.
#[derive(Default)]
struct Network {
    is_blocked: Cell<bool>,
    /// Tasks that wait until the network is no longer blocked.
    writers: RefCell<Vec<Waker>>,
}

impl Network {
    fn block(&self) {
        self.is_blocked.set(true);
    }

    /// Returns the number of tasks that wait.
    fn writers(&self) -> u64 {
        self.writers.borrow().len() as u64
    }

    fn unblock(&self) {
        self.is_blocked.set(false);
        for writer in self.writers.borrow_mut().drain(..) {
            writer.wake();
        }
    }
}

/// A stream to a client that never sends anything.
struct Stream(Rc<Network>);

impl Stream {
    fn take(&self, context: &Context<'_>, len: usize) -> Poll<io::Result<usize>> {
        if self.0.is_blocked.get() {
            self.0.writers.borrow_mut().push(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(len))
    }
}

impl Transport for Stream {
    fn reset(&self) {}
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(context, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(context, slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Connects a client that subscribes at once.
fn connect(shard: &Rc<ShardContext>, number: u64, network: &Rc<Network>) {
    let identity = Identity {
        tenant: tenant(),
        user: UserName::parse(&format!("user-{number}")).unwrap(),
        grant: Grant::Everything,
        subscriptions: None,
        expires_at: None,
        token_expires_at: None,
        key: None,
    };
    let who = UserKey {
        tenant: identity.tenant.clone(),
        user: identity.user.clone(),
    };
    let peer = Ipv4Addr::LOCALHOST.into();
    let admitted = AdmittedClient::new(
        shard,
        identity,
        who,
        peer,
        EnvelopeEncoding::Protobuf,
        TransportKind::WebSocket,
    )
    .unwrap();
    let stream = Stream(Rc::clone(network));
    spawn_local(run_connection(
        Rc::clone(shard),
        admitted,
        stream,
        subscribe(),
        (),
    ));
}

/// Returns a Subscribe frame.
fn subscribe() -> Bytes {
    let subscribe = protobuf::bytes(10, &protobuf::text(16, TOPIC));
    websocket::binary(&subscribe).into()
}

fn tenant() -> TenantName {
    TenantName::parse("acme").unwrap()
}

/// Returns the only shard of a relay with the default configuration, except for its log.
fn shard() -> Rc<ShardContext> {
    shard_for(1)
}

/// Returns the same shard with capacity for this many tenants.
fn shard_for(tenants: usize) -> Rc<ShardContext> {
    let mut config = Config::default();
    config.limits.tenants = tenants;
    config.replay.events = LOG_EVENTS;
    config.replay.bytes = 1 << 20;
    let live = LiveSettings::open(config, Arc::new(Schema::bundled().unwrap()));
    let parts = RelayBuilder::new(live, RandomSource::from_seed(1))
        .clock(Clock::simulated(Duration::from_secs(1_800_000_000)))
        .build();
    let [builder] = parts.shard_builders.try_into().unwrap();
    Rc::new(ShardContext::new(parts.relay, builder))
}
