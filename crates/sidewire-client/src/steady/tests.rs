//! The reconnecting client against a fake relay, in paused time.

use std::time::Duration;

use tokio::{join, select};
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::{
    ControlMessage, OpenError, RETRY_AFTER_MAX,
    testing::{Listener, Peer, Pipes, options, pipes},
};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn client(topics: &[&str]) -> (RelayClient<Pipes>, Listener) {
    let (pipes, listener) = pipes();
    let mut client = RelayClient::with_connector(options(), pipes);
    client.subscribe(topics.iter().copied());
    (client, listener)
}

pub(super) async fn connect(client: &mut RelayClient<Pipes>, listener: &mut Listener) -> Peer {
    let (event, peer) = join!(client.next_event(), listener.accept());
    assert!(matches!(event, Ok(ClientEvent::Connected)), "{event:?}");
    peer
}

/// Connects, confirms the Subscribe and returns its topics.
pub(super) async fn subscribe(
    client: &mut RelayClient<Pipes>,
    listener: &mut Listener,
) -> (Peer, Vec<String>) {
    let mut peer = connect(client, listener).await;
    let (event, topics) = join!(client.next_event(), peer.confirm());
    let Ok(ClientEvent::Subscribed(confirmed)) = event else {
        panic!("{event:?}");
    };
    assert_eq!(confirmed.topics, topics);
    (peer, topics)
}

pub(super) async fn disconnected(client: &mut RelayClient<Pipes>) -> (String, Duration) {
    match client.next_event().await {
        Ok(ClientEvent::Disconnected { reason, retry_in }) => (reason.to_string(), retry_in),
        other => panic!("{other:?}"),
    }
}

fn within(delay: Duration, seconds: u32) -> bool {
    delay >= SECOND * seconds / 2 && delay <= SECOND * seconds
}

#[tokio::test(start_paused = true)]
async fn a_client_connects_subscribes_and_returns_events() {
    let (mut client, mut listener) = client(&["kind:1", "kind:2", "kind:1"]);
    let (mut peer, topics) = subscribe(&mut client, &mut listener).await;
    assert_eq!(topics, ["kind:1", "kind:2"]);
    let envelope = peer.event(8).await;
    let Ok(ClientEvent::Event(event)) = client.next_event().await else {
        panic!("no event");
    };
    assert_eq!(event.envelope, envelope);
}

