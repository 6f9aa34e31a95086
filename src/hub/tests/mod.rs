//! Tests of the hub: against a naive model, and of its edge cases one by one.

mod admin;
mod conditions;
mod departures;
mod idempotency;
mod isolation;
mod json;
mod memory;
mod model;
mod places;
mod replay_turns;
mod resume;
mod turns;
mod wakes;

use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;
use sidewire_protocol::{
    EnvelopeEncoding, Epoch, Position, TenantName, Topic, UserName, close::CloseReason,
    random::RandomSource,
};
use sidewire_testing::{
    protobuf::Envelope,
    websocket::{TEXT, only_frame},
};
use tokio::{task::unconstrained, time::Instant};

use super::{inbox::HeldPermit, read_slice::ReadSlice, submission::Submission, *};
use crate::{
    event::{EventDraft, tests::draft},
    log::{LogWindow, MessageIdLimits},
    memory::{MemoryExceeded, MemoryLimits, MemoryUse},
    outbox::{Outbox, OutboxLimits, OutboxPool},
    scheduler::{Cost, QUANTUM},
};

const WIDE: RegistryLimits = RegistryLimits {
    tenants: 100,
    log_bytes: u64::MAX,
    memory: MemoryLimits::UNBOUNDED,
    window: LogWindow {
        events: 10_000,
        bytes: 16 << 20,
        age: Duration::from_secs(300),
    },
    inbox: InboxLimits {
        places: 1024,
        places_per_tenant: 256,
    },
    message_ids: MessageIdLimits {
        age: Duration::from_secs(300),
        count: 1000,
        bytes: 1 << 20,
    },
};

const ROOMY: OutboxLimits = OutboxLimits {
    frames: 1000,
    bytes: 1 << 20,
};

/// A hub with shards that run only when the test runs them.
struct HubFixture {
    registry: Arc<TenantRegistry>,
    publisher: HubPublisher,
    shards: Vec<Rc<ShardHub>>,
}

impl HubFixture {
    fn new(shards: usize, limits: RegistryLimits) -> Self {
        let registry = Arc::new(TenantRegistry::new(
            limits,
            Arc::new(RandomSource::from_seed(1)),
        ));
        let timeouts = PublishTimeouts {
            inbox: Duration::from_secs(2),
            ack: Duration::from_secs(5),
        };
        let HubParts {
            publisher,
            shard_builders,
        } = HubParts::new(&registry, timeouts, shards);
        let shards = shard_builders.into_iter();
        Self {
            registry,
            publisher,
            shards: shards.map(|builder| Rc::new(builder.build())).collect(),
        }
    }

    fn connect(&self, shard: ShardId, tenant: &str, user: &str) -> HubClient {
        self.connect_with(shard, tenant, user, ROOMY)
    }

    fn connect_with(
        &self,
        shard: ShardId,
        tenant: &str,
        user: &str,
        limits: OutboxLimits,
    ) -> HubClient {
        self.connect_speaking(EnvelopeEncoding::Protobuf, shard, tenant, user, limits)
    }

    fn connect_speaking(
        &self,
        encoding: EnvelopeEncoding,
        shard: ShardId,
        tenant: &str,
        user: &str,
        limits: OutboxLimits,
    ) -> HubClient {
        let pool = OutboxPool::new(limits);
        let outbox = Rc::new(Outbox::with_encoding(encoding, &pool));
        let hub = self.shards[shard]
            .join_tenant(
                &name(tenant),
                &UserName::parse(user).unwrap(),
                Rc::clone(&outbox),
            )
            .unwrap();
        HubClient {
            outbox,
            hub: RefCell::new(hub),
        }
    }

    /// Publishes while all shards run, and returns the outcome.
    async fn publish(&self, tenant: &str, drafts: Vec<EventDraft>) -> PublishedEvents {
        let tenant = name(tenant);
        let shards = async {
            tokio::join!(async {
                futures_util::future::join_all(self.shards.iter().map(|s| s.run(Duration::ZERO)))
                    .await
            },);
        };
        tokio::select! {
            biased;
            () = shards => unreachable!("the publisher keeps the inboxes open"),
            published = append(&self.publisher, &tenant, drafts) => published.unwrap(),
        }
    }
}

