//! Translates errors of the parser and of prost-reflect into findings for the author of a
//! schema.

use std::collections::BTreeSet;

use super::{
    built_in::{self, BuiltInFile},
    diagnostic::Diagnostic,
    positions::line_at,
};
use crate::suggest::nearest_name;

/// Maximum number of errors shown for one file.
const ERRORS_PER_FILE_MAX: usize = 20;

/// Hints by a part of the error's message, for errors for which the library has none.
const HINTS: [(&str, &str); 12] = [
    (
        "found 'edition'",
        "the relay reads proto2 and proto3; write `syntax = \"proto3\";`",
    ),
    ("is not defined", "declare it, or import the file that does"),
    (
        "number '",
        "give the field a number that is not taken or reserved",
    ),
    ("is defined twice", "rename one of the two"),
    (
        "is already defined in file",
        "rename one of the two, or move one to another package",
    ),
    ("JSON name", "rename one of the two fields"),
    (
        "first value for proto3 enums",
        "put a value with the number 0 first, such as `STATUS_UNSPECIFIED = 0;`",
    ),
    ("required fields", "remove `required`, or write `optional`"),
    ("groups", "declare a message and a field of that type"),
    (
        "for option",
        "give the option a value of that type; put a topic kind in quotes",
    ),
    ("end of file", "a closing bracket or quote is missing"),
    (
        "expected ",
        "correct this line, or the end of the one before it",
    ),
];

/// The beginning of the hint about a missing import.
const ADD_IMPORT: &str = "add `import ";

/// The hint for any other error.
const ANY_HINT: &str = "see https://protobuf.dev/programming-guides for the rules of the language";

/// Returns the errors that the library found in a file. `text` is the file's text, or empty
/// if it is unavailable.
pub(super) fn explain_errors(
    error: &dyn miette::Diagnostic,
    shown: &str,
    text: &str,
) -> Vec<Diagnostic> {
    let related = error.related().into_iter().flatten();
    let mut found = Vec::new();
    let mut imports = BTreeSet::new();
    let mut first_left = None;
    let mut left = 0_usize;
    for error in std::iter::once(error).chain(related) {
        let line =
            (!text.is_empty()).then(|| line_at(text, error_offset(error).unwrap_or(text.len())));
        if found.len() == ERRORS_PER_FILE_MAX {
            first_left = first_left.or(line);
            left += 1;
            continue;
        }
        let message = error_message(error);
        let hint = error_hint(error, &message, text);
        // One import resolves all the names that it declares.
        if hint.starts_with(ADD_IMPORT) && !imports.insert(hint.clone()) {
            continue;
        }
        found.push(
            Diagnostic::error(message)
                .in_file(shown, line)
                .with_hint(hint),
        );
    }
    if left > 0 {
        let errors = if left == 1 { "error" } else { "errors" };
        found.push(
            Diagnostic::error(format!("{left} more {errors} in this file"))
                .in_file(shown, first_left)
                .with_hint("correct the errors above, and check again"),
        );
    }
    found
}

fn error_message(error: &dyn miette::Diagnostic) -> String {
    let message = error.to_string();
    let mut quoted = message.split('\'').skip(1).step_by(2);
    if message.contains("resolves to") && quoted.next() == quoted.next() {
        let name = message.split('\'').nth(1).unwrap_or_default();
        return format!("name '{name}' is not defined");
    }
    match error.source() {
        Some(reason) => format!("{message}: {reason}"),
        None => message,
    }
}

fn error_hint(error: &dyn miette::Diagnostic, message: &str, text: &str) -> String {
    let name = message.split('\'').nth(1).unwrap_or_default();
    if message.contains("resolves to") {
        return format!(
            "write `.{name}`: without the dot, names in the file's own package take precedence"
        );
    }
    if message.ends_with("is not defined") && name.starts_with("sidewire.v1.") {
        return relays_hint(name, text);
    }
    if let Some(help) = error
        .help()
        .filter(|_| !message.ends_with("is not defined"))
    {
        return help.to_string();
    }
    let known = HINTS.iter().find(|(part, _)| message.contains(part));
    known.map_or(ANY_HINT, |(_, hint)| hint).to_owned()
}

/// Returns the hint for an unresolved name of one of the relay's options or messages.
fn relays_hint(name: &str, text: &str) -> String {
    let known = built_in::relay_names();
    if let Some((_, file)) = known.iter().find(|(known, _)| known == name)
        && !text.contains(&format!("\"{file}\""))
    {
        return format!("{ADD_IMPORT}\"{file}\";`");
    }
    match nearest_name(name, known.iter().map(|(known, _)| known.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let files: Vec<_> = BuiltInFile::relay_files()
                .iter()
                .map(|file| file.name)
                .collect();
            format!("all names of this package are in {}", files.join(" and "))
        }
    }
}

/// Returns the offset of the fault among the positions that an error points at; `None` for
/// the end of the file.
fn error_offset(error: &dyn miette::Diagnostic) -> Option<usize> {
    let labels: Vec<_> = error.labels()?.collect();
    let says = |word: &str| {
        let found = labels
            .iter()
            .find(|it| it.label().is_some_and(|it| it.ends_with(word)));
        found.map(miette::LabeledSpan::offset)
    };
    let first = labels.first().map(miette::LabeledSpan::offset);
    says("found here")
        .or_else(|| says("again here"))
        .or_else(|| {
            let exact = labels.iter().find(|it| it.label() == Some("defined here"));
            exact.map(miette::LabeledSpan::offset)
        })
        .or(first)
}
