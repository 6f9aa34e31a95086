//! The limits that a message is charged to, and the reply when there are too many.

use super::*;
use crate::limits::Limit;

fn exceeded() -> LimitExceeded {
    LimitExceeded {
        limit: Limit::UserMessages,
        retry_after: Duration::from_millis(600),
    }
}

#[test]
fn a_message_is_classified_by_its_payload_and_all_else_is_other() {
    let other = |frame| (frame, MessageKind::Other);
    for (frame, kind) in [
        (named("subscribe", &json!({})), MessageKind::Subscribe),
        // The fault in it is not detected yet.
        (
            named("subscribe", &json!({"topics": ["none"]})),
            MessageKind::Subscribe,
        ),
        (named("unsubscribe", &json!({})), MessageKind::Unsubscribe),
        (named("authenticate", &json!({})), MessageKind::Authenticate),
        (named("ping", &json!({})), MessageKind::Ping),
        other(named("pong", &json!({}))),
        (named("userPresence", &json!({})), MessageKind::Presence),
        (named("userTyping", &json!({})), MessageKind::ClientEvent),
        other(named("workItemDeleted", &json!({}))),
        other(frame(&json!({"messageId": "m"}))),
        other(vec![0xff]),
        other(
            [
                named("subscribe", &json!({})),
                named("subscribe", &json!({})),
            ]
            .concat(),
        ),
    ] {
        assert_eq!(parse(&frame).kind(), kind, "{frame:?}");
    }
}

#[test]
fn a_message_over_the_rate_is_refused_with_its_id_if_known() {
    let twice = [field(10, b""), field(10, b"")].concat();
    for (frame, id) in [
        (named("subscribe", &json!({"topics": ["a:1"]})), "m"),
        (frame(&json!({"ping": {}})), ""),
        (vec![0xff], ""),
        ([field(1, b"m"), twice].concat(), "m"),
        (field(1, &[b'x'; 129]), ""),
    ] {
        let ConversationAction::Reply(Reply::Error(refusal)) =
            parse(&frame).rate_limit_reply(exceeded())
        else {
            panic!("it is not refused");
        };
        assert_eq!(refusal.code, ErrorCode::RateLimitExceeded);
        assert_eq!(refusal.request_message_id, id);
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(600)));
    }
}
