//! Whatever a client sends, it gets exactly one reply, and can decode it.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Valid and invalid ids and topics, few enough that some come twice.
const IDS: [&str; 7] = ["1", "2", "3", "a:b", "ü", "*", ""];
const TEXTS: [&str; 8] = [
    "a:1",
    "a:2",
    "b:1",
    "project:1",
    "a:*",
    "user:ann",
    "tenant:*",
    "none",
];

fn picked(from: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    vec(prop::sample::select(from), 0..6)
}

/// A control message that a client may send, with arbitrary topics.
fn control() -> impl Strategy<Value = Value> {
    let payload = prop::sample::select(&["subscribe", "unsubscribe", "ping"][..]);
    (payload, picked(&IDS), picked(&IDS), picked(&TEXTS)).prop_map(
        |(payload, projects, items, topics)| {
            let message = match payload {
                "ping" => json!({"timestamp": "5"}),
                _ => json!({"projectIds": projects, "workItemIds": items, "topics": topics}),
            };
            json!({"messageId": "m", payload: message})
        },
    )
}

/// Damage to a frame's bytes: what is overwritten, cut out or doubled.
fn damage() -> impl Strategy<Value = Vec<(u8, Index, u8)>> {
    vec((0..4_u8, any::<Index>(), any::<u8>()), 0..4)
}

fn damaged(mut frame: Vec<u8>, damage: &[(u8, Index, u8)]) -> Vec<u8> {
    for (kind, index, byte) in damage {
        let at = index.index(frame.len() + 1);
        match kind {
            0 => frame.truncate(at),
            1 => frame.insert(at, *byte),
            2 if at < frame.len() => frame[at] = *byte,
            _ => frame.extend_from_within(at..),
        }
    }
    frame
}

/// Asserts that the reply to the frame is a whole envelope of the schema, and that a refusal has
/// what clients are promised.
fn assert_answered(conversation: &Conversation<'_>, frame: &[u8]) {
    if let ConversationAction::Relay(event) = conversation.handle_frame(&SCHEMA, frame, NOW) {
        assert!(!event.topics.is_empty());
        return;
    }
    let answer = answer(conversation, frame);
    let payloads: Vec<_> = answer.as_object().unwrap().keys().collect();
    assert_eq!(payloads.len(), 1, "{answer}");
    if let ConversationAction::Reply(Reply::Error(refusal)) =
        conversation.handle_frame(&SCHEMA, frame, NOW)
    {
        assert!(refusal.request_message_id.len() <= 128);
        assert!(matches!(
            refusal.code,
            ErrorCode::ValidationError | ErrorCode::AuthorizationFailed
        ));
    }
}

/// Removes duplicates and keeps the order, the slow way.
fn once(texts: &Value) -> Vec<&Value> {
    let mut once = Vec::new();
    for text in texts.as_array().into_iter().flatten() {
        if !once.contains(&text) {
            once.push(text);
        }
    }
    once
}

proptest! {
    #[test]
    fn random_bytes_are_answered(frame in vec(any::<u8>(), 0..64)) {
        assert_answered(&conversation(), &frame);
    }

    #[test]
    fn damaged_messages_are_answered(control in control(), damage in damage()) {
        assert_answered(&conversation(), &damaged(frame(&control), &damage));
    }

    #[test]
    fn a_confirmation_repeats_the_request_and_a_refusal_has_a_reason(control in control()) {
        let bytes = frame(&control);
        let conversation = conversation();
        let (request, confirmed) = match conversation.handle_frame(&SCHEMA, &bytes, NOW) {
            ConversationAction::Reply(Reply::Pong(_)) => return Ok(()),
            ConversationAction::Reply(_) => {
                let text = control.to_string();
                // Nothing else in these messages can be refused.
                let bad = [r#""""#, r#""*""#, "a:*", "user:ann", "tenant:*", "none"];
                prop_assert!(bad.iter().any(|bad| text.contains(bad)), "{}", text);
                return Ok(());
            }
            ConversationAction::Request(ClientRequest::Subscribe(_)) => {
                ("subscribe", "subscriptionConfirmed")
            }
            ConversationAction::Request(ClientRequest::Unsubscribe(_)) => {
                ("unsubscribe", "unsubscribeConfirmed")
            }
            event => panic!("no client event is sent: {event:?}"),
        };
        let answer = answer(&conversation, &bytes);
        let prefix = if request == "subscribe" { "subscribed" } else { "unsubscribed" };
        for (asked, confirmed_as) in [
            ("projectIds", format!("{prefix}ProjectIds")),
            ("workItemIds", format!("{prefix}WorkItemIds")),
            ("topics", "topics".to_owned()),
        ] {
            prop_assert_eq!(
                once(&control[request][asked]),
                once(&answer[confirmed][&confirmed_as])
            );
            let confirmed = answer[confirmed][&confirmed_as].as_array();
            let confirmed = confirmed.map_or(0, Vec::len);
            prop_assert_eq!(confirmed, once(&control[request][asked]).len());
        }
    }
}
