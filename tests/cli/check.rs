//! Correct and faulty config files: `check` and `serve` give the same verdict in the same words.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use sidewire_testing::{
    process::{Ended, Process, Signal, sidewire},
    relay::{Files, Relay, SECRET, log_line},
};

/// A fault, the file's text if there is one, and the expected messages after
/// `FILE:`, each a whole line or part of one.
const FAULTS: [(&str, Option<&str>, &[&str]); 17] = [
    (
        "a config file that does not exist",
        None,
        &[
            " cannot read the configuration: No such file",
            "hint: config.example.toml shows every key",
        ],
    ),
    (
        "a wrong key",
        Some("[client]\nlisten = \"127.0.0.1:0\"\ndrain_timeoutt = \"5s\"\n"),
        &[
            "3: unknown key `drain_timeoutt` in [client]; did you mean `drain_timeout`?",
            "hint: expected one of listen, ",
        ],
    ),
    (
        "a wrong value",
        Some(
            "[log]\nlevel = \"loud\"\n[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"",
        ),
        &[
            "2: log.level: \"loud\" is not a log level",
            "hint: such as \"info\"",
        ],
    ),
    (
        "a file that is no TOML",
        Some("[client]\nlisten: 3000\n"),
        &["2: "],
    ),
    (
        "a secret file that does not exist",
        Some("\n[[auth.keys]]\nsecret_file = \"absent.secret\"\nalgorithm = \"HS256\"\n"),
        &[
            "3: auth.keys[0].secret_file: cannot read the key file ",
            "/absent.secret: No such file",
            "hint: a relative path starts at the directory of this file",
        ],
    ),
    (
        "a secret that is too short",
        Some("[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"short.key\"\n"),
        &[
            "3: auth.keys[0].secret_file: ",
            "HS256 needs a secret of at least 32 bytes and this one has 12",
            "hint: config.example.toml shows",
        ],
    ),
    (
        "an ingest key that is too short",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[[ingest.keys]]\nname = \"app\"\nkey_file = \"short.key\"\n",
        ),
        &[
            "7: ingest.keys[0].key_file: the ingest key `app` has 12 bytes",
            "hint: each of [[ingest.keys]] needs",
        ],
    ),
    (
        "a certificate that does not exist",
        Some(
            "[client]\nlisten = \"127.0.0.1:0\"\ntls = { cert_file = \"absent.crt\", key_file = \"tls.key\" }\n[auth]\nkeys = [{ secret_file = \"jwt.secret\", algorithm = \"HS256\" }]\n",
        ),
        &["3: client.tls.cert_file: ", "/absent.crt: No such file"],
    ),
    (
        "a certificate file without a certificate",
        Some(
            "[[auth.keys]]\nsecret_file = \"jwt.secret\"\nalgorithm = \"HS256\"\n[client.tls]\ncert_file = \"tls.key\"\nkey_file = \"tls.key\"\n",
        ),
        &[
            "5: client.tls.cert_file: ",
            "/tls.key has no certificate",
            "hint: cert_file is PEM with",
        ],
    ),
    (
        "the key of another certificate",
        Some(
            "[[auth.keys]]\nsecret_file = \"jwt.secret\"\nalgorithm = \"HS256\"\n[client.tls]\ncert_file = \"tls.crt\"\nkey_file = \"other.key\"\n",
        ),
        &[
            "6: client.tls.key_file: ",
            "/other.key is not the key of the first certificate in cert_file",
            "hint: ",
        ],
    ),
    (
        "a group that there is not",
        Some(
            "[[auth.keys]]\nsecret_file = \"jwt.secret\"\nalgorithm = \"HS256\"\n[ops]\nlisten = \"unix:ops.sock\"\nsocket_group = \"no such group\"\n",
        ),
        &[
            "6: ops.socket_group: \"no such group\" is not a group of this system",
            "hint: give the name or number of a group",
        ],
    ),
    (
        "a key of the inspector that could be guessed",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[ops]\ninspector = true\ninspector_key_file = \"short.key\"\n",
        ),
        &[
            "7: ops.inspector_key_file: the key in ",
            "/short.key has 12 bytes and needs at least 16",
            "hint: ",
        ],
    ),
    (
        "an inspector on every address",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"0.0.0.0:0\"\ninspector = true\ninspector_key_file = \"jwt.secret\"\n",
        ),
        &[
            "7: ops.inspector: shows events to people, but ops.listen is 0.0.0.0:0",
            "hint: listen on 127.0.0.1 or a Unix socket",
        ],
    ),
    (
        "a bundled schema that there is not",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[schema]\nbundled = \"genric\"\n",
        ),
        &[
            "6: schema.bundled: there is no bundled schema `genric`; did you mean `generic`?",
            "hint: expected one of ",
        ],
    ),
    (
        "a schema with faults in two files",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[schema]\nfiles = [\"bad.proto\", \"worse.proto\"]\nenvelope = \"bad.Envelope\"\n",
        ),
        &[
            "6: schema.files: the schema cannot be used, 2 errors:\n",
            "/bad.proto:3: error: name 'Gone' is not defined\n  hint: ",
            "/worse.proto:2: error: expected ",
        ],
    ),
    (
        "a schema that is a pipe",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[schema]\nfiles = [\"pipe.proto\"]\nenvelope = \"bad.Envelope\"\n",
        ),
        &[
            "6: schema.files: the schema cannot be used, 1 error:\n",
            "/pipe.proto: error: is not a regular file\n  hint: name a file",
        ],
    ),
    (
        "a descriptor set that is none",
        Some(
            "[auth]\nmode = \"none\"\n[client]\nlisten = \"127.0.0.1:0\"\n[schema]\ndescriptor_set = \"bad.proto\"\nenvelope = \"bad.Envelope\"\n",
        ),
        &[
            "6: schema.descriptor_set: the schema cannot be used, 1 error:\n",
            "/bad.proto: error: the file is a .proto file, which belongs in `files`",
            "hint: make it with `protoc ",
        ],
    ),
];

