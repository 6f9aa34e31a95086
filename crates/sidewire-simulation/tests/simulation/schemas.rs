//! The schemas of a simulation: the bundled one with an extended event, and its reloaded
//! revisions, each with one more field than the previous one.

use std::{
    fs,
    path::Path,
    sync::{Arc, LazyLock},
};

use sidewire_protocol::schema::{BundledSchema, Schema};

/// Number of revisions. The first one is in force from the beginning.
pub(super) const REVISIONS: usize = 3;

/// Name of the only value of [`BLOWN_FIELD`], which is long in JSON and short in binary.
pub(super) const BLOWN_UP: &str = "BLOWN_UP_TO_THIRTY_CHARACTERS";

/// A list of enum values: one byte each on the wire.
const BLOWN_FIELD: &str = "repeated Blown blown = 50;";

/// The message that is extended.
const EVENT: &str = "message CommentDeleted {";

static SCHEMAS: LazyLock<[Arc<Schema>; REVISIONS]> =
    LazyLock::new(|| std::array::from_fn(|revision| Arc::new(schema(revision))));

/// Returns the schema in force after `revision` reloads.
pub(super) fn of_revision(revision: usize) -> Arc<Schema> {
    Arc::clone(&SCHEMAS[revision])
}

fn schema(revision: usize) -> Schema {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/tracker/v1");
    let files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            (
                format!("tracker/v1/{name}"),
                with_more_fields(&text, revision),
            )
        })
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    Schema::from_texts(&files, &BundledSchema::load_default().unwrap().envelope).unwrap()
}

fn with_more_fields(text: &str, revision: usize) -> String {
    let added = (1..=revision).map(|n| format!("optional string added_{n} = {};", 100 + n));
    let added: String = added.collect();
    let blown = format!("enum Blown {{ {BLOWN_UP} = 0; }} {BLOWN_FIELD}");
    text.replace(EVENT, &format!("{EVENT} {blown} {added}"))
}
