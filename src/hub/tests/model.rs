//! Random operations against a naive model of which client receives which event.

use super::*;
use crate::memory::MemoryUse;

#[derive(Debug, Clone)]
enum Step {
    Connect {
        shard: ShardId,
        tenant: usize,
        user: usize,
        encoding: EnvelopeEncoding,
    },
    Subscribe {
        client: usize,
        topics: Vec<usize>,
    },
    Unsubscribe {
        client: usize,
        topics: Vec<usize>,
    },
    Publish {
        tenant: usize,
        events: Vec<Vec<usize>>,
    },
    Disconnect {
        client: usize,
    },
}

const TENANTS: [&str; 2] = ["acme", "other"];
const USERS: [&str; 2] = ["ann", "bob"];
/// Events relate to all but the wildcards.
const TOPICS: [&str; 9] = [
    "a:1", "a:2", "b:1", "b:a:1", "user:ann", "user:bob", "tenant:*", "a:*", "b:*",
];

/// The topics that can be subscribed to.
const SUBSCRIBED: [usize; 6] = [0, 1, 2, 3, 7, 8];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..12_usize;
    let topics = prop::collection::vec(prop::sample::select(&SUBSCRIBED), 0..4);
    let step = prop_oneof![
        2 => (0..3_usize, 0..2_usize, 0..2_usize, prop::sample::select(&EnvelopeEncoding::ALL))
            .prop_map(|(shard, tenant, user, encoding)| {
                Step::Connect { shard, tenant, user, encoding }
            }),
        4 => (client.clone(), topics.clone())
            .prop_map(|(client, topics)| Step::Subscribe { client, topics }),
        2 => (client.clone(), topics)
            .prop_map(|(client, topics)| Step::Unsubscribe { client, topics }),
        6 => (0..2_usize, prop::collection::vec(prop::collection::vec(0..7_usize, 1..4), 1..4))
            .prop_map(|(tenant, events)| Step::Publish { tenant, events }),
        1 => client.prop_map(|client| Step::Disconnect { client }),
    ];
    prop::collection::vec(step, 1..60)
}

/// A naive model of what a client should have received.
struct ModelClient {
    tenant: usize,
    user: usize,
    topics: BTreeSet<usize>,
    expected: Vec<(String, u64)>,
}

impl ModelClient {
    fn wants(&self, event: &[usize]) -> bool {
        let by_wildcard = |topic: &usize| match topic {
            0 | 1 => self.topics.contains(&7),
            2 | 3 => self.topics.contains(&8),
            _ => false,
        };
        event.iter().any(|topic| {
            let is_implicit = *topic == 6 || *topic == 4 + self.user;
            is_implicit || self.topics.contains(topic) || by_wildcard(topic)
        })
    }
}

/// Compares the tenant's snapshot with its clients, counted one by one.
fn check_counts<'a>(
    fixture: &HubFixture,
    tenant: usize,
    clients: impl Iterator<Item = &'a ModelClient>,
) {
    let (mut connections, mut users, mut topics) = (0, BTreeSet::new(), BTreeSet::<usize>::new());
    for client in clients.filter(|client| client.tenant == tenant) {
        connections += 1;
        users.insert(client.user);
        topics.extend(&client.topics);
    }
    let view = fixture
        .publisher
        .admin()
        .view_tenant(&name(TENANTS[tenant]));
    let shown = view.map_or_else(Default::default, |view| {
        (view.connections, view.users, view.topics)
    });
    assert_eq!(shown, (connections, users.len(), topics.len()));
}

proptest! {
    #[test]
    fn deliveries_match_a_naive_model(steps in steps()) {
        simulate(async {
            let fixture = HubFixture::new(3, WIDE);
            let mut clients: BTreeMap<usize, (HubClient, ModelClient)> = BTreeMap::new();
            let mut heads = [0_u64; 2];
            let mut epochs: [Option<Epoch>; 2] = [None; 2];
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Connect { shard, tenant, user, encoding } => {
                        let (tenant_name, user_name) = (TENANTS[tenant], USERS[user]);
                        let client = fixture
                            .connect_speaking(encoding, shard, tenant_name, user_name, ROOMY);
                        let model = ModelClient {
                            tenant,
                            user,
                            topics: BTreeSet::new(),
                            expected: Vec::new(),
                        };
                        let free = (0..).find(|slot| !clients.contains_key(slot)).unwrap();
                        clients.insert(free, (client, model));
                    }
                    Step::Subscribe { client, topics } => {
                        if let Some((client, model)) = clients.get_mut(&client) {
                            let names: Vec<_> = topics.iter().map(|t| TOPICS[*t]).collect();
                            let position = client.subscribe(&names);
                            assert_eq!(position.offset, heads[model.tenant]);
                            model.topics.extend(topics);
                        }
                    }
                    Step::Unsubscribe { client, topics } => {
                        if let Some((client, model)) = clients.get_mut(&client) {
                            let names: Vec<_> = topics.iter().map(|t| TOPICS[*t]).collect();
                            client.unsubscribe(&names);
                            model.topics.retain(|topic| !topics.contains(topic));
                        }
                    }
                    Step::Publish { tenant, events } => {
                        let drafts = events.iter().enumerate().map(|(index, topics)| {
                            let mut names: Vec<_> = topics.iter().map(|t| TOPICS[*t]).collect();
                            names.sort_unstable();
                            names.dedup();
                            let mut draft = draft(&format!("{number}.{index}"), &names);
                            if index == 0 && fixture.publisher.has_json_connection(&name(TENANTS[tenant])) {
                                draft.render_json().unwrap();
                            }
                            draft
                        });
                        let published = fixture.publish(TENANTS[tenant], drafts.collect()).await;
                        for (index, (topics, placed)) in
                            events.iter().zip(&published.events).enumerate()
                        {
                            let epoch = placed.position.epoch;
                            if *epochs[tenant].get_or_insert(epoch) != epoch {
                                epochs[tenant] = Some(epoch);
                                heads[tenant] = 0;
                            }
                            heads[tenant] += 1;
                            assert_eq!(placed.position.offset, heads[tenant]);
                            let mut matched = 0;
                            for (_, model) in clients.values_mut() {
                                if model.tenant == tenant && model.wants(topics) {
                                    matched += 1;
                                    let id = format!("{number}.{index}");
                                    model.expected.push((id, heads[tenant]));
                                }
                            }
                            assert_eq!(placed.matched, Some(matched));
                        }
                    }
                    Step::Disconnect { client } => {
                        if let Some((client, model)) = clients.remove(&client) {
                            assert_eq!(client.received(), model.expected);
                        }
                    }
                }
                for tenant in 0..TENANTS.len() {
                    check_counts(&fixture, tenant, clients.values().map(|(_, model)| model));
                }
            }
            for (client, model) in clients.into_values() {
                assert_eq!(client.received(), model.expected);
            }
            for shard in &fixture.shards {
                assert!(shard.is_empty());
                assert_eq!(shard.tally().subscriptions.get(), 0);
                assert_eq!(shard.tally().json_connections.get(), 0);
            }
            fixture.registry.sweep(Instant::now() + WIDE.window.age);
            assert!(fixture.registry.is_empty());
            assert_eq!(fixture.registry.memory().held_bytes(MemoryUse::Events), 0);
        });
    }
}
