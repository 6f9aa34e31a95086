//! Splitting batches, and the schema's lists of ids.

use super::{
    super::{BatchError, WireFault},
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
    let ids = lists.ids_in(&payload).unwrap();
    let ids: Vec<_> = ids
        .into_iter()
        .map(|(list, ids)| (list.number, ids))
        .collect();
    assert_eq!(ids, [(1, vec!["p", "*", "p"]), (2, vec![]), (3, vec!["i"])]);
}

#[test]
fn a_schema_may_have_no_lists() {
    let schema = super::torture();
    assert_eq!(schema.subscribe_lists().as_slice(), []);
    assert_eq!(
        schema.subscribe_lists().ids_in(&field(16, b"a:1")).unwrap(),
        []
    );
}

#[test]
fn a_malformed_id_is_refused_with_its_path() {
    let schema = Schema::bundled().unwrap();
    let payload = [field(1, b"p"), field(1, b"\xff")].concat();
    let error = schema.subscribe_lists().ids_in(&payload).unwrap_err();
    assert_eq!(
        (error.fault(), error.field()),
        (WireFault::Utf8, Some("project_ids[1]"))
    );
    let error = schema.subscribe_lists().ids_in(b"\x08\x01").unwrap_err();
    assert_eq!(
        (error.fault(), error.field()),
        (WireFault::Mistyped, Some("project_ids[0]"))
    );
}