const BAD: &str = "syntax = \"proto3\";\npackage bad;\nmessage Envelope { Gone gone = 2; }\n";

/// A schema with a warning, an event without topics, and a note.
const CHAT: &str = r#"syntax = "proto3";
package chat.v1;
import "sidewire/v1/options.proto";
import "sidewire/v1/relay.proto";
message Envelope {
  string message_id = 1;
  int64 timestamp = 8;
  sidewire.v1.Position position = 9;
  repeated string topics = 18;
  oneof payload {
    Said said = 2;
    Moved moved = 3;
    sidewire.v1.Subscribe subscribe = 10;
    sidewire.v1.SubscriptionConfirmed subscription_confirmed = 11;
    sidewire.v1.Unsubscribe unsubscribe = 12;
    sidewire.v1.UnsubscribeConfirmed unsubscribe_confirmed = 13;
    sidewire.v1.Ping ping = 14;
    sidewire.v1.Pong pong = 15;
    sidewire.v1.ErrorResponse error = 16;
  }
}
message Said { string room = 1 [(sidewire.v1.topic) = "room"]; }
message Moved { string room = 1; }
"#;

fn certified() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn an_invalid_config_is_refused_with_file_line_and_hint() {
    for (what, text, says) in FAULTS {
        let files = Files::new();
        files.write("short.key", "CANARY-short");
        files.write("bad.proto", BAD);
        files.write("worse.proto", "syntax = \"proto3\";\nmessage {}\n");
        make_pipe(&files.path("pipe.proto"));
        let ((cert, key), (_, other)) = (certified(), certified());
        files.write("tls.crt", &cert);
        files.write("tls.key", &key);
        files.write("other.key", &other);
        match text {
            Some(text) => drop(files.write("sidewire.toml", text)),
            None => fs::remove_file(files.config()).unwrap(),
        }
        let [checked, served] = ["check", "serve"]
            .map(|command| Process::run(sidewire(&[command, "--config", &files.config()])));
        assert_eq!(checked.status.code(), Some(1), "{what}: {checked:?}");
        assert_eq!(checked.stdout, "", "{what}");
        let begin = format!("sidewire: {}:", files.config());
        let said = checked.stderr.strip_prefix(&begin);
        let said = said.unwrap_or_else(|| panic!("{what}: {checked:?}"));
        assert!(said.starts_with(says[0]), "{what}: {said}");
        for part in says {
            assert!(said.contains(part), "{what}: {part:?} is not in {said}");
        }
        assert!(!said.contains("CANARY"), "{what}: {said}");

        assert_eq!(served.status.code(), Some(1), "{what}: {served:?}");
        assert_eq!(served.stderr, checked.stderr, "{what}");
    }
}

