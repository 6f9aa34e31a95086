//! Faulty schemas and all findings about each. The cases are in `bad/*.txt` and change
//! `bad/chat.proto`: a title after `##`; lines after `-` that are replaced by those after
//! `+`, or removed by a bare `+`; and the expected findings.

use std::fmt::Write as _;

use super::{super::Severity, *};

const CHAT: &str = include_str!("bad/chat.proto");

/// Files that a case may import.
const OTHERS: [(&str, &str); 4] = [
    (
        "middle.proto",
        "syntax = \"proto3\";\npackage middle;\nimport public \"sidewire/v1/relay.proto\";\nmessage Thing {}\n",
    ),
    (
        "grouped.proto",
        "syntax = \"proto2\";\npackage chat.v1;\nmessage Grouped {\n  optional group Inner = 1 {\n    optional string id = 1;\n  }\n}\n",
    ),
    (
        "strict.proto",
        "syntax = \"proto2\";\npackage chat.v1;\nmessage Strict {\n  optional string note = 1;\n  required string id = 2;\n  required int32 size = 3;\n}\nmessage Unused {\n  required string id = 1;\n}\n",
    ),
    (
        "broken.proto",
        "syntax = \"proto3\";\nmessage Broken {\n  string = 1;\n  int32 id = 2\n}\n",
    ),
];

/// One case of a file.
struct Case<'a> {
    title: &'a str,
    /// The lines that describe the changes.
    changes: Vec<String>,
    text: String,
    said: String,
}

impl<'a> Case<'a> {
    fn parse(case: &'a str) -> Self {
        let (title, body) = case.split_once('\n').unwrap();
        let mut parsed = Self {
            title,
            changes: Vec::new(),
            text: CHAT.to_owned(),
            said: String::new(),
        };
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for line in body.lines().chain(["end"]) {
            match line.split_at_checked(2) {
                _ if line == "+" => parsed.change(&mut from, None),
                Some(("- ", rest)) => {
                    if !to.is_empty() {
                        parsed.change(&mut from, Some(to.join("\n")));
                        to.clear();
                    }
                    from.push(rest);
                }
                Some(("+ ", rest)) => to.push(rest),
                _ => {
                    if !to.is_empty() {
                        parsed.change(&mut from, Some(to.join("\n")));
                        to.clear();
                    }
                    if !line.is_empty() && line != "end" {
                        writeln!(parsed.said, "{line}").unwrap();
                    }
                }
            }
            if line.starts_with(['-', '+']) {
                parsed.changes.push(line.to_owned());
            }
        }
        parsed
    }

    fn change(&mut self, from: &mut Vec<&str>, to: Option<String>) {
        let mut removed = from.join("\n");
        if to.is_none() {
            removed.push('\n');
        }
        from.clear();
        assert!(self.text.contains(&removed), "{}: {removed:?}", self.title);
        self.text = self.text.replacen(&removed, &to.unwrap_or_default(), 1);
    }

    /// Returns the findings about the schema.
    fn findings(&self) -> (String, bool) {
        let mut files = OTHERS.to_vec();
        files.retain(|(name, _)| self.text.contains(&format!("import \"{name}\"")));
        files.push(("chat.proto", &self.text));
        let compiled = Schema::from_texts(&files, "chat.v1.Envelope");
        let (diagnostics, is_refused) = match &compiled {
            Ok(schema) => (schema.diagnostics(), false),
            Err(error) => (error.diagnostics(), true),
        };
        let has_errors = diagnostics.iter().any(|it| it.severity == Severity::Error);
        assert_eq!(has_errors, is_refused, "{}", self.title);
        for diagnostic in diagnostics {
            assert!(
                diagnostic.line.is_some() && diagnostic.file.is_some(),
                "{diagnostic}"
            );
        }
        let said = diagnostics.iter().map(|it| format!("{it}\n")).collect();
        (said, is_refused)
    }
}

/// Asserts that the findings about each case are those in the file. Returns the number of
/// cases.
fn check(cases: &str, is_refused: bool) -> usize {
    let cases: Vec<_> = cases.split("## ").skip(1).map(Case::parse).collect();
    let mut actual = String::new();
    let mut failed = Vec::new();
    for case in &cases {
        let (said, refused) = case.findings();
        let changes = case.changes.join("\n");
        write!(actual, "## {}\n{changes}\n{said}\n", case.title).unwrap();
        if said != case.said || refused != is_refused {
            failed.push(case.title);
        }
    }
    assert!(
        failed.is_empty(),
        "{failed:?} differ; this is what is said:\n{actual}"
    );
    cases.len()
}

#[test]
fn the_base_schema_of_the_cases_has_no_fault() {
    let schema = Schema::from_texts(&[("chat.proto", CHAT)], "chat.v1.Envelope").unwrap();
    assert_eq!(schema.diagnostics(), []);
}

#[test]
fn faults_of_the_envelope_are_found() {
    assert!(check(include_str!("bad/envelope.txt"), true) >= 28);
}

#[test]
fn meaningless_annotations_are_found() {
    assert!(check(include_str!("bad/annotations.txt"), true) >= 30);
}

#[test]
fn faults_of_subscription_messages_are_found() {
    assert!(check(include_str!("bad/lists.txt"), true) >= 15);
}

#[test]
fn types_that_cannot_be_routed_are_found() {
    assert!(check(include_str!("bad/content.txt"), true) >= 3);
}

#[test]
fn faults_in_the_protobuf_language_are_found() {
    assert!(check(include_str!("bad/syntax.txt"), true) >= 14);
}

#[test]
fn several_faults_are_found_at_once() {
    assert!(check(include_str!("bad/several.txt"), true) >= 5);
}

#[test]
fn likely_mistakes_get_a_warning_and_useful_facts_get_a_note() {
    assert!(check(include_str!("bad/advice.txt"), false) >= 11);
}
