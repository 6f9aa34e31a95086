//! Events as JSON: rendered once for all clients that use JSON, or only checked when a backend
//! posts an event, since it may have no JSON or too much of it.

use std::hint::black_box;

use serde_json::json;
use sidewire_protocol::schema::{BundledSchema, Schema};

use super::{Case, Subject};

/// Approximate bytes of an event on the wire.
const EVENT_BYTES: usize = 200;

/// Default limit on the bytes of an event's JSON.
const JSON_MAX: usize = 4 << 20;

pub(super) fn cases() -> Vec<Case> {
    let render = |name: &str, make: fn() -> Event| {
        Case::new(format!("json/render_{name}"), move || Render(make()))
    };
    vec![
        render("work_item_of_200_bytes", work_item),
        render("generic_event_of_200_bytes", generic_event),
        Case::new("json/check_generic_event_of_200_bytes".to_owned(), || {
            Check(generic_event())
        }),
    ]
}

struct Event {
    schema: Schema,
    envelope: Vec<u8>,
}

impl Event {
    fn new(schema: Schema, json: &serde_json::Value) -> Self {
        let envelope = schema
            .envelope_from_json(json.to_string().as_bytes())
            .unwrap();
        assert!(envelope.len().abs_diff(EVENT_BYTES) <= EVENT_BYTES / 10);
        Self { schema, envelope }
    }
}

fn work_item() -> Event {
    let json = json!({
        "messageId": "0199f0a4-7c5e-7d3b-9a51-3f0c8e6b2d00",
        "timestamp": "1800000000",
        "workItemCreated": {
            "workItem": {
                "id": "item-1047",
                "itemType": "WORK_ITEM_TYPE_STORY",
                "projectId": "project-7",
                "sprintId": "sprint-14",
                "parentId": "item-1001",
                "position": 3,
                "title": "Show who else is looking at a work item",
                "status": "in_progress",
                "assigneeId": "user-4711",
                "createdAt": "1799910000",
                "createdBy": "user-12",
                "updatedAt": "1799999995",
                "updatedBy": "user-12"
            },
            "userId": "user-12"
        }
    });
    Event::new(Schema::bundled().unwrap(), &json)
}

fn generic_event() -> Event {
    let json = json!({
        "messageId": "0199f0a4-7c5e-7d3b-9a51-3f0c8e6b2d00",
        "timestamp": "1800000000",
        "event": {
            "type": "order.shipped",
            "data": {
                "order": 7,
                "carrier": "dhl",
                "items": [{"sku": "A-1", "count": 2}, {"sku": "B-7", "count": 1}],
                "gift": false
            },
            "userId": "user-12"
        }
    });
    Event::new(
        BundledSchema::by_name("generic")
            .unwrap()
            .compile()
            .unwrap(),
        &json,
    )
}

struct Render(Event);

impl Subject for Render {
    fn operate(&mut self) {
        let Event { schema, envelope } = &self.0;
        black_box(schema.envelope_to_json_text(black_box(envelope)).unwrap());
    }
}

struct Check(Event);

impl Subject for Check {
    fn operate(&mut self) {
        let Event { schema, envelope } = &self.0;
        schema.check_json(black_box(envelope), JSON_MAX).unwrap();
    }
}