#[test]
fn the_example_config_is_valid_once_its_key_files_exist() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    let files = Files::new();
    files.write("sidewire.toml", &fs::read_to_string(example).unwrap());
    let checked = Process::run(sidewire(&["check", "--config", &files.config()]));
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(checked.stderr, "");
    let expected = format!("{}: the relay would start with it\n", files.config());
    let (schema, rest) = checked.stdout.split_once('\n').unwrap();
    let (memory, rest) = rest.split_once('\n').unwrap();
    assert!(memory.starts_with("memory: at most 1.0 GiB; "), "{memory}");
    assert_eq!(rest, expected);
    assert_compiled(schema);
}

/// Asserts that the line says how long compiling the schema took.
fn assert_compiled(line: &str) {
    let parts: Vec<_> = line.split_whitespace().collect();
    let ["schema:", count, "messages,", "compiled", "in", time, "ms"] = parts[..] else {
        panic!("{line}")
    };
    assert!(count.parse::<u32>().unwrap() > 1, "{line}");
    assert!(time.parse::<u32>().is_ok(), "{line}");
}

/// Makes a named pipe that nobody writes to.
fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[test]
fn an_endless_or_too_large_config_or_key_file_is_refused_at_once() {
    let files = Files::new();
    let pipe = files.path("pipe");
    make_pipe(&pipe);
    let large = files.path("large");
    fs::write(&large, " ".repeat(1024 * 1024 + 1)).unwrap();
    let not_regular = "it is not a regular file";
    let too_large = "it has more than 1.0 MiB";
    let cases = [
        (pipe.to_str().unwrap(), not_regular),
        ("/dev/zero", not_regular),
        (large.to_str().unwrap(), too_large),
    ];
    for (path, reason) in cases {
        let checked = Process::run(sidewire(&["check", "--config", path]));
        assert_eq!(checked.status.code(), Some(1), "{path}: {checked:?}");
        let refusal = format!("{path}: cannot read the configuration: {reason}");
        assert!(checked.stderr.contains(&refusal), "{}", checked.stderr);
    }
    let config = fs::read_to_string(files.config()).unwrap();
    for key in ["secret_file = \"jwt.secret\"", "key_file = \"ingest.key\""] {
        for (path, reason) in cases {
            assert!(config.contains(key), "{config}");
            let name = key.split(' ').next().unwrap();
            let changed = config.replace(key, &format!("{name} = \"{path}\""));
            files.write("sidewire.toml", &changed);
            let checked = Process::run(sidewire(&["check", "--config", &files.config()]));
            assert_eq!(checked.status.code(), Some(1), "{path}: {checked:?}");
            let refusal = format!("cannot read the key file {path}: {reason}");
            assert!(checked.stderr.contains(&refusal), "{}", checked.stderr);
        }
    }
}

/// Returns a relay's files with this schema.
fn with_schema(text: &str) -> Files {
    let files = Files::new();
    files.write("chat.proto", text);
    let config = fs::read_to_string(files.config()).unwrap();
    let schema = "[schema]\nfiles = [\"chat.proto\"]\nenvelope = \"chat.v1.Envelope\"\n";
    files.write("sidewire.toml", &format!("{config}{schema}"));
    files
}

