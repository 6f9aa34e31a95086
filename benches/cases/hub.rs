//! The real hub: an event is appended, sent to a shard, offered to the outboxes that it
//! matches and acknowledged, and connections that had nothing to write are woken. Taking
//! the event out of the outboxes is the connections' part, and not measured.

use std::{
    net::Ipv4Addr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Wake, Waker},
};

use sidewire::{
    config::Config,
    event::{ClientEvent, ClientEventFields, EventDraft, EventDraftParts},
    hub::{ConnectionProfile, HubConnection, HubPublisher, LOOK_INTERVAL, ShardHub},
    outbox::{Outbox, OutboxLimits, OutboxPool},
    relay::{LiveSettings, RelayBuilder},
    transport::TransportKind,
};
use sidewire_protocol::{
    MessageId, TenantName, Topic, UserName, random::RandomSource, schema::Schema,
};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    task::{spawn_local, yield_now},
    time::Instant,
};

use super::{Case, Subject, events::payload};

/// Number of topics of the connection in the `look_up` cases.
const TOPICS: usize = 10_000;

pub(super) fn cases() -> Vec<Case> {
    let look_ups = [1, 8].map(|topics| {
        Case::new(format!("look_up/{topics}_of_{TOPICS}_topics"), move || {
            Publish::of_many_topics(topics)
        })
    });
    let to_idle = [1, 100, 10_000].map(|connections| {
        Case::new(format!("publish/to_{connections}_idle"), move || {
            Publish::to_many(connections, 0)
        })
    });
    let to_busy = [100, 10_000].map(|connections| {
        Case::new(format!("publish/to_{connections}_busy"), move || {
            Publish::to_many(connections, 1)
        })
    });
    let relay = Case::new("relay/to_100_idle".to_owned(), || Relay::to_many(100));
    look_ups
        .into_iter()
        .chain(to_idle)
        .chain(to_busy)
        .chain([relay])
        .collect()
}

/// A shard with the connections of one tenant, and a backend.
struct Publish {
    runtime: LocalRuntime,
    publisher: HubPublisher,
    tenant: TenantName,
    connections: Vec<(HubConnection, Rc<Outbox>)>,
    frames_before: usize,
    wakes: Arc<Wakes>,
    wakes_due: u64,
    payload: Vec<u8>,
    message_id: MessageId,
    /// Topics of the events, used in rotation.
    topics: Vec<Topic>,
    schema: Arc<Schema>,
    /// Number of topics of each event.
    topics_an_event: usize,
    next_topic: usize,
    draft: Option<EventDraft>,
}

impl Publish {
    /// Publishes events of one topic to this many connections, each of which already has
    /// this many frames to write.
    fn to_many(connections: usize, frames_before: usize) -> Self {
        Self {
            frames_before,
            ..Self::new(connections, topics(1), 1)
        }
    }

    /// Publishes events with this many of the topics of one connection.
    fn of_many_topics(topics_an_event: usize) -> Self {
        Self::new(1, topics(TOPICS), topics_an_event)
    }

    fn new(connections: usize, topics: Vec<Topic>, topics_an_event: usize) -> Self {
        let runtime = runtime();
        let (publisher, shard) = one_shard();
        let tenant = TenantName::parse("acme").unwrap();
        let wakes = Arc::<Wakes>::default();
        let pool = OutboxPool::new(OutboxLimits {
            frames: 1000,
            bytes: 1 << 20,
        });
        let connections = (0..connections)
            .map(|number| {
                let outbox = Rc::new(Outbox::new(&pool));
                outbox
                    .signals()
                    .register_waker(&Context::from_waker(&Waker::from(Arc::clone(&wakes))));
                (join(&shard, &tenant, number, &outbox, &topics), outbox)
            })
            .collect();
        runtime.block_on(async {
            spawn_local(async move { shard.run(LOOK_INTERVAL).await });
        });
        Self {
            runtime,
            publisher,
            tenant,
            connections,
            frames_before: 0,
            wakes,
            wakes_due: 0,
            payload: payload(),
            message_id: MessageId::parse("0199f0a4-7c5e-7d3b-9a51-3f0c8e6b2d17").unwrap(),
            topics,
            topics_an_event,
            next_topic: 0,
            schema: Arc::new(Schema::bundled().unwrap()),
            draft: None,
        }
    }

    fn next_draft(&mut self) -> EventDraft {
        let first = self.next_topic;
        self.next_topic = (first + self.topics_an_event) % self.topics.len();
        EventDraft::new(EventDraftParts {
            kept: &[&self.payload],
            message_id: self.message_id.clone(),
            append_message_id: false,
            append_timestamp: None,
            topics: self.topics[first..][..self.topics_an_event].into(),
            schema: Arc::clone(&self.schema),
        })
    }
}

