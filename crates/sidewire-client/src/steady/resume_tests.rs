//! The client after a reconnect: its Subscribes and the events that it returns.

use std::time::Duration;

use prost::Message as _;
use tokio::join;
use tokio_tungstenite::tungstenite::Message;

use super::{
    tests::{client, connect, disconnected, subscribe},
    *,
};
use crate::{
    ControlMessage, Envelope,
    testing::{Listener, Peer, Pipes, position},
};

const SECOND: Duration = Duration::from_secs(1);

/// Confirms the next Subscribe and returns its `resume_from`.
async fn resume(
    client: &mut RelayClient<Pipes>,
    peer: &mut Peer,
    offset: u64,
    replayed: Option<u64>,
) -> Option<wire::Position> {
    let (event, subscribe) = join!(client.next_event(), peer.confirm_at(offset, replayed));
    assert!(matches!(event, Ok(ClientEvent::Subscribed(_))), "{event:?}");
    subscribe.resume_from
}

/// Sends events with these offsets from the relay.
async fn send(peer: &mut Peer, offsets: &[u64]) {
    for offset in offsets {
        peer.event(*offset).await;
    }
}

/// Returns the offset of the next event that the client returns.
async fn given(client: &mut RelayClient<Pipes>) -> u64 {
    match client.next_event().await {
        Ok(ClientEvent::Event(event)) => event.position.unwrap().offset,
        other => panic!("{other:?}"),
    }
}

async fn reconnect(client: &mut RelayClient<Pipes>, listener: &mut Listener, peer: Peer) -> Peer {
    drop(peer);
    disconnected(client).await;
    connect(client, listener).await
}

#[tokio::test(start_paused = true)]
async fn a_client_resumes_after_its_last_event_and_tracks_the_replay() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    send(&mut peer, &[9]).await;
    assert_eq!(given(&mut client).await, 9);

    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 20, Some(2)).await;
    assert_eq!(resumed_from, Some(position(9)));
    send(&mut peer, &[12, 15, 21]).await;
    for offset in [12, 15, 21] {
        assert_eq!(given(&mut client).await, offset);
    }
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 21, Some(0)).await;
    assert_eq!(resumed_from, Some(position(21)));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_replay_continues_after_its_last_event() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    resume(&mut client, &mut peer, 20, Some(3)).await;
    // Cut before its first event.
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 20, Some(3)).await;
    assert_eq!(resumed_from, Some(position(7)));
    send(&mut peer, &[12]).await;
    given(&mut client).await;
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 20, Some(2)).await;
    assert_eq!(resumed_from, Some(position(12)));
}

#[tokio::test(start_paused = true)]
async fn an_event_received_before_the_confirmation_is_returned_once() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    send(&mut peer, &[11]).await;
    assert_eq!(given(&mut client).await, 11);

    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 12, Some(3)).await;
    assert_eq!(resumed_from, Some(position(7)));
    send(&mut peer, &[10, 11, 12]).await;
    assert_eq!(given(&mut client).await, 10);
    assert_eq!(given(&mut client).await, 12);
}

#[tokio::test(start_paused = true)]
async fn an_unrecoverable_gap_is_reported() {
    let (mut client, mut listener) = client(&["kind:1", "kind:2"]);
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    resume(&mut client, &mut peer, 90, None).await;
    let gap = client.next_event().await;
    assert!(
        matches!(&gap, Ok(ClientEvent::Gap { since, topics, implicit: true })
            if *since == position(7) && topics == &["kind:1", "kind:2"]),
        "{gap:?}"
    );
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 90, Some(0)).await;
    assert_eq!(resumed_from, Some(position(90)));
}

#[tokio::test(start_paused = true)]
async fn each_subscribe_keeps_its_own_position_and_the_lowest_is_sent_first() {
    let topics: Vec<String> = (0..1_001).map(|id| format!("kind:{id}")).collect();
    let (mut client, mut listener) = client(&Vec::from_iter(topics.iter().map(String::as_str)));
    let mut peer = connect(&mut client, &mut listener).await;
    for offset in [7, 8] {
        let first = resume(&mut client, &mut peer, offset, None).await;
        assert_eq!(first, None);
    }
    // The first of the two Subscribes is resumed, the second is not.
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 20, Some(0)).await;
    assert_eq!(resumed_from, Some(position(8)));

    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let (_, low) = join!(client.next_event(), peer.confirm_at(30, Some(1)));
    assert_eq!(low.resume_from, Some(position(8)));
    assert_eq!(low.topics, topics[1_000..]);
    send(&mut peer, &[25]).await;
    given(&mut client).await;
    let (_, high) = join!(client.next_event(), peer.confirm_at(30, Some(0)));
    assert_eq!(high.resume_from, Some(position(20)));
    assert_eq!(high.topics, topics[..1_000]);
}

#[tokio::test(start_paused = true)]
async fn a_new_topic_does_not_resume_and_a_removed_one_loses_its_position() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    drop(peer);
    disconnected(&mut client).await;
    client.subscribe(["kind:2"]);
    client.unsubscribe(["kind:1"]);
    client.subscribe(["kind:1"]);
    let mut peer = connect(&mut client, &mut listener).await;
    let (_, implicit) = join!(client.next_event(), peer.confirm_at(9, Some(0)));
    assert!(implicit.topics.is_empty());
    assert_eq!(implicit.resume_from, Some(position(7)));
    let (_, fresh) = join!(client.next_event(), peer.confirm_at(9, None));
    assert_eq!(fresh.topics, ["kind:2", "kind:1"]);
    assert_eq!(fresh.resume_from, None);
}