/// Runs one turn of a shard.
fn turn(shard: &Rc<ShardHub>) {
    let mut context = Context::from_waker(Waker::noop());
    // Without a pause, a test exhausts its task budget, and the inbox then seems empty.
    assert!(
        pin!(unconstrained(shard.run(Duration::ZERO)))
            .poll(&mut context)
            .is_pending()
    );
}

/// Appends, and waits for the shards.
async fn append(
    publisher: &HubPublisher,
    tenant: &TenantName,
    drafts: Vec<EventDraft>,
) -> Result<PublishedEvents, AppendError> {
    Ok(publisher
        .append(tenant, drafts)
        .await?
        .wait_acknowledged()
        .await)
}

/// Returns a slice that allows a step to read everything at once.
fn all() -> ReadSlice {
    ReadSlice::new(Cost::from_nanos(u64::MAX))
}

fn submission(draft: EventDraft) -> Submission<'static> {
    Submission {
        drafts: vec![draft],
        check: ConditionCheck::new(&[]),
    }
}

struct HubClient {
    outbox: Rc<Outbox>,
    hub: RefCell<HubConnection>,
}

impl HubClient {
    fn hub(&self) -> RefMut<'_, HubConnection> {
        self.hub.borrow_mut()
    }

    fn subscribe(&self, topics: &[&str]) -> Position {
        let topics: Vec<_> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
        self.hub().member.deliver_all();
        match self.hub().subscribe(&topics, 10_000, None).unwrap() {
            Some(SubscribeConfirmation {
                position,
                resumed: None,
            }) => position,
            other => panic!("nothing was to be resumed: {other:?}"),
        }
    }

    fn unsubscribe(&self, topics: &[&str]) {
        let topics: Vec<_> = topics.iter().map(|t| Topic::parse(t).unwrap()).collect();
        self.hub().unsubscribe(&topics);
    }

    /// Returns the message ids and offsets of the events received since the last call.
    fn received(&self) -> Vec<(String, u64)> {
        let mut events = Vec::new();
        while !self.outbox.is_empty() {
            let written = self.outbox.with_next_write(|slices| {
                events.extend(slices.iter().map(|frame| decode(frame)));
                slices.iter().map(|frame| frame.len()).sum()
            });
            self.outbox.advance_written(written);
        }
        events
    }

    fn received_ids(&self) -> Vec<String> {
        self.received().into_iter().map(|(id, _)| id).collect()
    }
}

fn name(tenant: &str) -> TenantName {
    TenantName::parse(tenant).unwrap()
}

fn decode(frame: &[u8]) -> (String, u64) {
    let frame = only_frame(frame);
    if frame.opcode == TEXT {
        return decode_json(&frame.payload);
    }
    let envelope = <Envelope as prost::Message>::decode(&*frame.payload).unwrap();
    (envelope.message_id, envelope.position.unwrap().offset)
}

