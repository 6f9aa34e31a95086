//! The single pass over an envelope that validates its bytes and finds its topics.

use std::hint::black_box;

use sidewire_protocol::schema::{PayloadKind, Schema};

use super::{Case, Subject, events};

pub(super) fn cases() -> Vec<Case> {
    events::all()
        .map(|(name, json)| Case::new(format!("inspect/{name}"), move || Inspect::new(name, json)))
        .collect()
}

struct Inspect {
    schema: Schema,
    envelope: Vec<u8>,
}

impl Inspect {
    fn new(name: &str, json: &str) -> Self {
        let schema = Schema::bundled().unwrap();
        check_that_each_kind_is_measured(&schema);
        let envelope = schema.envelope_from_json(json.as_bytes()).unwrap();
        let inspected = schema.inspect(&envelope).unwrap();
        assert_eq!(inspected.payload.unwrap().name, name);
        assert!(!inspected.topics.is_empty());
        Self { schema, envelope }
    }
}

impl Subject for Inspect {
    fn operate(&mut self) {
        black_box(self.schema.inspect(black_box(&self.envelope)).unwrap());
    }
}

fn check_that_each_kind_is_measured(schema: &Schema) {
    let kinds = schema.payloads().iter();
    let kinds = kinds.filter(|payload| matches!(payload.kind, PayloadKind::Event { .. }));
    let kinds: Vec<_> = kinds.map(|payload| payload.name.as_str()).collect();
    let measured: Vec<_> = events::all().map(|(name, _)| name).collect();
    assert_eq!(measured, kinds);
}
