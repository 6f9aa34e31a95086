//! The client that renews its token, and that is told of revoked subscriptions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{join, select};

use super::{tests::disconnected, *};
use crate::{
    ControlMessage, RenewalError,
    testing::{Listener, Peer, Pipes, options, pipes, token_until},
};

/// The tokens of the source, in order. The fake relay's time stays at 1.
const EXPIRIES: [i64; 4] = [1_000, 2_000, 3_000, 4_000];

/// Creates a client whose source returns one token after another, and counts them.
fn client(topics: &[&str]) -> (RelayClient<Pipes>, Listener, Arc<AtomicUsize>) {
    let (pipes, listener) = pipes();
    let fetched = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&fetched);
    let source = move || -> FetchingToken {
        let index = count.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let expires_at = EXPIRIES.get(index).ok_or("there are no more tokens")?;
            Ok(token_until(*expires_at))
        })
    };
    let mut options = options().with_fresh_token(source);
    options.token = None;
    let mut client = RelayClient::with_connector(options, pipes);
    client.subscribe(topics.iter().copied());
    (client, listener, fetched)
}

/// Connects with this token, confirms the Subscribe, and returns its topics.
async fn subscribe(
    client: &mut RelayClient<Pipes>,
    listener: &mut Listener,
    token: &Credential,
) -> (Peer, Vec<String>) {
    let (event, mut peer) = join!(client.next_event(), listener.accept_with(token));
    assert!(matches!(event, Ok(ClientEvent::Connected)), "{event:?}");
    let (event, subscribe) = join!(client.next_event(), peer.confirm_at(7, Some(0)));
    assert!(matches!(event, Ok(ClientEvent::Subscribed(_))), "{event:?}");
    (peer, subscribe.topics)
}

/// Waits for the next message that is not a Ping, which it answers.
async fn request(client: &mut RelayClient<Pipes>, peer: &mut Peer) -> (String, ControlMessage) {
    loop {
        let received = select! {
            event = client.next_event() => panic!("{event:?}"),
            received = peer.received() => received,
        };
        match received {
            (_, ControlMessage::Ping(_)) => {
                peer.control(ControlMessage::Pong(wire::Pong::default()))
                    .await;
            }
            other => return other,
        }
    }
}

/// Waits for an Authenticate with this token and returns its message id.
async fn authenticate(
    client: &mut RelayClient<Pipes>,
    peer: &mut Peer,
    token: &Credential,
) -> String {
    match request(client, peer).await {
        (message_id, ControlMessage::Authenticate(it)) => {
            assert_eq!(it.token, token.reveal());
            message_id
        }
        other => panic!("{other:?}"),
    }
}

async fn take(peer: &mut Peer, request: String, expires_at: i64, revoked: &[&str]) {
    let answer = wire::Authenticated {
        expires_at,
        revoked_topics: revoked.iter().map(|it| (*it).to_owned()).collect(),
        request_message_id: request,
    };
    peer.control(ControlMessage::Authenticated(answer)).await;
}

async fn refuse(peer: &mut Peer, request: String, code: &str) {
    let error = wire::ErrorResponse {
        error_code: code.to_owned(),
        request_message_id: request,
        ..Default::default()
    };
    peer.control(ControlMessage::Error(error)).await;
}

