//! An example of each refusal, with the field that it names, and values that are just
//! within the bounds.

use prost_reflect::DynamicMessage;

use super::{
    super::{BundledSchema, WireFault},
    Schema, field, refusal, topics, torture,
};
use crate::TopicError;

/// A work item created, in the bundled schema.
fn created(work_item: &[u8]) -> Vec<u8> {
    field(2, &field(1, work_item))
}

fn assert_refused(schema: &Schema, envelope: &[u8], fault: WireFault, path: &str) {
    let path = (!path.is_empty()).then(|| path.to_owned());
    assert_eq!(
        refusal(schema, envelope),
        Some((fault, path)),
        "{envelope:x?}"
    );
}

#[test]
fn malformed_bytes_are_refused_with_their_path() {
    let schema = Schema::bundled().unwrap();
    let cases: [(Vec<u8>, WireFault, &str); 16] = [
        (b"\x12".to_vec(), WireFault::Truncated, ""),
        (b"\x12\x05hi".to_vec(), WireFault::Truncated, ""),
        (b"\x00\x00".to_vec(), WireFault::FieldNumber, ""),
        (b"\x0e".to_vec(), WireFault::WireType, ""),
        (b"\x0b\x0c".to_vec(), WireFault::Group, ""),
        // An unknown group, far above the known fields.
        (b"\xa3\x06\xa4\x06".to_vec(), WireFault::Group, ""),
        (
            created(b"\xa3\x06\xa4\x06"),
            WireFault::Group,
            "work_item_created.work_item",
        ),
        (
            created(b"\x0a\x03ab"),
            WireFault::Truncated,
            "work_item_created.work_item",
        ),
        (
            created(b"\x0a\x01\xff"),
            WireFault::Utf8,
            "work_item_created.work_item.id",
        ),
        (
            created(b"\x08\x01"),
            WireFault::Mistyped,
            "work_item_created.work_item.id",
        ),
        (
            created(b"\x12\x01\x01"),
            WireFault::Mistyped,
            "work_item_created.work_item.item_type",
        ),
        (
            created(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
            WireFault::Varint,
            "work_item_created.work_item",
        ),
        (field(1, b"\xff"), WireFault::Utf8, "message_id"),
        (b"\x42\x00".to_vec(), WireFault::Mistyped, "timestamp"),
        (field(18, b"\xff"), WireFault::Utf8, "topics[0]"),
        (
            field(
                10,
                &[field(1, b"a"), field(2, b"b"), field(1, b"\xff")].concat(),
            ),
            WireFault::Utf8,
            "subscribe.project_ids[1]",
        ),
    ];
    for (envelope, fault, path) in cases {
        assert_refused(&schema, &envelope, fault, path);
    }
}

#[test]
fn a_second_payload_is_refused_whether_the_same_or_another() {
    let schema = Schema::bundled().unwrap();
    let twice = [field(2, b""), field(2, b"")].concat();
    assert_refused(
        &schema,
        &twice,
        WireFault::SecondPayload,
        "work_item_created",
    );
    let two = [field(2, b""), field(14, b"")].concat();
    assert_refused(&schema, &two, WireFault::SecondPayload, "ping");
}

#[test]
fn a_relay_field_may_occur_only_once() {
    let schema = Schema::bundled().unwrap();
    for (once, name) in [
        (field(1, b"m"), "message_id"),
        (field(1, b""), "message_id"),
        (b"\x40\x00".to_vec(), "timestamp"),
        (b"\x40\x07".to_vec(), "timestamp"),
        (field(9, b""), "position"),
    ] {
        assert!(schema.inspect(&once).is_ok());
        assert_refused(&schema, &once.repeat(2), WireFault::Repeated, name);
    }
}

#[test]
fn field_numbers_reserved_by_the_relay_are_refused() {
    let schema = Schema::bundled().unwrap();
    for number in 21..=31 {
        assert_refused(&schema, &field(number, b""), WireFault::Reserved, "");
    }
    let without_renewal = torture();
    for number in 19..=20 {
        assert_refused(
            &without_renewal,
            &field(number, b""),
            WireFault::Reserved,
            "",
        );
        assert!(schema.inspect(&field(number, b"")).is_ok());
    }
    assert!(
        schema.inspect(&field(46, b"")).is_ok(),
        "unknown, but the application's"
    );
}

#[test]
fn an_invalid_id_is_refused_with_its_path() {
    let schema = Schema::bundled().unwrap();
    let long = [b'x'; 257];
    for (id, fault) in [
        (b"*".as_slice(), WireFault::Wildcard),
        (&long, WireFault::Topic(TopicError::IdTooLong)),
        (b"a\0", WireFault::Topic(TopicError::ControlCharacter)),
        (
            "\u{85}".as_bytes(),
            WireFault::Topic(TopicError::ControlCharacter),
        ),
    ] {
        let envelope = created(&field(3, id));
        let path = "work_item_created.work_item.project_id";
        assert_refused(&schema, &envelope, fault, path);
    }
    let tree = field(2, &[field(10, b"a"), field(10, b"*")].concat());
    assert_refused(&torture(), &tree, WireFault::Wildcard, "tree.tags[1]");
}

#[test]
fn an_invalid_whole_topic_is_refused_with_its_path() {
    let schema = BundledSchema::by_name("generic")
        .unwrap()
        .compile()
        .unwrap();
    let message = |topics: &[&str]| {
        let topics = topics.iter().map(|topic| field(5, topic.as_bytes()));
        field(33, &topics.collect::<Vec<_>>().concat())
    };
    for (topic, fault) in [
        ("order:*", WireFault::Wildcard),
        ("user:*", WireFault::Wildcard),
        ("tenant:acme", WireFault::TenantTopic),
        ("order", WireFault::Topic(TopicError::NoColon)),
        ("Order:7", WireFault::Topic(TopicError::MalformedKind)),
        ("order:", WireFault::Topic(TopicError::EmptyId)),
    ] {
        let envelope = message(&["order:7", topic]);
        assert_refused(&schema, &envelope, fault, "message.topics[1]");
    }
    let envelope = message(&["tenant:*", "", "user:ann", "tenant:*"]);
    let inspected = schema.inspect(&envelope).unwrap();
    assert_eq!(topics(&inspected), ["tenant:*", "user:ann"]);
}

#[test]
fn an_id_of_256_bytes_or_with_a_colon_is_accepted() {
    let schema = Schema::bundled().unwrap();
    for id in ["x".repeat(256), "a:b".to_owned()] {
        let envelope = created(&field(3, id.as_bytes()));
        let inspected = schema.inspect(&envelope).unwrap();
        assert_eq!(topics(&inspected), [format!("project:{id}")]);
    }
}

#[test]
fn a_value_that_is_replaced_later_names_no_topic() {
    let schema = torture();
    let tree = |fields: &[Vec<u8>]| field(2, &fields.concat());
    // A singular string: the last one counts, and the first may be anything.
    let envelope = tree(&[field(1, b"*"), field(1, b"a")]);
    assert_eq!(topics(&schema.inspect(&envelope).unwrap()), ["node:a"]);
    let envelope = tree(&[field(1, b"a"), field(1, b"*")]);
    assert_refused(&schema, &envelope, WireFault::Wildcard, "tree.id");
    // A singular message: both parts count, and its own fields replace.
    let envelope = tree(&[field(2, &field(1, b"a")), field(2, &field(9, b"b"))]);
    assert_eq!(
        topics(&schema.inspect(&envelope).unwrap()),
        ["node:a", "note:b"]
    );
    // A map: the last entry of a key counts.
    let entry =
        |key: &[u8], id: &[u8]| field(5, &[field(1, key), field(2, &field(1, id))].concat());
    let envelope = tree(&[entry(b"k", b"a"), entry(b"l", b"b"), entry(b"k", b"c")]);
    assert_eq!(
        topics(&schema.inspect(&envelope).unwrap()),
        ["node:c", "node:b"]
    );
    // A oneof: the last member counts, annotated or not.
    let choice = |fields: &[Vec<u8>]| field(33, &fields.concat());
    let envelope = choice(&[field(1, b"a"), b"\x20\x01".to_vec()]);
    assert_eq!(topics(&schema.inspect(&envelope).unwrap()), [""; 0]);
    let envelope = choice(&[b"\x20\x01".to_vec(), field(1, b"a")]);
    assert_eq!(topics(&schema.inspect(&envelope).unwrap()), ["name:a"]);
}

#[test]
fn topics_are_unique_and_in_the_order_of_the_bytes() {
    let ids = [
        field(10, b"b"),
        field(1, b"z"),
        field(10, b"a"),
        field(10, b"b"),
    ];
    let envelope = field(2, &ids.concat());
    let schema = torture();
    let inspected = schema.inspect(&envelope).unwrap();
    assert_eq!(topics(&inspected), ["tag:b", "node:z", "tag:a"]);
}

#[test]
fn an_annotated_field_beside_the_payload_counts() {
    let schema = torture();
    let envelope = [field(500, b"t"), field(4, b"")].concat();
    assert_eq!(topics(&schema.inspect(&envelope).unwrap()), ["trace:t"]);
}

#[test]
fn more_watched_fields_than_bits_still_give_the_right_topics() {
    let fields: String = (1..=100)
        .map(|number| format!("string f{number} = {number} [(sidewire.v1.topic) = \"wide\"];\n"))
        .collect();
    let text = super::TORTURE.replace(
        "message Plain {",
        &format!("message Wide {{ {fields} }} message Plain {{ Wide wide = 9;"),
    );
    let schema = Schema::compile(&super::pool_of(&text), "test.v1.Envelope").unwrap();
    let all: Vec<_> = (1..=100)
        .map(|number| field(number, number.to_string().as_bytes()))
        .collect();
    let wide: Vec<u8> = [all.concat(), field(90, b"*"), field(90, b"last")].concat();
    let envelope = field(4, &field(9, &wide));
    let inspected = schema.inspect(&envelope).unwrap();
    let mut expected: Vec<_> = (1..=100).map(|number| format!("wide:{number}")).collect();
    expected[89] = "wide:last".to_owned();
    assert_eq!(topics(&inspected), expected);
}

/// Returns a message nested `levels` deep below the envelope, with `inner` innermost.
fn nested(levels: usize, inner: &[u8]) -> Vec<u8> {
    let innermost = (1..levels).fold(inner.to_vec(), |below, _| field(2, &below));
    field(2, &innermost)
}

fn both_take(schema: &Schema, envelope: &[u8]) -> bool {
    let theirs = DynamicMessage::decode(schema.envelope.clone(), envelope).is_ok();
    let ours = refusal(schema, envelope);
    let fault = ours.as_ref().map(|(fault, _)| *fault);
    assert_eq!(theirs, ours.is_none(), "{ours:?}");
    assert!(matches!(fault, None | Some(WireFault::TooDeep)));
    theirs
}

#[test]
fn messages_may_be_nested_100_levels_below_the_envelope() {
    let schema = torture();
    for levels in 90..=110 {
        assert_eq!(both_take(&schema, &nested(levels, b"")), levels <= 100);
    }
    let (_, path) = refusal(&schema, &nested(101, b"")).unwrap();
    assert_eq!(path.unwrap(), format!("tree{}", ".left".repeat(100)));
}

/// prost does not count the map entry as a level, so it accepts what is refused here.
#[test]
fn a_map_entry_is_one_level_and_its_value_is_another() {
    let schema = torture();
    let key = field(5, &field(1, b"k"));
    let value = field(5, &field(2, b""));
    let unknown = field(5, &field(3, b""));
    for (levels_max, inner) in [(99, key), (98, value), (99, unknown)] {
        assert!(both_take(&schema, &nested(levels_max, &inner)));
        let (fault, path) = refusal(&schema, &nested(levels_max + 1, &inner)).unwrap();
        assert_eq!(fault, WireFault::TooDeep, "{path:?}");
    }
}

#[test]
fn the_content_of_unknown_fields_is_not_checked() {
    let schema = Schema::bundled().unwrap();
    let opaque = [0xff; 300];
    assert!(schema.inspect(&field(46, &opaque)).is_ok());
    assert!(schema.inspect(&created(&field(77, &opaque))).is_ok());
}

#[test]
fn only_field_18_and_default_values_are_removed() {
    let schema = Schema::bundled().unwrap();
    let event = created(&field(1, b"i"));
    let unknown = field(77, b"?");
    let envelope = [
        &field(18, b"a:1")[..],
        &field(18, b"")[..],
        &event[..],
        b"\x40\x80\x00",
        &field(18, b"no topic")[..],
        &unknown[..],
        &field(1, b"")[..],
    ]
    .concat();
    let inspected = schema.inspect(&envelope).unwrap();
    assert_eq!(inspected.extra_topics, ["a:1", "", "no topic"]);
    assert_eq!((inspected.message_id, inspected.timestamp), (None, None));
    assert_eq!(
        inspected.kept_bytes().collect::<Vec<_>>(),
        [&event[..], &unknown[..]]
    );
    assert_eq!(inspected.kept_len(), event.len() + unknown.len());
    let set = [field(1, b"m"), b"\x40\x07".to_vec(), event].concat();
    let inspected = schema.inspect(&set).unwrap();
    assert_eq!(
        (inspected.message_id, inspected.timestamp),
        (Some("m"), Some(7))
    );
    assert_eq!(inspected.kept_bytes().collect::<Vec<_>>(), [&set[..]]);
}

#[test]
fn an_empty_envelope_has_no_payload() {
    let schema = Schema::bundled().unwrap();
    let inspected = schema.inspect(b"").unwrap();
    assert_eq!(inspected.payload, None);
    assert_eq!(inspected.kept_bytes().count(), 0);
    assert!(!inspected.has_position);
}