#[test]
fn warnings_and_notes_are_printed_and_change_nothing() {
    let files = with_schema(CHAT);
    let checked = Process::run(sidewire(&["check", "--config", &files.config()]));
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(checked.stderr, "");
    let schema = files.path("chat.proto");
    let schema = schema.display();
    let begin = format!(
        "{schema}:5: note: Subscribe has no lists of ids, so clients name topics in full; the kinds are `room`\n  \
         hint: field 16 of Subscribe takes topics such as `kind:id`; docs/schema.md shows how to add lists\n\
         {schema}:12: warning: the event moved relates to no topic: nothing in it is annotated\n  hint: annotate "
    );
    assert!(checked.stdout.starts_with(&begin), "{}", checked.stdout);
    let lines: Vec<_> = checked.stdout.lines().collect();
    let [.., compiled, memory, would_start] = lines[..] else {
        panic!("{lines:?}")
    };
    assert!(
        compiled.starts_with("schema: 3 messages, compiled in "),
        "{compiled}"
    );
    assert_compiled(compiled);
    assert_eq!(
        memory,
        "memory: at most 1.0 GiB; the logs have 256.0 MiB of it, message ids 64.0 MiB, clients and backends at least 176.0 MiB each; begun messages, decoding and connections at least 44.0 MiB each"
    );
    assert_eq!(
        would_start,
        format!("{}: the relay would start with it", files.config())
    );
}

#[test]
fn a_secret_that_ends_in_a_newline_or_is_open_to_others_has_a_warning_and_passes() {
    let files = Files::new();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || {
        let checked = Process::run(sidewire(&["check", "--config", &files.config()]));
        assert!(checked.status.success(), "{checked:?}");
        assert_eq!(checked.stderr, "");
        assert!(!checked.stdout.contains("CANARY"), "{checked:?}");
        let (warnings, _) = checked.stdout.split_once("schema: ").unwrap();
        warnings.to_owned()
    };
    assert_eq!(warnings(), "");

    files.write("jwt.secret", &format!("{SECRET}\r\n"));
    let secret = files.path("jwt.secret");
    let config = files.config();
    let newline = format!(
        "{config}:5: warning: auth.keys[0].secret_file: {} ends in a newline (\\r\\n), and the secret is what comes before these two bytes\n  \
         hint: a program that signs with every byte of the file makes tokens that the relay refuses; write the file without the newline, as `printf %s` does, and sign with the same bytes\n",
        secret.display()
    );
    assert_eq!(warnings(), newline);

    // Until now the directory has kept others out.
    set_mode(files.0.path(), 0o755);
    set_mode(&secret, 0o640);
    let ingest_key = files.path("ingest.key");
    set_mode(&ingest_key, 0o644);
    let readable = format!(
        "{config}:15: warning: ingest.keys[0].key_file: {} can be read by every user of this machine\n  \
         hint: `chmod o= FILE` leaves it to its owner and its group; only the relay needs to read it\n",
        ingest_key.display()
    );
    assert_eq!(warnings(), newline + &readable);
}

#[test]
fn a_relay_logs_the_warnings_of_its_schema_at_start() {
    let relay = Relay::serve(with_schema(CHAT));
    let warning = relay.process.stderr_has(|log| {
        log_line(
            log,
            "schema: the event moved relates to no topic: nothing in it is annotated",
        )
    });
    assert_eq!(warning["level"], "WARN");
    assert_eq!(warning["line"], 12);
    let file = warning["file"].as_str().unwrap();
    assert!(file.ends_with("/chat.proto"), "{file}");
}

#[test]
fn the_relay_logs_the_number_of_messages_that_check_prints() {
    let relay = Relay::serve(with_schema(CHAT));
    let checked = Process::run(sidewire(&["check", "--config", &relay.files.config()]));
    let compiled = relay
        .process
        .stderr_has(|log| log_line(log, "schema compiled"));
    assert_eq!(compiled["messages"], 3, "{compiled}");
    assert!(
        checked.stdout.contains("schema: 3 messages,"),
        "{checked:?}"
    );
}

