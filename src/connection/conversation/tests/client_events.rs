//! Events that clients send to other clients: what is relayed, and what is refused.

use sidewire_protocol::schema::BundledSchema;

use super::*;

/// Returns the event that the frame sends to others.
fn event(conversation: &Conversation<'_>, frame: &[u8]) -> ClientEventRequest {
    match conversation.handle_frame(&SCHEMA, frame, NOW) {
        ConversationAction::Relay(event) => event,
        other => panic!("it is no event: {other:?}"),
    }
}

/// Returns the payload's field as JSON.
fn payload(event: &ClientEventRequest) -> Value {
    SCHEMA.envelope_to_json(&event.field).unwrap()
}

fn typing(fields: &Value) -> Vec<u8> {
    named("userTyping", fields)
}

#[test]
fn an_event_has_its_payload_with_the_sender_and_nothing_else_of_the_envelope() {
    let sent = typing(&json!({"userId": "bob", "projectId": "p", "isTyping": true}));
    let forged = [
        sent,
        // A timestamp, a position, an extra topic, and unknown fields.
        vec![0x40, 5, 0x4a, 0],
        field(18, b"project:other"),
        field(60, b"x"),
    ]
    .concat();
    let event = event(&conversation(), &forged);
    assert_eq!(event.message_id, "m");
    assert_eq!(event.topics, [Topic::parse("project:p").unwrap()]);
    assert_eq!(
        payload(&event),
        json!({"userTyping": {"userId": "ann", "projectId": "p", "isTyping": true}})
    );
}

#[test]
fn an_event_names_its_topics_once_each_and_may_have_no_message_id() {
    let presence = json!({
        "viewingItemId": "w", "editingItemId": "w", "projectId": "p",
    });
    let event = event(&conversation(), &frame(&json!({"userPresence": presence})));
    assert_eq!(event.message_id, "");
    let topics: Vec<_> = event.topics.iter().map(Topic::as_str).collect();
    assert_eq!(topics, ["work_item:w", "project:p"]);
}

#[test]
fn an_event_that_names_no_topic_is_invalid() {
    let refusal = refusal(&conversation(), &typing(&json!({"isTyping": true})));
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.field.as_deref(), Some("user_typing"));
    assert_eq!(refusal.request_message_id, "m");
}

#[test]
fn an_event_with_a_wildcard_is_invalid() {
    let refusal = refusal(&conversation(), &typing(&json!({"projectId": "*"})));
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.field.as_deref(), Some("user_typing.project_id"));
    assert_eq!(refusal.request_message_id, "m");
}

#[test]
fn each_topic_of_an_event_must_be_granted() {
    let grant =
        Grant::from_topics(["project:p", "work_item:*"].map(|it| Topic::parse(it).unwrap()));
    let conversation = conversation_of(&grant);
    let both = json!({"projectId": "p", "workItemId": "w"});
    assert_eq!(event(&conversation, &typing(&both)).topics.len(), 2);
    let other = json!({"projectId": "other", "workItemId": "w"});
    let refusal = refusal(&conversation, &typing(&other));
    assert_eq!(refusal.code, ErrorCode::AuthorizationFailed);
    assert_eq!(refusal.field.as_deref(), Some("user_typing"));
    assert!(refusal.message.contains("project:other"), "{refusal:?}");
}

#[test]
fn no_event_goes_to_a_user_or_to_the_whole_tenant() {
    let schema = BundledSchema::by_name("generic").unwrap();
    let schema = schema.compile().unwrap();
    for topic in ["user:bob", "tenant:*", "tenant:acme"] {
        let json = json!({"messageId": "m", "message": {"topics": ["a:1", topic]}}).to_string();
        let frame = schema.envelope_from_json(json.as_bytes()).unwrap();
        let action = conversation().handle_frame(&schema, &frame, NOW);
        let ConversationAction::Reply(Reply::Error(refusal)) = action else {
            panic!("{topic} is not refused");
        };
        assert_eq!(refusal.code, ErrorCode::AuthorizationFailed, "{topic}");
        assert_eq!(refusal.request_message_id, "m");
    }
}

#[test]
fn an_event_may_be_as_long_as_the_limit_and_no_longer() {
    let mut conversation = conversation();
    let frame = typing(&json!({"projectId": "p"}));
    conversation.limits.events.bytes = frame.len();
    event(&conversation, &frame);
    conversation.limits.events.bytes -= 1;
    let refusal = refusal(&conversation, &frame);
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.field.as_deref(), Some("user_typing"));
}

#[test]
fn the_limit_of_bytes_counts_what_the_client_sent() {
    let mut conversation = conversation();
    let frame = typing(&json!({"projectId": "p"}));
    conversation.limits.events.bytes = frame.len();
    let action = conversation.decide_action(parse(&frame).sent_as(frame.len() + 1), NOW);
    assert!(matches!(action, ConversationAction::Reply(_)), "{action:?}");
}

#[test]
fn events_are_refused_while_they_are_turned_off() {
    let mut conversation = conversation();
    conversation.limits.events.is_enabled = false;
    let refusal = refusal(&conversation, &typing(&json!({"projectId": "p"})));
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.field.as_deref(), Some("user_typing"));
}

#[test]
fn a_withdrawal_of_presence_may_name_anything() {
    let grant = Grant::from_topics([]);
    for project in ["*", "a\nb", "", "elsewhere"] {
        let presence = json!({"status": "PRESENCE_STATUS_OFFLINE", "projectId": project});
        let event = event(&conversation_of(&grant), &named("userPresence", &presence));
        assert_eq!(event.presence, Some(PresenceChange::Withdrawn), "{project}");
        let presence = json!({"status": "PRESENCE_STATUS_AWAY", "projectId": project});
        refusal(&conversation_of(&grant), &named("userPresence", &presence));
    }
}

#[test]
fn a_large_event_is_read_elsewhere_with_the_same_result() {
    let long = "x".repeat(5_000);
    let unknown = field(99, long.as_bytes());
    let inner = [field(4, b"p"), unknown].concat();
    let large = [field(1, b"m"), field(45, &inner)].concat();
    let conversation = conversation();
    let action = conversation.handle_frame(&SCHEMA, &large, NOW);
    let ConversationAction::ReadClientEvent {
        envelope,
        message_id,
    } = action
    else {
        panic!("it is not large");
    };
    assert_eq!((&envelope, message_id.as_str()), (&large, "m"));
    let limits = conversation.limits.events;
    let read =
        ClientEventRequest::from_envelope(&SCHEMA, &envelope, conversation.user, limits).unwrap();
    assert_eq!(read.message_id, "m");
    assert_eq!(read.topics, [Topic::parse("project:p").unwrap()]);
    assert_eq!(
        payload(&read),
        json!({"userTyping": {"userId": "ann", "projectId": "p"}})
    );
    assert!(read.field.len() > 5_000, "unknown fields are kept");
}

#[test]
fn an_event_that_only_backends_may_send_is_still_refused() {
    let refusal = refusal(
        &conversation(),
        &named("workItemDeleted", &json!({"projectId": "p"})),
    );
    assert_eq!(refusal.code, ErrorCode::ValidationError);
    assert_eq!(refusal.field.as_deref(), Some("work_item_deleted"));
}
