//! Tests of the configuration file: accepted contents and error messages.

mod keys;
mod schema;
mod values;

use std::{fs, path::Path, time::Duration};

use super::*;

/// The minimal valid file.
const KEY: &str = "[[auth.keys]]\nsecret_file = \"a\"\nalgorithm = \"HS256\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/sidewire"))
}

/// Returns the error message for the text.
fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// Asserts that the text, after a key for tokens, is refused with the message at `line`,
/// counted from the start of the text.
fn assert_refused(text: &str, line: usize, message: &str) {
    let line = line + KEY.lines().count();
    let refusal = refusal(&format!("{KEY}{text}"));
    let expected = format!("line {line}: {message}");
    assert!(refusal.starts_with(&expected), "{text}\n{refusal}");
}

/// Asserts [`assert_refused`], and that there is no other problem.
fn assert_refused_once(text: &str, line: usize, message: &str) {
    assert_refused(text, line, message);
    let error = parse(&format!("{KEY}{text}")).unwrap_err();
    let ConfigError::Refused { problems, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].hint.is_some(), "{problems:?}");
}

#[test]
fn a_file_needs_nothing_but_a_key() {
    let mut config = parse(KEY).unwrap();
    assert_eq!(config.auth.keys.len(), 1);
    config.auth.keys.clear();
    assert_eq!(config, Config::default());
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_a_suggestion() {
    assert_refused_once(
        "\n[client]\norgins = []\n",
        3,
        "unknown key `orgins` in [client]; did you mean `origins`?",
    );
    assert_refused_once(
        "kidd = \"a\"\n",
        1,
        "unknown key `kidd` in [[auth.keys]]; did you mean `kid`?",
    );
    assert_refused_once(
        "[clinet]\nlisten = \"127.0.0.1:1\"\n",
        1,
        "unknown key `clinet` at the top level; did you mean `client`?",
    );
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once_in_its_order() {
    let text = "[client]\nlisten = \"127.0.0.1:1\"\nlisten = 1\nping_intervall = \"30s\"\norigins = \"a\"\n\
                [limits]\nuser_burst = 0\noutbox_frames = \"many\"\n[client]\nhead_max = 1\n";
    let refusal = refusal(&format!("{text}{KEY}kid = 1\n"));
    let lines: Vec<_> = refusal
        .lines()
        .filter(|it| !it.starts_with("  hint"))
        .collect();
    let expected = [
        "line 3: the key `listen` is set twice, first in line 2",
        "line 4: unknown key `ping_intervall` in [client]; did you mean `ping_interval`?",
        "line 5: client.origins: invalid type: string \"a\", expected a list, as in [\"x\"]",
        "line 7: limits.user_burst: invalid value: integer `0`",
        "line 8: limits.outbox_frames: invalid type: string \"many\"",
        "line 9: the section [client] is there twice, first in line 1",
        "line 10: client.head_max: invalid type: integer `1`",
        "line 14: auth.keys[0].kid: invalid type: integer `1`, expected a string",
    ];
    assert_eq!(lines.len(), expected.len(), "{refusal}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{refusal}");
    }
}

#[test]
fn a_terminal_shows_the_line_with_a_mark_below_the_mistake() {
    let shown = |text: &str| parse(text).unwrap_err().with_source_lines(false);
    let unknown = shown("[client]\nping_intervall = \"30s\"\n");
    let expected = "2 | ping_intervall = \"30s\"\n  | ^^^^^^^^^^^^^^\n";
    assert!(unknown.contains(expected), "{unknown}");
    assert!(
        unknown.contains("did you mean `ping_interval`?"),
        "{unknown}"
    );
    assert!(
        unknown.contains("help: expected one of listen"),
        "{unknown}"
    );
    // Also for what only a check of the values finds.
    let checked = shown(&format!("{KEY}[client]\nping_interval = \"0s\"\n"));
    let expected = "5 | ping_interval = \"0s\"\n  | ^^^^^^^^^^^^^\n";
    assert!(checked.contains(expected), "{checked}");
}

#[test]
fn a_key_unlike_any_other_gets_the_list_instead_of_a_suggestion() {
    let refusal = refusal("[ops]\nzzz = 1\n");
    assert_eq!(
        refusal,
        "line 2: unknown key `zzz` in [ops]\n  hint: expected one of listen, socket_mode, socket_group, hosts, tenant_labels, inspector, inspector_key_file"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_refused_with_its_line() {
    for (text, message) in [
        (
            "[client]\nwrite_timeout = 10",
            "client.write_timeout: invalid type: integer `10`, expected a duration with its unit",
        ),
        (
            "[client]\nwrite_timeout = \"10 sex\"",
            "client.write_timeout: invalid value: string \"10 sex\", expected a duration with its unit",
        ),
        (
            "[replay]\nbytes = 65536",
            "replay.bytes: invalid type: integer `65536`, expected a size with its unit",
        ),
        (
            "[limits]\nshards = -1",
            "limits.shards: invalid value: integer `-1`, expected a whole number, 0 or more",
        ),
        (
            "[limits]\nshards = 1.5",
            "limits.shards: invalid type: floating point `1.5`, expected a whole number, 0 or more",
        ),
        (
            "[ops]\nlisten = \"localhost:3002\"",
            "ops.listen: invalid value: string \"localhost:3002\", expected an IP address and a port",
        ),
        (
            "[client]\norigins = [\"https://app.example.com/\"]",
            "client.origins[0]: \"https://app.example.com/\" has more than scheme, host and port",
        ),
        (
            "[auth]\nmode = \"jtw\"",
            "auth.mode: unknown value `jtw`; did you mean `jwt`?",
        ),
        (
            "[log]\nformat = \"xml\"",
            "log.format: unknown value `xml`\n  hint: expected one of auto, pretty, json",
        ),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(&format!("line 2: {message}")),
            "{refusal}"
        );
    }
}

#[test]
fn invalid_toml_is_refused_with_its_line() {
    for (text, line) in [
        ("[client]\nlisten = \n", 2),
        ("[client]\n[client]\n", 2),
        (
            "[ops]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n",
            3,
        ),
        ("client]\n", 1),
    ] {
        let refusal = refusal(text);
        assert!(
            refusal.starts_with(&format!("line {line}: ")),
            "{text}: {refusal}"
        );
    }
}

#[test]
fn listeners_on_the_same_port_are_refused() {
    for (client, ingest, line, message) in [
        (
            "127.0.0.1:4000",
            "127.0.0.1:4000",
            4,
            "ingest.listen: 127.0.0.1:4000 is already used by client.listen",
        ),
        (
            "0.0.0.0:4000",
            "127.0.0.1:4000",
            4,
            "ingest.listen: 127.0.0.1:4000 is already used by client.listen",
        ),
        (
            "[::]:4000",
            "127.0.0.1:4000",
            4,
            "ingest.listen: 127.0.0.1:4000 is already used by client.listen",
        ),
        (
            "[::]:4000",
            "[::1]:4000",
            4,
            "ingest.listen: [::1]:4000 is already used by client.listen",
        ),
        // The key that has its default is not reported.
        (
            "0.0.0.0:3001",
            "127.0.0.1:3001",
            2,
            "client.listen: 0.0.0.0:3001 is already used by ingest.listen",
        ),
        (
            "0.0.0.0:3002",
            "127.0.0.1:4000",
            2,
            "client.listen: 0.0.0.0:3002 is already used by ops.listen",
        ),
        (
            "127.0.0.1:4000",
            "127.0.0.1:3002",
            4,
            "ingest.listen: 127.0.0.1:3002 is already used by ops.listen",
        ),
    ] {
        let text = format!("[client]\nlisten = \"{client}\"\n[ingest]\nlisten = \"{ingest}\"\n");
        assert_refused_once(&text, line, message);
    }
    for (client, ingest) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.2:3001", "127.0.0.1:3001"),
        ("0.0.0.0:3001", "[::1]:3001"),
    ] {
        let text = format!("[client]\nlisten = \"{client}\"\n[ingest]\nlisten = \"{ingest}\"\n");
        parse(&format!("{KEY}{text}")).unwrap();
    }
}

#[test]
fn all_contradictions_are_reported_in_the_order_of_the_file() {
    let refusal = refusal(
        "[replay]\nevents = 0\n[limits]\ntenants = 0\n[auth]\nmode = \"none\"\nissuer = \"a\"\n",
    );
    let lines: Vec<_> = refusal
        .lines()
        .filter(|line| !line.starts_with("  hint: "))
        .collect();
    let starts = [
        "line 2: replay",
        "line 4: limits",
        "line 6: auth.mode",
        "line 7: auth.issuer",
    ];
    assert_eq!(lines.len(), starts.len(), "{refusal}");
    assert!(
        lines
            .iter()
            .zip(starts)
            .all(|(line, start)| line.starts_with(start)),
        "{refusal}"
    );
}

#[test]
fn a_missing_key_is_reported_at_its_section() {
    let refusal = refusal("\n[auth]\nissuer = \"a\"\n");
    assert!(refusal.starts_with("line 2: auth.keys: "), "{refusal}");
}

#[test]
fn the_defaults_lack_only_a_key() {
    let ConfigError::Refused { problems, .. } = Config::default().check().unwrap_err() else {
        panic!("there is no file")
    };
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["auth.keys"]);
    assert_eq!(problems[0].line, None);
}