#[tokio::test(start_paused = true)]
async fn a_client_can_start_after_a_position() {
    let (mut client, mut listener) = client(&["kind:1"]);
    client.start_from(position(3));
    let mut peer = connect(&mut client, &mut listener).await;
    let resumed_from = resume(&mut client, &mut peer, 7, Some(1)).await;
    assert_eq!(resumed_from, Some(position(3)));
    send(&mut peer, &[5]).await;
    assert_eq!(given(&mut client).await, 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_position_does_not_move_the_position() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    resume(&mut client, &mut peer, 20, Some(1)).await;
    let typing = Envelope {
        message_id: "typing".to_owned(),
        ..Default::default()
    };
    for _ in 0..2 {
        let bytes = typing.encode_to_vec();
        peer.send(Message::Binary(bytes.into())).await;
        let event = client.next_event().await;
        assert!(
            matches!(&event, Ok(ClientEvent::Event(event)) if event.message_id == "typing"),
            "{event:?}"
        );
    }
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let resumed_from = resume(&mut client, &mut peer, 20, Some(1)).await;
    assert_eq!(resumed_from, Some(position(7)));
}

#[tokio::test(start_paused = true)]
async fn a_subscribe_that_is_refused_for_a_while_is_repeated_after_the_given_delay() {
    for code in ["RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR"] {
        let (mut client, mut listener) = client(&["kind:1"]);
        let mut peer = connect(&mut client, &mut listener).await;
        let refusing = peer.refuse(code, Some(5_000));
        let (refused, topics) = join!(client.next_event(), refusing);
        assert!(matches!(refused, Ok(ClientEvent::Refused(_))));
        let refused_at = Instant::now();
        let (_, again) = join!(client.next_event(), peer.confirm());
        assert_eq!(again, topics);
        let late = refused_at.elapsed() - SECOND * 5;
        assert!(late < SECOND, "{code}: {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_implicit_topics_resume_even_if_others_are_refused() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    drop(peer);
    disconnected(&mut client).await;
    client.subscribe(["kind:2"]);
    let mut peer = connect(&mut client, &mut listener).await;
    let (_, refused) = join!(
        client.next_event(),
        peer.refuse("AUTHORIZATION_FAILED", None)
    );
    assert_eq!(refused, ["kind:1"]);
    let (_, implicit) = join!(client.next_event(), peer.confirm_at(9, Some(0)));
    assert!(implicit.topics.is_empty());
    assert_eq!(implicit.resume_from, Some(position(7)));
    let (_, fresh) = join!(client.next_event(), peer.confirm_at(9, None));
    assert_eq!(fresh.topics, ["kind:2"]);

    // Another token may grant them, so refused topics are asked for again.
    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    let (_, again) = join!(client.next_event(), peer.confirm_at(9, Some(0)));
    assert_eq!(again.topics, ["kind:1"]);
    assert_eq!(again.resume_from, Some(position(7)));
}

#[tokio::test(start_paused = true)]
async fn a_pong_moves_the_position_forward_and_never_back() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    for (stands_at, resumes_from) in [(Some(50), 50), (Some(40), 50), (None, 50), (Some(51), 51)] {
        let pong = wire::Pong {
            position: stands_at.map(position),
            ..wire::Pong::default()
        };
        peer.control(ControlMessage::Pong(pong)).await;
        // The disconnect follows the Pong, so the client has processed the Pong by then.
        let mut next = reconnect(&mut client, &mut listener, peer).await;
        let resumed_from = resume(&mut client, &mut next, resumes_from, Some(0)).await;
        assert_eq!(resumed_from, Some(position(resumes_from)), "{stands_at:?}");
        peer = next;
    }
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_of_the_tokens_topics_is_ignored_and_they_resume_with_the_implicit_ones() {
    let (mut client, mut listener) = client(&[]);
    let mut peer = connect(&mut client, &mut listener).await;
    let of_token = wire::SubscriptionConfirmed {
        topics: vec!["kind:1".to_owned()],
        ..Default::default()
    };
    peer.control(ControlMessage::SubscriptionConfirmed(of_token.clone()))
        .await;
    let (event, topics) = join!(client.next_event(), peer.confirm());
    let Ok(ClientEvent::Subscribed(confirmed)) = event else {
        panic!("{event:?}");
    };
    assert_eq!((topics, confirmed.topics), (vec![], vec![]));
    send(&mut peer, &[9]).await;
    assert_eq!(given(&mut client).await, 9);

    let mut peer = reconnect(&mut client, &mut listener, peer).await;
    peer.control(ControlMessage::SubscriptionConfirmed(of_token))
        .await;
    let resumed_from = resume(&mut client, &mut peer, 20, Some(1)).await;
    assert_eq!(resumed_from, Some(position(9)));
    send(&mut peer, &[12]).await;
    assert_eq!(given(&mut client).await, 12);
}
