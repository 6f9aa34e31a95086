//! Checks that `config.example.toml` has the same keys and defaults as the types.

use std::{collections::BTreeSet, path::Path};

use sidewire_protocol::schema::SchemaSource;
use toml::{Table, Value};

use super::*;
use crate::auth::Algorithm;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A key that no section has.
const UNKNOWN: &str = "zzz";

/// The declared keys of all sections, each with its reload class and type.
const DECLARED: &[&[(&str, &str, &str)]] = &[
    ClientSection::KEYS,
    AuthSection::KEYS,
    SubscribeSection::KEYS,
    SchemaSection::KEYS,
    LimitsSection::KEYS,
    PresenceSection::KEYS,
    ReplaySection::KEYS,
    IngestSection::KEYS,
    OpsSection::KEYS,
    LogSection::KEYS,
];

/// Tables within a section. serde does not tell which keys are tables, so a new table must be
/// added here.
const TABLES_WITHIN: &[&str] = &[
    "auth.keys",
    "auth.subscribe",
    "client.tls",
    "ingest.keys",
    "limits.overrides",
];

/// Of these, the tables that are sections of their own.
const SECTIONS_WITHIN: &[&str] = &["auth.subscribe"];

/// Returns the declared keys with a reload class and a type of which this is true, without tables.
fn declared(is_wanted: fn(&str, &str) -> bool) -> BTreeSet<String> {
    let keys = DECLARED.concat().into_iter();
    keys.filter(|(key, class, kind)| is_wanted(class, kind) && !TABLES_WITHIN.contains(key))
        .map(|(key, ..)| key.to_owned())
        .collect()
}

/// Returns the keys of the types that are directly in a section.
fn keys_of_sections() -> BTreeSet<String> {
    let mut keys = keys_of_types();
    keys.retain(|key| {
        key.rsplit_once('.')
            .is_some_and(|(table, _)| !table.contains('.') || SECTIONS_WITHIN.contains(&table))
    });
    keys
}

fn header(table: &str) -> String {
    match table {
        "auth.subscribe" | "client.tls" => format!("[{table}]"),
        _ => format!("[[{table}]]"),
    }
}

/// Returns the example with its commented-out keys included.
fn uncommented() -> String {
    let live = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|first: char| first == '[' || first.is_alphabetic()))
            .unwrap_or(line)
            .to_owned()
    };
    EXAMPLE.lines().map(|line| live(line) + "\n").collect()
}

/// Returns the keys that the types accept at the end of `text`, as listed by the error for an
/// unknown key.
fn keys_at(text: &str) -> BTreeSet<String> {
    let refusal = Config::parse(&format!("{text}\n{UNKNOWN} = 1\n"), Path::new("/")).unwrap_err();
    let ConfigError::Refused { problems, .. } = refusal else {
        panic!("{refusal}")
    };
    // A table may lack a key besides.
    let expected = format!("unknown key `{UNKNOWN}` ");
    let is_it = |problem: &&ConfigProblem| problem.message.starts_with(&expected);
    let problem = problems.iter().find(is_it);
    let problem = problem.unwrap_or_else(|| panic!("{text}: {problems:?}"));
    assert_eq!(problem.line, Some(2), "{problem:?}");
    let known = problem.hint.as_deref().unwrap();
    let keys = known.strip_prefix("expected one of ").unwrap().split(", ");
    keys.map(str::to_owned).collect()
}

/// Returns every key of the types, such as `client.listen`.
fn keys_of_types() -> BTreeSet<String> {
    let sections = keys_at("");
    let within = TABLES_WITHIN
        .iter()
        .map(|table| (header(table), (*table).to_owned()));
    sections
        .into_iter()
        .map(|section| (format!("[{section}]"), section))
        .chain(within)
        .flat_map(|(header, table)| {
            let keys = keys_at(&header).into_iter();
            keys.map(move |key| format!("{table}.{key}"))
                .collect::<Vec<_>>()
        })
        .filter(|key| !TABLES_WITHIN.contains(&key.as_str()))
        .collect()
}

fn keys_of_file(place: &str, table: &Table, keys: &mut BTreeSet<String>) {
    for (key, value) in table {
        let key = format!("{place}{key}");
        let tables: Vec<_> = match value {
            Value::Table(table) => vec![table],
            Value::Array(array) => array.iter().filter_map(Value::as_table).collect(),
            _ => vec![],
        };
        if tables.is_empty() {
            keys.insert(key);
        } else {
            let place = format!("{key}.");
            tables
                .iter()
                .for_each(|table| keys_of_file(&place, table, keys));
        }
    }
}

#[test]
fn every_table_refuses_an_unknown_key() {
    let sections = keys_at("");
    assert_eq!(sections.len(), 9, "{sections:?}");
    for section in sections {
        assert!(!keys_at(&format!("[{section}]")).is_empty());
    }
    for table in TABLES_WITHIN {
        assert!(!keys_at(&header(table)).is_empty());
    }
}

#[test]
fn the_example_has_exactly_the_keys_of_the_types() {
    let mut of_file = BTreeSet::new();
    keys_of_file("", &uncommented().parse().unwrap(), &mut of_file);
    let of_types = keys_of_types();
    assert!(of_types.len() > 40, "{of_types:?}");
    assert_eq!(of_file, of_types);
}

