//! Calls to the shards outside the path of an event.

use super::*;
use crate::memory::MemoryLimits;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the result of a call while the shards of `answering` answer.
pub(super) async fn asked<T>(
    fixture: &HubFixture,
    answering: &[ShardId],
    question: impl Future<Output = T>,
) -> T {
    let shards = answering
        .iter()
        .map(|id| fixture.shards[*id].answer_calls());
    tokio::select! {
        biased;
        _ = futures_util::future::join_all(shards), if !answering.is_empty() => unreachable!("the publisher keeps the inboxes open"),
        answer = question => answer,
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_does_not_answer_is_named_after_the_timeout() {
    let fixture = HubFixture::new(3, WIDE);
    let admin = fixture.publisher.admin();
    assert_eq!(
        asked(&fixture, &[0, 1, 2], admin.ping(SECOND)).await,
        Ok(())
    );
    let began = Instant::now();
    let silent = asked(&fixture, &[0, 2], admin.ping(SECOND)).await;
    assert_eq!((silent, began.elapsed()), (Err(ShardTimeout(1)), SECOND));
    // Calls that wait for it in vain take up slots of a bounded inbox.
    for _ in 0..200 {
        assert!(admin.ping(SECOND).await.is_err());
    }
    assert_eq!(
        asked(&fixture, &[0, 1, 2], admin.ping(SECOND)).await,
        Ok(())
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_already_closing_is_not_counted_or_closed_again() {
    let fixture = HubFixture::new(2, WIDE);
    let admin = fixture.publisher.admin();
    let [slow, one, other] = [0, 0, 1].map(|shard| fixture.connect(shard, "acme", "ann"));
    let namesake = fixture.connect(1, "globex", "ann");
    slow.outbox.signals().request_end(CloseReason::TooSlow);
    let ann = UserName::parse("ann").unwrap();
    let acme = name("acme");
    let disconnect = || {
        asked(
            &fixture,
            &[0, 1],
            admin.disconnect_user(&acme, &ann, false, SECOND),
        )
    };
    assert_eq!(disconnect().await, Ok(2));
    assert_eq!(disconnect().await, Ok(0));
    let endings = [&slow, &one, &other, &namesake].map(|client| client.outbox.signals().ending());
    let disconnected = Some(CloseReason::Disconnected);
    assert_eq!(
        endings,
        [Some(CloseReason::TooSlow), disconnected, disconnected, None]
    );
}

#[tokio::test(start_paused = true)]
async fn a_ping_does_not_wait_behind_other_calls() {
    let fixture = HubFixture::new(1, WIDE);
    let admin = fixture.publisher.admin();
    let (acme, ann) = (name("acme"), UserName::parse("ann").unwrap());
    let mut context = Context::from_waker(Waker::noop());
    // More calls than the inbox has slots.
    let mut asked: Vec<_> = (0..200)
        .map(|_| {
            Box::pin(unconstrained(
                admin.disconnect_user(&acme, &ann, false, SECOND),
            ))
        })
        .collect();
    for question in &mut asked {
        assert!(question.as_mut().poll(&mut context).is_pending());
    }
    let mut ping = pin!(unconstrained(admin.ping(SECOND)));
    assert!(ping.as_mut().poll(&mut context).is_pending());
    let mut answering = pin!(unconstrained(fixture.shards[0].answer_calls()));
    assert!(answering.as_mut().poll(&mut context).is_pending());
    assert_eq!(ping.as_mut().poll(&mut context), Poll::Ready(Ok(())));
    // One of the others is answered: the shard yields in between.
    let answered = asked
        .iter_mut()
        .map(|question| question.as_mut().poll(&mut context))
        .filter(Poll::is_ready);
    assert_eq!(answered.count(), 1);
}

#[test]
fn a_tenant_view_asks_no_shard_and_counts_shared_users_and_topics_once() {
    let fixture = HubFixture::new(2, WIDE);
    let admin = fixture.publisher.admin();
    let acme = name("acme");
    let look = || admin.view_tenant(&acme);
    assert_eq!(look(), None);
    let clients = [(0, "ann"), (1, "ann"), (1, "bob")].map(|(shard, user)| {
        let client = fixture.connect(shard, "acme", user);
        client.subscribe(&["project:1", &format!("board:{user}")]);
        client
    });
    let view = look().unwrap();
    assert_eq!((view.connections, view.users, view.topics), (3, 2, 3));
    assert_eq!((view.head, view.tail), (view.head, view.head));
    let [first, second, third] = clients;
    second.unsubscribe(&["project:1", "board:ann"]);
    drop(third);
    let view = look().unwrap();
    assert_eq!((view.connections, view.users, view.topics), (2, 1, 2));
    drop(first);
    let view = look().unwrap();
    assert_eq!((view.connections, view.users, view.topics), (1, 1, 0));
    drop(second);
    assert_eq!(look(), None);
}

#[tokio::test(start_paused = true)]
async fn lowered_limits_apply_from_then_on() {
    let fixture = HubFixture::new(1, WIDE);
    let timeouts = PublishTimeouts {
        inbox: SECOND,
        ack: 2 * SECOND,
    };
    let first = fixture.connect(0, "acme", "ann");
    fixture
        .publisher
        .configure(timeouts, 1, MemoryLimits::UNBOUNDED);
    let full = append(
        &fixture.publisher,
        &name("globex"),
        vec![draft("m1", &["a:1"])],
    )
    .await;
    assert_eq!(full, Err(AppendError::TenantsFull(TenantsFull)));
    // The shard does not poll its inbox.
    let began = Instant::now();
    let published = append(
        &fixture.publisher,
        &name("acme"),
        vec![draft("m2", &["a:1"])],
    )
    .await;
    assert!(!published.unwrap().acknowledged);
    assert_eq!(began.elapsed(), 2 * SECOND);
    fixture
        .publisher
        .configure(timeouts, 2, MemoryLimits { max: 0, window: 0 });
    let began = Instant::now();
    let no_memory = append(
        &fixture.publisher,
        &name("acme"),
        vec![draft("m3", &["a:1"])],
    )
    .await;
    assert_eq!(no_memory, Err(AppendError::NoMemory));
    assert!(
        (SECOND..2 * SECOND).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    drop(first);
}
