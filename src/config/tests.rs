//! What the file may say, and how it is told what it may not.

use std::{fs, path::Path, time::Duration};

use super::*;

/// The least that passes.
const KEY: &str = "[[auth.keys]]\nsecret_file = \"a\"\nalgorithm = \"HS256\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/sidewire"))
}

/// What is wrong with the text.
fn refusal(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// Asserts that the text, with a key for tokens before it, is refused for its
/// `line`, counted without these, with that message.
fn assert_refused(text: &str, line: usize, message: &str) {
    let line = line + KEY.lines().count();
    let refusal = refusal(&format!("{KEY}{text}"));
    let expected = format!("line {line}: {message}");
    assert!(refusal.starts_with(&expected), "{text}\n{refusal}");
}

/// The same, and nothing else is wrong.
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
fn a_key_is_all_that_a_file_must_have() {
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
fn a_key_that_is_like_none_gets_no_suggestion_but_the_list() {
    let refusal = refusal("[ops]\nzzz = 1\n");
    assert_eq!(
        refusal,
        "line 2: unknown key `zzz` in [ops]\n  hint: known are listen, socket_mode, socket_group"
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
            "log.format: unknown value `xml`\n  hint: known are auto, pretty, json",
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
fn what_is_no_toml_is_refused_with_its_line() {
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
fn tokens_cannot_be_verified_without_a_key() {
    let refusal = refusal("\n[auth]\nmode = \"jwt\"\n");
    assert!(
        refusal.starts_with("line 2: auth.keys: there is none"),
        "{refusal}"
    );
    let refusal = parse("").unwrap_err().to_string();
    assert!(refusal.starts_with("auth.keys: there is none"), "{refusal}");
}

#[test]
fn no_authentication_beyond_loopback_is_refused() {
    for listen in ["0.0.0.0:3000", "192.0.2.1:3000", "[::]:3000"] {
        let refusal = refusal(&format!(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"{listen}\"\n"
        ));
        let expected = "line 2: auth.mode: \"none\" lets in whoever can connect";
        assert!(refusal.starts_with(expected), "{refusal}");
    }
    for listen in [
        "127.0.0.1:3000",
        "[::1]:3000",
        "127.9.9.9:0",
        "[::ffff:127.0.0.1]:1",
    ] {
        parse(&format!(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"{listen}\"\n"
        ))
        .unwrap();
    }
}

#[test]
fn no_authentication_takes_nothing_that_would_check_a_token() {
    let loopback = "[client]\nlisten = \"127.0.0.1:3000\"\n";
    for (auth, message) in [
        (
            "mode = \"none\"\n[[auth.keys]]\njwks_file = \"a\"\n",
            "line 5: auth.keys: would be checked by nobody",
        ),
        (
            "mode = \"none\"\nissuer = \"a\"\n",
            "line 5: auth.issuer: would be",
        ),
        (
            "mode = \"none\"\naudience = \"a\"\n",
            "line 5: auth.audience: would be",
        ),
    ] {
        let refusal = refusal(&format!("{loopback}[auth]\n{auth}"));
        assert!(refusal.starts_with(message), "{refusal}");
    }
}

#[test]
fn a_key_for_tokens_is_of_one_kind() {
    for (key, message) in [
        ("algorithm = \"HS256\"", "needs exactly one of"),
        (
            "secret_file = \"a\"\njwks_file = \"b\"\nalgorithm = \"HS256\"",
            "needs exactly one of",
        ),
        (
            "secret_file = \"a\"",
            "needs an `algorithm`, such as \"HS256\"",
        ),
        (
            "public_key_file = \"a\"",
            "needs an `algorithm`, such as \"ES256\"",
        ),
        (
            "secret_file = \"a\"\nalgorithm = \"ES256\"",
            "has a secret_file",
        ),
        (
            "public_key_file = \"a\"\nalgorithm = \"HS256\"",
            "has a public_key_file",
        ),
        ("jwks_file = \"a\"\nalgorithm = \"HS256\"", "has a key set"),
        ("jwks_file = \"a\"\nkid = \"1\"", "has a key set"),
        (
            "secret_file = \"a\"\nalgorithm = \"HS256\"\nkid = \"\"",
            "has an empty `kid`",
        ),
    ] {
        let text = format!("[[auth.keys]]\n{key}\n");
        assert_refused(&text, 1, &format!("auth.keys[1]: {message}"));
    }
    assert_refused(
        "[[auth.keys]]\nsecret_file = \"a\"\nalgorithm = \"none\"\n",
        3,
        "auth.keys[1].algorithm: unknown value `none`\n  hint: known are HS256, HS384, HS512, \
         RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA",
    );
}

#[test]
fn a_listener_for_backends_beyond_loopback_needs_a_key() {
    let listen = "[ingest]\nlisten = \"0.0.0.0:3001\"\n";
    assert_refused_once(
        listen,
        2,
        "ingest.listen: is 0.0.0.0:3001, which is not loopback",
    );
    let key = "[[ingest.keys]]\nname = \"a\"\nkey_file = \"a\"\n";
    parse(&format!("{KEY}{listen}{key}")).unwrap();
}

#[test]
fn a_key_for_backends_has_a_name_of_its_own() {
    let key = |name: &str| format!("[[ingest.keys]]\nname = \"{name}\"\nkey_file = \"a\"\n");
    parse(&format!("{KEY}{}{}", key("a"), key("b"))).unwrap();
    assert_refused_once(
        &format!("{}{}{}", key("a"), key("b"), key("a")),
        8,
        "ingest.keys[2].name: \"a\" is the name of ingest.keys[0] too",
    );
    for name in [String::new(), "x".repeat(129), "a\\nb".to_owned()] {
        assert_refused_once(&key(&name), 2, "ingest.keys[0].name: is no name");
    }
}

#[test]
fn a_key_for_backends_must_be_whole() {
    assert_refused(
        "[[ingest.keys]]\nname = \"a\"\n",
        1,
        "ingest.keys[0]: the key `key_file` is missing",
    );
}

#[test]
fn the_tenants_of_a_key_are_names_and_at_least_one() {
    let key = "[[ingest.keys]]\nname = \"a\"\nkey_file = \"a\"\n";
    let config = parse(&format!("{KEY}{key}tenants = [\"acme\", \"Größe 1\"]\n")).unwrap();
    let tenants = config.ingest.keys[0].tenants.as_ref().unwrap();
    let names: Vec<_> = tenants.iter().map(|tenant| tenant.as_str()).collect();
    assert_eq!(names, ["acme", "Größe 1"]);
    assert_eq!(
        parse(&format!("{KEY}{key}")).unwrap().ingest.keys[0].tenants,
        None
    );
    assert_refused(
        &format!("{key}tenants = [\"acme\", \"\"]\n"),
        4,
        "ingest.keys[0].tenants: the tenant name \"\" is empty",
    );
    assert_refused_once(
        &format!("{key}tenants = []\n"),
        4,
        "ingest.keys[0].tenants: is empty",
    );
}

#[test]
fn zero_is_refused_where_something_must_be_allowed() {
    let mut refused = 0;
    for (section, keys, zero) in [
        (
            "client",
            "handshake_timeout write_timeout drain_timeout",
            "\"0s\"",
        ),
        (
            "client",
            "head_max message_max send_buffer receive_buffer",
            "\"0B\"",
        ),
        (
            "limits",
            "topics_per_event topics_per_subscribe topics_per_connection outbox_frames tenants",
            "0",
        ),
        ("limits", "outbox_bytes", "\"0B\""),
        ("replay", "events", "0"),
        ("replay", "bytes process_bytes", "\"0B\""),
        ("replay", "age", "\"0s\""),
        ("ingest", "batch_events_max", "0"),
        ("ingest", "body_max batch_body_max", "\"0B\""),
        ("ingest", "ack_timeout inbox_timeout", "\"0s\""),
    ] {
        for key in keys.split(' ') {
            let text = format!("[{section}]\n{key} = {zero}\n");
            assert_refused(&text, 2, &format!("{section}.{key}: is 0 and must be "));
            refused += 1;
        }
    }
    assert_eq!(refused, 22);
}

#[test]
fn zero_is_taken_where_it_says_something() {
    let text = "[client]\ndrain_spread = \"0s\"\n[auth]\nleeway = \"0s\"\n[limits]\nshards = 0\n";
    let key = "[[auth.keys]]\njwks_file = \"a\"\n";
    let config = parse(&format!("{text}{key}")).unwrap();
    assert_eq!(
        (config.client.drain_spread, config.auth.leeway),
        (Duration::ZERO, Duration::ZERO)
    );
}

#[test]
fn a_value_out_of_its_bounds_is_refused() {
    for (text, message) in [
        (
            "[client]\nhead_max = \"8191B\"",
            "client.head_max: is 8.0 KiB",
        ),
        (
            "[client]\nmessage_max = \"2GiB\"",
            "client.message_max: is 2.0 GiB",
        ),
        (
            "[client]\nsend_buffer = \"2GiB\"",
            "client.send_buffer: is 2.0 GiB",
        ),
        ("[limits]\nshards = 1025", "limits.shards: is 1025"),
        (
            "[limits]\nrefusals_per_minute = 10001",
            "limits.refusals_per_minute: is 10001",
        ),
        (
            "[limits]\noutbox_bytes = \"2GiB\"",
            "limits.outbox_bytes: is 2.0 GiB",
        ),
        ("[replay]\nbytes = \"2TiB\"", "replay.bytes: is 2.0 TiB"),
        (
            "[limits]\nmemory_max = \"319MiB\"",
            "limits.memory_max: is 319.0 MiB, and the logs alone may keep 256.0 MiB",
        ),
        (
            "[limits]\nmemory_max = \"100MiB\"\n[replay]\nprocess_bytes = \"37MiB\"",
            "limits.memory_max: is 100.0 MiB",
        ),
        (
            "[replay]\nage = \"31days\"",
            "replay.age: is 1month 13h 26m",
        ),
        (
            "[client]\nwrite_timeout = \"31days\"",
            "client.write_timeout: is 1month",
        ),
        (
            "[ingest]\nbody_max = \"2GiB\"",
            "ingest.body_max: is 2.0 GiB",
        ),
    ] {
        assert_refused_once(text, 2, message);
    }
    parse(&format!(
        "{KEY}[client]\nhead_max = \"8KiB\"\n[replay]\nage = \"30days\"\n"
    ))
    .unwrap();
}

#[test]
fn an_empty_claim_name_issuer_or_audience_is_refused() {
    for key in [
        "tenant_claim",
        "user_claim",
        "topics_claim",
        "issuer",
        "audience",
    ] {
        let text = format!("[auth]\n{key} = \"\"\n{KEY}");
        let refusal = refusal(&text);
        let expected = format!("line 2: auth.{key}: is empty");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

#[test]
fn listeners_that_take_each_others_port_are_refused() {
    for (client, ingest, line, message) in [
        (
            "127.0.0.1:4000",
            "127.0.0.1:4000",
            4,
            "ingest.listen: 127.0.0.1:4000 is taken by client.listen",
        ),
        (
            "0.0.0.0:4000",
            "127.0.0.1:4000",
            4,
            "ingest.listen: 127.0.0.1:4000 is taken by client.listen",
        ),
        (
            "[::]:4000",
            "127.0.0.1:4000",
            4,
            "ingest.listen: 127.0.0.1:4000 is taken by client.listen",
        ),
        (
            "[::]:4000",
            "[::1]:4000",
            4,
            "ingest.listen: [::1]:4000 is taken by client.listen",
        ),
        // What stands at its default is not what to change.
        (
            "0.0.0.0:3001",
            "127.0.0.1:3001",
            2,
            "client.listen: 0.0.0.0:3001 is taken by ingest.listen",
        ),
        (
            "0.0.0.0:3002",
            "127.0.0.1:4000",
            2,
            "client.listen: 0.0.0.0:3002 is taken by ops.listen",
        ),
        (
            "127.0.0.1:4000",
            "127.0.0.1:3002",
            4,
            "ingest.listen: 127.0.0.1:3002 is taken by ops.listen",
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
fn a_log_level_that_is_none_is_refused() {
    for level in [
        "inof",
        "",
        "info,sidewire",
        "sidewire=inof",
        "info,[",
        "info,,debug",
        // Found by the fuzzer: the filter's parser panicked.
        "\u{85}\u{85}iA-[lo",
    ] {
        let text = format!("[log]\nlevel = \"{level}\"\n");
        assert_refused_once(&text, 2, "log.level: ");
    }
    for level in [
        "off",
        "DEBUG",
        "info,sidewire::ingest=debug",
        "warn,[span{a=1}]=trace",
    ] {
        parse(&format!("{KEY}[log]\nlevel = \"{level}\"\n")).unwrap();
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
fn a_key_that_is_not_in_the_file_is_reported_at_its_section() {
    let refusal = refusal("\n[auth]\nissuer = \"a\"\n");
    assert!(refusal.starts_with("line 2: auth.keys: "), "{refusal}");
}

#[test]
fn defaults_alone_lack_nothing_but_a_key() {
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
fn a_path_without_a_file_is_an_error_with_the_path() {
    let refusal = Config::load(Path::new("/no/such/sidewire.toml")).unwrap_err();
    assert!(matches!(refusal, ConfigError::Unreadable { .. }));
    let expected = "/no/such/sidewire.toml: cannot read the configuration: No such file";
    assert!(refusal.to_string().starts_with(expected), "{refusal}");
}

#[test]
fn a_credential_is_where_systemd_put_it_or_refused_with_its_line() {
    let text = format!("{KEY}[[auth.keys]]\njwks_file = \"$CREDENTIALS_DIRECTORY/jwks.json\"\n");
    let read = |directory: Option<OsString>| {
        let paths = Paths::new("/etc/sidewire".into(), directory);
        Config::read(&Document::new(&text, None), &paths)
    };
    let config = read(Some("/run/credentials/sidewire".into())).unwrap();
    let file = "/run/credentials/sidewire/jwks.json".into();
    assert_eq!(config.auth.keys[1], AuthKey::Jwks { file });

    let refusal = read(None).unwrap_err().to_string();
    let expected = "line 5: auth.keys[1].jwks_file: begins with $CREDENTIALS_DIRECTORY, and";
    assert!(refusal.starts_with(expected), "{refusal}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\[\\[?(client|auth|auth.keys|limits|x)\\]\\]?\n|(listen|mode|kid|`|\"ü\"|origins)( = |\\.)(\"[a-z0:./*$]{0,9}\"|-?[0-9]{1,4}|\\[\\]|\\{\\})?\n|\\PC{0,8}){0,9}") {
        if let Err(error) = parse(&text) {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn a_key_set_is_named_once_and_fetched_within_a_handshake() {
    let set = "[[auth.keys]]\njwks_url = \"https://login.example.com/jwks\"\n";
    assert_refused_once(
        &format!("{set}{set}"),
        4,
        "auth.keys[2].jwks_url: is https://login.example.com/jwks, which another key has too",
    );
    let refusal = refusal(&format!("{set}[client]\nhandshake_timeout = \"5s\"\n"));
    assert!(
        refusal.contains("auth.jwks_timeout: is not less than"),
        "{refusal}"
    );
}

#[test]
fn a_network_that_could_hold_no_address_is_refused() {
    assert!(
        parse(&format!(
            "{KEY}[client]\ntrusted_proxies = [\"10.0.0.0/8\", \"::1\", \"::ffff:10.0.0.1\"]"
        ))
        .is_ok()
    );
    let text = "[client]\ntrusted_proxies = [\"::ffff:10.0.0.0/104\"]\n";
    assert_refused(text, 2, "client.trusted_proxies");
}
