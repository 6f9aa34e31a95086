//! Holds `config.example.toml` equal to the types: the same keys, the same
//! defaults.

use std::{collections::BTreeSet, path::Path};

use toml::{Table, Value};

use super::*;
use crate::auth::Algorithm;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// A key that no section has.
const UNKNOWN: &str = "zzz";

/// The tables that lie within a section: serde does not tell which keys are
/// tables, so a new one has to be named here.
const TABLES_WITHIN: [&str; 4] = ["auth.keys", "client.tls", "ingest.keys", "limits.overrides"];

fn header(table: &str) -> String {
    match table {
        "client.tls" => format!("[{table}]"),
        _ => format!("[[{table}]]"),
    }
}

/// The example with the keys that it comments out.
fn uncommented() -> String {
    let live = |line: &str| {
        line.strip_prefix('#')
            .filter(|rest| rest.starts_with(|first: char| first == '[' || first.is_alphabetic()))
            .unwrap_or(line)
            .to_owned()
    };
    EXAMPLE.lines().map(|line| live(line) + "\n").collect()
}

/// The keys that the types have at the place where `text` ends, as the refusal of
/// an unknown one lists them.
fn keys_at(text: &str) -> BTreeSet<String> {
    let refusal = Config::parse(&format!("{text}\n{UNKNOWN} = 1\n"), Path::new("/")).unwrap_err();
    let ConfigError::Refused { problems, .. } = refusal else {
        panic!("{refusal}")
    };
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    let expected = format!("unknown key `{UNKNOWN}` ");
    assert!(
        problem.message.starts_with(&expected),
        "{text}: {problem:?}"
    );
    assert_eq!(problem.line, Some(2), "{problem:?}");
    let known = problem.hint.as_deref().unwrap();
    let keys = known.strip_prefix("known are ").unwrap().split(", ");
    keys.map(str::to_owned).collect()
}

/// Every key of the types, such as `client.listen`.
fn keys_of_types() -> BTreeSet<String> {
    let sections = keys_at("");
    let within = TABLES_WITHIN.map(|table| (header(table), table.to_owned()));
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
    assert_eq!(sections.len(), 7, "{sections:?}");
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
    let commented: Vec<_> = keys_of_types().difference(&live).cloned().collect();
    assert_eq!(
        commented,
        [
            "auth.audience",
            "auth.issuer",
            "auth.keys.jwks_file",
            "auth.keys.jwks_url",
            "auth.keys.kid",
            "auth.keys.public_key_file",
            "client.tls.cert_file",
            "client.tls.key_file",
            "ingest.keys.burst",
            "ingest.keys.key_file",
            "ingest.keys.name",
            "ingest.keys.period",
            "ingest.keys.tenants",
            "ingest.socket_group",
            "ingest.tenant_burst",
            "limits.connections",
            "limits.connections_per_address",
            "limits.connections_per_tenant",
            "limits.connections_per_user",
            "limits.handshakes_per_second",
            "limits.overrides.connections_per_tenant",
            "limits.overrides.connections_per_user",
            "limits.overrides.ingest_burst",
            "limits.overrides.ingest_period",
            "limits.overrides.tenant_burst",
            "limits.overrides.tenant_period",
            "limits.overrides.tenants",
            "limits.overrides.user_burst",
            "limits.overrides.user_handshakes_per_minute",
            "limits.overrides.user_period",
            "limits.user_handshakes_per_minute",
            "ops.socket_group",
        ]
    );
}

#[test]
fn what_the_example_comments_out_is_good_too() {
    // A group is for a Unix socket.
    let text = uncommented()
        .replace("\"127.0.0.1:3001\"", "\"unix:ingest.sock\"")
        .replace("\"127.0.0.1:3002\"", "\"unix:ops.sock\"");
    let config = Config::parse(&text, Path::new("/etc/sidewire")).unwrap();
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
}