/// Runs `check` on the schema after these edits, against the schema before them. The flag
/// names the old schema as a config file or as a descriptor set.
fn check_against(flag: &str, edits: &[(&str, &str)]) -> (Files, Ended) {
    let mut new = CHAT.to_owned();
    for (from, to) in edits {
        assert!(new.contains(from), "{from}");
        new = new.replacen(from, to, 1);
    }
    let (old, files) = (with_schema(CHAT), with_schema(&new));
    let descriptor_set = old.path("old.binpb");
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([old.0.path(), &proto]).unwrap();
    compiler.include_imports(true);
    compiler.open_file("chat.proto").unwrap();
    fs::write(&descriptor_set, compiler.encode_file_descriptor_set()).unwrap();
    let old_config = old.config();
    let against = match flag {
        "--against" => old_config.as_str(),
        _ => descriptor_set.to_str().unwrap(),
    };
    let check = ["check", "--config", &files.config(), flag, against];
    let checked = Process::run(sidewire(&check));
    (files, checked)
}

#[test]
fn every_change_that_a_running_relay_would_refuse_is_listed() {
    for flag in ["--against", "--against-descriptor-set"] {
        let (files, checked) = check_against(
            flag,
            &[
                ("    Moved moved = 3;\n", ""),
                (
                    "message Said { string room = 1 [(sidewire.v1.topic) = \"room\"]; }",
                    "message Said { string room = 1; }",
                ),
            ],
        );
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        let begin = format!("sidewire: {}:", files.config());
        assert!(checked.stderr.starts_with(&begin), "{checked:?}");
        for line in [
            "  chat.v1.Envelope.moved is missing from `oneof payload`; restore it, since events of this type may be in the log and on their way",
            "  chat.v1.Said.room is no longer annotated with (sidewire.v1.topic) = \"room\"; restore the annotation",
        ] {
            assert!(
                checked.stderr.lines().any(|it| it == line),
                "{line}: {checked:?}"
            );
        }
        assert!(
            checked.stderr.contains("\n  hint: undo these changes"),
            "{checked:?}"
        );
        assert!(
            checked.stdout.ends_with("the relay would start with it\n"),
            "{checked:?}"
        );
    }
}

#[test]
fn a_schema_that_a_running_relay_would_apply_passes() {
    let added = (
        "message Said {",
        "message Left { string room = 1; }\nmessage Said {",
    );
    let event = (
        "    Moved moved = 3;",
        "    Moved moved = 3;\n    Left left = 4;",
    );
    for (edits, says) in [
        (&[][..], ": the schema is the same\n"),
        (
            &[added, event],
            ": a relay that runs with its schema would apply the new one on SIGHUP\n",
        ),
    ] {
        for flag in ["--against", "--against-descriptor-set"] {
            let (_, checked) = check_against(flag, edits);
            assert_eq!(checked.status.code(), Some(0), "{checked:?}");
            assert_eq!(checked.stderr, "");
            assert!(checked.stdout.ends_with(says), "{checked:?}");
        }
    }
}

#[test]
fn an_unreadable_schema_to_compare_with_is_an_error_that_names_its_file() {
    let (files, broken) = (with_schema(CHAT), with_schema(BAD));
    for (flag, path, says) in [
        (
            "--against",
            broken.config(),
            "schema.files: the schema cannot be used",
        ),
        (
            "--against",
            files.path("absent.toml").display().to_string(),
            "cannot read",
        ),
        (
            "--against-descriptor-set",
            files.path("absent.binpb").display().to_string(),
            "No such file",
        ),
    ] {
        let check = ["check", "--config", &files.config(), flag, &path];
        let checked = Process::run(sidewire(&check));
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        assert!(checked.stderr.contains(&path), "{checked:?}");
        assert!(checked.stderr.contains(says), "{checked:?}");
        assert_eq!(checked.stdout, "");
    }
}

