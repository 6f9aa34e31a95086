//! Sixteen tenants that share the names of their topics and users, and random operations: no
//! event crosses from one tenant to another.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const TENANTS: usize = 16;
const CLIENTS: usize = 100;

/// Number of operations, unless `SIDEWIRE_OPERATIONS` sets another.
const OPERATIONS: usize = 200_000;

/// The topics that clients subscribe to.
const SUBSCRIBED: [&str; 4] = ["a:1", "a:2", "b:1", "a:*"];

const TOPICS: [&str; 6] = ["a:1", "a:2", "b:1", "user:ann", "user:bob", "tenant:*"];

struct Member {
    tenant: usize,
    client: HubClient,
    position: Option<Position>,
}

/// Counts of what the run has covered.
#[derive(Debug, Default)]
struct Seen {
    operations: usize,
    events: usize,
    replayed: usize,
}

#[test]
fn nothing_crosses_from_one_tenant_to_another_in_200_000_random_operations() {
    let operations = std::env::var("SIDEWIRE_OPERATIONS")
        .map_or(OPERATIONS, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let seen = runtime.block_on(operate(operations));
    assert_eq!(seen.operations, operations);
    assert!(seen.events > operations / 2, "{seen:?}");
    assert!(seen.replayed > operations / 100, "{seen:?}");
}

async fn operate(operations: usize) -> Seen {
    let window = LogWindow {
        events: 50,
        ..WIDE.window
    };
    // The limit is below the number of tenants, so tenants are forgotten and created again.
    let limits = RegistryLimits {
        window,
        tenants: TENANTS - 2,
        ..WIDE
    };
    let fixture = HubFixture::new(2, limits);
    let mut random = StdRng::seed_from_u64(1);
    let mut members: Vec<Member> = Vec::new();
    let mut seen = Seen::default();
    while seen.operations < operations {
        seen.operations += 1;
        match random.random_range(0..20) {
            0 | 1 if members.len() < CLIENTS => members.extend(connect(&fixture, &mut random)),
            2 if !members.is_empty() => {
                let gone = random.random_range(0..members.len());
                drop(members.swap_remove(gone));
            }
            3 => fixture
                .registry
                .sweep(Instant::now() + Duration::from_millis(1)),
            4..10 => publish(&fixture, &mut random, seen.operations).await,
            _ if !members.is_empty() => {
                let index = random.random_range(0..members.len());
                let member = &mut members[index];
                subscribe(member, &mut random);
                let stays = advance(member);
                look(member, &mut seen);
                if !stays {
                    drop(members.swap_remove(index));
                }
            }
            _ => {}
        }
    }
    seen
}

fn connect(fixture: &HubFixture, random: &mut StdRng) -> Option<Member> {
    let tenant = random.random_range(0..TENANTS);
    let shard = random.random_range(0..2);
    let user = UserName::parse(["ann", "bob"][random.random_range(0..2)]).unwrap();
    let outbox = Rc::new(Outbox::new(&OutboxPool::new(ROOMY)));
    let joined = fixture.shards[shard].join_tenant(&tenant_name(tenant), &user, Rc::clone(&outbox));
    let hub = RefCell::new(joined.ok()?);
    Some(Member {
        tenant,
        client: HubClient { outbox, hub },
        position: None,
    })
}

/// Each event's id begins with its tenant.
async fn publish(fixture: &HubFixture, random: &mut StdRng, number: usize) {
    let tenant = random.random_range(0..TENANTS);
    let topics: BTreeSet<_> = (0..random.random_range(1..4))
        .map(|_| TOPICS[random.random_range(0..TOPICS.len())])
        .collect();
    let topics: Vec<_> = topics.into_iter().collect();
    let event = draft(&format!("{tenant}.{number}"), &topics);
    let name = tenant_name(tenant);
    let appended = fixture.publisher.append(&name, vec![event]).await;
    for shard in &fixture.shards {
        turn(shard);
    }
    if let Ok(appended) = appended {
        assert!(appended.wait_acknowledged().await.acknowledged);
    }
}

fn subscribe(member: &mut Member, random: &mut StdRng) {
    if !member.client.hub().is_live() {
        return;
    }
    let topic = Topic::parse(SUBSCRIBED[random.random_range(0..SUBSCRIBED.len())]).unwrap();
    if random.random_range(0..4) == 0 {
        member.client.hub().unsubscribe(&[topic]);
        return;
    }
    let from = member.position.map(|position| {
        Ok(Position {
            offset: position.offset.saturating_sub(random.random_range(0..30)),
            ..position
        })
    });
    let mut hub = member.client.hub();
    let answer = hub.subscribe(&[topic], 10, from).unwrap();
    let position = answer.map_or_else(|| hub.member.position(), |answer| answer.position);
    member.position = Some(position);
}

/// Returns true if the member stays: one that is overtaken is closed.
fn advance(member: &Member) -> bool {
    let mut hub = member.client.hub();
    hub.is_live() || hub.run_step(&mut all()) != SubscribeProgress::Overtaken
}

/// Reads all received events and checks that none is another tenant's.
fn look(member: &mut Member, seen: &mut Seen) {
    let prefix = format!("{}.", member.tenant);
    let is_behind = !member.client.hub().is_live();
    for (id, _) in member.client.received() {
        assert!(id.starts_with(&prefix), "{id} came to {prefix}");
        seen.events += 1;
        seen.replayed += usize::from(is_behind);
    }
}

fn tenant_name(tenant: usize) -> TenantName {
    name(&format!("tenant-{tenant}"))
}
