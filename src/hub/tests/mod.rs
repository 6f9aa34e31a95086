//! Tests of the hub: against a naive model, and of its edge cases one by one.

mod admin;
mod conditions;
mod departures;
mod fanout;
mod idempotency;
mod inspection;
mod isolation;
mod json;
mod memory;
mod model;
mod places;
mod presence;
mod replay_turns;
mod resume;
mod roster;
mod turns;
mod wakes;
mod wildcards;

use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
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
    websocket::{Frame, TEXT, only_frame},
};
use tokio::{task::unconstrained, time::Instant};

use super::{inbox::HeldPermit, read_slice::ReadSlice, submission::Submission, *};
use crate::{
    connection::testing::simulate,
    event::{EventDraft, tests::draft},
    log::{LogWindow, MessageIdLimits},
    memory::{MemoryExceeded, MemoryLimits, MemoryUse},
    outbox::{Outbox, OutboxLimits, OutboxPool},
    scheduler::{Cost, QUANTUM},
};

/// Limits that a test reaches only if it replaces one of them.
pub(crate) const WIDE: RegistryLimits = RegistryLimits {
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
        } = HubParts::new(&registry, timeouts, shards, &Clock::system());
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
                profile(UserName::parse(user).unwrap()),
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

/// A connection of this user, from the same address as all others.
fn profile(user: UserName) -> ConnectionProfile {
    ConnectionProfile {
        transport: crate::transport::TransportKind::WebSocket,
        user,
        address: Ipv4Addr::LOCALHOST.into(),
        since: 1_800_000_000,
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
        self.received_frames().iter().map(decode).collect()
    }

    fn received_frames(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !self.outbox.is_empty() {
            let written = self.outbox.with_next_write(|slices| {
                frames.extend(slices.iter().map(|frame| only_frame(frame)));
                slices.iter().map(|frame| frame.len()).sum()
            });
            self.outbox.advance_written(written);
        }
        frames
    }

    fn received_ids(&self) -> Vec<String> {
        self.received().into_iter().map(|(id, _)| id).collect()
    }
}

fn name(tenant: &str) -> TenantName {
    TenantName::parse(tenant).unwrap()
}

fn decode(frame: &Frame) -> (String, u64) {
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