#[test]
fn the_example_shows_the_defaults() {
    let mut config = Config::parse(EXAMPLE, Path::new("/etc/sidewire")).unwrap();
    let keys = std::mem::take(&mut config.auth.keys);
    assert_eq!(config, Config::default());
    assert_eq!(
        keys,
        [AuthKey::Secret {
            file: "/etc/sidewire/jwt.secret".into(),
            algorithm: Algorithm::HS256,
            kid: None
        }]
    );
}

#[test]
fn the_example_sets_every_key_that_has_a_default() {
    let mut live = BTreeSet::new();
    keys_of_file("", &EXAMPLE.parse().unwrap(), &mut live);
    let mut commented = &keys_of_sections() - &live;
    // No key of this section has a default.
    commented.retain(|key| !key.starts_with("schema."));
    let mut optional = declared(|_, kind| kind.starts_with("Option"));
    optional.retain(|key| !key.starts_with("schema."));
    assert_eq!(commented, optional);
}

#[test]
fn the_commented_out_keys_of_the_example_are_valid() {
    // A group needs a Unix socket, and a schema can have one source only.
    let text = uncommented()
        .replace("bundled = \"generic\"\n", "")
        .replace("descriptor_set = \"chat.binpb\"\n", "")
        .replace("127.0.0.1:3001", "unix:ingest.sock")
        .replace("127.0.0.1:3002", "unix:ops.sock");
    let config = Config::parse(&text, Path::new("/etc/sidewire")).unwrap();
    assert_eq!(
        config.ops.listen,
        ListenAddress::Unix("/etc/sidewire/ops.sock".into())
    );
    assert_eq!(config.auth.keys.len(), 4);
    assert_eq!(
        config.auth.issuer.as_deref(),
        Some("https://login.example.com")
    );
    assert_eq!(config.ingest.keys.len(), 1);
    assert_eq!(
        config.ingest.keys[0].key_file,
        Path::new("/etc/sidewire/ingest.key")
    );
    assert_eq!(
        config.schema.source(),
        SchemaSource::Files {
            files: vec!["/etc/sidewire/proto/chat.proto".into()],
            include: vec!["/etc/sidewire/proto".into()],
            envelope: "chat.v1.Envelope".to_owned(),
        }
    );
}

/// Returns the keys that need a restart according to their comment, or that of their section,
/// in the example. A comment applies to the keys below it, up to the next comment.
fn said_to_need_a_restart() -> BTreeSet<String> {
    const WORD: &str = "Needs a restart.";
    let mut found = BTreeSet::new();
    let (mut section, mut of_section, mut comment) = (String::new(), false, String::new());
    let mut was_comment = false;
    for line in EXAMPLE.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let is_comment = line.starts_with("# ") || line == "#";
        if is_comment {
            if !was_comment {
                comment.clear();
            }
            comment += bare;
        } else if let Some(name) = bare.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
            of_section = comment.contains(WORD);
            comment.clear();
        } else if let Some((key, _)) = bare.split_once(" = ") {
            if of_section || comment.contains(WORD) {
                found.insert(format!("{section}.{key}"));
            }
        } else {
            comment.clear();
        }
        was_comment = is_comment;
    }
    found
}

#[test]
fn every_key_either_changes_at_once_or_needs_a_restart_and_the_example_says_which() {
    let fixed = declared(|class, _| class.starts_with("restart"));
    let at_once = declared(|class, _| class == "live");
    assert_eq!(&fixed | &at_once, keys_of_sections());
    assert_eq!(said_to_need_a_restart(), fixed);
}

#[test]
fn a_key_that_needs_a_restart_keeps_its_value_and_is_named_once() {
    let running = Config::parse(EXAMPLE, Path::new("/etc/sidewire")).unwrap();
    let text = EXAMPLE
        .replace("listen = \"0.0.0.0:3000\"", "listen = \"127.0.0.1:4000\"")
        .replace("mode = \"jwt\"", "mode = \"none\"")
        .replace("[[auth.keys]]\nsecret_file = \"jwt.secret\"\n", "")
        .replace("events = 10000", "events = 5")
        .replace("algorithm = \"HS256\"\n", "")
        .replace("outbox_frames = 1000", "outbox_frames = 7")
        .replace("#[client.tls]", "[client.tls]")
        .replace("#cert_file", "cert_file")
        .replace("#key_file = \"tls.key\"", "key_file = \"tls.key\"");
    let mut new = Config::parse(&text, Path::new("/etc/sidewire")).unwrap();
    assert_eq!(
        new.keep_fixed(&running),
        ["client.listen", "client.tls", "auth.mode", "replay.events"]
    );
    let mut expected = running.clone();
    expected.limits.outbox_frames = 7;
    assert_eq!(new, expected);
    assert_eq!(new.keep_fixed(&running), [""; 0]);
}

#[test]
fn the_files_of_a_certificate_change_without_a_restart() {
    let with = |file: &str| {
        let tls = format!("[client.tls]\ncert_file = \"{file}.crt\"\nkey_file = \"{file}.key\"");
        Config::parse(&format!("{EXAMPLE}\n{tls}"), Path::new("/")).unwrap()
    };
    let mut new = with("new");
    assert_eq!(new.keep_fixed(&with("old")), [""; 0]);
    assert_eq!(new, with("new"));
}
