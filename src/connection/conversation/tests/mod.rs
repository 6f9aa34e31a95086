//! The conversation with the bundled schema: the reply to each frame.

mod charged;
mod client_events;
mod golden;
mod random;
mod refused;
mod subscribing;

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use sidewire_protocol::{Epoch, position::EpochError, reply::ListedIds};
use sidewire_testing::protobuf::bytes as field;

use super::*;

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(Schema::bundled().unwrap()));

/// The relay's time in these tests.
const NOW: i64 = 1_700_000_000;

const TOPICS_MAX: usize = 1_000;

/// A conversation with a client that may subscribe to everything.
fn conversation() -> Conversation<'static> {
    conversation_of(&Grant::Everything)
}

fn conversation_of(grant: &Grant) -> Conversation<'_> {
    static USER: LazyLock<UserName> = LazyLock::new(|| UserName::parse("ann").unwrap());
    let limits = ConversationLimits {
        topics_per_subscribe: TOPICS_MAX,
        events: ClientEventLimits {
            is_enabled: true,
            bytes: 16 * 1024,
            presence_bytes: 2 * 1024,
            topics: 100,
            json: 4 * 1024 * 1024,
        },
    };
    Conversation::new(&USER, grant, limits)
}

fn parse(frame: &[u8]) -> ParsedFrame<'_> {
    ParsedFrame::parse(&SCHEMA, frame, 100)
}

/// The position at which every Subscribe of these tests takes effect.
fn position() -> Position {
    Position {
        epoch: Epoch::from_bits(0xe),
        offset: 7,
    }
}

/// The frame of a client that sends this envelope.
fn frame(envelope: &Value) -> Vec<u8> {
    let json = envelope.to_string();
    SCHEMA.envelope_from_json(json.as_bytes()).unwrap()
}

/// The frame of the envelope with the id `m` and this payload.
fn named(payload: &str, message: &Value) -> Vec<u8> {
    frame(&json!({"messageId": "m", payload: message}))
}

/// Returns the reply to a frame once it is carried out, as JSON, without the fields that every
/// envelope has.
fn answer(conversation: &Conversation<'_>, frame: &[u8]) -> Value {
    let reply = match conversation.handle_frame(&SCHEMA, frame, NOW) {
        ConversationAction::Reply(reply) => reply,
        ConversationAction::Request(ClientRequest::Subscribe(request)) => {
            request.answer.subscribe_confirmation(position(), None)
        }
        ConversationAction::Request(ClientRequest::Unsubscribe(request)) => {
            request.answer.unsubscribe_confirmation()
        }
        event => panic!("it is an event for others: {event:?}"),
    };
    let envelope = reply.to_envelope("reply", NOW);
    let mut json = SCHEMA.envelope_to_json(&envelope).unwrap();
    let members = json.as_object_mut().unwrap();
    assert_eq!(members.remove("messageId"), Some("reply".into()));
    assert_eq!(members.remove("timestamp"), Some(NOW.to_string().into()));
    json
}

/// The topics that the hub should subscribe to or unsubscribe from.
fn topics(action: &ConversationAction) -> Vec<&str> {
    match action {
        ConversationAction::Request(request) => {
            let topics = request.contents().topics.iter();
            topics.map(Topic::as_str).collect()
        }
        other => panic!("it is no request: {other:?}"),
    }
}

/// Returns the refusal of a frame, which is all that is left to send.
fn refusal(conversation: &Conversation<'_>, frame: &[u8]) -> MessageRefusal {
    match conversation.handle_frame(&SCHEMA, frame, NOW) {
        ConversationAction::Reply(Reply::Error(refusal)) => refusal,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn ping_is_answered_with_a_pong_that_echoes_its_timestamp() {
    for timestamp in [0, 1_699_999_999, -1, i64::MAX, i64::MIN] {
        let frame = named("ping", &json!({"timestamp": timestamp.to_string()}));
        let pong = Reply::Pong(wire::Pong {
            timestamp: NOW,
            client_timestamp: timestamp,
            position: None,
        });
        assert_eq!(
            conversation().handle_frame(&SCHEMA, &frame, NOW),
            ConversationAction::Reply(pong)
        );
    }
}

#[test]
fn a_message_id_is_optional() {
    let conversation = conversation();
    let ping = frame(&json!({"ping": {}}));
    assert_eq!(
        answer(&conversation, &ping)["pong"]["timestamp"],
        NOW.to_string()
    );
    let subscribe = frame(&json!({"subscribe": {"topics": ["a:1"]}}));
    assert_eq!(
        answer(&conversation, &subscribe),
        json!({"subscriptionConfirmed": {
            "topics": ["a:1"],
            "position": {"epoch": position().epoch.to_string(), "offset": "7"},
        }})
    );
}

#[test]
fn fields_set_only_by_backends_and_the_relay_are_ignored_from_a_client() {
    let frame = frame(&json!({
        "messageId": "m",
        "timestamp": "1",
        "position": {"epoch": "x", "offset": "99"},
        "topics": ["b:2"],
        "subscribe": {"topics": ["a:1"]},
    }));
    let action = conversation().handle_frame(&SCHEMA, &frame, NOW);
    assert_eq!(topics(&action), ["a:1"]);
}
