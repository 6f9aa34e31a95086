//! The presence that a message tells, for `sidewire tail --presence`.

use serde_json::{Value, json};
use sidewire_client::ReceivedEvent;
use sidewire_protocol::{
    Topic,
    schema::{InspectLimits, Schema},
};

/// Describes the presence that a message from the relay tells; `None` for any other message. An
/// event of a backend has a position and tells nothing, even if its payload is one of presence.
pub(super) fn presence_in(schema: &Schema, event: &ReceivedEvent) -> Option<Value> {
    let limits = InspectLimits {
        topics: usize::MAX,
        decoded_bytes: usize::MAX,
    };
    let inspected = schema.inspect_from_client(&event.envelope, limits).ok()?;
    let payload = inspected.payload?;
    if event.position.is_some() || !schema.is_presence(payload.number) {
        return None;
    }
    let topics: Vec<_> = inspected.topics.iter().map(Topic::as_str).collect();
    Some(json!({
        "user": schema.sender_of(&payload),
        "present": !schema.is_absent(&payload),
        "topics": topics,
    }))
}

#[cfg(test)]
mod tests {
    use sidewire_client::wire::Position;
    use sidewire_protocol::schema::BundledSchema;

    use super::*;

    fn presence(json: &Value, position: Option<Position>) -> Option<Value> {
        let generic = BundledSchema::by_name("generic").unwrap();
        let schema = generic.compile().unwrap();
        let envelope = schema.envelope_from_json(json.to_string().as_bytes());
        let event = ReceivedEvent {
            envelope: envelope.unwrap().into(),
            message_id: String::new(),
            timestamp: 0,
            position,
        };
        presence_in(&schema, &event)
    }

    #[test]
    fn a_presence_message_tells_the_user_the_topics_and_whether_they_are_present() {
        let here = json!({"presence": {"userId": "ann", "topics": ["room:1", "room:2"]}});
        assert_eq!(
            presence(&here, None),
            Some(json!({"user": "ann", "present": true, "topics": ["room:1", "room:2"]}))
        );
        let gone = json!({"presence": {"userId": "ann", "topics": ["room:1"], "absent": true}});
        assert_eq!(
            presence(&gone, None),
            Some(json!({"user": "ann", "present": false, "topics": ["room:1"]}))
        );
    }

    #[test]
    fn other_messages_tell_no_presence() {
        let message = json!({"message": {"userId": "ann", "topics": ["room:1"]}});
        assert_eq!(presence(&message, None), None);
        let posted = json!({"presence": {"userId": "ann", "topics": ["room:1"]}});
        assert_eq!(presence(&posted, Some(Position::default())), None);
    }
}