#[test]
fn a_config_file_may_be_named_from_another_directory() {
    let files = Files::new();
    for (directory, path) in [("/", files.config()), (".", files.config())] {
        let mut check = sidewire(&["check", "--config", &path]);
        check.current_dir(directory);
        assert!(Process::run(check).status.success());
    }
    let mut check = sidewire(&["check", "--config", "sidewire.toml"]);
    check.current_dir(files.0.path());
    assert!(Process::run(check).status.success());
}

#[test]
fn a_port_in_use_is_reported_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let files = Files::new();
    let config = fs::read_to_string(files.config()).unwrap();
    let free = "[ops]\nlisten = \"127.0.0.1:0\"";
    assert!(config.contains(free));
    let config = config.replace(free, &format!("[ops]\nlisten = \"{address}\""));
    files.write("sidewire.toml", &config);
    let served = Process::run(files.serve());
    assert_eq!(served.status.code(), Some(1));
    let expected = format!("cannot listen on {address} (ops.listen): ");
    assert!(served.stderr.contains(&expected), "{served:?}");
    let hint = "\n  hint: another process listens there";
    assert!(served.stderr.contains(hint), "{served:?}");
    assert!(served.stderr.ends_with("change ops.listen\n"), "{served:?}");
}

#[test]
fn an_expired_certificate_is_reported_and_the_relay_starts_with_it() {
    let files = Files::with(
        "tls = { cert_file = \"tls.crt\", key_file = \"tls.key\" }",
        "",
    );
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    files.write("tls.crt", &params.self_signed(&key).unwrap().pem());
    files.write("tls.key", &key.serialize_pem());
    fs::set_permissions(files.path("tls.key"), Permissions::from_mode(0o600)).unwrap();
    let checked = Process::run(sidewire(&["check", "--config", &files.config()]));
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let warning = "warning: client.tls.cert_file: ";
    let line = checked.stdout.lines().find(|it| it.contains(warning));
    let line = line.unwrap_or_else(|| panic!("{checked:?}"));
    assert!(line.contains("expired at 2020-01-01T00:00:00Z"), "{line}");
    let relay = Relay::serve(files);
    relay.process.signal(Signal::TERM);
    let log = relay.process.end().stderr;
    assert!(
        log.contains("tls.crt expired at 2020-01-01T00:00:00Z"),
        "{log}"
    );
}

#[test]
fn files_that_the_user_of_the_relay_may_not_read_are_reported() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let files = Files::new();
    fs::set_permissions(files.0.path(), Permissions::from_mode(0o755)).unwrap();
    for (name, mode) in [("jwt.secret", 0o644), ("ingest.key", 0o600)] {
        fs::set_permissions(files.path(name), Permissions::from_mode(mode)).unwrap();
    }
    let config = files.config();
    let check =
        |user: &str| Process::run(sidewire(&["check", "--config", &config, "--user", user]));
    let as_root = check("root");
    assert!(as_root.status.success(), "{as_root:?}");
    let as_nobody = check("nobody");
    assert_eq!(as_nobody.status.code(), Some(1), "{as_nobody:?}");
    for says in [
        "ingest.keys[0].key_file: cannot read the key file ",
        "/ingest.key: Permission denied",
    ] {
        assert!(as_nobody.stderr.contains(says), "{as_nobody:?}");
    }
    fs::set_permissions(files.path("ingest.key"), Permissions::from_mode(0o644)).unwrap();
    let as_nobody = check("nobody");
    assert!(as_nobody.status.success(), "{as_nobody:?}");
}

#[test]
fn a_user_that_does_not_exist_is_reported() {
    let files = Files::new();
    let checked = Process::run(sidewire(&[
        "check",
        "--config",
        &files.config(),
        "--user",
        "no such user",
    ]));
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let says = "--user: \"no such user\" is not a user of this system";
    assert!(checked.stderr.contains(says), "{checked:?}");
}