#[tokio::test(start_paused = true)]
async fn topic_changes_apply_to_this_connection_and_the_next() {
    let (mut client, mut listener) = client(&["kind:1", "kind:2"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    client.subscribe(["kind:3"]);
    let (event, topics) = join!(client.next_event(), peer.confirm());
    assert!(matches!(event, Ok(ClientEvent::Subscribed(_))));
    assert_eq!(topics, ["kind:3"]);

    client.unsubscribe(["kind:1"]);
    let (_, unsubscribe) = select! {
        event = client.next_event() => panic!("{event:?}"),
        received = peer.received() => received,
    };
    let topics = vec!["kind:1".to_owned()];
    assert_eq!(
        unsubscribe,
        ControlMessage::Unsubscribe(wire::Unsubscribe { topics })
    );

    drop(peer);
    disconnected(&mut client).await;
    let (_peer, topics) = subscribe(&mut client, &mut listener).await;
    assert_eq!(topics, ["kind:2", "kind:3"]);
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_sent_every_30_seconds() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    let begun = Instant::now();
    let script = async {
        for count in 1..=5 {
            let (_, ControlMessage::Ping(ping)) = peer.received().await else {
                panic!("no Ping");
            };
            let late = begun.elapsed() - SECOND * 30 * count;
            assert!(late < Duration::from_millis(50), "{late:?}");
            let pong = wire::Pong {
                timestamp: 0,
                client_timestamp: ping.timestamp,
                position: None,
            };
            peer.control(ControlMessage::Pong(pong)).await;
        }
    };
    select! {
        event = client.next_event() => panic!("{event:?}"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_sent_even_during_a_flood_of_events() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    for offset in 8..=10 {
        peer.event(offset).await;
    }
    tokio::time::advance(SECOND * 31).await;
    assert!(matches!(
        client.next_event().await,
        Ok(ClientEvent::Event(_))
    ));
    assert!(matches!(
        peer.received().await,
        (_, ControlMessage::Ping(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_frame_for_60_seconds_is_given_up() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (_silent, _) = subscribe(&mut client, &mut listener).await;
    let begun = Instant::now();
    let (reason, _) = disconnected(&mut client).await;
    assert_eq!(reason, "the connection is dead: no frame for 60s");
    let late = begun.elapsed() - SECOND * 60;
    assert!(late < Duration::from_millis(50), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn any_frame_is_a_sign_of_life() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    let begun = Instant::now();
    let script = async {
        tokio::time::sleep(SECOND * 50).await;
        peer.send(Message::Ping(Default::default())).await;
        std::future::pending::<()>().await;
    };
    select! {
        () = script => {}
        (reason, _) = disconnected(&mut client) => assert!(reason.contains("dead"), "{reason}"),
    }
    let late = begun.elapsed() - SECOND * 110;
    assert!(late < Duration::from_millis(50), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_reconnects_after_1_2_4_8_16_and_then_every_30_seconds() {
    let (mut client, listener) = client(&["kind:1"]);
    drop(listener);
    let mut last: Option<(Instant, Duration)> = None;
    for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
        let (reason, retry_in) = disconnected(&mut client).await;
        assert!(
            reason.starts_with("cannot connect to relay.test:80: "),
            "{reason}"
        );
        assert!(within(retry_in, seconds), "{retry_in:?} of {seconds} s");
        if let Some((when, promised)) = last {
            let waited = when.elapsed();
            assert!(
                waited >= promised && waited < promised + Duration::from_millis(50),
                "{waited:?} instead of {promised:?}"
            );
        }
        last = Some((Instant::now(), retry_in));
    }
}

#[tokio::test(start_paused = true)]
async fn delays_restart_only_after_a_confirmed_connection() {
    let (mut client, mut listener) = client(&["kind:1"]);
    for seconds in [1, 2, 4] {
        drop(connect(&mut client, &mut listener).await);
        let (_, retry_in) = disconnected(&mut client).await;
        assert!(within(retry_in, seconds), "{retry_in:?} of {seconds} s");
    }
    let (peer, _) = subscribe(&mut client, &mut listener).await;
    drop(peer);
    let (_, retry_in) = disconnected(&mut client).await;
    assert!(within(retry_in, 1), "{retry_in:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_handshake_is_given_up_after_10_seconds() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let begun = Instant::now();
    let ((reason, _), _silent) = join!(disconnected(&mut client), listener.ignore());
    assert_eq!(reason, "the relay did not answer the handshake in time");
    assert!(begun.elapsed() >= SECOND * 10 && begun.elapsed() < SECOND * 11);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_stops_the_client_with_a_hint() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let document = r#"{"code":"AUTHENTICATION_FAILED","detail":"it has expired"}"#;
    let length = document.len();
    let answer = format!("HTTP/1.1 401 No\r\nContent-Length: {length}\r\n\r\n{document}");
    let (stopped, ()) = join!(client.next_event(), listener.refuse(&answer));
    assert_eq!(
        stopped.unwrap_err().to_string(),
        "the relay does not accept the token (401 AUTHENTICATION_FAILED: it has expired): \
         connect again with a new token"
    );
    assert!(matches!(
        client.next_event().await,
        Err(ClientError::Stopped)
    ));
    assert_eq!(listener.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_caused_by_the_client_stops_it() {
    for status in [302, 400, 403, 404, 426] {
        let (mut client, mut listener) = client(&["kind:1"]);
        let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
        let (stopped, ()) = join!(client.next_event(), listener.refuse(&answer));
        assert!(
            matches!(&stopped, Err(ClientError::Refused(OpenError::Refused(problem)))
                if problem.status == status),
            "{stopped:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_temporary_refusal_is_retried_after_its_delay() {
    for (status, retry_after, seconds) in [(429, "7", 7), (503, "7", 7), (502, "soon", 0)] {
        let (mut client, mut listener) = client(&["kind:1"]);
        let answer = format!(
            "HTTP/1.1 {status} No\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n"
        );
        let ((_, retry_in), ()) = join!(disconnected(&mut client), listener.refuse(&answer));
        assert!(
            within(retry_in - SECOND * seconds, 1),
            "{status}: {retry_in:?}"
        );
        subscribe(&mut client, &mut listener).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_delay_is_capped() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let answer = "HTTP/1.1 503 No\r\nRetry-After: 18446744073709551615\r\n\r\n";
    let ((_, retry_in), ()) = join!(disconnected(&mut client), listener.refuse(answer));
    assert!(retry_in <= RETRY_AFTER_MAX + SECOND, "{retry_in:?}");
}

#[tokio::test(start_paused = true)]
async fn a_close_reason_sets_the_reconnect_delay() {
    for (code, reason, bounds) in [
        (1001, "shutting down retry_after_ms=4321", (4321, 4321)),
        (1000, "retry_after_ms=0", (0, 0)),
        (1001, "shutting down", (500, 1000)),
        (1011, "retry_after_ms=9000", (500, 1000)),
        (4003, "too slow", (500, 1000)),
        (4004, "idle", (500, 1000)),
        (4005, "kept being refused", (60_000, 61_000)),
        (4006, "a fresh token is wanted", (500, 1000)),
        (
            4429,
            "RATE_LIMIT_EXCEEDED retry_after_ms=7000",
            (7_500, 8_000),
        ),
        (4503, "INTERNAL_ERROR retry_after_ms=7000", (7_500, 8_000)),
    ] {
        let (mut client, mut listener) = client(&["kind:1"]);
        let (mut peer, _) = subscribe(&mut client, &mut listener).await;
        peer.close(code, reason).await;
        let (_, retry_in) = disconnected(&mut client).await;
        let millis = retry_in.as_millis();
        assert!(
            (bounds.0..=bounds.1).contains(&millis),
            "{code} {reason}: {retry_in:?}"
        );
        subscribe(&mut client, &mut listener).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_permanent_close_stops_the_client() {
    for (code, message) in [
        (4001, "the relay does not accept the token (it has expired)"),
        (4002, "a backend disconnected this client (\"bye\")"),
        (4401, "the relay does not accept the token (bye)"),
        (4403, "the relay refused the origin or the host (bye)"),
        (1002, "the relay closed with 1002"),
        (1003, "the relay closed with 1003"),
        (1007, "the relay closed with 1007"),
        (1009, "the relay closed with 1009"),
    ] {
        let (mut client, mut listener) = client(&["kind:1"]);
        let (mut peer, _) = subscribe(&mut client, &mut listener).await;
        peer.close(code, "bye").await;
        let stopped = client.next_event().await.unwrap_err().to_string();
        assert!(stopped.starts_with(message), "{stopped}");
        assert!(matches!(
            client.next_event().await,
            Err(ClientError::Stopped)
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscribe_is_reported() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let mut peer = connect(&mut client, &mut listener).await;
    let refusing = async {
        let (request_message_id, _) = peer.received().await;
        let error = wire::ErrorResponse {
            error_code: "AUTHORIZATION_FAILED".to_owned(),
            request_message_id,
            ..Default::default()
        };
        peer.control(ControlMessage::Error(error)).await;
    };
    let (event, ()) = join!(client.next_event(), refusing);
    assert!(
        matches!(&event, Ok(ClientEvent::Refused(error))
            if error.error_code == "AUTHORIZATION_FAILED"),
        "{event:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn next_event_can_be_cancelled_at_any_point() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let serving = async {
        let mut peer = listener.accept().await;
        peer.confirm().await;
        for offset in 8..=107 {
            peer.event(offset).await;
        }
        peer
    };
    let following = async {
        let mut offsets = Vec::new();
        while offsets.len() < 100 {
            select! {
                biased;
                event = client.next_event() => match event.unwrap() {
                    ClientEvent::Event(event) => offsets.push(event.position.unwrap().offset),
                    ClientEvent::Connected | ClientEvent::Subscribed(_) => {}
                    other => panic!("{other:?}"),
                },
                () = tokio::task::yield_now() => {}
            }
        }
        offsets
    };
    let (_peer, offsets) = join!(serving, following);
    assert_eq!(offsets, (8..=107).collect::<Vec<_>>());
    assert_eq!(listener.waiting(), 0, "it connected more than once");
}

#[tokio::test(start_paused = true)]
async fn many_topics_are_split_into_frames_that_the_relay_accepts() {
    let short: Vec<String> = (0..2_500).map(|id| format!("kind:{id}")).collect();
    let long: Vec<String> = (0..500).map(|id| format!("kind:{id:0>256}")).collect();
    for topics in [short, long] {
        let (pipes, mut listener) = pipes();
        let mut client = RelayClient::with_connector(options(), pipes);
        client.subscribe(topics.clone());
        let mut peer = connect(&mut client, &mut listener).await;
        let mut confirmed = Vec::new();
        while confirmed.len() < topics.len() {
            let (event, portion) = join!(client.next_event(), peer.confirm());
            assert!(matches!(event, Ok(ClientEvent::Subscribed(_))));
            assert!(portion.len() <= 1_000);
            assert!(portion.iter().map(|topic| topic.len() + 4).sum::<usize>() < 60_000);
            confirmed.extend(portion);
        }
        assert_eq!(confirmed, topics);
    }
}

#[tokio::test(start_paused = true)]
async fn without_topics_an_empty_subscribe_is_confirmed() {
    let (mut client, mut listener) = client(&[]);
    let (_peer, topics) = subscribe(&mut client, &mut listener).await;
    assert!(topics.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unusable_url_or_token_stops_the_client() {
    let (mut wss, mut newline) = (options(), options());
    wss.url = "wss://relay.test/ws".to_owned();
    newline.token = Some(Credential::new("a\nb"));
    for options in [wss, newline] {
        let (pipes, _listener) = pipes();
        let mut client = RelayClient::with_connector(options, pipes);
        let stopped = client.next_event().await;
        assert!(
            matches!(stopped, Err(ClientError::Refused(_))),
            "{stopped:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn closing_sends_a_close_with_code_1000() {
    let (mut client, mut listener) = client(&["kind:1"]);
    let (mut peer, _) = subscribe(&mut client, &mut listener).await;
    let goodbye = async {
        use futures_util::StreamExt;
        let frame = peer.0.next().await.unwrap().unwrap();
        assert!(matches!(&frame, Message::Close(Some(close)) if u16::from(close.code) == 1000));
        while peer.0.next().await.is_some_and(|frame| frame.is_ok()) {}
    };
    join!(client.close(), goodbye);
}
