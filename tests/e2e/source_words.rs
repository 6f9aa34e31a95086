//! Checks that `src/` and the crates know nothing about the domain of the bundled application
//! schema: no name declared in its .proto files occurs there, in code or in comments.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::{Kind, Value};

/// Single words this short, such as `goal` or `name`, occur by chance in any text.
const CHANCE: usize = 4;

/// Names of the schema that the relay or any program may use in its own right.
const ALLOWED: [(&str, &str); 15] = [
    ("batch update", "the relay's name for a batch of events"),
    ("changes", "what a reload, a diff or a message does"),
    (
        "comment",
        "part of the syntax of programs and of .proto files",
    ),
    ("content", "what anything contains"),
    ("dependency", "one file or crate needs another"),
    ("description", "a text about anything"),
    ("ended at", "two words that meet in a sentence"),
    ("field name", "protobuf's own term"),
    ("messages", "what is sent"),
    ("new value", "what replaces a value of any kind"),
    ("old value", "what is replaced"),
    ("position", "the relay's word for a place in the log"),
    ("status", "the number that an HTTP answer begins with"),
    ("title", "a member of problem documents"),
    ("user id", "a claim of tokens and a parameter of handshakes"),
];

/// Returns true for files and directories that contain only tests.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let ends = ["testing", "_tests"];
    matches!(name, "tests" | "oracle") || ends.iter().any(|end| name.ends_with(end))
}

/// Collects the Rust files below `directory`, without those of tests.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if is_test(&path) {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

/// Returns the part of a file before its inline module of tests.
fn shipped(text: &str) -> &str {
    let Some(tests) = text.find("\n#[cfg(test)]\nmod tests {\n") else {
        return text;
    };
    let (shipped, tests) = text.split_at(tests);
    let end = tests.find("\n}\n").map(|end| end + 3);
    assert_eq!(end, Some(tests.len()), "tests stand last in a file");
    shipped
}

/// Returns the words of a text in lower case and singular: `WorkItems`, `work_item` and
/// `work item` are the same two words.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in text.split(|it: char| !it.is_ascii_alphanumeric()) {
        let mut word = String::new();
        let mut chars = part.chars().peekable();
        while let Some(char) = chars.next() {
            word.push(char.to_ascii_lowercase());
            let next_begins_a_word = chars
                .peek()
                .is_none_or(|next| char.is_lowercase() && next.is_uppercase());
            if next_begins_a_word {
                let singular = word.strip_suffix('s').unwrap_or(&word);
                words.push(singular.to_owned());
                word.clear();
            }
        }
    }
    words
}

/// Returns the `names` that occur in the text, each as declared.
fn found<'a>(text: &str, names: &'a BTreeMap<Vec<String>, String>) -> BTreeSet<&'a str> {
    let words = words(text);
    let longest = names.keys().map(Vec::len).max().unwrap_or(0);
    (1..=longest)
        .flat_map(|len| words.windows(len))
        .filter_map(|window| names.get(window))
        .map(String::as_str)
        .collect()
}

