//! `sidewire schema` and `sidewire route`, which need no relay.

use std::{
    collections::BTreeSet,
    fs,
    io::{Write, pipe},
    process::Stdio,
};

use serde_json::{Value, json};
use sidewire_testing::{
    process::{Ended, Process, sidewire},
    relay::Files,
};
use tempfile::TempDir;

const GENERIC: &str = "\
envelope              generic.v1.Envelope
topic kinds           none of its own
batches               yes
tokens renewed        yes
Subscribe lists       none: clients use `topics`, field 16

32 event  generic.v1.Event
  names no topic: pass topics with `?topic=` or in `topics`, field 18

33 message  generic.v1.Message
  clients may send it
  sender: user_id
  topics[] → <value>, which is a topic

34 presence  generic.v1.Presence
  clients may send it; it is presence
  sender: user_id
  absent: absent = true
  topics[] → <value>, which is a topic
";

/// Options for a schema file.
const CHAT: [&str; 4] = [
    "--schema",
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/chat.proto"),
    "--envelope",
    "chat.v1.Envelope",
];

const CHAT_TABLE: &str = "\
envelope              chat.v1.Envelope
topic kinds           file, room, user
batches               no
tokens renewed        yes
Subscribe lists       1 room_ids → room:<value>

2 message_posted  chat.v1.MessagePosted
  message.room_id → room:<value>
  message.mentions[] → user:<value>
  message.attachments{}.file_id → file:<value>
  message.replies[].…  as in message

3 room_closed  chat.v1.RoomClosed
  names no topic: pass topics with `?topic=` or in `topics`, field 18

4 typing  chat.v1.Typing
  clients may send it
  sender: user_id
  room_id → room:<value>
";

fn run(args: &[&str]) -> Ended {
    Process::run(sidewire(args))
}

/// Returns the output of the command, which must succeed.
fn printed(args: &[&str]) -> String {
    let ended = run(args);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    ended.stdout
}

#[test]
fn the_routing_table_of_the_generic_schema_is_printed() {
    assert_eq!(printed(&["schema", "--bundled", "generic"]), GENERIC);
}

#[test]
fn the_routing_table_of_a_custom_schema_is_printed() {
    assert_eq!(printed(&[&["schema"], &CHAT[..]].concat()), CHAT_TABLE);
    let table = printed(&[&["schema", "--format", "json"], &CHAT[..]].concat());
    let table: Value = serde_json::from_str(&table).unwrap();
    let posted = &table["events"][0];
    assert_eq!(
        posted["topics"][2],
        json!({
            "path": "message.attachments{}.file_id",
            "json_path": "message.attachments{}.fileId",
            "numbers": [1, 5, 1],
            "kind": "file",
        })
    );
    assert_eq!(
        posted["recursions"],
        json!([{"path": "message.replies[]", "same_as": "message"}])
    );
    assert_eq!(
        (&table["batch"], &table["authenticate"]),
        (&json!(false), &json!(true))
    );
}

