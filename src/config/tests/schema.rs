//! Tests of `[schema]`: valid combinations of keys, and the sources that they name.

use sidewire_protocol::schema::{BundledSchema, SchemaSource};

use super::*;

fn source(section: &str) -> SchemaSource {
    let config = parse(&format!("{KEY}[schema]\n{section}"));
    config.expect(section).schema.source()
}

#[test]
fn without_keys_the_default_bundled_schema_is_used() {
    assert_eq!(
        parse(KEY).unwrap().schema.source(),
        SchemaSource::Bundled(None)
    );
    assert_eq!(source(""), SchemaSource::Bundled(None));
}

#[test]
fn every_bundled_schema_can_be_selected_by_name() {
    let names: Vec<_> = BundledSchema::load_all()
        .unwrap()
        .into_iter()
        .map(|it| it.name)
        .collect();
    assert!(names.len() > 1);
    for name in names {
        let picked = source(&format!("bundled = \"{name}\""));
        assert_eq!(picked, SchemaSource::Bundled(Some(name)));
    }
}

#[test]
fn paths_are_relative_to_the_directory_of_the_config_file() {
    assert_eq!(
        source("files = [\"a.proto\", \"/b.proto\"]\ninclude = [\"inc\"]\nenvelope = \"E\""),
        SchemaSource::Files {
            files: vec!["/etc/sidewire/a.proto".into(), "/b.proto".into()],
            include: vec!["/etc/sidewire/inc".into()],
            envelope: "E".to_owned(),
        }
    );
    assert_eq!(
        source("descriptor_set = \"a.binpb\"\nenvelope = \"a.b.C_1\""),
        SchemaSource::DescriptorSet {
            file: "/etc/sidewire/a.binpb".into(),
            envelope: "a.b.C_1".to_owned(),
        }
    );
}

#[test]
fn contradictory_keys_are_refused_with_line_and_hint() {
    const FILES: &str = "files = [\"a.proto\"]\nenvelope = \"E\"\n";
    const SET: &str = "descriptor_set = \"a.binpb\"\n";
    for (section, line, message) in [
        (
            format!("{FILES}bundled = \"generic\""),
            4,
            "schema.bundled: is set together with schema.files",
        ),
        (
            format!("{SET}bundled = \"generic\"\nenvelope = \"E\""),
            3,
            "schema.bundled: is set together with schema.descriptor_set",
        ),
        (
            format!("{FILES}{SET}"),
            4,
            "schema.descriptor_set: is set together with schema.files",
        ),
        (
            "files = [\"a.proto\"]".to_owned(),
            2,
            "schema.files: needs schema.envelope",
        ),
        (
            SET.to_owned(),
            2,
            "schema.descriptor_set: needs schema.envelope",
        ),
        (
            "envelope = \"E\"".to_owned(),
            2,
            "schema.envelope: is set without schema.files and schema.descriptor_set",
        ),
        (
            "include = [\"inc\"]".to_owned(),
            2,
            "schema.include: is set without schema.files",
        ),
        (
            format!("{SET}envelope = \"E\"\ninclude = [\"inc\"]"),
            4,
            "schema.include: is set without schema.files",
        ),
        (
            "bundled = \"genric\"".to_owned(),
            2,
            "schema.bundled: there is no bundled schema `genric`; did you mean `generic`?",
        ),
        (
            format!("{SET}envelope = \".E\""),
            3,
            "schema.envelope: \".E\" is not a valid full name of a message",
        ),
        (
            format!("{SET}envelope = \"\""),
            3,
            "schema.envelope: \"\" is not a valid full name of a message",
        ),
        (
            "files = [\"\"]\nenvelope = \"E\"".to_owned(),
            2,
            "schema.files[0]: is empty",
        ),
        (
            "file = \"a.proto\"".to_owned(),
            2,
            "unknown key `file` in [schema]; did you mean `files`?",
        ),
    ] {
        assert_refused_once(&format!("[schema]\n{section}"), line, message);
    }
}

#[test]
fn a_reload_accepts_other_files_but_not_another_envelope() {
    let config = |section: &str| parse(&format!("{KEY}[schema]\n{section}")).unwrap();
    let running = config("files = [\"a.proto\"]\nenvelope = \"E\"");

    let mut new = config("descriptor_set = \"a.binpb\"\nenvelope = \"E\"");
    assert_eq!(new.keep_fixed(&running), [""; 0]);
    assert!(new.schema.descriptor_set.is_some());

    for section in ["", "files = [\"b.proto\"]\nenvelope = \"F\""] {
        let mut new = config(section);
        assert_eq!(new.keep_fixed(&running), ["schema.envelope"]);
        assert_eq!(new.schema, running.schema);
    }

    let default = BundledSchema::load_default().unwrap().name;
    let mut new = config(&format!("bundled = \"{default}\""));
    assert_eq!(new.keep_fixed(&config("")), [""; 0]);
    let mut new = config("bundled = \"generic\"");
    assert_eq!(new.keep_fixed(&config("")), ["schema.bundled"]);
    assert_eq!(new.schema.bundled, None);
}
