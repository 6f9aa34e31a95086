//! What people ask about tenants, and the bounds of the answers.

use super::{admin::asked, *};
use crate::hub::{EventSearch, NewestEvents};

const SECOND: Duration = Duration::from_secs(1);

/// Appends events with these topics to the log of acme, as `m1`, `m2` and so on.
async fn append_each(fixture: &HubFixture, topics: &[&str]) {
    for (index, topic) in topics.iter().enumerate() {
        let id = format!("m{}", index + 1);
        append(
            &fixture.publisher,
            &name("acme"),
            vec![draft(&id, &[topic])],
        )
        .await
        .unwrap();
    }
}

fn search(topic: Option<&str>, after: Option<Position>, count: usize) -> EventSearch {
    EventSearch {
        topic: topic.map(|topic| Topic::parse(topic).unwrap()),
        after,
        count,
        looked_at_max: 1_000,
    }
}

fn newest(fixture: &HubFixture, search: &EventSearch) -> NewestEvents {
    let admin = fixture.publisher.admin();
    admin.find_newest_events(&name("acme"), search).unwrap()
}

fn offsets(found: &NewestEvents) -> Vec<u64> {
    let events = found.events.iter();
    events.map(|event| event.position().offset).collect()
}

#[tokio::test(start_paused = true)]
async fn the_newest_events_come_in_order_with_the_number_of_those_left_out() {
    let fixture = HubFixture::new(1, WIDE);
    assert!(
        fixture
            .publisher
            .admin()
            .find_newest_events(&name("acme"), &search(None, None, 1))
            .is_none()
    );
    append_each(&fixture, &["a:1", "a:2", "b:1", "a:1", "b:2", "a:1"]).await;
    let all = newest(&fixture, &search(None, None, 10));
    assert_eq!(
        (offsets(&all), all.head.offset),
        (vec![1, 2, 3, 4, 5, 6], 6)
    );
    let at = |offset| Some(Position { offset, ..all.head });
    for (topic, after, count, expected, skipped) in [
        (None, at(6), 10, vec![], 0),
        (None, at(4), 10, vec![5, 6], 0),
        (None, at(1), 2, vec![5, 6], 3),
        (None, None, 2, vec![5, 6], 0),
        (Some("a:1"), at(0), 10, vec![1, 4, 6], 0),
        (Some("a:1"), at(0), 2, vec![4, 6], 1),
        (Some("a:1"), at(1), 2, vec![4, 6], 0),
        (Some("b:*"), at(0), 10, vec![3, 5], 0),
        (Some("c:1"), at(0), 10, vec![], 0),
    ] {
        let found = newest(&fixture, &search(topic, after, count));
        let case = format!("{topic:?} {after:?} {count}");
        assert_eq!(
            (offsets(&found), found.skipped),
            (expected, skipped),
            "{case}"
        );
    }
    let elsewhere = Position {
        epoch: Epoch::from_bits(7),
        offset: 4,
    };
    let found = newest(&fixture, &search(None, Some(elsewhere), 10));
    assert_eq!((offsets(&found).len(), found.skipped), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_search_for_a_rare_topic_stops_after_so_many_events_and_says_so() {
    let fixture = HubFixture::new(1, WIDE);
    let topics: Vec<_> = (0..400)
        .map(|n| if n == 0 { "a:1" } else { "b:1" })
        .collect();
    append_each(&fixture, &topics).await;
    let mut search = search(Some("a:1"), None, 1);
    assert_eq!(offsets(&newest(&fixture, &search)), [1]);
    search.looked_at_max = 300;
    search.after = Some(Position {
        offset: 0,
        ..newest(&fixture, &search).head
    });
    let found = newest(&fixture, &search);
    assert_eq!((offsets(&found).len(), found.skipped), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_found_by_its_exact_position() {
    let fixture = HubFixture::new(1, WIDE);
    append_each(&fixture, &["a:1", "a:2"]).await;
    let head = newest(&fixture, &search(None, None, 1)).head;
    let find = |epoch, offset| {
        let admin = fixture.publisher.admin();
        let found = admin.find_event(&name("acme"), Position { epoch, offset });
        found.map(|event| event.topics()[0].to_string())
    };
    assert_eq!(find(head.epoch, 1), Some("a:1".to_owned()));
    assert_eq!(find(head.epoch, 2), Some("a:2".to_owned()));
    for (epoch, offset) in [(head.epoch, 0), (head.epoch, 3), (Epoch::from_bits(7), 1)] {
        assert_eq!(find(epoch, offset), None);
    }
}

#[test]
fn tenants_are_listed_by_their_connections_and_found_by_a_part_of_their_name() {
    let fixture = HubFixture::new(2, WIDE);
    let _clients =
        ["acme", "globex", "acme", "initech"].map(|tenant| fixture.connect(1, tenant, "ann"));
    let admin = fixture.publisher.admin();
    let list = |search: &str, skip, limit| {
        let listing = admin.list_tenants(search, skip, limit);
        let names = listing.tenants.iter().map(|it| it.name.to_string());
        (names.collect::<Vec<_>>(), listing.found, listing.all)
    };
    let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        list("", 0, 9),
        (named(&["acme", "globex", "initech"]), 3, 3)
    );
    assert_eq!(list("", 1, 1), (named(&["globex"]), 3, 3));
    assert_eq!(list("e", 0, 2), (named(&["acme", "globex"]), 3, 3));
    assert_eq!(list("ini", 0, 9), (named(&["initech"]), 1, 3));
    assert_eq!(admin.list_tenants("", 0, 1).tenants[0].view.connections, 2);
}

#[tokio::test(start_paused = true)]
async fn the_busiest_topics_are_summed_over_the_shards_without_implicit_ones() {
    let fixture = HubFixture::new(2, WIDE);
    let _namesake = fixture.connect(0, "globex", "zoe").subscribe(&["room:1"]);
    let clients: Vec<_> = (0..6)
        .map(|n| fixture.connect(n % 2, "acme", &format!("user-{n}")))
        .collect();
    for client in &clients {
        client.subscribe(&["room:1"]);
    }
    clients[0].subscribe(&["room:2"]);
    clients[1].subscribe(&["room:2", "room:*"]);
    clients[2].subscribe(&["desk:1"]);
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let list = async |search: &str, limit| {
        let listing = admin.list_topics(&acme, search, limit, SECOND);
        let listing = asked(&fixture, &[0, 1], listing).await.unwrap();
        assert!(!listing.is_partial);
        let topics = listing.topics.iter();
        let topics = topics.map(|it| (it.topic.to_string(), it.subscriptions));
        topics.collect::<Vec<_>>()
    };
    let expected = [("room:1", 7), ("room:2", 3), ("desk:1", 1), ("room:*", 1)];
    let expected: Vec<_> = expected
        .map(|(topic, count)| (topic.to_owned(), count))
        .into();
    assert_eq!(list("", 10).await, expected);
    assert_eq!(list("", 2).await, expected[..2]);
    assert_eq!(list("desk", 10).await, expected[2..3]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_with_very_many_topics_lists_some_and_says_so() {
    let fixture = HubFixture::new(1, WIDE);
    let client = fixture.connect(0, "acme", "ann");
    let topics: Vec<_> = (0..9_000).map(|n| format!("room:{n}")).collect();
    for part in topics.chunks(1_000) {
        client.subscribe(&part.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let listing = asked(&fixture, &[0], admin.list_topics(&acme, "", 5, SECOND)).await;
    let listing = listing.unwrap();
    assert_eq!((listing.topics.len(), listing.is_partial), (5, true));
}

#[tokio::test(start_paused = true)]
async fn an_audience_counts_each_connection_once_and_lists_some() {
    let fixture = HubFixture::new(2, WIDE);
    let clients: Vec<_> = (0..6)
        .map(|n| fixture.connect(n % 2, "acme", "ann"))
        .collect();
    for client in &clients[..4] {
        client.subscribe(&["room:1"]);
    }
    clients[0].subscribe(&["room:2", "desk:*"]);
    clients[5].subscribe(&["room:2"]);
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let count = async |topics: &[&str], limit| {
        let topics: Arc<[_]> = topics.iter().map(|it| Topic::parse(it).unwrap()).collect();
        let audience = admin.count_audience(&acme, &topics, limit, SECOND);
        let audience = asked(&fixture, &[0, 1], audience).await.unwrap();
        let listed = audience.connections.len();
        (audience.subscriptions, audience.matched, listed)
    };
    let both = count(&["room:1", "room:2"], 10).await;
    assert_eq!(both, (vec![4, 2], Some(5), 5));
    assert_eq!(count(&["room:1", "room:2"], 3).await.2, 3);
    assert_eq!(count(&["desk:7"], 10).await, (vec![1], Some(1), 1));
    assert_eq!(count(&["tenant:*"], 10).await, (vec![6], Some(6), 6));
    assert_eq!(count(&["user:bob"], 10).await, (vec![0], Some(0), 0));
    assert_eq!(count(&["room:1"], 0).await, (vec![4], None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_large_audience_is_not_counted_but_some_of_it_is_listed() {
    let fixture = HubFixture::new(1, WIDE);
    let clients: Vec<_> = (0..1_200)
        .map(|_| fixture.connect(0, "acme", "ann"))
        .collect();
    let (acme, admin) = (name("acme"), fixture.publisher.admin());
    let topics: Arc<[_]> = ["user:ann", "tenant:*"]
        .map(|it| Topic::parse(it).unwrap())
        .into();
    let audience = admin.count_audience(&acme, &topics, 50, SECOND);
    let audience = asked(&fixture, &[0], audience).await.unwrap();
    assert_eq!(audience.subscriptions, [clients.len(), clients.len()]);
    assert_eq!((audience.matched, audience.connections.len()), (None, 50));
}
