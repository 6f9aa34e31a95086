//! Permits of the shards' inboxes: when a publisher waits for them, and how they are released.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_full_inbox_refuses_after_the_timeout_and_leaves_nothing_behind() {
    for inbox in [
        InboxLimits {
            places: 2,
            places_per_tenant: 10,
        },
        InboxLimits {
            places: 10,
            places_per_tenant: 2,
        },
    ] {
        // The second shard has room, but nothing refused may reach it.
        let fixture = HubFixture::new(2, RegistryLimits { inbox, ..WIDE });
        let (a, b) = (
            fixture.connect(0, "acme", "ann"),
            fixture.connect(1, "acme", "bob"),
        );
        let tenant = name("acme");
        for id in ["1", "2"] {
            let drafts = vec![draft(id, &["tenant:*"])];
            let published = tokio::select! {
                biased;
                () = fixture.shards[1].run(Duration::ZERO) => unreachable!(),
                published = append(&fixture.publisher, &tenant, drafts) => published.unwrap(),
            };
            assert!(!published.acknowledged, "shard 0 has not answered");
            assert_eq!(published.events[0].matched, None);
        }
        let begun = Instant::now();
        let refused = append(&fixture.publisher, &tenant, vec![draft("3", &["tenant:*"])]).await;
        assert_eq!(refused, Err(AppendError::NoRoom));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        let published = fixture
            .publish("acme", vec![draft("4", &["tenant:*"])])
            .await;
        assert_eq!(published.events[0].position.offset, 3);
        assert_eq!(a.received_ids(), ["1", "2", "4"]);
        assert_eq!(b.received_ids(), ["1", "2", "4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_released_permit_goes_at_once_to_one_of_two_waiting_calls() {
    for inbox in [
        InboxLimits {
            places: 1,
            places_per_tenant: 10,
        },
        InboxLimits {
            places: 10,
            places_per_tenant: 1,
        },
    ] {
        let fixture = HubFixture::new(1, RegistryLimits { inbox, ..WIDE });
        let _a = fixture.connect(0, "acme", "ann");
        let tenant = name("acme");
        let post = async || {
            fixture
                .publisher
                .append(&tenant, vec![draft("m", &["a:1"])])
                .await
        };
        assert!(post().await.is_ok());
        let (mut first, mut second) = (std::pin::pin!(post()), std::pin::pin!(post()));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
        fixture.shards[0].deliver_pending();
        assert!(first.as_mut().poll(&mut context).is_ready());
        assert!(second.as_mut().poll(&mut context).is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_with_its_share_in_use_does_not_delay_another() {
    let inbox = InboxLimits {
        places: 10,
        places_per_tenant: 2,
    };
    let fixture = HubFixture::new(1, RegistryLimits { inbox, ..WIDE });
    let (a, b) = (
        fixture.connect(0, "acme", "ann"),
        fixture.connect(0, "other", "bob"),
    );
    let mut drafts: Vec<_> = (0..2).map(|_| draft("m", &["tenant:*"])).collect();
    for draft in drafts.drain(..) {
        let published = append(&fixture.publisher, &name("acme"), vec![draft]).await;
        assert!(!published.unwrap().acknowledged);
    }
    let begun = Instant::now();
    let published = fixture
        .publish("other", vec![draft("n", &["tenant:*"])])
        .await;
    assert_eq!(published.events[0].matched, Some(1));
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!((a.received_ids().len(), b.received_ids().len()), (2, 1));
}
