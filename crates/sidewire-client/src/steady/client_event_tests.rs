//! Events and presence that a client sends, against a fake relay in paused time.

use tokio::{join, select};
use tokio_tungstenite::tungstenite::Message;

use super::{
    tests::{client, connect, disconnected},
    *,
};
use crate::{
    ControlMessage,
    testing::{Listener, Peer, Pipes},
};

/// Envelopes with a message_id, and a payload in field 7.
const HERE: &[u8] = b"\x0a\x04here\x3a\x00";
const THERE: &[u8] = b"\x0a\x05there\x3a\x00";
const GONE: &[u8] = b"\x0a\x04gone\x3a\x00";

/// The number of the payload.
const PAYLOAD: u32 = 7;

/// Runs the client until it has sent an envelope, and returns that.
async fn sent(client: &mut RelayClient<Pipes>, peer: &mut Peer) -> Bytes {
    select! {
        event = client.next_event() => panic!("{event:?}"),
        envelope = peer.received_envelope() => envelope,
    }
}

/// Connects, and confirms the Subscribe as recovered.
async fn resume(client: &mut RelayClient<Pipes>, listener: &mut Listener) -> Peer {
    let mut peer = connect(client, listener).await;
    let (event, _) = join!(client.next_event(), peer.confirm_at(7, Some(0)));
    assert!(matches!(event, Ok(ClientEvent::Subscribed(_))), "{event:?}");
    peer
}

#[tokio::test(start_paused = true)]
async fn an_event_is_sent_on_the_current_connection_only() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let refused = client.send_event(HERE);
    assert!(matches!(refused, Err(SendError::Ended(_))), "{refused:?}");
    let mut peer = resume(&mut client, &mut listener).await;
    client.send_event(HERE).unwrap();
    assert_eq!(sent(&mut client, &mut peer).await, HERE);

    drop(peer);
    disconnected(&mut client).await;
    let mut peer = resume(&mut client, &mut listener).await;
    client.send_event(THERE).unwrap();
    assert_eq!(sent(&mut client, &mut peer).await, THERE);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_position_is_returned() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let mut peer = resume(&mut client, &mut listener).await;
    for _ in 0..2 {
        peer.send(Message::Binary(HERE.into())).await;
        let Ok(ClientEvent::Event(event)) = client.next_event().await else {
            panic!("no event");
        };
        assert_eq!((event.position, &*event.envelope), (None, HERE));
    }
}

#[tokio::test(start_paused = true)]
async fn presence_is_sent_once_the_topics_of_each_connection_are_subscribed() {
    let (mut client, mut listener) = client(&["kind:1"]);
    client.set_presence(PAYLOAD, HERE);
    client.set_presence(PAYLOAD, THERE);
    for _ in 0..2 {
        let mut peer = resume(&mut client, &mut listener).await;
        assert_eq!(sent(&mut client, &mut peer).await, THERE);
        drop(peer);
        disconnected(&mut client).await;
    }
}

#[tokio::test(start_paused = true)]
async fn presence_waits_for_the_topics_that_are_subscribed_meanwhile() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let mut peer = resume(&mut client, &mut listener).await;
    client.subscribe(["kind:2"]);
    client.set_presence(PAYLOAD, HERE);
    let (event, topics) = join!(client.next_event(), peer.confirm());
    assert!(matches!(event, Ok(ClientEvent::Subscribed(_))), "{event:?}");
    assert_eq!(topics, ["kind:2"]);
    assert_eq!(sent(&mut client, &mut peer).await, HERE);
}

#[tokio::test(start_paused = true)]
async fn withdrawn_presence_is_not_sent_on_the_next_connection() {
    let (mut client, mut listener) = client(&["kind:1"]);
    client.set_presence(PAYLOAD, HERE);
    let mut peer = resume(&mut client, &mut listener).await;
    assert_eq!(sent(&mut client, &mut peer).await, HERE);
    client.withdraw_presence(PAYLOAD, GONE);
    assert_eq!(sent(&mut client, &mut peer).await, GONE);

    drop(peer);
    disconnected(&mut client).await;
    let mut peer = resume(&mut client, &mut listener).await;
    let (_, next) = select! {
        event = client.next_event() => panic!("{event:?}"),
        received = peer.received() => received,
    };
    assert!(matches!(next, ControlMessage::Ping(_)), "{next:?}");
}