#[test]
fn paths_are_relative_to_the_file_and_problems_name_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sidewire.toml");
    fs::write(&file, KEY).unwrap();
    let config = Config::load(&file).unwrap();
    let AuthKey::Secret { file: secret, .. } = &config.auth.keys[0] else {
        panic!("{config:?}")
    };
    assert_eq!(*secret, directory.path().join("a"));

    fs::write(&file, format!("{KEY}[log]\nlevle = \"info\"\n")).unwrap();
    let refusal = Config::load(&file).unwrap_err().to_string();
    let expected = format!(
        "{}:5: unknown key `levle` in [log]; did you mean",
        file.display()
    );
    assert!(refusal.starts_with(&expected), "{refusal}");
}

#[test]
fn a_missing_file_is_an_error_with_its_path() {
    let refusal = Config::load(Path::new("/no/such/sidewire.toml")).unwrap_err();
    assert!(matches!(refusal, ConfigError::Unreadable { .. }));
    let expected = "/no/such/sidewire.toml: cannot read the configuration: No such file";
    assert!(refusal.to_string().starts_with(expected), "{refusal}");
}

#[test]
fn a_credential_is_found_where_systemd_put_it_or_refused_with_its_line() {
    let text = format!("{KEY}[[auth.keys]]\njwks_file = \"$CREDENTIALS_DIRECTORY/jwks.json\"\n");
    let read = |directory: Option<OsString>| {
        let paths = PathResolver::new("/etc/sidewire".into(), directory);
        Config::from_text(&ConfigText::new(&text, None), &paths)
    };
    let config = read(Some("/run/credentials/sidewire".into())).unwrap();
    let file = "/run/credentials/sidewire/jwks.json".into();
    assert_eq!(config.auth.keys[1], AuthKey::Jwks { file });

    let refusal = read(None).unwrap_err().to_string();
    let expected = "line 5: auth.keys[1].jwks_file: begins with $CREDENTIALS_DIRECTORY, but";
    assert!(refusal.starts_with(expected), "{refusal}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[\\[?(client|auth|auth.keys|limits|x)\\]\\]?\n|(listen|mode|kid|`|\"ü\"|origins)( = |\\.)(\"[a-z0:./*$]{0,9}\"|-?[0-9]{1,4}|\\[\\]|\\{\\})?\n|\\PC{0,8}){0,9}") {
        if let Err(error) = parse(&text) {
            assert!(!error.to_string().is_empty());
        }
    }
}