/// Returns the names that `proto/tracker` declares, by their words: of its package,
/// messages, payloads, fields, enums and their values, and of its topic kinds. Names that
/// the relay prescribes to every schema and allowed names are left out.
fn names_of_the_tracker() -> BTreeMap<Vec<String>, String> {
    let mut compiler = protox::Compiler::new([proto()]).unwrap();
    compiler.open_file("tracker/v1/envelope.proto").unwrap();
    let pool = compiler.descriptor_pool();
    let prescribed: BTreeSet<_> = pool
        .all_messages()
        .filter(|message| message.package_name() == "sidewire.v1")
        .map(|message| message.name().to_owned())
        .collect();
    let topic = pool.get_extension_by_name("sidewire.v1.topic").unwrap();
    let mut declared = BTreeSet::from(["tracker".to_owned()]);
    for message in pool.all_messages() {
        if message.package_name() != "tracker.v1" {
            continue;
        }
        if !prescribed.contains(message.name()) {
            declared.insert(message.name().to_owned());
        }
        let is_envelope = message.oneofs().any(|oneof| oneof.name() == "payload");
        for field in message.fields() {
            // Control messages and the relay's part of them.
            let is_relays = match is_envelope {
                true => matches!(field.number(), 1 | 8..=31),
                false => prescribed.contains(message.name()) && field.number() >= 16,
            };
            if !is_relays {
                declared.insert(field.name().to_owned());
            }
            if let Value::String(kind) = &*field.options().get_extension(&topic) {
                declared.extend((!kind.is_empty()).then(|| kind.clone()));
            }
            if let Kind::Enum(values) = field.kind() {
                declared.insert(values.name().to_owned());
                declared.extend(values.values().map(|value| value.name().to_owned()));
            }
        }
    }
    let allowed = ALLOWED.map(|(name, _)| words(name));
    declared
        .into_iter()
        .map(|name| (words(&name), name))
        .filter(|(words, _)| !allowed.contains(words))
        .filter(|(words, _)| words.len() > 1 || words[0].len() > CHANCE)
        .collect()
}

fn proto() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

#[test]
fn the_sources_name_nothing_that_the_tracker_schema_declares() {
    let names = names_of_the_tracker();
    assert!(names.len() > 50, "{names:?}");
    let mut files = Vec::new();
    sources(&proto().with_file_name("src"), &mut files);
    for package in fs::read_dir(proto().with_file_name("crates")).unwrap() {
        let package = package.unwrap().path();
        if !is_test(&package) {
            sources(&package.join("src"), &mut files);
        }
    }
    assert!(files.len() > 100, "{files:?}");
    let mut faults = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for (index, line) in shipped(&text).lines().enumerate() {
            // The name of a tokio type, and of a macro and method of pin-project.
            let line = line.replace("TaskTracker", "").replace("task_tracker", "");
            let line = line
                .replace("pin_project", "")
                .replace("self.project()", "");
            for name in found(&line, &names) {
                faults.push(format!("{}:{}: {name}", file.display(), index + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_search_finds_each_spelling_of_a_planted_name() {
    let names = names_of_the_tracker();
    for (planted, name) in [
        ("fn work_item_created() {}", "work_item_created"),
        ("struct WorkItemCreated;", "work_item_created"),
        ("json!({\"workItemCreated\": {}})", "work_item_created"),
        ("// Whoever follows a project.", "project"),
        ("\"project:p1\"", "project"),
        ("// Two sprints.", "sprint"),
        ("const ID: &str = \"sprintId\";", "sprint_id"),
        (
            "const STATUS: &str = \"PRESENCE_STATUS_AWAY\";",
            "PRESENCE_STATUS_AWAY",
        ),
        ("tracker.v1.WebSocketMessage", "WebSocketMessage"),
        ("Bundled::named(\"tracker\")", "tracker"),
    ] {
        let found: Vec<_> = found(planted, &names).into_iter().map(words).collect();
        assert!(found.contains(&words(name)), "{planted}: {found:?}");
    }
    assert_eq!(
        found("a projection of comments, by status", &names),
        BTreeSet::new()
    );
    // Each exception must be a name of the schema, so that none is obsolete.
    let bundled = fs::read_to_string(proto().join("tracker/v1/envelope.proto")).unwrap()
        + &fs::read_to_string(proto().join("tracker/v1/entities.proto")).unwrap()
        + &fs::read_to_string(proto().join("tracker/v1/events.proto")).unwrap();
    let declared = words(&bundled);
    for (name, reason) in ALLOWED {
        let name = words(name);
        assert!(
            declared.windows(name.len()).any(|it| it == name),
            "{name:?}: {reason}"
        );
    }
}

#[test]
fn an_inline_module_of_tests_is_not_searched() {
    let code = "fn d() {}\n#[cfg(test)]\nmod other;\n";
    let tests = "\n#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\n";
    assert_eq!(shipped(code), code);
    assert_eq!(shipped(&format!("{code}{tests}")), code);
}
