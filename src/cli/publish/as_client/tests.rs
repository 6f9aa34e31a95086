//! `publish --as-client` against a fake relay over TCP.

use futures_util::StreamExt;
use sidewire_client::{ControlMessage, Envelope};
use sidewire_protocol::schema::BundledSchema;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::*;
use crate::cli::fake_relay::{accept, listen, send};

const EVENT: &str = r#"{"messageId":"m1","message":{"type":"wave","topics":["room:1","room:2"]}}"#;

fn generic() -> Schema {
    let generic = BundledSchema::by_name("generic").unwrap();
    generic.compile().unwrap()
}

async fn received(peer: &mut WebSocketStream<TcpStream>) -> Vec<u8> {
    match peer.next().await.unwrap().unwrap() {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

async fn received_control(peer: &mut WebSocketStream<TcpStream>) -> (String, ControlMessage) {
    let envelope = Envelope::decode(&*received(peer).await).unwrap();
    (envelope.message_id, envelope.control.unwrap())
}

/// Confirms the Subscribe after another confirmation and an event, which are not the answer.
async fn confirm(peer: &mut WebSocketStream<TcpStream>) -> Vec<String> {
    let (request_message_id, control) = received_control(peer).await;
    let ControlMessage::Subscribe(subscribe) = control else {
        panic!("{control:?}");
    };
    let unsolicited = ControlMessage::SubscriptionConfirmed(Default::default());
    send(peer, "c0", Some(unsolicited)).await;
    send(peer, "e", None).await;
    let confirmed = wire::SubscriptionConfirmed {
        request_message_id,
        ..Default::default()
    };
    send(
        peer,
        "c1",
        Some(ControlMessage::SubscriptionConfirmed(confirmed)),
    )
    .await;
    subscribe.topics
}

fn error(code: ErrorCode) -> ControlMessage {
    ControlMessage::Error(wire::ErrorResponse {
        error_code: code.as_str().to_owned(),
        error_message: "because".to_owned(),
        ..Default::default()
    })
}

/// Takes the event, and answers it with this error, if any. Returns the topics of the Subscribe
/// and the bytes of the event.
async fn serve(listener: TcpListener, refusal: Option<ErrorCode>) -> (Vec<String>, Vec<u8>) {
    let mut peer = accept(&listener).await;
    let topics = confirm(&mut peer).await;
    let event = received(&mut peer).await;
    let (_, control) = received_control(&mut peer).await;
    assert!(matches!(control, ControlMessage::Ping(_)), "{control:?}");
    if let Some(code) = refusal {
        send(&mut peer, "r", Some(error(code))).await;
    }
    send(
        &mut peer,
        "p",
        Some(ControlMessage::Pong(Default::default())),
    )
    .await;
    while peer.next().await.is_some_and(|frame| frame.is_ok()) {}
    (topics, event)
}

async fn publish(url: &str, event: &str) -> Result<String, CommandFailure> {
    let args = SendingClientArgs {
        as_client: true,
        token_file: None,
        ca_file: None,
        user: Some("ann".to_owned()),
    };
    let body = EventBody {
        bytes: event.as_bytes().to_vec(),
        is_json: true,
    };
    let mut out = Vec::new();
    run(&args, url, &generic(), &body, &mut out).await?;
    Ok(String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn an_event_is_sent_after_subscribing_to_its_topics() {
    let (listener, url) = listen().await;
    let (printed, (topics, event)) = tokio::join!(publish(&url, EVENT), serve(listener, None));
    assert_eq!(topics, ["room:1", "room:2"]);
    let sent = generic().envelope_from_json(EVENT.as_bytes()).unwrap();
    assert_eq!(event, sent);
    assert_eq!(
        printed.unwrap(),
        "{\"message_id\":\"m1\",\"topics\":[\"room:1\",\"room:2\"]}\n"
    );
}

#[tokio::test]
async fn an_event_without_a_message_id_gets_one() {
    for event in [
        r#"{"message":{"topics":["room:1"]}}"#,
        r#"{"messageId":"","message":{"topics":["room:1"]}}"#,
    ] {
        let (listener, url) = listen().await;
        let (printed, (_, sent)) = tokio::join!(publish(&url, event), serve(listener, None));
        let schema = generic();
        let inspected = schema.inspect(&sent).unwrap();
        let message_id = inspected.message_id.unwrap();
        assert!(printed.unwrap().contains(message_id), "{message_id}");
    }
}

#[tokio::test]
async fn a_refused_event_is_a_failure() {
    for (code, exit_code) in [
        (ErrorCode::AuthorizationFailed, 1),
        (ErrorCode::AuthenticationFailed, 3),
    ] {
        let (listener, url) = listen().await;
        let serving = serve(listener, Some(code));
        let (outcome, _) = tokio::join!(publish(&url, EVENT), serving);
        let failure = outcome.unwrap_err();
        assert_eq!(failure.exit_code, exit_code);
        assert!(failure.to_string().contains("because"), "{failure}");
    }
}

#[tokio::test]
async fn a_refused_subscribe_is_a_failure_before_anything_is_sent() {
    let (listener, url) = listen().await;
    let serving = async {
        let mut peer = accept(&listener).await;
        received_control(&mut peer).await;
        let refusal = error(ErrorCode::AuthorizationFailed);
        send(&mut peer, "r", Some(refusal)).await;
        let mut frames = 0;
        while let Some(Ok(Message::Binary(_))) = peer.next().await {
            frames += 1;
        }
        frames
    };
    let (outcome, frames) = tokio::join!(publish(&url, EVENT), serving);
    assert_eq!(outcome.unwrap_err().exit_code, 1);
    assert_eq!(frames, 0);
}

#[tokio::test]
async fn input_that_is_no_envelope_is_a_failure() {
    let failure = publish("ws://127.0.0.1:1/ws", r#"{"massage":{}}"#).await;
    let failure = failure.unwrap_err().to_string();
    assert!(failure.contains("did you mean `message`?"), "{failure}");
}
