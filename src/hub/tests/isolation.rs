//! Sixteen tenants that share the names of their topics and users, and random operations: no
//! event, client event or presence message crosses from one tenant to another.

mod sent_by_clients;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use self::sent_by_clients::Received;
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
    user: UserName,
    client: HubClient,
    position: Option<Position>,
}

/// Counts of what the run has covered.
#[derive(Debug, Default)]
struct Seen {
    operations: usize,
    events: usize,
    replayed: usize,
    client_events: usize,
    present: usize,
    absent: usize,
}

impl Seen {
    /// Counts what a client has received. `is_behind`: true while it catches up.
    fn count(&mut self, received: &Received, is_behind: bool) {
        match (&received.message, &received.presence) {
            (Some(_), _) => self.client_events += 1,
            (_, Some(presence)) if presence.absent => self.absent += 1,
            (_, Some(_)) => self.present += 1,
            (None, None) => {
                self.events += 1;
                self.replayed += usize::from(is_behind);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_crosses_from_one_tenant_to_another_in_200_000_random_operations() {
    let operations = std::env::var("SIDEWIRE_OPERATIONS")
        .map_or(OPERATIONS, |text| text.parse().expect("a number"));
    let seen = operate(operations).await;
    assert_eq!(seen.operations, operations);
    assert!(seen.events > operations / 2, "{seen:?}");
    assert!(seen.replayed > operations / 100, "{seen:?}");
    assert!(seen.client_events > operations / 20, "{seen:?}");
    assert!(seen.present > operations / 20, "{seen:?}");
    assert!(seen.absent > operations / 200, "{seen:?}");
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
        let number = seen.operations;
        match random.random_range(0..24) {
            0 | 1 if members.len() < CLIENTS => members.extend(connect(&fixture, &mut random)),
            2 if !members.is_empty() => {
                let gone = random.random_range(0..members.len());
                drop(members.swap_remove(gone));
            }
            3 => pass_time(&fixture).await,
            4..10 => publish(&fixture, &mut random, number).await,
            10..14 if !members.is_empty() => {
                let sender = &members[random.random_range(0..members.len())];
                send(sender, &fixture, &mut random, number);
            }
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

/// Ends what is idle, and the presence that has lingered.
async fn pass_time(fixture: &HubFixture) {
    tokio::time::advance(Duration::from_millis(500)).await;
    fixture
        .registry
        .sweep(Instant::now() + Duration::from_millis(1));
    for shard in &fixture.shards {
        let mut context = Context::from_waker(Waker::noop());
        let ending = pin!(unconstrained(shard.end_lingering()));
        assert!(ending.poll(&mut context).is_pending());
        turn(shard);
    }
}

fn connect(fixture: &HubFixture, random: &mut StdRng) -> Option<Member> {
    let tenant = random.random_range(0..TENANTS);
    let shard = random.random_range(0..2);
    let user = UserName::parse(["ann", "bob"][random.random_range(0..2)]).unwrap();
    let outbox = Rc::new(Outbox::new(&OutboxPool::new(ROOMY)));
    let joined = fixture.shards[shard].join_tenant(
        &tenant_name(tenant),
        profile(user.clone()),
        Rc::clone(&outbox),
    );
    let hub = RefCell::new(joined.ok()?);
    Some(Member {
        tenant,
        user,
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

/// Sends a client event, or changes the presence of the sender.
fn send(sender: &Member, fixture: &HubFixture, random: &mut StdRng, number: usize) {
    match random.random() {
        true => sender.relay(fixture, random, number),
        false => sender.change_presence(fixture, random, number),
    }
    fixture.shards.iter().for_each(turn);
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
    if hub.may_send_presence(false) {
        hub.send_presence(|| Ok(()));
    }
    hub.is_live() || hub.run_step(&mut all()) != SubscribeProgress::Overtaken
}

/// Reads all that was received and checks that none is another tenant's.
fn look(member: &mut Member, seen: &mut Seen) {
    let prefix = format!("{}.", member.tenant);
    let is_behind = !member.client.hub().is_live();
    for frame in member.client.received_frames() {
        let received = Received::from_frame(&frame);
        let origin = received.origin();
        assert!(origin.starts_with(&prefix), "{origin} came to {prefix}");
        seen.count(&received, is_behind);
    }
}

fn tenant_name(tenant: usize) -> TenantName {
    name(&format!("tenant-{tenant}"))
}