fn decode_json(payload: &[u8]) -> (String, u64) {
    let envelope: serde_json::Value = serde_json::from_slice(payload).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let offset = text(&envelope["position"]["offset"]).parse();
    (text(&envelope["messageId"]), offset.unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_the_connections_of_its_topics_on_every_shard() {
    let fixture = HubFixture::new(2, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let b = fixture.connect(1, "acme", "bob");
    let c = fixture.connect(1, "acme", "cid");
    a.subscribe(&["project:1"]);
    b.subscribe(&["project:1", "sprint:1"]);
    c.subscribe(&["project:2"]);
    let published = fixture
        .publish("acme", vec![draft("m", &["project:1", "sprint:1"])])
        .await;
    assert!(published.acknowledged);
    assert_eq!(published.events[0].matched, Some(2));
    assert_eq!(published.events[0].position.offset, 1);
    assert_eq!(a.received(), [("m".to_owned(), 1)]);
    assert_eq!(b.received(), [("m".to_owned(), 1)]);
    assert_eq!(c.received(), []);
}

#[tokio::test(start_paused = true)]
async fn tenants_are_isolated_even_if_topics_and_users_have_the_same_names() {
    let fixture = HubFixture::new(2, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let b = fixture.connect(0, "other", "ann");
    let c = fixture.connect(1, "other", "ann");
    for client in [&a, &b, &c] {
        client.subscribe(&["project:1"]);
    }
    let topics = ["project:1", "user:ann", "tenant:*"];
    let published = fixture.publish("acme", vec![draft("m", &topics)]).await;
    assert_eq!(published.events[0].matched, Some(1));
    assert_eq!(a.received_ids(), ["m"]);
    assert_eq!((b.received_ids(), c.received_ids()), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn implicit_topics_need_no_subscription() {
    let fixture = HubFixture::new(1, WIDE);
    let (a, b) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(0, "acme", "bob"),
    );
    fixture
        .publish("acme", vec![draft("1", &["user:ann"])])
        .await;
    fixture
        .publish("acme", vec![draft("2", &["tenant:*"])])
        .await;
    assert_eq!(a.received_ids(), ["1", "2"]);
    assert_eq!(b.received_ids(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_consecutive_and_each_event_has_its_own_count() {
    let fixture = HubFixture::new(2, WIDE);
    let (a, b) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(1, "acme", "bob"),
    );
    a.subscribe(&["project:1"]);
    b.subscribe(&["project:1", "project:2"]);
    let batch = vec![
        draft("1", &["project:1"]),
        draft("2", &["project:2"]),
        draft("3", &["project:3"]),
    ];
    let published = fixture.publish("acme", batch).await;
    let counts: Vec<_> = published.events.iter().map(|event| event.matched).collect();
    assert_eq!(counts, [Some(2), Some(1), Some(0)]);
    assert_eq!(b.received(), [("1".to_owned(), 1), ("2".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_starts_at_the_head_and_earlier_events_reach_only_older_topics() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    assert_eq!(a.subscribe(&["project:1"]).offset, 0);
    let tenant = name("acme");
    // The inbox is not drained: the events are in the log and on their way.
    let mut sent = std::pin::pin!(async {
        for topic in ["project:1", "project:2"] {
            let mut drafts = submission(draft(topic, &[topic]));
            fixture.registry.get_or_create(&tenant).unwrap().append(
                &mut drafts,
                &fixture.publisher.inboxes,
                Instant::now(),
                true,
                HeldPermit::default(),
            );
        }
    });
    sent.as_mut().await;
    assert_eq!(a.received(), []);
    assert_eq!(a.subscribe(&["project:2"]).offset, 2);
    assert_eq!(a.received_ids(), ["project:1"]);
    fixture
        .publish("acme", vec![draft("m", &["project:2"])])
        .await;
    assert_eq!(a.received(), [("m".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn events_sent_before_a_shard_joined_again_are_not_delivered() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let tenant = name("acme");
    let mut drafts = submission(draft("old", &["tenant:*"]));
    fixture.registry.get_or_create(&tenant).unwrap().append(
        &mut drafts,
        &fixture.publisher.inboxes,
        Instant::now(),
        true,
        HeldPermit::default(),
    );
    drop(a);
    let b = fixture.connect(0, "acme", "bob");
    fixture
        .publish("acme", vec![draft("new", &["tenant:*"])])
        .await;
    assert_eq!(b.received(), [("new".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_forgotten_tenant_are_not_delivered_to_its_successor() {
    let limits = RegistryLimits {
        window: LogWindow {
            events: 0,
            ..WIDE.window
        },
        ..WIDE
    };
    let fixture = HubFixture::new(1, limits);
    let a = fixture.connect(0, "acme", "ann");
    let first = a.subscribe(&[]).epoch;
    let mut drafts = submission(draft("old", &["tenant:*"]));
    fixture
        .registry
        .get_or_create(&name("acme"))
        .unwrap()
        .append(
            &mut drafts,
            &fixture.publisher.inboxes,
            Instant::now(),
            true,
            HeldPermit::default(),
        );
    drop(a);
    assert!(fixture.registry.is_empty());
    let b = fixture.connect(0, "acme", "bob");
    // The log continues where it ended: the events that were sent are below its head.
    let position = b.subscribe(&[]);
    assert_eq!((position.epoch, position.offset), (first, 1));
    let published = fixture
        .publish("acme", vec![draft("new", &["tenant:*"])])
        .await;
    assert_eq!(published.events[0].position.offset, 2);
    assert_eq!(b.received(), [("new".to_owned(), 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_keep_up_is_closed_without_affecting_others() {
    let fixture = HubFixture::new(1, WIDE);
    let limits = OutboxLimits { frames: 2, ..ROOMY };
    let slow = fixture.connect_with(0, "acme", "ann", limits);
    let good = fixture.connect(0, "acme", "bob");
    let mut matched = Vec::new();
    for id in ["1", "2", "3", "4"] {
        let published = fixture
            .publish("acme", vec![draft(id, &["tenant:*"])])
            .await;
        matched.extend(published.events[0].matched);
    }
    assert_eq!(matched, [2, 2, 2, 1]);
    assert_eq!(slow.outbox.signals().ending(), Some(CloseReason::TooSlow));
    assert_eq!(good.received_ids(), ["1", "2", "3", "4"]);
    let tally = fixture.shards[0].tally();
    assert_eq!(tally.matched.get(), 7);
    assert_eq!(tally.dropped_slow.get(), 1);
    assert_eq!(tally.queued.get(), 6);
}

#[test]
fn a_subscribe_over_the_limit_of_topics_changes_nothing() {
    let fixture = HubFixture::new(1, WIDE);
    let a = fixture.connect(0, "acme", "ann");
    let topics: Vec<_> = ["a:1", "a:2", "a:2", "a:3"]
        .map(|topic| Topic::parse(topic).unwrap())
        .into();
    assert!(a.hub().subscribe(&topics[..3], 2, None).is_ok());
    assert!(a.hub().subscribe(&topics[..3], 2, None).is_ok());
    let refused = a.hub().subscribe(&topics[2..], 2, None);
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::TooManyTopics { topics_max: 2 }
    );
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 2);
}

#[test]
fn a_subscribe_for_which_there_is_no_memory_changes_nothing() {
    let limits = MemoryLimits {
        max: 4_640,
        window: 0,
    };
    let fixture = HubFixture::new(
        1,
        RegistryLimits {
            memory: limits,
            ..WIDE
        },
    );
    let held = || {
        fixture
            .registry
            .memory()
            .held_bytes(MemoryUse::Subscriptions)
    };
    let topics: Vec<_> = (0..20)
        .map(|n| Topic::new("board", &format!("{n:02}")).unwrap())
        .collect();
    let a = fixture.connect(0, "acme", "ann");
    // Subscriptions may take at most half of it, and a topic takes 208 bytes.
    assert!(a.hub().subscribe(&topics[..11], 100, None).is_ok());
    assert_eq!(held(), 11 * 208);
    let b = fixture.connect(0, "other", "bob");
    let refused = b.hub().subscribe(&topics[..1], 100, None);
    assert_eq!(
        refused.unwrap_err(),
        SubscribeError::NoMemory(MemoryExceeded)
    );
    assert_eq!(held(), 11 * 208);
    assert_eq!(fixture.shards[0].tally().subscriptions.get(), 11);
    // Topics that it already has take no more memory.
    assert!(a.hub().subscribe(&topics[..11], 100, None).is_ok());
    a.hub().unsubscribe(&topics[..2]);
    assert!(b.hub().subscribe(&topics[..1], 100, None).is_ok());
    assert_eq!(held(), 10 * 208);
    drop((a, b));
    assert_eq!(held(), 0);
}

#[test]
fn a_tenant_over_the_limit_is_refused_until_another_has_left() {
    let fixture = HubFixture::new(1, RegistryLimits { tenants: 1, ..WIDE });
    let a = fixture.connect(0, "acme", "ann");
    let outbox = Rc::new(Outbox::new(&OutboxPool::new(ROOMY)));
    let user = UserName::parse("bob").unwrap();
    let refused = fixture.shards[0].join_tenant(&name("other"), &user, Rc::clone(&outbox));
    assert_eq!(refused.err(), Some(TenantsFull));
    drop(a);
    assert!(
        fixture.shards[0]
            .join_tenant(&name("other"), &user, outbox)
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_sweep_forgets_a_tenant_when_its_events_are_too_old() {
    let fixture = HubFixture::new(1, WIDE);
    fixture.publish("acme", vec![draft("m", &["a:1"])]).await;
    fixture.registry.sweep(Instant::now());
    assert_eq!(fixture.registry.len(), 1);
    assert!(fixture.registry.memory().held_bytes(MemoryUse::Events) > 0);
    fixture.registry.sweep(Instant::now() + WIDE.window.age);
    assert!(fixture.registry.is_empty());
    assert_eq!(fixture.registry.memory().held_bytes(MemoryUse::Events), 0);
}