#[test]
fn a_schema_file_may_be_named_without_its_directory() {
    let mut command = sidewire(&[
        "schema",
        "--schema",
        "chat.proto",
        "--envelope",
        "chat.v1.Envelope",
    ]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli"));
    let ended = Process::run(command);
    assert_eq!(
        (ended.stderr.as_str(), ended.stdout.as_str()),
        ("", CHAT_TABLE)
    );
}

#[test]
fn the_schema_may_come_from_a_config_file_and_an_error_names_file_and_line() {
    let files = Files::new();
    let chat = fs::read_to_string(CHAT[1]).unwrap();
    files.write("chat.proto", &chat);
    let config = fs::read_to_string(files.config()).unwrap();
    let section = "[schema]\nfiles = [\"chat.proto\"]\nenvelope = \"chat.v1.Envelope\"\n";
    files.write("sidewire.toml", &format!("{config}{section}"));
    let config = files.config();
    assert_eq!(printed(&["schema", "--config", &config]), CHAT_TABLE);
    let event = r#"{"roomClosed": {"reason": "late"}}"#;
    let routed = printed(&["route", "--config", &config, "--topic", "room:1", event]);
    assert!(
        routed.contains("payload: 3 room_closed, chat.v1.RoomClosed\n"),
        "{routed}"
    );

    files.write(
        "chat.proto",
        &chat.replace("string text = 2;", "strin text = 2;"),
    );
    let broken = run(&["schema", "--config", &config]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
    assert!(broken.stderr.contains("chat.proto:"), "{broken:?}");
}

#[test]
fn the_routing_table_as_json_has_what_a_client_library_needs() {
    let table = printed(&["schema", "--bundled", "generic", "--format", "json"]);
    let table: Value = serde_json::from_str(&table).unwrap();
    assert_eq!(table["envelope"], "generic.v1.Envelope");
    assert_eq!(
        table["events"][2],
        json!({
            "number": 34, "name": "presence", "json_name": "presence",
            "message": "generic.v1.Presence", "client_publish": true, "presence": true,
            "sender": ["user_id"], "absent": {"field": "absent", "value": "true"},
            "topics": [
                {"path": "topics[]", "json_path": "topics[]", "numbers": [5], "kind": null}
            ],
            "recursions": [], "cut": false,
        })
    );
    let bundled = printed(&["schema", "--format", "json"]);
    let bundled: Value = serde_json::from_str(&bundled).unwrap();
    assert_eq!(bundled["kinds"], json!(["project", "sprint", "work_item"]));
    assert_eq!(
        bundled["subscribe"][0],
        json!({"number": 1, "name": "project_ids", "kind": "project"})
    );
    assert_eq!(bundled["events"].as_array().unwrap().len(), 20);
    assert_eq!(bundled["events"][0]["json_name"], "workItemCreated");
}

#[test]
fn a_sample_can_be_routed() {
    let table = printed(&["schema", "--format", "json"]);
    let table: Value = serde_json::from_str(&table).unwrap();
    for event in table["events"].as_array().unwrap().iter().take(5) {
        let name = event["name"].as_str().unwrap();
        let sample = printed(&["schema", "--sample", name]);
        let routed = printed(&["route", "--format", "json", sample.trim()]);
        let routed: Value = serde_json::from_str(&routed).unwrap();
        assert_eq!(routed["payload"]["name"], name);
    }
    let ended = run(&["schema", "--sample", "nothing"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("no event `nothing`\n  hint: its events are work_item_created")
    );
}

#[test]
fn an_error_about_an_unknown_event_suggests_the_nearest_name() {
    for (name, nearest) in [
        ("message_postd", "message_posted"),
        ("messagePostd", "messagePosted"),
        ("Typing", "typing"),
    ] {
        let ended = run(&[&["schema", "--sample", name], &CHAT[..]].concat());
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let says = format!("no event `{name}`; did you mean `{nearest}`?\n");
        assert!(ended.stderr.contains(&says), "{ended:?}");
    }
}

#[test]
fn the_files_that_schemas_import_are_exported_and_none_is_overwritten() {
    let directory = TempDir::new().unwrap();
    let target = directory.path().join("proto");
    let shown = target.to_str().unwrap();
    let export = |flags: &[&str]| run(&[&["schema", "--export", shown], flags].concat());
    let ended = export(&["--bundled", "generic"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let names = [
        "generic/v1/envelope.proto",
        "sidewire/v1/options.proto",
        "sidewire/v1/relay.proto",
    ];
    let lines = names.map(|name| format!("{shown}/{name} written\n"));
    assert_eq!(ended.stdout, lines.concat());
    for name in names {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/").to_owned() + name;
        assert_eq!(
            fs::read_to_string(target.join(name)).unwrap(),
            fs::read_to_string(source).unwrap()
        );
    }
    let again = export(&["--bundled", "generic"]);
    assert!(
        again.stdout.contains("options.proto is up to date"),
        "{again:?}"
    );

    let changed = target.join(names[1]);
    fs::write(&changed, "mine").unwrap();
    fs::remove_file(target.join(names[2])).unwrap();
    let refused = export(&["--bundled", "generic"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("options.proto; --force overwrites"),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&changed).unwrap(), "mine");
    assert!(!target.join(names[2]).exists());
    let forced = export(&["--bundled", "generic", "--force"]);
    assert_eq!(forced.status.code(), Some(0), "{forced:?}");
    assert_ne!(fs::read_to_string(&changed).unwrap(), "mine");
}

const MESSAGE: &str = r#"{"message": {"type": "t", "topics": ["room:1", "user:bob"]}}"#;

fn route<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["route", "--bundled", "generic"], args].concat()
}

#[test]
fn routing_an_event_says_why_a_client_gets_it_or_not() {
    assert_eq!(
        printed(&route(&["--topic", "order:7", MESSAGE])),
        "\
payload: 33 message, generic.v1.Message
  message.topics[0]  \"room:1\" → room:1
  message.topics[1]  \"user:bob\" → user:bob
  --topic            → order:7
topics:
  room:1
  user:bob
  order:7
"
    );
    assert_eq!(
        printed(&route(&["--subscribe", "room:1", "--user", "ann", MESSAGE])),
        "\
payload: 33 message, generic.v1.Message
  message.topics[0]  \"room:1\" → room:1
  message.topics[1]  \"user:bob\" → user:bob
topics:
  room:1
  user:bob
client of user ann: receives it by room:1
  room:1 is subscribed
  user:bob is for another user
"
    );
    let flags = ["--subscribe", "room:1", "--grant", "desk:*", MESSAGE];
    let missed = run(&route(&flags));
    assert_eq!(missed.status.code(), Some(5), "{missed:?}");
    let expected = "\
client: does not receive it
  room:1 is not granted by the token, so the whole Subscribe is refused
  room:1 is requested, but the Subscribe is refused
  user:bob is for another user
";
    assert!(missed.stdout.ends_with(expected), "{missed:?}");
}

/// Returns the names of all members of a JSON value, at any depth.
fn members(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(members).collect(),
        Value::Object(object) => {
            let below = object.values().flat_map(members);
            below.chain(object.keys().cloned()).collect()
        }
        _ => BTreeSet::new(),
    }
}

#[test]
fn every_member_of_the_json_is_documented() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cli.md");
    let page = fs::read_to_string(page).unwrap();
    let client = [
        "--topic=a:1",
        "--subscribe=user:bob",
        "--format=json",
        MESSAGE,
    ];
    for printed in [
        run(&[&["schema", "--format", "json"], &CHAT[..]].concat()),
        run(&["schema", "--format", "json"]),
        run(&route(&client)),
        run(&route(&["--format=json", "{}"])),
    ] {
        let value: Value = serde_json::from_str(&printed.stdout).unwrap();
        let members = members(&value);
        assert!(members.len() >= 4, "{printed:?}");
        for member in members {
            assert!(
                page.contains(&format!("`{member}`")),
                "{member} is not documented"
            );
        }
    }
}

#[test]
fn an_event_that_the_relay_would_refuse_has_its_own_exit_status() {
    let event = r#"{"event": {"type": "t"}}"#;
    let refused = run(&route(&[event]));
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(
        refused.stderr.contains("relates to no topic"),
        "{refused:?}"
    );
    assert_eq!(refused.stdout, "");
    let refused = run(&route(&["--format", "json", r#"{"event": {"typ": "t"}}"#]));
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(report["taken"], false);
    assert_eq!(report["code"], "VALIDATION_ERROR");
    assert!(
        report["message"].as_str().unwrap().contains("typ"),
        "{report}"
    );
    let unknown = run(&["route", "--bundled", "nothing", "{}"]);
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("generic"), "{unknown:?}");
}

#[test]
fn an_event_may_be_binary_and_come_from_a_file_or_a_pipe() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("event.bin");
    // message { topics: "room:1" }
    let envelope = b"\x8a\x02\x08\x2a\x06room:1";
    fs::write(&path, envelope).unwrap();
    let path = path.to_str().unwrap();
    for flags in [&["--file", path][..], &["--binary", "--file", path]] {
        let routed = printed(&route(&[&["--format", "json"], flags].concat()));
        let routed: Value = serde_json::from_str(&routed).unwrap();
        assert_eq!(routed["topics"], json!(["room:1"]));
    }
    for body in [&envelope[..], MESSAGE.as_bytes()] {
        let (stdin, mut writer) = pipe().unwrap();
        writer.write_all(body).unwrap();
        drop(writer);
        let command = sidewire(&route(&["--format", "json", "-"]));
        let ended = Process::start_with(command, stdin, Stdio::piped(), Stdio::piped()).end();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stdout.contains("\"topics\":[\"room:1\""), "{ended:?}");
    }
}
