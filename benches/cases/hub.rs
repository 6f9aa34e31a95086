//! The hub as it is: an event appended, sent to a shard, offered to the outboxes
//! that it matches, and acknowledged. Taking it out of the outboxes again is the
//! connections' part, and not measured.

use std::{rc::Rc, sync::Arc, task::Context, task::Waker, time::Duration};

use sidewire::{
    event::{Draft, DraftParts},
    hub::{
        InboxLimits, Membership, PublishTimeouts, Publisher, Registry, RegistryLimits, ShardHub,
        hub,
    },
    log::Window,
    outbox::{Outbox, OutboxLimits},
    protocol::{MessageId, TenantName, Topic, UserName},
    random::Random,
};
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    task::spawn_local,
};

use super::{Case, ROUND, Subject, events::payload};

/// The topics of the connection whose topics are looked up.
const TOPICS: usize = 10_000;

pub(super) fn cases() -> Vec<Case> {
    let look_ups = [1, 8].map(|topics| {
        Case::new(format!("look_up/{topics}_of_{TOPICS}_topics"), move || {
            Publish::of_many_topics(topics)
        })
    });
    let fan_outs = [1, 100, 10_000].map(|connections| {
        Case::new(format!("publish/to_{connections}"), move || {
            Publish::to_many(connections)
        })
    });
    look_ups.into_iter().chain(fan_outs).collect()
}

/// One shard with the connections of one tenant, and a backend.
struct Publish {
    runtime: LocalRuntime,
    publisher: Publisher,
    tenant: TenantName,
    connections: Vec<(Membership, Rc<Outbox>)>,
    payload: Vec<u8>,
    message_id: MessageId,
    /// Those that events relate to, in turn.
    topics: Vec<Topic>,
    /// How many of them each event relates to.
    topics_an_event: usize,
    next_topic: usize,
    drafts: Vec<Draft>,
}

impl Publish {
    /// Events of one topic for this many connections.
    fn to_many(connections: usize) -> Self {
        Self::new(connections, topics(1), 1)
    }

    /// Events of so many of the topics that one connection has.
    fn of_many_topics(topics_an_event: usize) -> Self {
        Self::new(1, topics(TOPICS), topics_an_event)
    }

    fn new(connections: usize, topics: Vec<Topic>, topics_an_event: usize) -> Self {
        let runtime = runtime();
        let (publisher, shard) = one_shard();
        let tenant = TenantName::parse("acme").unwrap();
        let connections = (0..connections)
            .map(|number| connect(&shard, &tenant, number, &topics))
            .collect();
        runtime.block_on(async {
            spawn_local(async move { shard.run().await });
        });
        Self {
            runtime,
            publisher,
            tenant,
            connections,
            payload: payload(),
            message_id: MessageId::parse("0199f0a4-7c5e-7d3b-9a51-3f0c8e6b2d17").unwrap(),
            topics,
            topics_an_event,
            next_topic: 0,
            drafts: Vec::new(),
        }
    }

    fn draft(&mut self) -> Draft {
        let first = self.next_topic;
        self.next_topic = (first + self.topics_an_event) % self.topics.len();
        Draft::new(DraftParts {
            kept: &[&self.payload],
            message_id: self.message_id.clone(),
            append_message_id: false,
            append_timestamp: None,
            topics: self.topics[first..][..self.topics_an_event].into(),
        })
    }
}

impl Subject for Publish {
    fn prepare(&mut self) {
        for (_, outbox) in &self.connections {
            empty(outbox);
        }
        self.drafts.clear();
        for _ in 0..ROUND {
            let draft = self.draft();
            self.drafts.push(draft);
        }
    }

    fn operate(&mut self) {
        let drafts = vec![self.drafts.pop().unwrap()];
        let published = self.runtime.block_on(async {
            let appended = self.publisher.append(&self.tenant, drafts).await.unwrap();
            appended.acknowledged().await
        });
        let matched = published.events[0].matched;
        assert_eq!(matched, Some(self.connections.len() as u64));
    }
}

/// A shard's event loop, in which no time goes by but what is waited for: a timer
/// that happened to be due would count as work of the hub.
fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build_local(LocalOptions::default())
        .unwrap()
}

fn one_shard() -> (Publisher, Rc<ShardHub>) {
    let limits = RegistryLimits {
        tenants: 1,
        // Full after the first round: from then on each event evicts one.
        window: Window {
            events: usize::try_from(ROUND).unwrap(),
            bytes: 16 << 20,
            age: Duration::from_mins(5),
        },
        inbox: InboxLimits::default(),
    };
    let timeouts = PublishTimeouts {
        inbox: Duration::from_secs(2),
        ack: Duration::from_secs(5),
    };
    let registry = Arc::new(Registry::new(limits, Arc::new(Random::from_seed(1))));
    let (publisher, seeds) = hub(&registry, timeouts, &[Arc::default()]);
    let shard = seeds.into_iter().next().unwrap().grow();
    (publisher, Rc::new(shard))
}

fn connect(
    shard: &Rc<ShardHub>,
    tenant: &TenantName,
    number: usize,
    topics: &[Topic],
) -> (Membership, Rc<Outbox>) {
    let user = UserName::parse(&format!("user-{number}")).unwrap();
    let outbox = Rc::new(Outbox::new(OutboxLimits {
        frames: 1000,
        bytes: 1 << 20,
    }));
    // A waker that does nothing: what a wake-up costs is the event loop's part.
    outbox.register(&Context::from_waker(Waker::noop()));
    let membership = shard.join(tenant, &user, Rc::clone(&outbox)).unwrap();
    membership.subscribe(topics, topics.len()).unwrap();
    (membership, outbox)
}

fn topics(count: usize) -> Vec<Topic> {
    (0..count)
        .map(|number| Topic::parse(&format!("project:project-{number}")).unwrap())
        .collect()
}

/// Takes everything out of the outbox, as a connection does that writes it.
fn empty(outbox: &Outbox) {
    while !outbox.is_empty() {
        let bytes = outbox.lend(|slices| slices.iter().map(|slice| slice.len()).sum());
        outbox.advance(bytes);
    }
}