impl Subject for Publish {
    fn prepare(&mut self, _: u64) {
        self.wakes_due = 0;
        for (_, outbox) in &self.connections {
            empty(outbox, self.frames_before);
            self.wakes_due += u64::from(outbox.is_empty());
        }
        self.wakes.0.store(0, Ordering::Relaxed);
        self.draft = Some(self.next_draft());
    }

    /// After one event the outboxes are no longer in their initial state.
    fn operations_max(&self) -> u64 {
        1
    }

    fn operate(&mut self) {
        let drafts = vec![self.draft.take().unwrap()];
        let connections = self.connections.len() as u64;
        let published = self.runtime.block_on(async {
            let appended = self.publisher.append(&self.tenant, drafts).await.unwrap();
            let published = appended.wait_acknowledged().await;
            while self.wakes.0.load(Ordering::Relaxed) < self.wakes_due {
                yield_now().await;
            }
            published
        });
        assert_eq!(published.events[0].matched, Some(connections));
    }
}

/// A client of the same shard, which sends events to the others.
struct Relay {
    shard: Publish,
    event: Option<Arc<ClientEvent>>,
}

impl Relay {
    /// Sends events of one topic to this many other connections, which have nothing to write.
    fn to_many(connections: usize) -> Self {
        Self {
            shard: Publish::to_many(connections + 1, 0),
            event: None,
        }
    }
}

impl Subject for Relay {
    fn prepare(&mut self, operations: u64) {
        self.shard.prepare(operations);
        // The sender does not receive its event.
        self.shard.wakes_due = self.shard.wakes_due.saturating_sub(1);
        let fields = ClientEventFields {
            message_id: self.shard.message_id.as_str(),
            timestamp: 1_800_000_000,
        };
        let (schema, payload) = (&self.shard.schema, &self.shard.payload);
        let event = ClientEvent::new(schema, payload, fields, &Arc::default(), Instant::now());
        self.event = Some(Arc::new(event));
    }

    fn operations_max(&self) -> u64 {
        1
    }

    fn operate(&mut self) {
        let shard = &self.shard;
        let (sender, _) = shard.connections.first().unwrap();
        let topics = shard.topics.clone().into_boxed_slice();
        let event = self.event.take().unwrap();
        shard.runtime.block_on(async {
            shard.publisher.relay_client_event(sender, event, topics);
            while shard.wakes.0.load(Ordering::Relaxed) < shard.wakes_due {
                yield_now().await;
            }
        });
    }
}

/// Counts the connections that were woken. Acting on a wake-up is the event loop's part.
#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns a shard's event loop with a clock that advances only while it waits: a timer
/// that happened to expire would count as work of the hub.
fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap()
}

fn one_shard() -> (HubPublisher, Rc<ShardHub>) {
    let mut config = Config::default();
    // Soon full: from then on each event evicts one.
    config.replay.events = 16;
    let live = LiveSettings::open(config, Arc::new(Schema::bundled().unwrap()));
    let parts = RelayBuilder::new(live, RandomSource::from_seed(1)).build();
    let [shard] = parts.shard_builders.try_into().unwrap();
    (parts.relay.publisher.clone(), Rc::new(shard.build()))
}

fn join(
    shard: &Rc<ShardHub>,
    tenant: &TenantName,
    number: usize,
    outbox: &Rc<Outbox>,
    topics: &[Topic],
) -> HubConnection {
    let user = UserName::parse(&format!("user-{number}")).unwrap();
    let profile = ConnectionProfile {
        transport: TransportKind::WebSocket,
        user,
        address: Ipv4Addr::LOCALHOST.into(),
        since: 0,
    };
    let mut connection = shard
        .join_tenant(tenant, profile, Rc::clone(outbox))
        .unwrap();
    let answer = connection.request_subscribe(topics.to_vec(), topics.len(), None);
    assert!(matches!(answer, Some(Ok(_))));
    connection
}

fn topics(count: usize) -> Vec<Topic> {
    (0..count)
        .map(|number| Topic::parse(&format!("project:project-{number}")).unwrap())
        .collect()
}

/// Takes all but this many frames out of the outbox, as a connection does when it writes them.
fn empty(outbox: &Outbox, frames_left: usize) {
    let written = outbox.with_next_write(|frames| {
        let written = frames.len().saturating_sub(frames_left);
        frames.iter().take(written).map(|frame| frame.len()).sum()
    });
    outbox.advance_written(written);
}
