//! Listing the connections of a tenant.

use sidewire_presence::ConnectionKey;
use tokio::time::sleep;

use super::{admin::asked, *};

const SECOND: Duration = Duration::from_secs(1);

/// Returns a page of the connections of acme, while all shards answer.
async fn page(
    fixture: &HubFixture,
    filter: &ConnectionFilter,
    after: Option<ConnectionKey>,
    limit: usize,
) -> ConnectionPage {
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let question = admin.list_connections(&acme, filter.clone(), after, limit, SECOND);
    let shards: Vec<_> = (0..fixture.shards.len()).collect();
    asked(fixture, &shards, question).await.unwrap()
}

/// Returns the ids of all connections that match, read in pages of this size, and the number of
/// pages.
async fn listed(
    fixture: &HubFixture,
    filter: &ConnectionFilter,
    limit: usize,
) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = page(fixture, filter, after, limit).await;
        assert!(page.connections.len() <= limit);
        ids.extend(page.connections.iter().map(|it| it.key.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            return (ids, pages);
        }
    }
}

fn of_user(user: &str) -> ConnectionFilter {
    ConnectionFilter {
        user: Some(UserName::parse(user).unwrap()),
        topic: None,
    }
}

fn of_topic(topic: &str) -> ConnectionFilter {
    ConnectionFilter {
        user: None,
        topic: Some(Topic::parse(topic).unwrap()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_listed_with_its_user_topics_and_backlog_until_it_ends() {
    let fixture = HubFixture::new(2, WIDE);
    let ann = fixture.connect(1, "acme", "ann");
    ann.subscribe(&["project:1", "board:1", "task:*"]);
    ann.unsubscribe(&["board:1"]);
    ann.outbox.push_reply(vec![0; 7].into());
    let everything = ConnectionFilter::default();
    let listed = page(&fixture, &everything, None, 10).await;
    let expected = ListedConnection {
        key: ConnectionKey { shard: 1, id: 1 },
        profile: profile(UserName::parse("ann").unwrap()),
        encoding: EnvelopeEncoding::Protobuf,
        topics: 2,
        outbox_frames: 1,
        outbox_bytes: 7,
    };
    assert_eq!(
        listed,
        ConnectionPage {
            connections: vec![expected],
            next: None,
        }
    );
    drop(ann);
    let listed = page(&fixture, &everything, None, 10).await;
    assert_eq!(listed, ConnectionPage::default());
}

#[tokio::test(start_paused = true)]
async fn pages_of_any_size_list_every_matching_connection_of_the_tenant_once() {
    let fixture = HubFixture::new(2, WIDE);
    let _namesake = fixture.connect(0, "globex", "ann");
    let clients: Vec<_> = (0..40)
        .map(|n| {
            let user = if n % 4 == 0 { "ann" } else { "bob" };
            let client = fixture.connect(n % 2, "acme", user);
            match n % 8 {
                0..4 => client.subscribe(&["project:1"]),
                4 => client.subscribe(&["project:*", "project:1"]),
                _ => client.subscribe(&["board:1"]),
            };
            client
        })
        .collect();
    let both = ConnectionFilter {
        user: of_user("ann").user,
        topic: of_topic("project:1").topic,
    };
    for (filter, count) in [
        (ConnectionFilter::default(), 40),
        (of_user("ann"), 10),
        (of_topic("project:1"), 25),
        (of_topic("project:2"), 5),
        (of_topic("tenant:*"), 40),
        (of_user("eve"), 0),
        (both, 10),
    ] {
        let (all, pages) = listed(&fixture, &filter, 1_000).await;
        assert_eq!((all.len(), pages), (count, 1), "{filter:?}");
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), count);
        for limit in [1, 3, 19, 20, 21, 39, 40] {
            let (in_parts, _) = listed(&fixture, &filter, limit).await;
            assert_eq!(in_parts, all, "{filter:?} {limit}");
        }
    }
    drop(clients);
}

#[tokio::test(start_paused = true)]
async fn a_page_looks_at_1000_more_connections_than_it_may_list() {
    let fixture = HubFixture::new(1, WIDE);
    let clients: Vec<_> = (1..=2_500)
        .map(|n| {
            let client = fixture.connect(0, "acme", "ann");
            if n > 1_200 {
                client.subscribe(&["project:1"]);
            }
            client
        })
        .collect();
    let filter = of_topic("project:1");
    let first = page(&fixture, &filter, None, 1).await;
    assert_eq!(first.connections, []);
    assert_eq!(
        first.next,
        Some(ConnectionKey {
            shard: 0,
            id: 1_001
        })
    );
    let second = page(&fixture, &filter, first.next, 1).await;
    assert_eq!(second.connections[0].key.id, 1_201);
    assert_eq!(second.next, Some(second.connections[0].key));
    let (ids, pages) = listed(&fixture, &filter, 200).await;
    assert_eq!((ids.len(), pages), (1_300, 8));
    // Each page is charged for what it has looked at.
    let before = fixture.shards[0].total_charged();
    page(&fixture, &filter, None, 1).await;
    let charged = fixture.shards[0].total_charged() - before;
    assert_eq!(charged, Cost::STEP.times(1_001));
    drop(clients);
}

#[tokio::test(start_paused = true)]
async fn connections_that_come_and_go_between_two_pages_do_not_move_the_others() {
    let fixture = HubFixture::new(1, WIDE);
    let mut clients: Vec<_> = (0..6).map(|_| fixture.connect(0, "acme", "ann")).collect();
    let everything = ConnectionFilter::default();
    let first = page(&fixture, &everything, None, 3).await;
    // One of those listed, and one of those to come.
    drop((clients.remove(4), clients.remove(0)));
    let _late = fixture.connect(0, "acme", "bob");
    let second = page(&fixture, &everything, first.next, 3).await;
    let ids = second.connections.iter().map(|it| it.key.id);
    assert_eq!(ids.collect::<Vec<_>>(), [4, 6, 7]);
    assert_eq!(second.next, None);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_answer_fails_the_listing() {
    let fixture = HubFixture::new(2, WIDE);
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let filter = ConnectionFilter::default();
    let question = admin.list_connections(&acme, filter, None, 10, SECOND);
    let silent = asked(&fixture, &[0], question).await;
    assert_eq!(silent, Err(ShardTimeout(1)));
}

#[tokio::test(start_paused = true)]
async fn each_shard_has_the_whole_time_to_answer() {
    let fixture = HubFixture::new(3, WIDE);
    let clients: Vec<_> = (0..3)
        .map(|shard| fixture.connect(shard, "acme", "ann"))
        .collect();
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let late = fixture.shards.iter().zip(1..).map(async |(shard, number)| {
        sleep(SECOND * number * 4 / 5).await;
        shard.answer_calls().await;
    });
    let question = admin.list_connections(&acme, ConnectionFilter::default(), None, 10, SECOND);
    let listed = tokio::select! {
        biased;
        _ = futures_util::future::join_all(late) => unreachable!("the publisher keeps the inboxes open"),
        listed = question => listed,
    };
    assert_eq!(listed.unwrap().connections.len(), clients.len());
}
