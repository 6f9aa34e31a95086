//! The single pass over an envelope, compared with prost-reflect. The first byte selects
//! the envelope's schema, and whether the rest is its bytes or a tape from which it is
//! written and damaged.

use sidewire_protocol::schema::{
    Schema,
    oracle::{damaged_envelope, judge, judge_client_event, random_envelope},
};

use crate::{
    schemas::{BUNDLED, TORTURE},
    seeds::{Seeds, events, noise},
};

/// Checks one envelope.
pub fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else {
        return;
    };
    let schema: &Schema = if first & 1 == 0 { &BUNDLED } else { &TORTURE };
    let envelope = match first >> 1 & 3 {
        0 | 1 => rest.to_vec(),
        2 => random_envelope(schema, rest),
        _ => {
            let (harm, tape) = rest.split_at(rest.len() / 4);
            damaged_envelope(schema, tape, harm)
        }
    };
    judge(schema, &envelope);
    judge_client_event(schema, &envelope);
    // Rendering it as JSON must not panic, whatever it contains.
    drop(schema.envelope_to_json(&envelope));
}

/// Returns the bundled events, and tapes for both schemas.
#[must_use]
pub fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, json) in events() {
        let envelope = BUNDLED.envelope_from_json(json.as_bytes());
        let envelope = envelope.expect("an example is an event");
        seeds.insert(name, [&[0][..], &envelope].concat());
    }
    for number in 0..10 {
        let envelope = random_envelope(&TORTURE, &noise(number, 400));
        seeds.insert(format!("torture-{number}"), [&[1][..], &envelope].concat());
        for first in 4..8 {
            let tape = noise(number * 8 + u64::from(first), 200);
            let name = format!("tape-{first}-{number}");
            seeds.insert(name, [&[first][..], &tape].concat());
        }
    }
    seeds
}
