//! Splitting batches, and the schema's lists of ids.

use super::{
    super::{BatchError, NamedTopics, WireFault},
    Schema, field, pool_of,
};

#[test]
fn a_batch_gives_its_envelopes_in_order() {
    let schema = Schema::bundled().unwrap();
    let batch = [
        field(1, b"one"),
        field(7, b"unknown"),
        field(1, b""),
        field(1, b"three"),
    ]
    .concat();
    let messages = schema.batch_messages(&batch, 3).unwrap();
    assert_eq!(messages, [b"one".as_slice(), b"", b"three"]);
    assert_eq!(schema.batch_messages(b"", 3).unwrap().len(), 0);
}

#[test]
fn a_batch_of_too_many_messages_or_unknown_fields_is_refused_before_its_end_is_read() {
    let schema = Schema::bundled().unwrap();
    let max = 1000;
    for (field, messages, refused) in [
        (b"\x0a\x00", max, BatchError::TooMany { max }),
        (b"\x3a\x00", 0, BatchError::UnknownFields { max }),
    ] {
        let batch = field.repeat(max);
        assert_eq!(schema.batch_messages(&batch, max).unwrap().len(), messages);
        let one_more = [&batch[..], field, b"\xff malformed"].concat();
        assert_eq!(schema.batch_messages(&one_more, max), Err(refused));
    }
}

#[test]
fn a_malformed_batch_is_refused() {
    let schema = Schema::bundled().unwrap();
    for (batch, fault, path) in [
        (b"\x0a\x00\x0a\x05".as_slice(), WireFault::Truncated, None),
        (
            b"\x0a\x00\x08\x05",
            WireFault::Mistyped,
            Some("messages[1]"),
        ),
        (b"\x13\x14", WireFault::Group, None),
    ] {
        let Err(BatchError::Wire(error)) = schema.batch_messages(batch, 9) else {
            panic!("{batch:x?} is taken");
        };
        assert_eq!((error.fault(), error.field()), (fault, path));
    }
}

#[test]
fn a_schema_without_field_17_has_no_batches() {
    let text = super::TORTURE.replace("    Batch batch = 17;\n", "");
    let schema = Schema::compile(&pool_of(&text), "test.v1.Envelope").unwrap();
    assert!(!schema.has_batch());
    assert_eq!(schema.batch_messages(b"", 9), Err(BatchError::Unsupported));
    assert!(schema.batch_from_json(b"{}", usize::MAX).is_err());
}

#[test]
fn the_ids_of_a_request_are_grouped_by_list_and_in_order() {
    let schema = Schema::bundled().unwrap();
    let lists = schema.subscribe_lists();
    let described: Vec<_> = lists
        .as_slice()
        .iter()
        .map(|list| (list.number, list.name.as_str(), list.kind.as_str()))
        .collect();
    let expected = [
        (1, "project_ids", "project"),
        (2, "sprint_ids", "sprint"),
        (3, "work_item_ids", "work_item"),
    ];
    assert_eq!(described, expected);
    assert_eq!(schema.unsubscribe_lists(), lists);
    let payload = [
        field(3, b"i"),
        field(1, b"p"),
        field(16, b"project:q"),
        field(1, b"*"),
        field(1, b"p"),
        field(17, b""),
    ];
    let payload = payload.concat();
    let named = lists.named_topics(&payload, 5).unwrap();
    let ids = |named: NamedTopics<'_, '_>| -> Vec<_> {
        let ids = named.ids.into_iter();
        ids.map(|(list, ids)| (list.number, ids.join(",")))
            .collect()
    };
    assert_eq!((named.count, &*named.topics), (5, &["project:q"][..]));
    let expected = [(1, "p,*,p"), (2, ""), (3, "i")];
    assert_eq!(
        ids(named),
        expected.map(|(list, ids)| (list, ids.to_owned()))
    );
    // What exceeds the maximum is counted and not read.
    let named = lists.named_topics(&payload, 2).unwrap();
    assert_eq!((named.count, &*named.topics), (5, &[][..]));
    let expected = [(1, "p"), (2, ""), (3, "i")];
    assert_eq!(
        ids(named),
        expected.map(|(list, ids)| (list, ids.to_owned()))
    );
}

#[test]
fn a_schema_may_have_no_lists() {
    let schema = super::torture();
    assert_eq!(schema.subscribe_lists().as_slice(), []);
    let payload = field(16, b"a:1");
    let named = schema.subscribe_lists().named_topics(&payload, 1).unwrap();
    assert_eq!((named.ids, named.topics), (vec![], vec!["a:1"]));
}

#[test]
fn a_malformed_id_is_refused_with_its_path() {
    let schema = Schema::bundled().unwrap();
    let payload = [field(1, b"p"), field(1, b"\xff")].concat();
    let lists = schema.subscribe_lists();
    let error = lists.named_topics(&payload, 2).unwrap_err();
    assert_eq!(
        (error.fault(), error.field()),
        (WireFault::Utf8, Some("project_ids[1]"))
    );
    let error = lists.named_topics(b"\x08\x01", 2).unwrap_err();
    assert_eq!(
        (error.fault(), error.field()),
        (WireFault::Mistyped, Some("project_ids[0]"))
    );
}