async fn assert_revoked(client: &mut RelayClient<Pipes>, wanted: &[&str]) {
    match client.next_event().await {
        Ok(ClientEvent::Revoked { topics }) => assert_eq!(topics, wanted),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_expires_again_and_again() {
    let (mut client, mut listener, fetched) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    let mut begun = Instant::now();
    for expires_at in [2_000, 3_000, 4_000] {
        let token = token_until(expires_at);
        let message_id = authenticate(&mut client, &mut peer, &token).await;
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(1_000), "{waited:?}");
        assert!(waited > Duration::from_secs(700), "{waited:?}");
        begun = Instant::now();
        take(&mut peer, message_id, 1_001, &[]).await;
        let renewed = client.next_event().await;
        assert!(
            matches!(
                renewed,
                Ok(ClientEvent::Renewed {
                    expires_at: Some(1_001)
                })
            ),
            "{renewed:?}"
        );
    }
    assert_eq!(fetched.load(Ordering::Relaxed), 4);
    // The next connection has the last token.
    drop(peer);
    disconnected(&mut client).await;
    subscribe(&mut client, &mut listener, &token_until(4_000)).await;
    assert_eq!(listener.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_connection_goes_on_while_a_token_is_fetched() {
    let (pipes, mut listener) = pipes();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let receiver = Mutex::new(Some(receiver));
    let source = move || -> FetchingToken {
        let receiver = receiver.lock().unwrap().take();
        Box::pin(async move { Ok(receiver.unwrap().await?) })
    };
    let mut options = options().with_fresh_token(source);
    options.token = Some(token_until(11));
    let mut client = RelayClient::with_connector(options, pipes);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(11)).await;
    let waiting = timeout(Duration::from_secs(20), client.next_event()).await;
    assert!(waiting.is_err(), "{waiting:?}");
    peer.event(8).await;
    let event = client.next_event().await;
    assert!(matches!(event, Ok(ClientEvent::Event(_))), "{event:?}");
    sender.send(token_until(2_000)).unwrap();
    authenticate(&mut client, &mut peer, &token_until(2_000)).await;
}

#[tokio::test(start_paused = true)]
async fn topics_that_a_token_does_not_cover_are_told_and_forgotten() {
    let (mut client, mut listener, _) = client(&["kind:1", "kind:2"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    let message_id = authenticate(&mut client, &mut peer, &token_until(2_000)).await;
    take(&mut peer, message_id, 2_000, &["kind:2", "kind:9"]).await;
    let renewed = client.next_event().await;
    assert!(
        matches!(renewed, Ok(ClientEvent::Renewed { .. })),
        "{renewed:?}"
    );
    assert_revoked(&mut client, &["kind:2", "kind:9"]).await;
    drop(peer);
    disconnected(&mut client).await;
    let (_peer, topics) = subscribe(&mut client, &mut listener, &token_until(2_000)).await;
    assert_eq!(topics, ["kind:1"]);
}

#[tokio::test(start_paused = true)]
async fn topics_that_a_backend_revokes_are_told_and_forgotten() {
    let (mut client, mut listener, _) = client(&["kind:1", "kind:2"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    let topics = vec!["kind:1".to_owned()];
    let revoked = wire::UnsubscribeConfirmed {
        topics,
        ..Default::default()
    };
    peer.control(ControlMessage::UnsubscribeConfirmed(revoked))
        .await;
    assert_revoked(&mut client, &["kind:1"]).await;
    // It can be subscribed again, if the application wants to.
    client.subscribe(["kind:1"]);
    let (_, subscribe) = request(&mut client, &mut peer).await;
    assert!(
        matches!(&subscribe, ControlMessage::Subscribe(it) if it.topics == ["kind:1"]),
        "{subscribe:?}"
    );
    // This revocation is older than the Subscribe that is under way.
    let revoked = wire::UnsubscribeConfirmed {
        topics: vec!["kind:1".to_owned(), "kind:2".to_owned()],
        ..Default::default()
    };
    peer.control(ControlMessage::UnsubscribeConfirmed(revoked))
        .await;
    assert_revoked(&mut client, &["kind:1", "kind:2"]).await;
    drop(peer);
    disconnected(&mut client).await;
    let token = token_until(1_000);
    let (event, mut peer) = join!(client.next_event(), listener.accept_with(&token));
    assert!(matches!(event, Ok(ClientEvent::Connected)), "{event:?}");
    // The implicit topics have another position, so they are resumed first.
    for topics in [&[][..], &["kind:1"]] {
        let (event, subscribe) = join!(client.next_event(), peer.confirm_at(7, Some(0)));
        assert!(matches!(event, Ok(ClientEvent::Subscribed(_))), "{event:?}");
        assert_eq!(subscribe.topics, topics);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_renewal_is_tried_again_with_another_token() {
    let (mut client, mut listener, _) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    let message_id = authenticate(&mut client, &mut peer, &token_until(2_000)).await;
    refuse(&mut peer, message_id, "AUTHENTICATION_FAILED").await;
    let failed = client.next_event().await;
    assert!(
        matches!(
            &failed,
            Ok(ClientEvent::RenewalFailed {
                reason: RenewalError::Refused(error),
                retry_in: Some(_),
            }) if error.error_code == "AUTHENTICATION_FAILED"
        ),
        "{failed:?}"
    );
    authenticate(&mut client, &mut peer, &token_until(3_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_schema_without_authenticate_leads_to_a_reconnect_at_expiry() {
    let (mut client, mut listener, fetched) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    let message_id = authenticate(&mut client, &mut peer, &token_until(2_000)).await;
    refuse(&mut peer, message_id, "VALIDATION_ERROR").await;
    let failed = client.next_event().await;
    assert!(
        matches!(
            failed,
            Ok(ClientEvent::RenewalFailed { retry_in: None, .. })
        ),
        "{failed:?}"
    );
    let silent = request(&mut client, &mut peer);
    let silent = timeout(Duration::from_secs(200), silent).await;
    assert!(silent.is_err(), "{silent:?}");
    peer.close(4001, "token expired").await;
    disconnected(&mut client).await;
    let (_peer, topics) = subscribe(&mut client, &mut listener, &token_until(2_000)).await;
    assert_eq!(topics, ["kind:1"]);
    assert_eq!(fetched.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_was_sent_in_vain_is_used_for_the_next_connection() {
    let (mut client, mut listener, fetched) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    authenticate(&mut client, &mut peer, &token_until(2_000)).await;
    peer.close(4001, "token expired").await;
    disconnected(&mut client).await;
    subscribe(&mut client, &mut listener, &token_until(2_000)).await;
    assert_eq!(fetched.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_asks_for_a_fresh_token_gets_one() {
    let (mut client, mut listener, _) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    peer.close(4006, "a fresh token is wanted").await;
    disconnected(&mut client).await;
    subscribe(&mut client, &mut listener, &token_until(2_000)).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_without_a_newer_token_stops_the_client_only_if_the_old_one_is_refused() {
    let (pipes, mut listener) = pipes();
    let source = || -> FetchingToken { Box::pin(async { Err(NoNewerToken.into()) }) };
    let mut options = options().with_fresh_token(source);
    options.token = Some(token_until(1_000));
    let mut client = RelayClient::with_connector(options, pipes);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    peer.close(4006, "a fresh token is wanted").await;
    disconnected(&mut client).await;
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    peer.close(4001, "token expired").await;
    disconnected(&mut client).await;
    let stopped = client.next_event().await.unwrap_err();
    assert_eq!(
        stopped.to_string(),
        "the relay does not accept the token (it has expired): connect again with a new token"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_refused_after_the_upgrade_is_replaced_once() {
    let (mut client, mut listener, fetched) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener, &token_until(1_000)).await;
    peer.close(4401, "AUTHENTICATION_FAILED").await;
    disconnected(&mut client).await;
    let token = token_until(2_000);
    let (event, mut peer) = join!(client.next_event(), listener.accept_with(&token));
    assert!(matches!(event, Ok(ClientEvent::Connected)), "{event:?}");
    peer.close(4401, "AUTHENTICATION_FAILED").await;
    let stopped = client.next_event().await.unwrap_err();
    assert!(
        matches!(stopped, ClientError::LoginRequired(_)),
        "{stopped:?}"
    );
    assert_eq!(
        stopped.to_string(),
        "the relay does not accept a new token either (AUTHENTICATION_FAILED): log in again"
    );
    assert_eq!(fetched.load(Ordering::Relaxed), 2);
}
