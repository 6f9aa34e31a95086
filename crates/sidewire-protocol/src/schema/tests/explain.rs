//! The explanation of an event's topics agrees with its routing, and the routing table
//! lists every path that an explanation finds.

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::{collection::vec, prelude::*};

use super::{super::oracle::random_envelope as random, torture};
use crate::schema::{BundledSchema, Schema, TopicRoutes};

static TORTURE: LazyLock<Schema> = LazyLock::new(torture);
static BUNDLED: LazyLock<Vec<Schema>> = LazyLock::new(|| {
    let all = BundledSchema::load_all().unwrap();
    all.iter()
        .map(|bundled| bundled.compile().unwrap())
        .collect()
});

/// Compares both views of the envelope. Returns true if it is accepted.
fn compare(schema: &Schema, envelope: &[u8]) -> bool {
    let (inspected, explained) = (schema.inspect(envelope), schema.explain_topics(envelope));
    let (inspected, explained) = match (inspected, explained) {
        (Ok(inspected), Ok(explained)) => (inspected, explained),
        (inspected, explained) => {
            assert_eq!(inspected.err(), explained.err());
            return false;
        }
    };
    let routed: BTreeSet<_> = inspected.topics.iter().map(ToString::to_string).collect();
    let topics = explained.iter().filter_map(|field| field.topic.as_ref());
    assert_eq!(
        topics.map(ToString::to_string).collect::<BTreeSet<_>>(),
        routed
    );
    let mut paths = BTreeSet::new();
    for field in &explained {
        assert!(paths.insert(&field.path), "{} comes twice", field.path);
        assert_eq!(field.topic.is_none(), field.value.is_empty());
        assert!(
            is_listed(schema, &field.path),
            "{} is not listed",
            field.path
        );
    }
    true
}

/// Returns true if the path of an explanation is in the routing table.
fn is_listed(schema: &Schema, path: &str) -> bool {
    let path = without_indexes(path);
    if is_below(&schema.envelope_routes(), path.clone()) {
        return true;
    }
    let (name, path) = path.split_once('.').unwrap();
    let payload = schema.payloads().iter().find(|it| it.name == name);
    is_below(&schema.payload_routes(payload.unwrap()), path.to_owned())
}

fn is_below(routes: &TopicRoutes, mut path: String) -> bool {
    assert!(!routes.is_cut);
    for _ in 0..100 {
        if routes.paths.iter().any(|it| it.path == path) {
            return true;
        }
        let shorter = routes.recursions.iter().find_map(|recursion| {
            let rest = path.strip_prefix(&format!("{}.", recursion.path))?;
            Some(match recursion.same_as.as_str() {
                "" => rest.to_owned(),
                outer => format!("{outer}.{rest}"),
            })
        });
        match shorter {
            Some(shorter) => path = shorter,
            None => return false,
        }
    }
    panic!("{path} has no end");
}

/// `list[3]` becomes `list[]`, and `map{"a"}` becomes `map{}`. A key of the random
/// envelopes has no brace.
fn without_indexes(path: &str) -> String {
    let mut out = String::new();
    let mut within = None;
    for (at, character) in path.char_indices() {
        match (within, character) {
            (None, '{') => within = Some('}'),
            // The name of an extension is in brackets too.
            (None, '[') if path.as_bytes()[at + 1].is_ascii_digit() => {
                within = Some(']');
            }
            (Some(end), character) if character == end => within = None,
            (Some(_), _) => continue,
            _ => {}
        }
        out.push(character);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_envelope_has_the_same_topics_routed_and_explained(tape in vec(any::<u8>(), 0..600)) {
        compare(&TORTURE, &random(&TORTURE, &tape));
    }

    #[test]
    fn an_envelope_of_a_bundled_schema_has_the_same_topics_routed_and_explained(
        tape in vec(any::<u8>(), 0..300),
    ) {
        for schema in BUNDLED.iter() {
            compare(schema, &random(schema, &tape));
        }
    }
}

#[test]
fn a_path_has_indexes_keys_and_unset_fields() {
    let json = r#"{"tree": {
        "id": "a", "tags": ["x", ""], "children": [{"id": "b"}, {"id": "c", "note": "n"}],
        "named": {"it": {"id": "d"}}, "numbered": {"7": {"id": "e"}}
    }}"#;
    let envelope = TORTURE.envelope_from_json(json.as_bytes()).unwrap();
    assert!(compare(&TORTURE, &envelope));
    let explained = TORTURE.explain_topics(&envelope).unwrap();
    let given = explained.iter().filter_map(|field| {
        let topic = field.topic.as_ref()?;
        Some((field.path.as_str(), topic.as_str()))
    });
    let given: Vec<_> = given.collect();
    let expected = [
        ("tree.id", "node:a"),
        ("tree.children[0].id", "node:b"),
        ("tree.children[1].id", "node:c"),
        ("tree.children[1].note", "note:n"),
        (r#"tree.named{"it"}.id"#, "node:d"),
        ("tree.numbered{7}.id", "node:e"),
        ("tree.tags[0]", "tag:x"),
    ];
    assert_eq!(given, expected);
    let empty = explained.iter().filter(|field| field.topic.is_none());
    let empty: Vec<_> = empty.map(|field| field.path.as_str()).collect();
    for path in [
        "trace",
        "tree.note",
        "tree.tags[1]",
        "tree.owner",
        "tree.children[0].note",
    ] {
        assert!(empty.contains(&path), "{path} is not in {empty:?}");
    }
}

#[test]
fn a_refusal_is_the_same_as_by_the_relay() {
    let envelope = TORTURE
        .envelope_from_json(br#"{"tree": {"id": "*"}}"#)
        .unwrap();
    let refused = TORTURE.explain_topics(&envelope).unwrap_err();
    assert_eq!(refused, TORTURE.inspect(&envelope).unwrap_err());
    assert_eq!(refused.field(), Some("tree.id"));
}
